-- Models: train, import, deploy.

CREATE PROCEDURE rec_train(
    family text, params jsonb DEFAULT '{}', recommender text DEFAULT NULL, model text DEFAULT NULL, deploy boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', 'rec_train_wrapper';
COMMENT ON PROCEDURE rec_train(text, jsonb, text, text, boolean) IS
'Trains a model of a family on the recommender''s interactions, as its owner, and stores it. params: the family''s own, and "leave_last": n to keep the last n events of every user unseen (2 for rec_evaluate). model: its name, else family_N. deploy: serve it at once. Commits between phases, so it refuses to run in a transaction block.';

CREATE FUNCTION rec_deploy(model text, recommender text DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_deploy_wrapper';
COMMENT ON FUNCTION rec_deploy(text, text) IS
'Makes a model the one that serves, and returns its name. Takes effect with this transaction.';

CREATE FUNCTION rec_rollback(recommender text DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_rollback_wrapper';
COMMENT ON FUNCTION rec_rollback(text) IS
'Undoes the latest deployment: the model before it serves again. Returns that model''s name.';

CREATE FUNCTION rec_drop_model(model text, recommender text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_drop_model_wrapper';
COMMENT ON FUNCTION rec_drop_model(text, text) IS
'Drops a model with its artifact. Refuses the deployed one.';

CREATE FUNCTION rec.import_bytes(name text, weights bytea, items text[], params jsonb, leave_last integer, recommender text)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_import_bytes_wrapper';
COMMENT ON FUNCTION rec.import_bytes(text, bytea, text[], jsonb, integer, text) IS 'What rec_import calls, with item ids as text.';

CREATE FUNCTION rec.import_file(name text, path text, items text[], params jsonb, leave_last integer, recommender text)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_import_file_wrapper';
COMMENT ON FUNCTION rec.import_file(text, text, text[], jsonb, integer, text) IS 'What rec_import_file calls, with item ids as text.';

CREATE FUNCTION rec_import(
    name text, weights bytea, items anyarray, params jsonb DEFAULT '{}', leave_last integer DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS
$$ SELECT rec.import_bytes($1, $2, $3::text[], $4, $5, $6) $$;
COMMENT ON FUNCTION rec_import(text, bytea, anyarray, jsonb, integer, text) IS
'Makes a model from a safetensors checkpoint. items: element n is the id of row n of the item table (row 0 is padding), NULL where a row has none. leave_last: how many last events of every user the checkpoint has not seen in training; NULL: nobody knows. params: what the file does not say, such as {"heads": 2}. Returns the model''s name.';

CREATE FUNCTION rec_import_file(
    name text, path text, items anyarray, params jsonb DEFAULT '{}', leave_last integer DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS
$$ SELECT rec.import_file($1, $2, $3::text[], $4, $5, $6) $$;
COMMENT ON FUNCTION rec_import_file(text, text, anyarray, jsonb, integer, text) IS
'rec_import of a file on the server; needs the rights of pg_read_server_files.';

CREATE FUNCTION rec_export(model text DEFAULT NULL, recommender text DEFAULT NULL) RETURNS bytea
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'rec_export_wrapper';
COMMENT ON FUNCTION rec_export(text, text) IS
'A model''s weights as safetensors, with its configuration and item ids inside: rec_import(name, rec_export(model), NULL::bigint[]) gives the same model again.';
