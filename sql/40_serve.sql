-- Serving. The bigint functions are the public ones; the text functions in schema rec stand behind the typed
-- functions that rec_create generates for uuid and text ids.

CREATE FUNCTION rec_next(
    user_id bigint, k integer DEFAULT 10, candidates bigint[] DEFAULT NULL, exclude bigint[] DEFAULT NULL,
    exclude_seen boolean DEFAULT true, session bigint[] DEFAULT NULL, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now(), steer real[] DEFAULT NULL, weight real DEFAULT 0.5)
RETURNS TABLE (rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_next_bigint_wrapper';
COMMENT ON FUNCTION rec_next(bigint, integer, bigint[], bigint[], boolean, bigint[], text, text, timestamptz, real[], real) IS
'The k items this user is most likely to touch next, best first. candidates: only these; exclude: none of these; exclude_seen: without the user''s own items; session: items touched just now and not stored; at: when the question is asked, for models that look at times; model: by name, else the deployed one. A user without history gets what is popular. steer: a vector that says what is meant now, of which a share weight (0 to 1) goes into the user''s vector: where the model has learnt from the items'' embeddings, a vector such as theirs (of a query, a text, an item: pgvector''s vector casts to real[]), else one of the model''s own; for somebody without history it counts alone. Items that came after the training are in the list where the model can place them by their content and its vectors are published: rec_publish_vectors.';

CREATE FUNCTION rec.next_text(
    user_id text, k integer, candidates text[], exclude text[], exclude_seen boolean, session text[], model text, recommender text, at timestamptz,
    steer real[], weight real)
RETURNS TABLE (rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_next_text_wrapper';
COMMENT ON FUNCTION rec.next_text(text, integer, text[], text[], boolean, text[], text, text, timestamptz, real[], real) IS
'rec_next for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_next_many(
    user_ids bigint[], k integer DEFAULT 10, candidates bigint[] DEFAULT NULL, exclude bigint[] DEFAULT NULL,
    exclude_seen boolean DEFAULT true, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now())
RETURNS TABLE (user_id bigint, rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100000 ROWS 10000 AS 'MODULE_PATHNAME', 'rec_next_many_bigint_wrapper';
COMMENT ON FUNCTION rec_next_many(bigint[], integer, bigint[], bigint[], boolean, text, text, timestamptz) IS
'rec_next for many users at once, on all cores. Every user once, in the order given.';

CREATE FUNCTION rec.next_many_text(
    user_ids text[], k integer, candidates text[], exclude text[], exclude_seen boolean, model text, recommender text, at timestamptz)
RETURNS TABLE (user_id text, rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100000 ROWS 10000 AS 'MODULE_PATHNAME', 'rec_next_many_text_wrapper';
COMMENT ON FUNCTION rec.next_many_text(text[], integer, text[], text[], boolean, text, text, timestamptz) IS
'rec_next_many for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_next_session(
    item_ids bigint[], k integer DEFAULT 10, candidates bigint[] DEFAULT NULL, exclude bigint[] DEFAULT NULL,
    exclude_seen boolean DEFAULT true, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now())
RETURNS TABLE (rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_next_session_bigint_wrapper';
COMMENT ON FUNCTION rec_next_session(bigint[], integer, bigint[], bigint[], boolean, text, text, timestamptz) IS
'What follows these items, oldest first, for somebody who is not a stored user. Reads no history.';

CREATE FUNCTION rec.next_session_text(
    item_ids text[], k integer, candidates text[], exclude text[], exclude_seen boolean, model text, recommender text, at timestamptz)
RETURNS TABLE (rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_next_session_text_wrapper';
COMMENT ON FUNCTION rec.next_session_text(text[], integer, text[], text[], boolean, text, text, timestamptz) IS
'rec_next_session for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_score(
    user_id bigint, item_ids bigint[], session bigint[] DEFAULT NULL, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now())
RETURNS TABLE (rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_score_bigint_wrapper';
COMMENT ON FUNCTION rec_score(bigint, bigint[], bigint[], text, text, timestamptz) IS
'Ranks the given items for this user, each once, whether seen or not. Items the model does not know come last, with score NULL.';

CREATE FUNCTION rec.score_text(user_id text, item_ids text[], session text[], model text, recommender text, at timestamptz)
RETURNS TABLE (rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_score_text_wrapper';
COMMENT ON FUNCTION rec.score_text(text, text[], text[], text, text, timestamptz) IS
'rec_score for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_similar(
    item_id bigint, k integer DEFAULT 10, candidates bigint[] DEFAULT NULL, exclude bigint[] DEFAULT NULL,
    model text DEFAULT NULL, recommender text DEFAULT NULL)
RETURNS TABLE (rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_similar_bigint_wrapper';
COMMENT ON FUNCTION rec_similar(bigint, integer, bigint[], bigint[], text, text) IS
'The k items most like this one, as the model sees it, best first, without itself.';

CREATE FUNCTION rec.similar_text(item_id text, k integer, candidates text[], exclude text[], model text, recommender text)
RETURNS TABLE (rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_similar_text_wrapper';
COMMENT ON FUNCTION rec.similar_text(text, integer, text[], text[], text, text) IS
'rec_similar for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec.encode_bigint(user_id bigint, session bigint[], model text, recommender text, at timestamptz) RETURNS real[]
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'rec_encode_bigint_wrapper';
COMMENT ON FUNCTION rec.encode_bigint(bigint, bigint[], text, text, timestamptz) IS 'The numbers behind rec_encode.';

CREATE FUNCTION rec.encode_text(user_id text, session text[], model text, recommender text, at timestamptz) RETURNS real[]
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'rec_encode_text_wrapper';
COMMENT ON FUNCTION rec.encode_text(text, text[], text, text, timestamptz) IS 'The numbers behind the typed rec_encode.';

CREATE FUNCTION rec_encode(
    user_id bigint, session bigint[] DEFAULT NULL, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now())
RETURNS @extschema:vector@.vector
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000
RETURN rec.encode_bigint(user_id, session, model, recommender, at)::@extschema:vector@.vector;
COMMENT ON FUNCTION rec_encode(bigint, bigint[], text, text, timestamptz) IS
'The user''s vector: a score is its inner product with an item''s vector. Only families that have one; NULL for a user without history.';

CREATE FUNCTION rec_explain(
    user_id bigint, item_id bigint, session bigint[] DEFAULT NULL, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now())
RETURNS jsonb
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'rec_explain_bigint_wrapper';
COMMENT ON FUNCTION rec_explain(bigint, bigint, bigint[], text, text, timestamptz) IS
'Why this user gets (or does not get) this item: recommender, model, what of the history was used, the fallback that answered, and what the family can say.';

CREATE FUNCTION rec.explain_text(user_id text, item_id text, session text[], model text, recommender text, at timestamptz)
RETURNS jsonb
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'rec_explain_text_wrapper';
COMMENT ON FUNCTION rec.explain_text(text, text, text[], text, text, timestamptz) IS
'rec_explain for ids of any type, as text. Called by the typed functions of a recommender''s schema.';
