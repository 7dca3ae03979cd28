-- The inference worker: what it does and what it has open.

CREATE FUNCTION rec.worker_models()
RETURNS TABLE (database oid, model_id bigint, checksum bigint, loaded boolean, bytes bigint, device_bytes bigint,
               calls bigint, rows bigint, errors bigint, compute_ms double precision, last_used double precision)
LANGUAGE c VOLATILE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'rec_worker_models_wrapper';
COMMENT ON FUNCTION rec.worker_models() IS
'What the inference worker counts of models, of all databases; behind rec_models_loaded() and rec.stat_model.';

CREATE FUNCTION rec.worker_statistics()
RETURNS TABLE (pid integer, since double precision, starts bigint, slots bigint, slots_taken bigint, waiting bigint,
               computing bigint, calls bigint, errors bigint, abandoned bigint, batches bigint, batch_sizes bigint[],
               wait_ms double precision[], compute_ms double precision[], total_ms double precision[])
LANGUAGE c VOLATILE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'rec_worker_statistics_wrapper';
COMMENT ON FUNCTION rec.worker_statistics() IS 'What the inference worker counts; behind rec.stat_worker.';

CREATE VIEW rec.stat_worker AS
SELECT s.pid, to_timestamp(s.since) AS since, s.starts, s.slots, s.slots_taken, s.waiting, s.computing, s.calls, s.errors,
       s.abandoned, s.batches, s.batch_sizes,
       s.wait_ms[1] AS wait_p50, s.wait_ms[2] AS wait_p95, s.wait_ms[3] AS wait_p99,
       s.compute_ms[1] AS compute_p50, s.compute_ms[2] AS compute_p95, s.compute_ms[3] AS compute_p99,
       s.total_ms[1] AS total_p50, s.total_ms[2] AS total_p95, s.total_ms[3] AS total_p99
FROM rec.worker_statistics() s;
COMMENT ON VIEW rec.stat_worker IS 'The inference worker, which answers for the sessions of all databases where shared_preload_libraries names pgrec; no row elsewhere. Counted since the server started, or since rec_stat_reset(). Times are in milliseconds, of half, 95 % and 99 % of what was counted, and exact to a tenth.';
COMMENT ON COLUMN rec.stat_worker.pid IS 'Process id of the worker; NULL while none serves.';
COMMENT ON COLUMN rec.stat_worker.since IS 'When it began to serve.';
COMMENT ON COLUMN rec.stat_worker.starts IS 'How often a worker began to serve since the server started.';
COMMENT ON COLUMN rec.stat_worker.slots IS 'How many sessions can ask at the same time: rec.worker_slots.';
COMMENT ON COLUMN rec.stat_worker.slots_taken IS 'How many do now, or have left without waiting for the answer.';
COMMENT ON COLUMN rec.stat_worker.waiting IS 'Calls that the worker has not taken yet: the depth of the queue.';
COMMENT ON COLUMN rec.stat_worker.computing IS 'Calls that it is computing.';
COMMENT ON COLUMN rec.stat_worker.calls IS 'Calls that it has taken.';
COMMENT ON COLUMN rec.stat_worker.errors IS 'Of these, such as ended with an error.';
COMMENT ON COLUMN rec.stat_worker.abandoned IS 'Of these, such as nobody waited for any more: cancelled, timed out, or of a session that ended.';
COMMENT ON COLUMN rec.stat_worker.batches IS 'How many batches were computed.';
COMMENT ON COLUMN rec.stat_worker.batch_sizes IS 'Batches by the number of their calls: element i counts those of 2^(i-1) and more, up to the next element''s.';
COMMENT ON COLUMN rec.stat_worker.wait_p50 IS 'From asking to the beginning of the computing: half of the calls.';
COMMENT ON COLUMN rec.stat_worker.wait_p95 IS 'The same: 95 % of the calls.';
COMMENT ON COLUMN rec.stat_worker.wait_p99 IS 'The same: 99 % of the calls.';
COMMENT ON COLUMN rec.stat_worker.compute_p50 IS 'Computing time: half of the batches.';
COMMENT ON COLUMN rec.stat_worker.compute_p95 IS 'The same: 95 % of the batches.';
COMMENT ON COLUMN rec.stat_worker.compute_p99 IS 'The same: 99 % of the batches.';
COMMENT ON COLUMN rec.stat_worker.total_p50 IS 'From asking to the answer: half of the calls.';
COMMENT ON COLUMN rec.stat_worker.total_p95 IS 'The same: 95 % of the calls.';
COMMENT ON COLUMN rec.stat_worker.total_p99 IS 'The same: 99 % of the calls.';

