-- The access method `usearch`: approximate nearest neighbours as an index.

CREATE FUNCTION rec.usearch_handler(internal) RETURNS index_am_handler
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgrec_usearch_handler';
COMMENT ON FUNCTION rec.usearch_handler(internal) IS 'Handler of the access method usearch.';

CREATE ACCESS METHOD usearch TYPE INDEX HANDLER rec.usearch_handler;
COMMENT ON ACCESS METHOD usearch IS 'Nearest neighbours of vectors: graphs by usearch in the index''s own pages.';

DO $make$
DECLARE
    kind text;
    meaning text;
    operator text;
    family text;
    type text;
BEGIN
    FOR kind, meaning, operator, family IN VALUES
        ('vector', 'l2', '<->', 'vector_l2_ops'),
        ('vector', 'ip', '<#>', 'vector_ip_ops'),
        ('vector', 'cosine', '<=>', 'vector_cosine_ops'),
        ('halfvec', 'l2', '<->', 'halfvec_l2_ops'),
        ('halfvec', 'ip', '<#>', 'halfvec_ip_ops'),
        ('halfvec', 'cosine', '<=>', 'halfvec_cosine_ops'),
        ('bit', 'hamming', '<~>', 'bit_hamming_ops')
    LOOP
        type := CASE kind WHEN 'bit' THEN 'pg_catalog."bit"' ELSE '@extschema:vector@.' || kind END;
        EXECUTE format(
            'CREATE FUNCTION rec.usearch_%s_%s(internal) RETURNS internal '
            'LANGUAGE c STRICT AS ''MODULE_PATHNAME'', ''pgrec_usearch_%s_%s''',
            kind, meaning, kind, meaning);
        EXECUTE format('COMMENT ON FUNCTION rec.usearch_%s_%s(internal) IS %L', kind, meaning,
            'Says to the access method usearch what the operator class ' || family || ' means.');
        EXECUTE format(
            'CREATE OPERATOR CLASS %I %s FOR TYPE %s USING usearch AS '
            'OPERATOR 1 @extschema:vector@.%s (%s, %s) FOR ORDER BY pg_catalog.float_ops, '
            'FUNCTION 1 rec.usearch_%s_%s(internal)',
            family,
            CASE WHEN family IN ('vector_l2_ops', 'halfvec_l2_ops', 'bit_hamming_ops') THEN 'DEFAULT' ELSE '' END,
            type, operator, type, type,
            kind, meaning);
        EXECUTE format('COMMENT ON OPERATOR CLASS %I USING usearch IS %L', family,
            'ORDER BY column ' || operator || ' query LIMIT k');
    END LOOP;
END
$make$;

CREATE FUNCTION rec_index_stats(index regclass)
RETURNS TABLE (segments integer, rows bigint, dead bigint, delta_rows bigint, delta_bytes bigint, bytes bigint,
               mapped_bytes bigint, private_bytes bigint)
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'rec_index_stats_wrapper';
COMMENT ON FUNCTION rec_index_stats(regclass) IS
'What an index of the access method usearch is made of: segments; rows in it that vacuum has not removed; removed rows that segments still carry; rows that are compared one by one until they become a segment, and their pages'' bytes; bytes of the index; bytes of segments that this session has mapped, shared with all others, and bytes that it keeps for itself.';

CREATE FUNCTION rec_index_recall(index regclass, sample integer DEFAULT 100, k integer DEFAULT 10)
RETURNS TABLE (recall double precision, lowest double precision, queries bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET enable_indexscan = on SET enable_seqscan = on AS $recall$
DECLARE
    relation regclass;
    operator text;
    indexed text;
    condition text;
    nearest text;
    query record;
    farthest double precision;
    wanted integer;
    distances double precision[];
    plan json;
    name name;
    share double precision;
BEGIN
    IF rec_index_recall.sample < 1 OR rec_index_recall.k < 1 THEN
        RAISE EXCEPTION 'sample and k must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT i.indrelid, pg_catalog.pg_get_indexdef(i.indexrelid, 1, true),
           pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname),
           coalesce(' AND (' || pg_catalog.pg_get_expr(i.indpred, i.indrelid) || ')', ''), c.relname
    INTO relation, indexed, operator, condition, name
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_am a ON a.oid = c.relam AND a.amname = 'usearch'
    JOIN pg_catalog.pg_opclass p ON p.oid = i.indclass[0]
    JOIN pg_catalog.pg_amop s ON s.amopfamily = p.opcfamily AND s.amopstrategy = 1
    JOIN pg_catalog.pg_operator o ON o.oid = s.amopopr
    JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
    WHERE i.indexrelid = rec_index_recall.index;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no index of access method usearch', rec_index_recall.index
            USING ERRCODE = 'wrong_object_type';
    END IF;
    nearest := pg_catalog.format(
        'SELECT array_agg(d) FROM (SELECT (%1$s) %2$s $1 AS d FROM %3$s WHERE (%1$s) IS NOT NULL%4$s '
        'ORDER BY (%1$s) %2$s $1 LIMIT %5$s) n',
        indexed, operator, relation, condition, rec_index_recall.k);
    queries := 0;
    recall := 0;
    lowest := 1;
    FOR query IN EXECUTE pg_catalog.format(
        'SELECT (%1$s) AS v FROM %2$s WHERE (%1$s) IS NOT NULL%3$s ORDER BY pg_catalog.random() LIMIT %4$s',
        indexed, relation, condition, rec_index_recall.sample)
    LOOP
        PERFORM pg_catalog.set_config('enable_indexscan', 'off', true);
        PERFORM pg_catalog.set_config('enable_seqscan', 'on', true);
        EXECUTE nearest INTO distances USING query.v;
        wanted := pg_catalog.cardinality(distances);
        farthest := distances[wanted];
        PERFORM pg_catalog.set_config('enable_indexscan', 'on', true);
        PERFORM pg_catalog.set_config('enable_seqscan', 'off', true);
        IF plan IS NULL THEN
            EXECUTE 'EXPLAIN (FORMAT json) ' || nearest INTO plan USING query.v;
            IF pg_catalog.strpos(plan::text, pg_catalog.to_json(name)::text) = 0 THEN
                RAISE EXCEPTION 'the planner does not use index %', rec_index_recall.index
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                          HINT = 'Another index is on the same column, or this one is not valid.';
            END IF;
        END IF;
        EXECUTE nearest INTO distances USING query.v;
        -- Rows as near as the farthest of the true ones are as good.
        SELECT least(count(*), wanted)::double precision / wanted INTO share
        FROM pg_catalog.unnest(distances) d WHERE d <= farthest;
        queries := queries + 1;
        recall := recall + share;
        lowest := least(lowest, share);
    END LOOP;
    recall := recall / nullif(queries, 0);
    lowest := CASE WHEN queries > 0 THEN lowest END;
    RETURN NEXT;
END
$recall$;
COMMENT ON FUNCTION rec_index_recall(regclass, integer, integer) IS
'Share of the true k nearest rows that a search through the index finds, with this session''s settings usearch.*: the mean over sample rows of the table as queries, and the lowest. Both searches are done as SQL does them; the exact ones read the whole table each.';
