-- Models: train, import, deploy.

CREATE PROCEDURE rec_train(
    family text, params jsonb DEFAULT '{}', recommender text DEFAULT NULL, model text DEFAULT NULL,
    deploy rec.deploy_rule DEFAULT 'never')
LANGUAGE c AS 'MODULE_PATHNAME', 'rec_train_wrapper';
COMMENT ON PROCEDURE rec_train(text, jsonb, text, text, rec.deploy_rule) IS
'Trains a model of a family on the recommender''s interactions in a background worker, and waits for it. params: the family''s own; "leave_last": n to keep the last n events of every user unseen (2 for rec_evaluate); "seed": where random numbers start (42); "init": name of a model of the same family to continue from (of family content also RECOMMENDER.MODEL of another catalogue); "embedding": another vector column of the items than the recommender''s. model: its name, else family_N. deploy: never, always (or true), or if_better, which compares with the deployed model by ndcg@10 (ranking models by auc) on validation events that both have not seen. The worker reads as the recommender''s owner: an owner passes the row-level security of its own tables unless that is forced. Ctrl-C, a timeout or the end of this session stops the training. One that was interrupted, by this or by a crash, goes on after the epoch that it had kept (rec.training_checkpoint) when it is asked for again with the same family and params and the items are the same. Holds no snapshot and no lock meanwhile, so it refuses to run in a transaction block. Settings: rec.training_threads, rec.training_niceness, rec.training_memory, rec.max_training_workers. A database with a training under way is dropped with DROP DATABASE … WITH (FORCE).';

CREATE FUNCTION rec_train_start(
    family text, params jsonb DEFAULT '{}', recommender text DEFAULT NULL, model text DEFAULT NULL,
    deploy rec.deploy_rule DEFAULT 'never')
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_train_start_wrapper';
COMMENT ON FUNCTION rec_train_start(text, jsonb, text, text, rec.deploy_rule) IS
'As rec_train, but returns the model''s name at once. The training begins when this transaction commits, and goes on without this session; rec.progress shows it. After a restart of the server, what was queued begins with the next training or rec_check().';

CREATE FUNCTION rec_train_stop(model text, recommender text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_train_stop_wrapper';
COMMENT ON FUNCTION rec_train_stop(text, text) IS
'Stops a training, queued or under way, also when this transaction is rolled back; its model stays as failed. Returns whether there was one to stop.';

CREATE FUNCTION rec.schedule_text(recommender text, family text, every text, params jsonb, deploy rec.deploy_rule) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_schedule_text_wrapper';
COMMENT ON FUNCTION rec.schedule_text(text, text, text, jsonb, rec.deploy_rule) IS 'What rec_schedule calls, with the interval as text.';

CREATE FUNCTION rec_schedule(
    recommender text, family text, every interval, params jsonb DEFAULT '{"leave_last": 2}',
    deploy rec.deploy_rule DEFAULT 'if_better')
RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS
$$ SELECT rec.schedule_text($1, $2, $3::text, $4, $5) $$;
COMMENT ON FUNCTION rec_schedule(text, text, interval, jsonb, rec.deploy_rule) IS
'Has a family trained again and again, as rec_train_start does, the first time after that interval; replaces the schedule that the recommender had for this family. The extension''s launcher starts what is due where shared_preload_libraries names pgrec, and looks every rec.schedule_naptime; elsewhere let pg_cron do it: SELECT cron.schedule(''pgrec'', ''* * * * *'', ''SELECT rec_run_schedules()'').';

CREATE FUNCTION rec_unschedule(recommender text, family text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_unschedule_wrapper';
COMMENT ON FUNCTION rec_unschedule(text, text) IS
'Ends a schedule; a training under way goes on. Returns whether there was one.';

CREATE FUNCTION rec_run_schedules() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_run_schedules_wrapper';
COMMENT ON FUNCTION rec_run_schedules() IS
'Starts the scheduled trainings that are due, of recommenders that the caller owns, and returns how many. One whose last training is not over is left out.';

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
