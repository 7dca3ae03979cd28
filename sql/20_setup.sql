-- Setting up.

CREATE FUNCTION rec_create(
    name text,
    interactions regclass DEFAULT NULL,
    user_column name DEFAULT 'user_id',
    item_column name DEFAULT 'item_id',
    order_column name DEFAULT NULL,
    time_column name DEFAULT NULL,
    weight_column name DEFAULT NULL,
    action_column name DEFAULT NULL,
    items regclass DEFAULT NULL,
    item_id_column name DEFAULT 'item_id',
    title_column name DEFAULT NULL,
    attributes_column name DEFAULT NULL,
    embedding_column name DEFAULT NULL,
    user_type regtype DEFAULT 'bigint',
    item_type regtype DEFAULT 'bigint',
    dimension integer DEFAULT NULL,
    text_column name DEFAULT NULL,
    searches regclass DEFAULT NULL,
    search_user_column name DEFAULT NULL,
    query_column name DEFAULT 'query',
    query_embedding_column name DEFAULT NULL,
    search_item_column name DEFAULT NULL,
    search_time_column name DEFAULT NULL,
    shown_column name DEFAULT NULL,
    dwell_column name DEFAULT NULL,
    search_config text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_create_wrapper';
COMMENT ON FUNCTION rec_create(text, regclass, name, name, name, name, name, name, regclass, name, name, name, name, regtype, regtype, integer, name, regclass, name, name, name, name, name, name, name, text) IS
'Creates a recommender and returns its name. Without interactions it makes the tables interaction, item and search in a schema of that name, with the id types and vector dimension given; with them it binds your own tables or views. Either way the schema gets typed functions (rec_next, …). order_column or time_column orders a history; for your own relations one of them is needed. text_column (a text, or a tsvector; default: title_column) is what rec_search finds words in. searches binds your own log of searches; of its columns those named like in the table search that is made otherwise need not be named. search_config: the text search configuration of queries and texts, by default that of default_text_search_config.';

CREATE FUNCTION rec_drop(name text, tables boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_drop_wrapper';
COMMENT ON FUNCTION rec_drop(text, boolean) IS
'Drops a recommender with its models and typed functions. Tables are kept, unless tables => true drops those that rec_create made.';

CREATE FUNCTION rec_check(recommender text DEFAULT NULL)
RETURNS TABLE (subject text, severity text, finding text, remedy text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_check_wrapper';
COMMENT ON FUNCTION rec_check(text) IS
'What is wrong or could be better: missing indexes with the statement to run, dropped relations, stale or interrupted models, orphaned cache files. No rows: all is well.';

CREATE FUNCTION rec_devices()
RETURNS TABLE (device text, name text, memory bigint, usable boolean, detail text)
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'rec_devices_wrapper';
COMMENT ON FUNCTION rec_devices() IS
'What models can compute on (rec.device), with its memory in bytes; where something is missing, detail says what.';

CREATE FUNCTION rec_families() RETURNS TABLE (family text, trains boolean, summary text)
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'rec_families_wrapper';
COMMENT ON FUNCTION rec_families() IS
'The algorithms there are. trains: whether CALL rec_train(family) fits it here; the others are imported with rec_import.';
