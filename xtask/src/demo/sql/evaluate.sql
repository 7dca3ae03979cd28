-- A model that has not seen what it is asked for is evaluated as it is; of the others their family is fitted again
-- without that.
WITH subject AS (
    SELECT DISTINCT CASE WHEN (cut ->> 'leave_last')::int > 0 THEN name ELSE family END AS name
    FROM rec.models
    WHERE recommender = 'shop' AND state = 'ready'
)
SELECT coalesce(e.model, e.family) AS model,
       max(round(e.value::numeric, 4)) FILTER (WHERE e.metric = 'hr') AS "HR@10",
       max('± ' || round((e.high - e.low)::numeric / 2, 4)) FILTER (WHERE e.metric = 'hr') AS "95 %",
       max(round(e.value::numeric, 4)) FILTER (WHERE e.metric = 'ndcg') AS "NDCG@10",
       max('± ' || round((e.high - e.low)::numeric / 2, 4)) FILTER (WHERE e.metric = 'ndcg') AS "95 % ",
       max(e.users) AS users
FROM subject s
CROSS JOIN LATERAL rec_evaluate(s.name, k => ARRAY[10], recommender => 'shop') e
GROUP BY 1
ORDER BY 2;
