\set VERBOSITY verbose
\set SHOW_CONTEXT never
-- Searching for what makes no sense, or little.
UPDATE shop.item SET title = CASE WHEN item_id % 2 = 0 THEN 'red shoes' ELSE 'blue shoes' END || ' number ' || item_id;
SELECT rec_create('english', search_config => 'english');
INSERT INTO english.item (item_id, title) VALUES (1, 'The red shoes of the west'), (2, 'O''Brien''s C:\temp & "friends"'), (3, 'Größe 名前 🙂');
-- Longest query.
SELECT count(*) FROM rec_search(1, repeat('x', 10240), recommender => 'english');
SELECT count(*) FROM rec_search(1, repeat('x', 10241), recommender => 'english');
SELECT count(*) FROM rec_search(1, (SELECT string_agg('w' || n, ' ') FROM generate_series(1, 1500) n), recommender => 'english');
-- Nothing that could be a word.
SELECT count(*) FROM rec_search(1, 'the of and', recommender => 'english');
SELECT count(*) FROM rec_search(1, E'\x01\x02\x7f', recommender => 'english');
SELECT count(*) FROM rec_search(1, '!!! --- ()', recommender => 'english');
SELECT count(*) FROM rec_search(1, '\x00ff'::bytea, recommender => 'english');
SELECT count(*) FROM rec_search(1, convert_from('\x00ff', 'utf8'), recommender => 'english');
-- What looks like another language's syntax is words.
SELECT item_id FROM rec_search(NULL, 'red & !shoes | (west:*) <-> ''', recommender => 'english');
SELECT item_id FROM rec_search(NULL, 'c:\temp', recommender => 'english');
SELECT item_id FROM rec_search(NULL, '''; DROP TABLE shop.item; --', recommender => 'english');
SELECT item_id FROM rec_search(NULL, 'o''brien', recommender => 'english');
SELECT item_id FROM rec_search(NULL, 'GRÖSSE größe 名前 🙂', recommender => 'english');
-- Unknown words.
SELECT item_id FROM rec_search(NULL, 'xyzzy', recommender => 'english');
SELECT item_id FROM rec_search(NULL, 'xyzzy red', recommender => 'english');
-- k.
SELECT count(*) FROM rec_search(1, 'shoes', -1, recommender => 'shop');
SELECT count(*) FROM rec_search(1, 'shoes', 0, recommender => 'shop');
SELECT count(*) FROM rec_search(1, 'shoes', NULL, recommender => 'shop');
SELECT count(*) FROM rec_search(1, 'red', 1000000, recommender => 'shop');
-- Users.
SELECT count(*) FROM rec_search(NULL, 'red', recommender => 'shop');
SELECT count(*) FROM rec_search(-5, 'red', recommender => 'shop');
-- Vectors.
SELECT count(*) FROM rec_search(1, 'red', 5, ARRAY[]::real[], recommender => 'shop');
SELECT count(*) FROM rec_search(1, 'red', 5, ARRAY[NULL]::real[], recommender => 'shop');
SELECT count(*) FROM rec_search(1, 'red', 5, ARRAY[1, 2]::real[], recommender => 'shop');
-- Models that know no queries, and none.
SELECT count(*) FROM rec_search(1, 'red', model => 'tgh', recommender => 'shop');
SELECT count(*) FROM rec_search(1, 'red', model => 'nobody', recommender => 'shop');
SELECT count(*) FROM rec_search(1, '', recommender => 'english');
SELECT count(*) FROM rec_keywords(ARRAY['red'], recommender => 'english');
SELECT count(*) FROM rec_keywords(ARRAY['red'], model => 'tgh', recommender => 'shop');
SELECT count(*) FROM rec_demand(1, 1, recommender => 'shop');
SELECT count(*) FROM rec_demand(1, 1, model => 'tgh', recommender => 'shop');
-- Nothing to search in.
CREATE TABLE events (user_id bigint, item_id bigint, at timestamptz);
CREATE INDEX ON events (user_id, at);
SELECT rec_create('bare', 'events');
SELECT count(*) FROM rec_search(1, 'red', recommender => 'bare');
SELECT count(*) FROM rec_search(1, NULL, 5, ARRAY[1, 2]::real[], recommender => 'bare');
-- Bindings.
SELECT rec_create('wrong', 'events', search_config => 'klingon');
SELECT rec_create('wrong', search_config => 'no such; DROP');
CREATE TABLE asked (user_id bigint, query text, vector real[], item_id text, shown text[], dwell text, at timestamptz);
CREATE INDEX ON asked (user_id, at);
SELECT rec_create('wrong', 'events', searches => 'asked', query_column => 'words');
SELECT rec_create('wrong', 'events', searches => 'asked', query_column => 'user_id');
SELECT rec_create('wrong', 'events', searches => 'asked', search_user_column => 'query');
SELECT rec_create('wrong', 'events', searches => 'asked', search_item_column => 'item_id');
SELECT rec_create('wrong', 'events', searches => 'asked', search_item_column => 'dwell');
SELECT rec_create('wrong', 'events', searches => 'asked', query_embedding_column => 'vector');
ALTER TABLE asked DROP COLUMN item_id;
SELECT rec_create('wrong', 'events', searches => 'asked', shown_column => 'shown');
SELECT rec_create('wrong', 'events', searches => 'asked', dwell_column => 'dwell');
SELECT rec_create('wrong', 'events', searches => 'asked', search_time_column => 'dwell');
SELECT rec_create('wrong', 'events', items => 'shop.item', text_column => 'attributes');
SELECT rec_create('right', 'events', items => 'shop.item', text_column => 'description', searches => 'asked');
SELECT searches::regclass, search_user_column, query_column, query_embedding_column, search_item_column, search_time_column,
    shown_column, dwell_column, text_column FROM rec.recommender WHERE name = 'right';
