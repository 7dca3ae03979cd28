-- Wrong calls, and the error that each of them gets. The database has the recommender shop with the models
-- popular, tgh (deployed) and encoder.
\set VERBOSITY verbose
CREATE ROLE regress_stranger;
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA shop TO regress_stranger, regress_reader;
GRANT SELECT ON shop.interaction, shop.item TO regress_reader;

-- Names that do not exist.
SELECT * FROM rec_next(1, recommender => 'nowhere');
SET rec.recommender = 'nowhere';
SELECT * FROM rec_next(1);
RESET rec.recommender;
SELECT * FROM rec_next(1, model => 'nothing');
SELECT * FROM rec_next(1, model => '');
SELECT rec_deploy('nothing');
SELECT rec_drop_model('nothing');
SELECT rec_export('nothing');
SELECT rec_drop('nowhere');
SELECT * FROM rec_check('nowhere');
SELECT * FROM rec_audit('nowhere');
SELECT * FROM rec_evaluate('nothing');
CALL rec_train('deep_thought');
CALL rec_train('graph', recommender => 'nowhere');

-- Names that are missing.
SELECT rec_deploy(NULL);
SELECT rec_drop_model(NULL);
SELECT rec_drop(NULL);
SELECT rec_create(NULL);
CALL rec_train(NULL);

-- Numbers that make no sense.
SELECT * FROM rec_next(1, -1);
SELECT * FROM rec_next_many('{1,2}', -1);
SELECT * FROM rec_next_session('{1}', -1);
SELECT * FROM rec_similar(1, -1);
SELECT * FROM rec_evaluate('tgh', k => '{0}');
SELECT * FROM rec_evaluate('tgh', k => '{10,-1}');
SELECT * FROM rec_evaluate('tgh', k => '{}');
SELECT rec_ndcg(ARRAY[1, 2], ARRAY[1], 0);
SELECT rec.metric('bleu', '{1}', '{1}', 1);

-- Types of ids.
SELECT * FROM rec_next('six');
SELECT * FROM rec_next(1.5);
SELECT * FROM shop.rec_next('00000000-0000-0000-0000-000000000001'::uuid);
SELECT rec_create('letters', user_type => 'text', item_type => 'uuid');
SELECT * FROM rec_next(1, recommender => 'letters');
SELECT * FROM rec_similar(1, recommender => 'letters');
CALL rec_train('popularity', recommender => 'letters');
SELECT rec_import('e', '\x00', '{not a uuid}'::text[], recommender => 'letters');
SELECT rec_create('dates', user_type => 'date');
SELECT rec_create('dates', item_type => 'numeric');

-- What a family does not have.
SET rec.recommender = 'shop';
SELECT rec_encode(1);
SELECT rec_encode(1, model => 'popular');
SELECT * FROM rec_similar(1, model => 'popular');
SELECT rec_export('tgh');
CALL rec_train('sasrec', '{"dimension": 64}');

-- Creating.
SELECT rec_create('');
SELECT rec_create('shop');
SELECT rec_create('rec');
SELECT rec_create('pg_shop');
SELECT rec_create('information_schema');
SELECT rec_create(repeat('long', 16));
SELECT rec_create('flat', dimension => 0);
SELECT rec_create('flat', dimension => 16001);
SELECT rec_create('public', interactions => 'shop.nothing');
CREATE SCHEMA taken CREATE TABLE item (x integer);
SELECT rec_create('taken');

-- Binding.
CREATE TABLE orders (customer bigint, article bigint, placed timestamptz, kind text, price money);
CREATE INDEX orders_customer ON orders (customer);
SELECT rec_create('bound', interactions => 'orders');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer');
SELECT rec_create('bound', interactions => 'orders', user_column => 'placed', item_column => 'article');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', time_column => 'kind');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', time_column => 'when');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', order_column => 'number');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', weight_column => 'price');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', action_column => 'what');
SELECT rec_create('bound', interactions => 'orders_customer', user_column => 'customer', item_column => 'article');
ALTER TABLE orders DROP COLUMN placed;
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article');
CREATE TABLE article (id text, name text, v real[]);
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', order_column => 'kind',
    items => 'article');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', order_column => 'kind',
    items => 'article', item_id_column => 'id');
ALTER TABLE article ALTER COLUMN id TYPE bigint USING id::bigint;
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', order_column => 'kind',
    items => 'article', item_id_column => 'id', title_column => 'title');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', order_column => 'kind',
    items => 'article', item_id_column => 'id', attributes_column => 'name');
SELECT rec_create('bound', interactions => 'orders', user_column => 'customer', item_column => 'article', order_column => 'kind',
    items => 'article', item_id_column => 'id', embedding_column => 'v');
SET ROLE regress_stranger;
SELECT rec_create('mine', interactions => 'public.orders', user_column => 'customer', item_column => 'article', order_column => 'kind');
SELECT rec_create('mine');
RESET ROLE;

