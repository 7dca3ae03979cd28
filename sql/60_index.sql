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
