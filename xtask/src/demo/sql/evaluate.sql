-- A family's name is fitted without what it is asked for; an imported model has declared what it has not seen.
WITH subject AS (
    SELECT family AS name FROM rec_families() WHERE trains
    UNION ALL
    SELECT name FROM rec.models WHERE recommender = 'shop' AND state = 'ready' AND name = 'imported'
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
