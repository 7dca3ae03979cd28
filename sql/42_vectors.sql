-- Vectors of items and users in tables of the recommender's schema: what is near, and for whom.

CREATE SEQUENCE rec.publication_number;
SELECT pg_catalog.pg_extension_config_dump('rec.publication_number', '');

CREATE TABLE rec.publication (
    recommender_id bigint PRIMARY KEY REFERENCES rec.recommender ON DELETE CASCADE,
    model_id       bigint NOT NULL REFERENCES rec.model ON DELETE CASCADE,
    items          regclass NOT NULL,
    users          regclass,
    former_items   regclass,
    former_users   regclass,
    published_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX publication_model ON rec.publication (model_id);
COMMENT ON TABLE rec.publication IS 'Published vectors: rec_publish_vectors. One model''s of a recommender at a time.';
COMMENT ON COLUMN rec.publication.recommender_id IS 'The recommender.';
COMMENT ON COLUMN rec.publication.model_id IS 'The model whose vectors they are.';
COMMENT ON COLUMN rec.publication.items IS 'Table of the items'' vectors, behind the view item_vector in the recommender''s schema.';
COMMENT ON COLUMN rec.publication.users IS 'Table of the users'' vectors, behind the view user_vector; NULL where those are not published.';
COMMENT ON COLUMN rec.publication.former_items IS 'The same of what was published before: for transactions that still see it, until the next time.';
COMMENT ON COLUMN rec.publication.former_users IS 'The same of its users.';
COMMENT ON COLUMN rec.publication.published_at IS 'When.';
GRANT SELECT ON rec.publication TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('rec.publication', '');

CREATE FUNCTION rec_publish_vectors(model text DEFAULT NULL, users boolean DEFAULT true, recommender text DEFAULT NULL)
RETURNS TABLE (items bigint, users bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 ROWS 1 AS 'MODULE_PATHNAME', 'rec_publish_vectors_wrapper';
COMMENT ON FUNCTION rec_publish_vectors(text, boolean, text) IS
'Puts the vectors of a model (NULL: the deployed one) into tables with a usearch index each, seen through the views item_vector (item_id, embedding, trained) and user_vector (user_id, embedding, events) in the recommender''s schema, in place of what was published before; gives how many. What it builds on: rec_near, rec_audience, items of later in rec_next, and your own ORDER BY embedding <-> rec_encode(42) (<#> for models whose scores are inner products). Items that the training did not know are placed by their content where the model has learnt to. Kept fresh by triggers rec_place_item() and rec_place_user(), or by rec_refresh_vectors() every now and then: also once after publishing while others write, since what they write meanwhile goes to the tables of before, which stay until the next time. users => false: items alone. For the owner of the recommender; others need SELECT on user_vector for audiences, and nothing for lists.';

CREATE FUNCTION rec_refresh_vectors(recommender text DEFAULT NULL)
RETURNS TABLE (items bigint, users bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 ROWS 1 AS 'MODULE_PATHNAME', 'rec_refresh_vectors_wrapper';
COMMENT ON FUNCTION rec_refresh_vectors(text) IS
'Brings published vectors up to date: places items that came since, moves users whose histories have changed, removes users who have touched nothing that the model knows, and items of later that are gone (those of the training stay, and are not listed); gives how many rows have changed.';

CREATE FUNCTION rec_unpublish_vectors(recommender text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_unpublish_vectors_wrapper';
COMMENT ON FUNCTION rec_unpublish_vectors(text) IS
'Drops the published vectors with their views and tables; gives whether there were some.';

CREATE FUNCTION rec_place_item() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'rec_place_item_wrapper';
COMMENT ON FUNCTION rec_place_item() IS
'A trigger that places every new item by its content at once, so that it is recommended: CREATE TRIGGER place AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION rec_place_item(). Its argument, which may be left out, is the recommender. Where nothing is published it does nothing; what this extension finds wrong it warns of, what Postgres does (a column that is gone) fails the statement.';

CREATE FUNCTION rec_place_user() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'rec_place_user_wrapper';
COMMENT ON FUNCTION rec_place_user() IS
'A trigger that moves the published vector of a user with every event, so that audiences are fresh: CREATE TRIGGER place AFTER INSERT ON interaction FOR EACH ROW EXECUTE FUNCTION rec_place_user(). Its argument, which may be left out, is the recommender. rec_next and rec_near need it not: they compute the user''s vector when they are asked. Of two events of one user in transactions at the same time the vector may miss one until the next event or refresh.';

CREATE FUNCTION rec_near(
    user_id bigint, k integer DEFAULT 10, exclude bigint[] DEFAULT NULL, exclude_seen boolean DEFAULT true,
    session bigint[] DEFAULT NULL, at timestamptz DEFAULT now(), recommender text DEFAULT NULL)
RETURNS TABLE (rank integer, item_id bigint, distance real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_near_bigint_wrapper';
COMMENT ON FUNCTION rec_near(bigint, integer, bigint[], boolean, bigint[], timestamptz, text) IS
'The k items whose published vectors are nearest to the user''s, which is computed from the history as it is now; found by index. distance: Euclidean, or minus the inner product of models whose scores are that. Items are left out as by rec_next. No rows for somebody without history.';

CREATE FUNCTION rec.near_text(
    user_id text, k integer, exclude text[], exclude_seen boolean, session text[], at timestamptz, recommender text)
RETURNS TABLE (rank integer, item_id text, distance real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 10 AS 'MODULE_PATHNAME', 'rec_near_text_wrapper';
COMMENT ON FUNCTION rec.near_text(text, integer, text[], boolean, text[], timestamptz, text) IS
'rec_near for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_audience(
    item_id bigint DEFAULT NULL, k integer DEFAULT 100, embedding real[] DEFAULT NULL, attributes text[] DEFAULT NULL,
    exclude_seen boolean DEFAULT true, recommender text DEFAULT NULL)
RETURNS TABLE (rank integer, user_id bigint, distance real, probability real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 100 AS 'MODULE_PATHNAME', 'rec_audience_bigint_wrapper';
COMMENT ON FUNCTION rec_audience(bigint, integer, real[], text[], boolean, text) IS
'The k users most likely to want an item, likeliest first, by their published vectors; found by index. An item that nobody has touched yet is where its content places it. Or, instead of an item, for something that is in no table yet: embedding, a vector such as the items'' (pgvector''s vector casts to real[]), or attributes such as theirs, or both, as the published model has learnt to look at them. probability: that the user''s next new item is this one, as a function of the distance that was calibrated on events held out of the training (metrics -> ''calibration'' of rec.models says how well); NULL where it was not. exclude_seen: without those who have touched the item. Reads user_vector and the interactions as the caller.';

CREATE FUNCTION rec.audience_text(
    item_id text, k integer, embedding real[], attributes text[], exclude_seen boolean, recommender text)
RETURNS TABLE (rank integer, user_id text, distance real, probability real)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 ROWS 100 AS 'MODULE_PATHNAME', 'rec_audience_text_wrapper';
COMMENT ON FUNCTION rec.audience_text(text, integer, real[], text[], boolean, text) IS
'rec_audience for ids of any type, as text. Called by the typed functions of a recommender''s schema.';

CREATE FUNCTION rec_forget(user_id bigint, recommender text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_forget_bigint_wrapper';
COMMENT ON FUNCTION rec_forget(bigint, text) IS
'Removes what is kept of a user besides the interactions: the published vector. Gives whether there was something. Delete the user''s interactions first, or the next refresh computes it again. For the owner of the recommender.';

CREATE FUNCTION rec.forget_text(user_id text, recommender text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rec_forget_text_wrapper';
COMMENT ON FUNCTION rec.forget_text(text, text) IS
'rec_forget for ids of any type, as text. Called by the typed functions of a recommender''s schema.';
