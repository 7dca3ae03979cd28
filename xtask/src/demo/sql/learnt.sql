-- What the latest model shows for its training.
SELECT concat_ws(', ',
    nullif(jsonb_array_length(curve), 0) || ' epochs',
    'validation ndcg@10 ' || round((metrics -> 'validation' ->> 'ndcg@10')::numeric, 4))
FROM rec.models
WHERE recommender = 'shop'
ORDER BY created_at DESC
LIMIT 1;
