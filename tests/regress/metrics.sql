-- Lists a, b, c with relevant items; every figure below can be checked by hand.
\pset null NULL
CREATE TABLE result (name text, recommended bigint[], relevant bigint[]);
INSERT INTO result VALUES
    ('first', '{1,2,3,4}', '{1}'),
    ('third', '{1,2,3,4}', '{3}'),
    ('two of three', '{1,2,3,4}', '{2,4,9}'),
    ('miss', '{1,2,3,4}', '{9}'),
    ('nothing recommended', '{}', '{1}');
SELECT name,
       rec_hr(recommended, relevant, 4) AS hr,
       round(rec_ndcg(recommended, relevant, 4)::numeric, 6) AS ndcg,
       round(rec_recall(recommended, relevant, 4)::numeric, 6) AS recall,
       rec_precision(recommended, relevant, 4) AS precision,
       round(rec_f1(recommended, relevant, 4)::numeric, 6) AS f1,
       round(rec_map(recommended, relevant, 4)::numeric, 6) AS map,
       round(rec_mrr(recommended, relevant, 4)::numeric, 6) AS mrr
FROM result GROUP BY name ORDER BY name;
-- The third place: 1/log2(4) = .5. Two of three at places 2 and 4: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/log2 4).
SELECT round((1 / log(2, 3) + 1 / log(2, 5)) / (1 + 1 / log(2, 3) + 0.5), 6) AS ndcg_of_two_of_three;
SELECT round(rec_ndcg(recommended, relevant, 4)::numeric, 6) AS ndcg, rec_hr(recommended, relevant, 4) AS hr,
       round(rec_mrr(recommended, relevant, 4)::numeric, 6) AS mrr FROM result;
-- k shorter and longer than the lists.
SELECT name, rec_hr(recommended, relevant, 1) AS hr_1, rec_hr(recommended, relevant, 2) AS hr_2,
       rec_precision(recommended, relevant, 8) AS precision_8 FROM result GROUP BY name ORDER BY name;
-- No rows, NULL lists, NULL elements, text ids, nothing relevant.
SELECT rec_hr(recommended, relevant, 4) FROM result WHERE false;
SELECT rec_hr(NULL::bigint[], '{1}'::bigint[], 4);
SELECT rec_hr(recommended, relevant, 4) FROM (SELECT recommended, relevant FROM result UNION ALL SELECT NULL, '{1}') r;
SELECT rec_hr('{NULL,a}'::text[], '{a}'::text[], 2) AS hr_2, rec_hr('{b,a}'::text[], '{a}'::text[], 1) AS hr_1;
SELECT rec_hr('{1,2}'::bigint[], '{}'::bigint[], 2) AS hr, rec_recall('{1,2}'::bigint[], '{}'::bigint[], 2) AS recall;
-- A repeated item counts once.
SELECT rec_precision('{1,1,1,1}'::bigint[], '{1}'::bigint[], 4) AS precision, rec_map('{1,1}'::bigint[], '{1}'::bigint[], 2) AS map;
-- In groups, as windows, in parallel parts.
SELECT relevant[1] > 2 AS late, count(*), rec_hr(recommended, relevant, 4) FROM result GROUP BY 1 ORDER BY 1;
SELECT rec.mean_final(rec.mean_combine('{2,1}', '{3,0}'));
-- Over recommendations: what share of the users would have got their last item?
WITH last AS (SELECT DISTINCT ON (user_id) user_id, item_id FROM shop.interaction ORDER BY user_id, at DESC, position DESC)
SELECT rec_hr(n.items, ARRAY[l.item_id], 10) BETWEEN 0 AND 1 AS sensible
FROM last l, LATERAL (SELECT array_agg(item_id ORDER BY rank) AS items FROM rec_next(l.user_id, exclude_seen => false)) n
WHERE l.user_id <= 20;
-- Evaluation of a model in rows.
SELECT model, family, grp, metric, k, value BETWEEN low AND high AS inside, users FROM rec_evaluate('tgh', k => '{5,10}') ORDER BY k, metric;
SELECT DISTINCT model, family, split_part(grp, ' (', 1) AS grp, metric, k FROM rec_evaluate('popularity', by => 'activity') WHERE metric = 'ndcg' ORDER BY grp;
SELECT sum(users) FILTER (WHERE grp <> 'all') = max(users) FILTER (WHERE grp = 'all') AS groups_cover_all
FROM rec_evaluate('tgh', by => 'popularity') WHERE metric = 'hr';
SELECT a.value = b.value AS as_fitted_on_the_spot FROM rec_evaluate('tgh') a JOIN rec_evaluate('graph') b USING (metric, k) ORDER BY metric;
SELECT a.value < b.value AS easier_with_fewer_rivals FROM rec_evaluate('tgh', exclude_seen => false) a JOIN rec_evaluate('tgh') b USING (metric, k) WHERE metric = 'hr';
SELECT measure, value IS NOT NULL AS measured FROM rec_audit() ORDER BY measure;
