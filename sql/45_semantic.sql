-- Semantic IDs: the type of codes, and the items that have them.

CREATE TYPE semantic_id;

CREATE FUNCTION rec.semantic_id_in(cstring) RETURNS semantic_id
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'semantic_id_in_wrapper';
COMMENT ON FUNCTION rec.semantic_id_in(cstring) IS 'Reads a semantic_id such as <a_12><b_7>.';

CREATE FUNCTION rec.semantic_id_out(semantic_id) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'semantic_id_out_wrapper';
COMMENT ON FUNCTION rec.semantic_id_out(semantic_id) IS 'Prints a semantic_id.';

CREATE FUNCTION rec.semantic_id_recv(internal) RETURNS semantic_id
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'semantic_id_recv_wrapper';
COMMENT ON FUNCTION rec.semantic_id_recv(internal) IS 'Reads a semantic_id as clients send it: two bytes a level, the larger first.';

CREATE FUNCTION rec.semantic_id_send(semantic_id) RETURNS bytea
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteasend';
COMMENT ON FUNCTION rec.semantic_id_send(semantic_id) IS 'Sends a semantic_id: two bytes a level, the larger first.';

-- Laid out as bytea, two bytes a level, the larger first: the order of the bytes is that of the codes, so that bytea's own
-- functions compare them.
CREATE TYPE semantic_id (
    INPUT = rec.semantic_id_in, OUTPUT = rec.semantic_id_out, RECEIVE = rec.semantic_id_recv, SEND = rec.semantic_id_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended);
COMMENT ON TYPE semantic_id IS
'The code of an item, level by level, or the beginning of one: ''<a_12><b_7>'', a letter a level. In lexicographic order, so that items with the same beginning lie together in an index.';

CREATE FUNCTION rec.semantic_id_lt(semantic_id, semantic_id) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'bytealt';
CREATE FUNCTION rec.semantic_id_le(semantic_id, semantic_id) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'byteale';
CREATE FUNCTION rec.semantic_id_eq(semantic_id, semantic_id) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'byteaeq';
CREATE FUNCTION rec.semantic_id_ne(semantic_id, semantic_id) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'byteane';
CREATE FUNCTION rec.semantic_id_ge(semantic_id, semantic_id) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'byteage';
CREATE FUNCTION rec.semantic_id_gt(semantic_id, semantic_id) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'byteagt';
CREATE FUNCTION rec.semantic_id_cmp(semantic_id, semantic_id) RETURNS integer
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'byteacmp';
CREATE FUNCTION rec.semantic_id_hash(semantic_id) RETURNS integer
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'hashvarlena';
CREATE FUNCTION rec.semantic_id_hash(semantic_id, bigint) RETURNS bigint
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF AS 'hashvarlenaextended';
COMMENT ON FUNCTION rec.semantic_id_lt(semantic_id, semantic_id) IS 'The operator <.';
COMMENT ON FUNCTION rec.semantic_id_le(semantic_id, semantic_id) IS 'The operator <=.';
COMMENT ON FUNCTION rec.semantic_id_eq(semantic_id, semantic_id) IS 'The operator =.';
COMMENT ON FUNCTION rec.semantic_id_ne(semantic_id, semantic_id) IS 'The operator <>.';
COMMENT ON FUNCTION rec.semantic_id_ge(semantic_id, semantic_id) IS 'The operator >=.';
COMMENT ON FUNCTION rec.semantic_id_gt(semantic_id, semantic_id) IS 'The operator >.';
COMMENT ON FUNCTION rec.semantic_id_cmp(semantic_id, semantic_id) IS 'Compares two codes: below, at or above 0.';
COMMENT ON FUNCTION rec.semantic_id_hash(semantic_id) IS 'Hash of a code.';
COMMENT ON FUNCTION rec.semantic_id_hash(semantic_id, bigint) IS 'Hash of a code with a seed.';

