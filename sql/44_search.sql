-- Searching.

CREATE FUNCTION rec_search(
    user_id bigint, query text, k integer DEFAULT 10, embedding real[] DEFAULT NULL, candidates bigint[] DEFAULT NULL,
    exclude bigint[] DEFAULT NULL, exclude_seen boolean DEFAULT NULL, model text DEFAULT NULL, recommender text DEFAULT NULL,
    at timestamptz DEFAULT now())
RETURNS TABLE (rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_search_bigint_wrapper';
COMMENT ON FUNCTION rec_search(bigint, text, integer, real[], bigint[], bigint[], boolean, text, text, timestamptz) IS
'The k items that answer a query best, for this user; user_id may be NULL. Three sources give candidates and are ranked together: the words of the items'' text (BM25, by a GIN index on it), the vectors of the items nearest to embedding (by an index on them; a vector of the query that your own embedding model has made; where a model of family retriever was trained, by what it has learnt), and the model, where it is of a family that knows queries (dual_intent, keywords), which also looks at the user''s history and latest searches. With one source score is its own; with several the sum of 1 / (60 + rank), the model''s eight times as far as it knows the words. Words that no text has are taken for the known ones they are nearest to, or left out. An empty query without embedding is rec_next. candidates, exclude: as there; exclude_seen: without the user''s own items, by default only where nothing is asked for. rec.search_candidates bounds how many items of each source are looked at; rec_check says which index is missing.';

CREATE FUNCTION rec.search_text(
    user_id text, query text, k integer, embedding real[], candidates text[], exclude text[], exclude_seen boolean, model text,
    recommender text, at timestamptz)
RETURNS TABLE (rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_search_text_wrapper';
COMMENT ON FUNCTION rec.search_text(text, text, integer, real[], text[], text[], boolean, text, text, timestamptz) IS
'rec_search for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_keywords(
    words text[], k integer DEFAULT 10, candidates bigint[] DEFAULT NULL, exclude bigint[] DEFAULT NULL, model text DEFAULT NULL,
    recommender text DEFAULT NULL)
RETURNS TABLE (rank integer, item_id bigint, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_keywords_bigint_wrapper';
COMMENT ON FUNCTION rec_keywords(text[], integer, bigint[], bigint[], text, text) IS
'The k items for somebody of whom nothing is known but a few words, best first: what those have touched who have to do with these words. A word that the model does not know counts as the known one that is nearest by edit distance. Where it knows none, what is popular. model: by name; without it the deployed one if it is of family keywords, else the newest of that family.';

CREATE FUNCTION rec.keywords_text(
    words text[], k integer, candidates text[], exclude text[], model text, recommender text)
RETURNS TABLE (rank integer, item_id text, score real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_keywords_text_wrapper';
COMMENT ON FUNCTION rec.keywords_text(text[], integer, text[], text[], text, text) IS
'rec_keywords for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_demand(
    user_id bigint, item_id bigint, k integer DEFAULT 5, session bigint[] DEFAULT NULL, model text DEFAULT NULL,
    recommender text DEFAULT NULL, at timestamptz DEFAULT now())
RETURNS TABLE (rank integer, word text, weight real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 5 AS 'MODULE_PATHNAME', 'rec_demand_bigint_wrapper';
COMMENT ON FUNCTION rec_demand(bigint, bigint, integer, bigint[], text, text, timestamptz) IS
'The words nearest to what this user would want of this item now, as the model generates it from history and latest searches, nearest first; weight: how near, from 0 to 1. An explanation that can be checked. model: by name; without it the deployed one if it is of family dual_intent, else the newest of that family.';

CREATE FUNCTION rec.demand_text(
    user_id text, item_id text, k integer, session text[], model text, recommender text, at timestamptz)
RETURNS TABLE (rank integer, word text, weight real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 5 AS 'MODULE_PATHNAME', 'rec_demand_text_wrapper';
COMMENT ON FUNCTION rec.demand_text(text, text, integer, text[], text, text, timestamptz) IS
'rec_demand for ids of any type, as text. Called by the typed functions of a recommender''s schema.';
