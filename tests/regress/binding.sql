-- Recommenders over tables and views that are there already.
\set VERBOSITY verbose
CREATE SCHEMA "My Shop";
CREATE TABLE "My Shop"."Orders" (
    "Order" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "Customer" integer NOT NULL,
    "the ""Article""" varchar(20) NOT NULL,
    placed date,
    quantity integer
);
INSERT INTO "My Shop"."Orders" ("Customer", "the ""Article""", placed, quantity)
SELECT c, 'a' || a, date '2024-01-01' + a, a FROM generate_series(1, 5) c, generate_series(1, c) a;

-- No index finds one user's events: a WARNING with the statement to run.
SELECT rec_create('orders', interactions => '"My Shop"."Orders"', user_column => 'Customer', item_column => 'the "Article"', time_column => 'placed');
SELECT subject, severity, finding, remedy FROM rec_check('orders');
SELECT remedy FROM rec_check('orders') WHERE finding LIKE 'no index%' \gexec
CALL rec_train('popularity', '{"half_life": null}', 'orders', deploy => true);
SELECT * FROM rec_check('orders');
SELECT order_columns, time_column, user_type, item_type FROM rec.recommender WHERE name = 'orders';
SELECT * FROM orders.rec_next(1, 3);
SELECT * FROM orders.rec_next(4);

-- Renamed and moved tables are followed; a dropped one is reported.
ALTER TABLE "My Shop"."Orders" RENAME TO sold;
ALTER TABLE "My Shop".sold SET SCHEMA public;
SELECT * FROM orders.rec_next(1, 1);

-- A view that casts and filters.
CREATE VIEW bought AS SELECT "Customer"::bigint AS who, substr("the ""Article""", 2)::bigint AS what, "Order" AS number FROM sold WHERE quantity <> 2;
CREATE MATERIALIZED VIEW article AS SELECT DISTINCT substr("the ""Article""", 2)::integer AS id, 'Article ' || "the ""Article""" AS name FROM sold;
SELECT rec_create('viewed', interactions => 'bought', user_column => 'who', item_column => 'what', order_column => 'number',
    items => 'article', item_id_column => 'id', title_column => 'name');
SELECT finding, remedy FROM rec_check('viewed') ORDER BY 1;
CREATE INDEX ON sold (("Customer"::bigint));
SELECT finding FROM rec_check('viewed') ORDER BY 1;
CALL rec_train('popularity', recommender => 'viewed', model => 'counts', deploy => true);
SELECT * FROM viewed.rec_next(1);
SELECT * FROM viewed.rec_next(5);

-- A partitioned table, an unlogged table, a table with nothing in it.
CREATE TABLE events (user_id bigint, item_id bigint, at timestamp) PARTITION BY HASH (user_id);
CREATE TABLE events_0 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE events_1 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON events (user_id, at DESC);
SELECT rec_create('parted', interactions => 'events');
CALL rec_train('popularity', recommender => 'parted');
SELECT finding FROM rec_check('parted') ORDER BY 1;
INSERT INTO events SELECT u, i, '2024-01-01' FROM generate_series(1, 3) u, generate_series(1, u) i;
INSERT INTO events VALUES (NULL, 1, now()), (1, NULL, now());
CALL rec_train('popularity', '{"half_life": null}', 'parted', deploy => true);
SELECT * FROM parted.rec_next(1);

-- Stale, interrupted and failed models.
INSERT INTO events SELECT u, 1, '2024-01-02' FROM generate_series(1, 100) u;
ANALYZE events;
SELECT subject, severity, finding, remedy FROM rec_check('parted') ORDER BY 1;
INSERT INTO rec.model (recommender_id, name, family, state) SELECT recommender_id, 'left behind', 'graph', 'training' FROM rec.recommender WHERE name = 'parted';
SELECT subject, severity, finding, remedy FROM rec_check('parted') ORDER BY 1;
SELECT name, state, reason FROM rec.models WHERE recommender = 'parted' AND state <> 'ready' ORDER BY name;
SELECT rec_deploy('left behind', 'parted');
SELECT rec_drop_model('left behind', 'parted');

-- Two time columns need a word; one does not.
CREATE TABLE two_times (user_id text, item_id text, seen timestamptz, paid timestamptz);
SELECT rec_create('timed', interactions => 'two_times');
SELECT rec_create('timed', interactions => 'two_times', time_column => 'paid', order_column => 'seen');
SELECT order_columns, time_column FROM rec.recommender WHERE name = 'timed';

-- The relation is gone.
DROP TABLE events;
SELECT * FROM parted.rec_next(1);
SELECT * FROM rec_check('parted') ORDER BY finding;
SELECT rec_drop('parted');

-- Binding and dropping never touch the application's tables, and a failed call leaves nothing.
SELECT rec_drop('orders', tables => true);
SELECT count(*) FROM sold;
SELECT rec_create('half', interactions => 'sold', user_column => 'nobody');
SELECT to_regnamespace('half') IS NULL AS nothing_left;
BEGIN;
SELECT rec_create('undone');
ROLLBACK;
SELECT to_regnamespace('undone') IS NULL AS nothing_left;
SELECT rec_create('it''s; DROP TABLE sold; --');
SELECT * FROM "it's; DROP TABLE sold; --".rec_next(1);
SELECT rec_drop('it''s; DROP TABLE sold; --', tables => true);
SELECT count(*) FROM sold;
