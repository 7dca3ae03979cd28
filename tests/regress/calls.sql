-- Calls at the edge of sense, on a shop small enough to know every answer: item 10 was touched three times, 20
-- twice, 30 and 40 once, 50 never.
SELECT rec_create('tiny');
SET rec.recommender = 'tiny';
INSERT INTO tiny.item (item_id, title, attributes) VALUES
    (10, 'ten', '["round", "red"]'), (20, 'twenty', '["round"]'), (30, 'thirty', '["red"]'), (40, 'forty', '["blue"]'),
    (50, 'fifty', '["blue", "round"]');
INSERT INTO tiny.interaction (user_id, item_id, at) VALUES
    (1, 10, '2024-01-01'), (1, 20, '2024-01-02'), (1, 30, '2024-01-03'),
    (2, 10, '2024-01-01'), (2, 20, '2024-01-02'),
    (3, 10, '2024-01-01'),
    (4, 40, '2024-01-01');
CALL rec_train('popularity', '{"half_life": null}', model => 'counts', deploy => true);

-- A user with a history, one without, one nobody knows, and NULL.
SELECT * FROM rec_next(1);
SELECT * FROM rec_next(2);
SELECT * FROM rec_next(99);
SELECT * FROM rec_next(-9223372036854775808);
SELECT * FROM rec_next(NULL);

-- k.
SELECT * FROM rec_next(99, 2);
SELECT count(*) FROM rec_next(99, 0);
SELECT count(*) FROM rec_next(99, NULL);
SELECT count(*) FROM rec_next(99, 1000);
SELECT count(*) FROM rec_next(99, 2147483647);
SELECT count(*) FROM rec_next_many('{1,2,99}', 0);
SELECT count(*) FROM rec_next_session('{10}', 0);
SELECT count(*) FROM rec_similar(10, 0, model => NULL);

-- exclude_seen, exclude, candidates, and all of them.
SELECT * FROM rec_next(1, exclude_seen => false);
SELECT * FROM rec_next(1, exclude_seen => NULL);
SELECT * FROM rec_next(99, exclude => '{10,10,NULL,77}');
SELECT * FROM rec_next(99, exclude => '{}');
SELECT * FROM rec_next(99, candidates => '{40,20,20,NULL,77}');
SELECT * FROM rec_next(99, candidates => '{}');
SELECT * FROM rec_next(99, candidates => '{77}');
SELECT * FROM rec_next(99, candidates => NULL, exclude => NULL);
SELECT * FROM rec_next(1, candidates => '{10,40,50}', exclude => '{50}');
SELECT * FROM rec_next(1, candidates => '{10,40,50}', exclude => '{50}', exclude_seen => false);
SELECT * FROM rec_next(99, candidates => ARRAY(SELECT item_id FROM tiny.item WHERE attributes ? 'blue'));
SELECT * FROM rec_next(99, candidates => '{{10,20},{30,40}}');

-- Sessions.
SELECT * FROM rec_next(99, session => '{10,77,NULL}');
SELECT * FROM rec_next(3, session => '{20}');
SELECT * FROM rec_next(3, session => '{20}', exclude_seen => false, k => 2);
SELECT * FROM rec_next_session('{10,10,20}');
SELECT * FROM rec_next_session('{}');
SELECT * FROM rec_next_session(NULL);
SELECT * FROM rec_next_session('{77}');
SELECT * FROM rec_next_session('{10}', candidates => '{10,20}', exclude_seen => false);

-- Many users, each once and in the order given.
SELECT * FROM rec_next_many('{4,1,4,NULL,99}', 2);
SELECT * FROM rec_next_many('{}');
SELECT * FROM rec_next_many(NULL);
SELECT * FROM rec_next_many('{1,99}', 10, candidates => '{10,40}', exclude => '{40}');
SELECT count(*) AS different_from_rec_next
FROM rec_next_many(ARRAY(SELECT generate_series(1, 5)::bigint)) m
FULL JOIN (SELECT u, n.* FROM generate_series(1, 5) u, rec_next(u) n) s ON (m.user_id, m.rank, m.item_id, m.score) = (s.u, s.rank, s.item_id, s.score)
WHERE m.rank IS NULL OR s.rank IS NULL;

-- Scores of given items: each once, unknown ones last.
SELECT * FROM rec_score(99, '{40,10,10,77,NULL,20}');
SELECT * FROM rec_score(1, '{10,77}');
SELECT * FROM rec_score(NULL, '{10}');
SELECT * FROM rec_score(1, '{}');
SELECT * FROM rec_score(1, NULL);

