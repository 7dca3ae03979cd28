-- Measuring.

CREATE FUNCTION rec_evaluate(
    model text DEFAULT NULL, protocol text DEFAULT 'test', k integer[] DEFAULT '{10}', by text DEFAULT NULL,
    exclude_seen boolean DEFAULT true, params jsonb DEFAULT '{}', recommender text DEFAULT NULL, task text DEFAULT 'next')
RETURNS TABLE (model text, family text, grp text, metric text, k integer, value double precision,
               low double precision, high double precision, users bigint)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 16 AS 'MODULE_PATHNAME', 'rec_evaluate_wrapper';
COMMENT ON FUNCTION rec_evaluate(text, text, integer[], text, boolean, jsonb, text, text) IS
'Measures a model, or a family that is fitted for it on the spot (with params): leave-one-out, full ranking. protocol: test (the last event of every user is the target) or validation (the one before it). exclude_seen: without items the user has touched. by: activity or popularity splits the users into groups. low and high: 95 % confidence interval. A ranking model is measured by how well it tells what came of the targets: auc and normalized_entropy of its tasks, k is NULL. A model that has seen the targets is an error. task => ''search'' measures rec_search instead, on the searches that led to the targets, with the whole catalogue ranked: mrr, ndcg and hr of text, vector, hybrid (both), the model, and all of them with and without the user (grp); by: frequency (of the query before) or activity; intervals by drawing queries; users counts searches.';

CREATE FUNCTION rec_compare_spaces(
    columns text[], family text DEFAULT 'content', params jsonb DEFAULT '{}', protocol text DEFAULT 'test',
    k integer[] DEFAULT '{10}', recommender text DEFAULT NULL)
RETURNS TABLE (embedding text, family text, metric text, k integer, value double precision, low double precision,
               high double precision, users bigint)
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 16 AS
$$ SELECT c.embedding, e.family, e.metric, e.k, e.value, e.low, e.high, e.users
   FROM pg_catalog.unnest($1) WITH ORDINALITY c (embedding, place),
        LATERAL @extschema@.rec_evaluate($2, $4, $5, params => $3 || pg_catalog.jsonb_build_object('embedding', c.embedding), recommender => $6) e
   ORDER BY e.metric, e.k, c.place $$;
COMMENT ON FUNCTION rec_compare_spaces(text[], text, jsonb, text, integer[], text) IS
'Which embedding model is worth its price: fits a family anew on each of several vector columns of the items, as rec_evaluate does, and gives one table, metric by metric. params: of the family. Nothing is stored.';

CREATE FUNCTION rec_audit(recommender text DEFAULT NULL)
RETURNS TABLE (measure text, value double precision, meaning text)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 16 AS 'MODULE_PATHNAME', 'rec_audit_wrapper';
COMMENT ON FUNCTION rec_audit(text) IS
'What the data can teach: how the item graph branches, how alike consecutive items are, how much depends on long histories.';

-- Metrics of one ranked list, and their means over rows. State of the means: {rows, sum}.
CREATE FUNCTION rec.metric(metric text, recommended text[], relevant text[], k integer) RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rec_metric_wrapper';
COMMENT ON FUNCTION rec.metric(text, text[], text[], integer) IS
'One metric (hr, ndcg, recall, precision, f1, map, mrr) of one ranked list against the relevant items, at k.';

CREATE FUNCTION rec.mean_add(state double precision[], value double precision) RETURNS double precision[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN value IS NULL THEN state ELSE ARRAY[state[1] + 1, state[2] + value] END;
COMMENT ON FUNCTION rec.mean_add(double precision[], double precision) IS 'Adds a value to a mean.';

CREATE FUNCTION rec.mean_combine(a double precision[], b double precision[]) RETURNS double precision[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY[a[1] + b[1], a[2] + b[2]];
COMMENT ON FUNCTION rec.mean_combine(double precision[], double precision[]) IS 'Adds two means.';

CREATE FUNCTION rec.mean_final(state double precision[]) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN state[2] / nullif(state[1], 0);
COMMENT ON FUNCTION rec.mean_final(double precision[]) IS 'The mean; NULL of no rows.';

DO $make$
DECLARE
    metric text;
    meaning text;
BEGIN
    FOR metric, meaning IN VALUES
        ('hr', 'share of lists that hold a relevant item'),
        ('ndcg', 'normalised discounted cumulative gain, gains 0 and 1'),
        ('recall', 'share of the relevant items that the lists hold'),
        ('precision', 'share of the k places that hold a relevant item'),
        ('f1', 'harmonic mean of precision and recall'),
        ('map', 'mean average precision'),
        ('mrr', 'reciprocal rank of the first relevant item')
    LOOP
        EXECUTE format(
            'CREATE FUNCTION rec.%I(state double precision[], recommended anyarray, relevant anyarray, k integer) '
            'RETURNS double precision[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS '
            '$$ SELECT rec.mean_add($1, rec.metric(%L, $2::text[], $3::text[], $4)) $$',
            metric || '_add', metric);
        EXECUTE format('COMMENT ON FUNCTION rec.%I(double precision[], anyarray, anyarray, integer) IS %L',
            metric || '_add', 'Step of the aggregate rec_' || metric || '.');
        EXECUTE format(
            'CREATE AGGREGATE rec_%s(recommended anyarray, relevant anyarray, k integer) ('
            'SFUNC = rec.%I, STYPE = double precision[], INITCOND = ''{0,0}'', FINALFUNC = rec.mean_final, '
            'COMBINEFUNC = rec.mean_combine, PARALLEL = SAFE)',
            metric, metric || '_add');
        EXECUTE format('COMMENT ON AGGREGATE rec_%s(anyarray, anyarray, integer) IS %L', metric,
            upper(metric) || ' at k, averaged over rows: ' || meaning || '. recommended: a list, best first; relevant: what it should hold.');
    END LOOP;
END
$make$;