CREATE OPERATOR < (
    FUNCTION = rec.semantic_id_lt, LEFTARG = semantic_id, RIGHTARG = semantic_id, COMMUTATOR = >, NEGATOR = >=,
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR <= (
    FUNCTION = rec.semantic_id_le, LEFTARG = semantic_id, RIGHTARG = semantic_id, COMMUTATOR = >=, NEGATOR = >,
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
CREATE OPERATOR = (
    FUNCTION = rec.semantic_id_eq, LEFTARG = semantic_id, RIGHTARG = semantic_id, COMMUTATOR = =, NEGATOR = <>,
    RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR <> (
    FUNCTION = rec.semantic_id_ne, LEFTARG = semantic_id, RIGHTARG = semantic_id, COMMUTATOR = <>, NEGATOR = =,
    RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR >= (
    FUNCTION = rec.semantic_id_ge, LEFTARG = semantic_id, RIGHTARG = semantic_id, COMMUTATOR = <=, NEGATOR = <,
    RESTRICT = scalargesel, JOIN = scalargejoinsel);
CREATE OPERATOR > (
    FUNCTION = rec.semantic_id_gt, LEFTARG = semantic_id, RIGHTARG = semantic_id, COMMUTATOR = <, NEGATOR = <=,
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel);

CREATE OPERATOR CLASS semantic_id_ops DEFAULT FOR TYPE semantic_id USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 rec.semantic_id_cmp(semantic_id, semantic_id), FUNCTION 2 bytea_sortsupport(internal),
    FUNCTION 4 btequalimage(oid);
CREATE OPERATOR CLASS semantic_id_ops DEFAULT FOR TYPE semantic_id USING hash AS
    OPERATOR 1 =, FUNCTION 1 rec.semantic_id_hash(semantic_id), FUNCTION 2 rec.semantic_id_hash(semantic_id, bigint);

CREATE FUNCTION rec.semantic_id_starts(code semantic_id, prefix semantic_id) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'semantic_id_starts_wrapper';
COMMENT ON FUNCTION rec.semantic_id_starts(semantic_id, semantic_id) IS 'The operator ^@: whether a code begins with a prefix.';
CREATE OPERATOR ^@ (FUNCTION = rec.semantic_id_starts, LEFTARG = semantic_id, RIGHTARG = semantic_id,
    RESTRICT = matchingsel, JOIN = matchingjoinsel);

CREATE FUNCTION rec.semantic_id_integers(semantic_id) RETURNS integer[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'semantic_id_integers_wrapper';
COMMENT ON FUNCTION rec.semantic_id_integers(semantic_id) IS 'The cast to integer[]: one number a level.';
CREATE FUNCTION rec.semantic_id_of_integers(integer[]) RETURNS semantic_id
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'semantic_id_of_integers_wrapper';
COMMENT ON FUNCTION rec.semantic_id_of_integers(integer[]) IS 'The cast from integer[]: one number a level.';
CREATE CAST (semantic_id AS integer[]) WITH FUNCTION rec.semantic_id_integers(semantic_id) AS ASSIGNMENT;
CREATE CAST (integer[] AS semantic_id) WITH FUNCTION rec.semantic_id_of_integers(integer[]) AS ASSIGNMENT;

CREATE FUNCTION rec_semantic_prefix(code semantic_id, levels integer) RETURNS semantic_id
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rec_semantic_prefix_wrapper';
COMMENT ON FUNCTION rec_semantic_prefix(semantic_id, integer) IS
'The first levels of a code, to group items by: GROUP BY rec_semantic_prefix(code, 1).';

CREATE TABLE rec.semantic_code (
    model_id    bigint NOT NULL REFERENCES rec.model ON DELETE CASCADE,
    item        text NOT NULL,
    code        bytea NOT NULL,
    assigned_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, item),
    UNIQUE (model_id, code) INCLUDE (item)
);
REVOKE ALL ON rec.semantic_code FROM PUBLIC;
COMMENT ON TABLE rec.semantic_code IS
'Codes given to items after their model was trained: rec_semantic_assign. Those of the training are in the model''s artifact; rec_semantic_ids() shows both.';
COMMENT ON COLUMN rec.semantic_code.model_id IS 'The model.';
COMMENT ON COLUMN rec.semantic_code.item IS 'Id of the item, as text.';
COMMENT ON COLUMN rec.semantic_code.code IS 'Its code: two bytes a level, the larger first.';
COMMENT ON COLUMN rec.semantic_code.assigned_at IS 'When it was given.';
SELECT pg_catalog.pg_extension_config_dump('rec.semantic_code', '');

CREATE FUNCTION rec_semantic_id(item_id bigint, model text DEFAULT NULL, recommender text DEFAULT NULL) RETURNS semantic_id
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'rec_semantic_id_bigint_wrapper';
COMMENT ON FUNCTION rec_semantic_id(bigint, text, text) IS
'The code of an item. One that has none gets the code that rec_semantic_assign would give it now, which is not kept; NULL for one without a vector. model: NULL takes the deployed model where it has codes, else the newest of family semantic_ids.';

CREATE FUNCTION rec.semantic_id_text(item_id text, model text, recommender text) RETURNS semantic_id
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'rec_semantic_id_text_wrapper';
COMMENT ON FUNCTION rec.semantic_id_text(text, text, text) IS
'rec_semantic_id for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_semantic_ids(model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (item_id bigint, code semantic_id)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10000 AS 'MODULE_PATHNAME', 'rec_semantic_ids_bigint_wrapper';
COMMENT ON FUNCTION rec_semantic_ids(text, text) IS
'All items that have a code, in the order of their codes: those of the training and those coded since, also where the item is gone.';

CREATE FUNCTION rec.semantic_ids_text(model text, recommender text) RETURNS TABLE (item_id text, code semantic_id)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10000 AS 'MODULE_PATHNAME', 'rec_semantic_ids_text_wrapper';
COMMENT ON FUNCTION rec.semantic_ids_text(text, text) IS
'rec_semantic_ids for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_semantic_items(
    prefix semantic_id, k integer DEFAULT 1000, model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (item_id bigint, code semantic_id)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 ROWS 1000 AS 'MODULE_PATHNAME', 'rec_semantic_items_bigint_wrapper';
COMMENT ON FUNCTION rec_semantic_items(semantic_id, integer, text, text) IS
'The first k items whose codes begin with a prefix, in the order of their codes; an empty prefix is the beginning of all. Found by index, not by scan.';

CREATE FUNCTION rec.semantic_items_text(prefix semantic_id, k integer, model text, recommender text)
RETURNS TABLE (item_id text, code semantic_id)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 ROWS 1000 AS 'MODULE_PATHNAME', 'rec_semantic_items_text_wrapper';
COMMENT ON FUNCTION rec.semantic_items_text(semantic_id, integer, text, text) IS
'rec_semantic_items for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_semantic_neighbours(
    item_id bigint, k integer DEFAULT 10, model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (rank integer, item_id bigint, shared integer, distance real, code semantic_id)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_semantic_neighbours_bigint_wrapper';
COMMENT ON FUNCTION rec_semantic_neighbours(bigint, integer, text, text) IS
'The k items whose codes are nearest to the item''s: those first that share most levels (leading ones, where each level codes what those before have left), of these those first whose codes stand for the nearest vectors.';

CREATE FUNCTION rec.semantic_neighbours_text(item_id text, k integer, model text, recommender text)
RETURNS TABLE (rank integer, item_id text, shared integer, distance real, code semantic_id)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_semantic_neighbours_text_wrapper';
COMMENT ON FUNCTION rec.semantic_neighbours_text(text, integer, text, text) IS
'rec_semantic_neighbours for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_semantic_stats(model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (level integer, metric text, value double precision)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 22 AS 'MODULE_PATHNAME', 'rec_semantic_stats_wrapper';
COMMENT ON FUNCTION rec_semantic_stats(text, text) IS
'How codes are used. Of all (level NULL): items; assigned (since the training); collisions; and of the training error (mean squared distance of vectors to what their codes stand for, as a share of their variance), greedy_error and greedy_collisions (before every item got a code of its own). Of every level: codes; used; entropy in bits; balance (entropy as a share of the largest possible).';

CREATE FUNCTION rec.semantic_words(model text, recommender text)
RETURNS TABLE (level integer, code integer, token text, items bigint, embedding real[])
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 1000 AS 'MODULE_PATHNAME', 'rec_semantic_words_wrapper';
COMMENT ON FUNCTION rec.semantic_words(text, text) IS 'The rows behind rec_semantic_vocabulary.';

CREATE FUNCTION rec_semantic_vocabulary(model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (level integer, code integer, token text, items bigint, embedding @extschema:vector@.vector)
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000 ROWS 1000
BEGIN ATOMIC
    SELECT w.level, w.code, w.token, w.items, w.embedding::@extschema:vector@.vector FROM rec.semantic_words(model, recommender) w;
END;
COMMENT ON FUNCTION rec_semantic_vocabulary(text, text) IS
'All code words, for a language model to be fed with: level, number, token, how many items have it, and its vector (NULL on a level that only numbers items).';

CREATE FUNCTION rec_semantic_assign(model text DEFAULT NULL, recommender text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'rec_semantic_assign_wrapper';
COMMENT ON FUNCTION rec_semantic_assign(text, text) IS
'Gives codes to items that have a vector and none yet, without training anew; gives their number. Codes that items have never change. For the owner of the recommender.';

CREATE FUNCTION rec_semantic_assign_new() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'rec_semantic_assign_new_wrapper';
COMMENT ON FUNCTION rec_semantic_assign_new() IS
'A trigger that gives every new item a code at once: CREATE TRIGGER code AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION rec_semantic_assign_new(). Its arguments, both of which may be left out: the recommender, and the model. Where no code can be given it warns.';

CREATE FUNCTION rec_generate(
    user_id bigint, k integer DEFAULT 10, beam integer DEFAULT NULL, candidates bigint[] DEFAULT NULL,
    exclude bigint[] DEFAULT NULL, exclude_seen boolean DEFAULT true, session bigint[] DEFAULT NULL, words text[] DEFAULT NULL,
    model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (rank integer, item_id bigint, score real, path semantic_id, agreement real, kept boolean)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_generate_bigint_wrapper';
COMMENT ON FUNCTION rec_generate(bigint, integer, integer, bigint[], bigint[], boolean, bigint[], text[], text, text) IS
'The k items whose codes a generative model finds most likely to follow the user''s history, best first: score is the logarithm of that probability, path the code. beam: codes that the search keeps on each level (at least k); as wide as the catalogue, the ranking is exact. NULL takes the model''s own. words: what is wanted now, as attributes of the items say it; those that the model has not learnt are passed over, the last count where there are more than the window holds, and they take the place of the oldest events. No rows where neither history nor words say anything. Of a model that tells codes in the order of its confidence, agreement says how well those told first went with those told later (1 less the mean Jensen-Shannon divergence of the item''s beam), and kept whether that reaches the model''s consistency: what does not only fills the list up. Otherwise as rec_next.';

CREATE FUNCTION rec.generate_text(
    user_id text, k integer, beam integer, candidates text[], exclude text[], exclude_seen boolean, session text[], words text[],
    model text, recommender text)
RETURNS TABLE (rank integer, item_id text, score real, path semantic_id, agreement real, kept boolean)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_generate_text_wrapper';
COMMENT ON FUNCTION rec.generate_text(text, integer, integer, text[], text[], boolean, text[], text[], text, text) IS
'rec_generate for ids of any type, as text. Called by the typed functions of a recommender''s schema.';