-- Items that are no longer there, and items the model has not seen.
DELETE FROM tiny.item WHERE item_id = 10;
SELECT * FROM rec_next(99);
SELECT * FROM rec_next(99, 1);
SELECT * FROM rec_next_many('{99}', 1);
SELECT * FROM rec_next(99, candidates => '{10,20}');
INSERT INTO tiny.item (item_id, title) VALUES (10, 'ten again'), (60, 'sixty');
SELECT * FROM rec_next(99);
INSERT INTO tiny.interaction (user_id, item_id) VALUES (5, 60), (5, 77);
SELECT * FROM rec_next(5);
DELETE FROM tiny.item;
SELECT * FROM rec_next(99);
INSERT INTO tiny.item (item_id, title) SELECT n, 'item ' || n FROM generate_series(10, 60, 10) n;

-- A model that looks at histories, with the chain that answers when it cannot.
CALL rec_train('graph', model => 'paths', deploy => true);
SELECT rank, item_id FROM rec_next(3, 1);
SELECT rank, item_id, score FROM rec_next(99);
SELECT count(*), count(DISTINCT item_id), min(rank), max(rank) FROM rec_next(2, 10);
SELECT rec_explain(99, 10) - 'reasons' AS explained;
SELECT rec_explain(3, 20) - 'reasons' - 'score' AS explained;
SELECT rec_explain(99, 20, session => '{10}') - 'reasons' - 'score' AS explained;
SELECT rec_explain(5, 10) - 'reasons' - 'score' AS explained;
SELECT rec_explain(3, 77) AS explained;
SELECT rec_explain(3, NULL) IS NULL AS nothing;
SELECT rec_explain(NULL, 10) ->> 'answered_by' AS answered_by;
SELECT count(*) FROM rec_similar(77);
SELECT count(*) FROM rec_similar(NULL);
SELECT bool_and(item_id <> 10) AS without_itself, count(*) > 0 AS some FROM rec_similar(10);
SELECT item_id FROM rec_similar(10, candidates => '{20}');
SELECT count(*) FROM rec_similar(10, exclude => '{10,20,30,40,50,60}');

-- An encoder: a score is the inner product with the item's vector, so the user's vector is as long as theirs.
SET rec.recommender = 'shop';
SELECT vector_dims(rec_encode(1, model => 'encoder'));
SELECT rec_encode(99999, model => 'encoder') IS NULL AS nothing;
SELECT rec_encode(NULL, model => 'encoder') IS NULL AS nothing;
SELECT vector_dims(rec_encode(NULL, session => '{1}', model => 'encoder'));
SELECT count(*) FROM rec_next(1, 1000, model => 'encoder', exclude_seen => false);
SELECT rec_explain(1, 1, model => 'encoder') ->> 'answered_by' AS answered_by;

-- In queries.
SELECT n.rank, i.title FROM rec_next(99, 3, recommender => 'tiny') n JOIN tiny.item i USING (item_id) ORDER BY rank;
SELECT u.user_id, n.item_id FROM (VALUES (1), (99)) u(user_id), LATERAL rec_next(u.user_id, 1, recommender => 'tiny', model => 'counts') n ORDER BY 1;
SELECT (rec_next(99, 1, recommender => 'tiny')).item_id;
SELECT rank FROM rec_next(99, 100, recommender => 'tiny') LIMIT 1;
BEGIN READ ONLY;
SELECT count(*) FROM rec_next(99, recommender => 'tiny');
COMMIT;
DECLARE two CURSOR WITH HOLD FOR SELECT item_id FROM rec_next_many('{99,98}', 2, model => 'counts', recommender => 'tiny');
FETCH 3 FROM two;
CLOSE two;

-- The registry.
SET rec.recommender = 'tiny';
SELECT name, family, state, deployed, items, cut - 'max_time' AS cut, params FROM rec.models WHERE recommender = 'tiny' ORDER BY name;
SELECT rec_deploy('counts');
SELECT rec_deploy('counts');
SELECT rec_rollback();
SELECT rec_rollback();
SELECT rec_drop_model('counts');
CALL rec_train('popularity');
CALL rec_train('popularity', recommender => 'tiny');
SELECT rec_drop_model('popularity_1');
CALL rec_train('popularity');
SELECT name FROM rec.models WHERE recommender = 'tiny' ORDER BY name;
SELECT family, trains FROM rec_families();
SELECT rec_drop('tiny');
SELECT count(*) AS kept FROM tiny.interaction;
SELECT rec_create('tiny', interactions => 'tiny.interaction', order_column => 'position', items => 'tiny.item', title_column => 'title');
SELECT rec_drop('tiny', tables => true);
SELECT count(*) AS kept FROM tiny.interaction;
SELECT rec_drop('shop', tables => true);
SELECT to_regnamespace('shop') AS schema_left, count(*) AS models_left FROM rec.model;
