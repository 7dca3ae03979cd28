-- Popularity is the same for everybody and would only fill the screen.
SELECT name
FROM rec.models
WHERE recommender = 'shop' AND state = 'ready' AND family <> 'popularity'
ORDER BY created_at;
