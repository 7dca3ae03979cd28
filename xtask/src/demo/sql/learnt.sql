-- What the latest model shows for its training.
SELECT concat_ws(', ',
    (SELECT nullif(count(DISTINCT epoch), 0) || ' epochs' FROM rec.curve c WHERE c.recommender = m.recommender AND c.model = m.name),
    'validation ndcg@10 ' || round((m.metrics -> 'validation' ->> 'ndcg@10')::numeric, 4))
FROM rec.models m
WHERE m.recommender = 'shop'
ORDER BY m.created_at DESC
LIMIT 1;