CREATE VIEW rec.stat_model AS
SELECT r.name AS recommender, m.name AS model, m.family, w.loaded, w.bytes, w.device_bytes, w.calls, w.rows, w.errors,
       w.compute_ms, w.compute_ms / nullif(w.rows, 0) AS row_ms, to_timestamp(w.last_used) AS last_used
FROM rec.worker_models() w
JOIN rec.model m ON m.model_id = w.model_id AND m.checksum = w.checksum
JOIN rec.recommender r USING (recommender_id)
WHERE w.database = (SELECT oid FROM pg_database WHERE datname = current_database());
COMMENT ON VIEW rec.stat_model IS 'What the inference worker did for the models of this database, since it first opened them.';
COMMENT ON COLUMN rec.stat_model.recommender IS 'Name of the recommender.';
COMMENT ON COLUMN rec.stat_model.model IS 'Name of the model.';
COMMENT ON COLUMN rec.stat_model.family IS 'Its family.';
COMMENT ON COLUMN rec.stat_model.loaded IS 'Whether the worker has it open.';
COMMENT ON COLUMN rec.stat_model.bytes IS 'Size of the model in bytes.';
COMMENT ON COLUMN rec.stat_model.device_bytes IS 'Of these on a CUDA device.';
COMMENT ON COLUMN rec.stat_model.calls IS 'Calls answered.';
COMMENT ON COLUMN rec.stat_model.rows IS 'Users they asked for.';
COMMENT ON COLUMN rec.stat_model.errors IS 'Of the calls, such as ended with an error.';
COMMENT ON COLUMN rec.stat_model.compute_ms IS 'Computing time in milliseconds, from the beginning of a batch to its end.';
COMMENT ON COLUMN rec.stat_model.row_ms IS 'The same for one user, on the mean.';
COMMENT ON COLUMN rec.stat_model.last_used IS 'When it was asked last.';

GRANT SELECT ON rec.stat_worker, rec.stat_model TO PUBLIC;

CREATE FUNCTION rec_models_loaded()
RETURNS TABLE (database name, model_id bigint, checksum text, bytes bigint, device_bytes bigint, last_used timestamptz)
LANGUAGE sql VOLATILE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
    SELECT d.datname, w.model_id, lpad(to_hex(w.checksum), 8, '0'), w.bytes, w.device_bytes, to_timestamp(w.last_used)
    FROM rec.worker_models() w
    LEFT JOIN pg_database d ON d.oid = w.database
    WHERE w.loaded
    ORDER BY w.last_used DESC;
END;
COMMENT ON FUNCTION rec_models_loaded() IS
'Models that the inference worker has open, of all databases, the one used last first. What is beyond rec.worker_memory is closed, and so is what was dropped. rec.stat_model has the names of those of this database.';

CREATE FUNCTION rec_evict(model text, recommender text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_evict_wrapper';
COMMENT ON FUNCTION rec_evict(text, text) IS
'Has the inference worker close a model; the next call opens it again. A device lets go of it with the next call there. Returns whether it was open. For the recommender''s owner.';

CREATE FUNCTION rec_stat_reset() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_stat_reset_wrapper';
COMMENT ON FUNCTION rec_stat_reset() IS
'Sets to zero what rec.stat_worker counts. For superusers and whom they grant it to.';
REVOKE ALL ON FUNCTION rec_stat_reset() FROM PUBLIC;