-- Training.
BEGIN;
CALL rec_train('popularity');
ROLLBACK;
BEGIN;
DO $$ BEGIN CALL rec_train('popularity'); END $$;
ROLLBACK;
CALL rec_train('popularity', '{"halflife": 3}');
CALL rec_train('popularity', '{"half_life": -1}');
CALL rec_train('popularity', '{"half_life": "long"}');
CALL rec_train('graph', '{"depth": 3}');
CALL rec_train('popularity', '[1]');
CALL rec_train('popularity', '{"leave_last": -1}');
CALL rec_train('popularity', '{"leave_last": "two"}');
CALL rec_train('popularity', '{"leave_last": 100000}', model => 'empty');
CALL rec_train('popularity', model => 'tgh');
CALL rec_train('popularity', model => '');
CALL rec_train('popularity', model => 'graph');
SELECT name, family, state, reason FROM rec.models WHERE state <> 'ready' ORDER BY name, reason COLLATE "C";
SELECT count(*) AS trainings_left FROM rec.progress;

-- Deploying.
SELECT rec_deploy('empty');
SELECT * FROM rec_next(1, model => 'empty');
SELECT * FROM rec_evaluate('empty');
SELECT rec_rollback();
SELECT rec_drop_model('tgh');
SELECT rec_create('bare', user_type => 'integer', item_type => 'integer');
SELECT rec_rollback('bare');
SELECT * FROM rec_next(1, recommender => 'bare');
SELECT * FROM rec_evaluate(recommender => 'bare');
SELECT * FROM rec_audit('bare');

-- Several recommenders and none named.
RESET rec.recommender;
SELECT * FROM rec_next(1);
SET rec.recommender = 'shop';

-- Measuring.
CALL rec_train('popularity', model => 'all_seeing');
SELECT * FROM rec_evaluate('all_seeing');
CALL rec_train('popularity', '{"leave_last": 1}', model => 'half_seeing');
SELECT * FROM rec_evaluate('half_seeing', protocol => 'validation');
SELECT * FROM rec_evaluate('sasrec', params => '{"heads": 3}');
SELECT * FROM rec_evaluate('tgh', protocol => 'random');
SELECT * FROM rec_evaluate('tgh', by => 'shoe size');
SELECT * FROM rec_evaluate('graph', params => '{"leave_last": 1}');
SELECT * FROM rec_evaluate('graph', params => '{"nonsense": 1}');
SELECT * FROM rec_evaluate('graph', params => '7');

-- Importing and exporting.
SELECT rec_import('bad', NULL, '{1}'::bigint[]);
SELECT rec_import('bad', '', '{1}'::bigint[]);
SELECT rec_import('bad', 'not a checkpoint at all', '{1}'::bigint[]);
SELECT rec_import('bad', '\xffffffffffffff7f7b7d', '{1}'::bigint[]);
SELECT rec_import('bad', '\x02000000000000007b7d', '{1}'::bigint[]);
SELECT rec_import('bad', rec_export('encoder'), '{1,2}'::bigint[]);
SELECT rec_import('bad', rec_export('encoder'), NULL::bigint[], '{"layers": 2}');
SELECT rec_import('bad', rec_export('encoder'), NULL::bigint[], '[]');
SELECT rec_import('bad', rec_export('encoder'), NULL::bigint[], leave_last => -1);
SELECT rec_import('encoder', rec_export('encoder'), NULL::bigint[]);
SELECT rec_import('', rec_export('encoder'), NULL::bigint[]);
SELECT rec_import(NULL, rec_export('encoder'), NULL::bigint[]);
SELECT rec_import('popularity', rec_export('encoder'), NULL::bigint[]);
SELECT rec_import_file('bad', NULL, '{1}'::bigint[]);
SELECT rec_import_file('bad', '/no/such/file.safetensors', '{1}'::bigint[]);
SELECT rec_import_file('bad', '/', '{1}'::bigint[]);

-- Rights.
SET ROLE regress_stranger;
SELECT * FROM rec_next(1);
SELECT * FROM rec_next_many('{1}');
SELECT * FROM rec_next_session('{1}');
SELECT * FROM rec_score(1, '{1}');
SELECT * FROM rec_similar(1);
SELECT rec_encode(1, model => 'encoder');
SELECT rec_explain(1, 1);
SELECT * FROM shop.rec_next(1);
SELECT * FROM rec_evaluate('tgh');
SELECT * FROM rec_audit();
SELECT data FROM rec.artifact;
INSERT INTO rec.deployment (recommender_id, model_id, deployed_by) VALUES (1, 1, 'me');
RESET ROLE;
SET ROLE regress_reader;
SELECT count(*) FROM rec_next(1);
CALL rec_train('popularity');
SELECT rec_deploy('popular');
SELECT rec_rollback();
SELECT rec_drop_model('popular');
SELECT rec_drop('shop');
SELECT rec_import('mine', '\x00', '{1}'::bigint[]);
SELECT rec_import_file('mine', '/etc/passwd', '{1}'::bigint[]);
SELECT rec_export('encoder');
SELECT data FROM rec.artifact;
RESET ROLE;

-- An owner that is gone, relations that are gone.
UPDATE rec.recommender SET owner = 'regress_nobody' WHERE name = 'bare';
CALL rec_train('popularity', recommender => 'bare');
DROP TABLE bare.item;
DROP TABLE bare.interaction;
SELECT * FROM rec_next(1, model => 'x', recommender => 'bare');
CALL rec_train('popularity', recommender => 'bare');

-- Settings.
SET rec.exact_limit = -1;
SET rec.history_limit = 0;
SET rec.threads = 100000;

DROP OWNED BY regress_stranger, regress_reader;
DROP ROLE regress_stranger, regress_reader;
