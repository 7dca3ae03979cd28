//! Published vectors: what is near, for whom, and what has come since.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, each_database};

/// A space that knows items by their embeddings, deployed and published.
fn publish(database: &Database<'_>) {
    database.run(
        "CALL rec_train('cml', '{\"features\": \"embedding\", \"epochs\": 8, \"dim\": 16, \"leave_last\": 2}', 'shop', 'space', true)",
    );
    assert_eq!(
        database.ask("SELECT * FROM rec_publish_vectors()"),
        database.ask("SELECT (SELECT count(*) FROM shop.item), (SELECT count(DISTINCT user_id) FROM shop.interaction)")
    );
}

#[test]
fn what_is_published_is_a_metric_space_and_says_what_the_model_says() {
    each_database(|database| {
        publish(database);
        // The unit ball, and the triangle inequality, of what is stored: sums in double precision of numbers in single.
        let ball = "SELECT bool_and(vector_norm(embedding) <= 1) FROM
            (SELECT embedding FROM shop.item_vector UNION ALL SELECT embedding FROM shop.user_vector) all_vectors";
        assert_eq!(database.ask(ball), "t");
        let triangles = "WITH chosen AS (
                (SELECT embedding AS e FROM shop.item_vector ORDER BY random() LIMIT 40)
                UNION ALL (SELECT embedding FROM shop.user_vector ORDER BY random() LIMIT 40))
            SELECT bool_and((a.e <-> c.e) <= (a.e <-> b.e) + (b.e <-> c.e) + 1e-6),
                bool_and((a.e <-> b.e) = (b.e <-> a.e)), bool_and((a.e <-> a.e) = 0), count(*)
            FROM chosen a, chosen b, chosen c";
        assert_eq!(database.ask(triangles), "t|t|t|512000");
        // A user's published vector is the one that the model computes.
        let apart = "SELECT max(embedding <-> rec_encode(user_id)) < 1e-6, count(*) > 50 FROM shop.user_vector";
        assert_eq!(database.ask(apart), "t|t");
        for user in [1, 7, 30] {
            let near = database.ask(&format!("SELECT item_id FROM rec_near({user}, 10)"));
            assert_eq!(near, database.ask(&format!("SELECT item_id FROM rec_next({user}, 10)")), "user {user}");
            let by_sql = format!(
                "SELECT item_id FROM shop.item_vector v
                 WHERE NOT EXISTS (SELECT FROM shop.interaction i WHERE i.user_id = {user} AND i.item_id = v.item_id)
                 ORDER BY embedding <-> rec_encode({user}) LIMIT 10"
            );
            assert_eq!(near, database.ask(&by_sql), "user {user}");
            let alike = format!(
                "SELECT bool_and(abs(score + distance ^ 2) < 1e-5) FROM rec_near({user}, 10) JOIN rec_next({user}, 10) USING (rank)"
            );
            assert_eq!(database.ask(&alike), "t");
        }
        // The order of the view is the index's.
        for (view, key) in [("item_vector", "item_id"), ("user_vector", "user_id")] {
            let plan = format!(
                "SET enable_seqscan = off; EXPLAIN SELECT {key} FROM shop.{view} ORDER BY embedding <-> rec_encode(1) LIMIT 5"
            );
            assert!(database.ask(&plan).contains("Index Scan using"), "{plan}");
        }
        // More than there is, nothing, and somebody of whom nothing is known.
        let all = database.ask("SELECT count(*) FROM rec_near(7, 100000, exclude_seen => false)");
        assert_eq!(all, database.ask("SELECT count(*) FROM shop.item_vector"));
        assert_eq!(database.ask("SELECT count(*) FROM rec_near(7, 0)"), "0");
        assert_eq!(database.ask("SELECT count(*) FROM rec_near(-1, 10)"), "0");
        // What the session touched moves the user, and is left out with what the caller leaves out.
        let first = database.items("SELECT rank, item_id, distance FROM rec_near(7, 3)");
        let [a, b, c] = first[..] else { panic!("{first:?}") };
        let rest = database.items(&format!(
            "SELECT rank, item_id, distance FROM rec_near(7, 20, exclude => ARRAY[{a}], session => ARRAY[{b}])"
        ));
        assert!(!rest.contains(&a) && !rest.contains(&b) && rest.contains(&c), "{first:?} {rest:?}");
    });
}

#[test]
fn an_item_inserted_a_moment_ago_is_recommended_and_has_an_audience() {
    each_database(|database| {
        publish(database);
        let listed = |user: i64, more: &str| {
            database.ask(&format!("SELECT count(*) FROM rec_next({user}, 10{more}) WHERE item_id = 9001"))
        };
        // Like the item that somebody is to be recommended next.
        let like = database.items("SELECT * FROM rec_next(7, 1)")[0];
        let insert = format!(
            "INSERT INTO shop.item (item_id, embedding) SELECT 9001, embedding FROM shop.item WHERE item_id = {like};"
        );
        let around = |script: &str| database.ask(&format!("BEGIN; {insert} {script}; ROLLBACK"));
        assert_eq!(around("SELECT count(*) FROM rec_next(7, 10) WHERE item_id = 9001"), "0");
        database.run(
            "CREATE TRIGGER place AFTER INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_place_item();
             CREATE TRIGGER place AFTER INSERT ON shop.interaction FOR EACH ROW EXECUTE FUNCTION rec_place_user()",
        );
        // In the transaction that inserts it; nowhere, once that is rolled back.
        let rank = around("SELECT rank <= 10 FROM rec_next(7, 50) WHERE item_id = 9001");
        assert!(rank == "t" || rank == "f", "{rank:?}");
        assert_eq!(database.ask("SELECT count(*) FROM shop.item_vector WHERE item_id = 9001"), "0");

        database.run(&insert);
        assert_eq!(database.ask("SELECT trained FROM shop.item_vector WHERE item_id = 9001"), "f");
        // Where it is in the list is what its vector says.
        let right = "SELECT count(*) FROM generate_series(1, 30) u
            WHERE (SELECT array_agg(item_id ORDER BY rank) FROM rec_next(u, 10)) IS DISTINCT FROM
                  (SELECT array_agg(item_id ORDER BY rank) FROM rec_near(u, 10))";
        assert_eq!(database.ask(right), "0");
        let many = "SELECT count(*) FROM rec_next_many(ARRAY(SELECT generate_series(1, 30)), 10) m
            FULL JOIN (SELECT u, n.* FROM generate_series(1, 30) u, rec_next(u, 10) n) n
                ON (m.user_id, m.rank, m.item_id) = (n.u, n.rank, n.item_id) WHERE m.rank IS NULL OR n.rank IS NULL";
        assert_eq!(database.ask(many), "0");
        assert_ne!(
            database.ask("SELECT count(*) FROM generate_series(1, 100) u, rec_next(u, 10) WHERE item_id = 9001"),
            "0"
        );
        let score = "SELECT abs(s.score + (v.embedding <-> rec_encode(7)) ^ 2) < 1e-5
            FROM rec_score(7, ARRAY[9001]) s JOIN shop.item_vector v USING (item_id)";
        assert_eq!(database.ask(score), "t");
        assert_eq!(listed(7, ", candidates => ARRAY[9001, 9002]"), "1");
        assert_eq!(listed(7, ", candidates => ARRAY[9001], exclude => ARRAY[9001]"), "0");
        assert_eq!(listed(7, ", candidates => ARRAY[3]"), "0");
        // Its embedding moves it.
        let place = "SELECT embedding FROM shop.item_vector WHERE item_id = 9001";
        let before = database.ask(place);
        database.run(
            "UPDATE shop.item SET embedding = (SELECT embedding FROM shop.item WHERE item_id = 5) WHERE item_id = 9001",
        );
        assert_ne!(before, database.ask(place));

        // Without content it is nowhere.
        let without = "BEGIN; UPDATE shop.item SET embedding = NULL WHERE item_id = 9001;
            SELECT count(*) FROM shop.item_vector WHERE item_id = 9001; ROLLBACK";
        assert_eq!(database.ask(without), "0");

        // Why it is there: what content says, as far as the model can tell.
        let why = "SELECT e ->> 'placed', (e ->> 'score')::real = s.score, (e ->> 'rank')::integer IS NOT DISTINCT FROM
                (SELECT rank FROM rec_next(7, 10) WHERE item_id = 9001)
            FROM rec_explain(7, 9001) e, rec_score(7, ARRAY[9001]) s";
        assert_eq!(database.ask(why), "true|t|t");

        // Its audience: nearest first, likelier the nearer, and the same as of its content alone.
        let audience = "SELECT count(*), bool_and(distance >= before), bool_and(probability <= likelier),
                bool_and(probability > 0 AND probability < 1), bool_and(distance_is_right)
            FROM (SELECT distance, probability, lag(distance, 1, 0) OVER (ORDER BY rank) AS before,
                    lag(probability, 1, 1) OVER (ORDER BY rank) AS likelier,
                    abs(distance - (v.embedding <-> u.embedding)) < 1e-6 AS distance_is_right
                FROM rec_audience(9001, 20) a JOIN shop.user_vector u USING (user_id), shop.item_vector v
                WHERE v.item_id = 9001) rows";
        assert_eq!(database.ask(audience), "20|t|t|t|t");
        let described = "SELECT rank, user_id FROM rec_audience(embedding => (SELECT embedding FROM shop.item WHERE item_id = 9001), k => 20)";
        let first: i64 = database.ask("SELECT user_id FROM rec_audience(9001, 1)").parse().unwrap();
        assert_eq!(database.ask(described), database.ask("SELECT rank, user_id FROM rec_audience(9001, 20)"));
        // Whoever touches it is moved by nothing that the model knows, and no longer of those who may want it.
        let in_audience = |more: &str| {
            database.ask(&format!("SELECT count(*) FROM rec_audience(9001, 20{more}) WHERE user_id = {first}"))
        };
        assert_eq!(in_audience(""), "1");
        database.run(&format!("INSERT INTO shop.interaction (user_id, item_id) VALUES ({first}, 9001)"));
        assert_eq!((in_audience("").as_str(), in_audience(", exclude_seen => false").as_str()), ("0", "1"));
        assert_eq!(listed(first, ", candidates => ARRAY[9001]"), "0");
        assert_eq!(listed(first, ", candidates => ARRAY[9001], exclude_seen => false"), "1");
        // Any other event moves them at once.
        let vector = format!("SELECT embedding, events FROM shop.user_vector WHERE user_id = {first}");
        let before = database.ask(&vector);
        database.run(&format!("INSERT INTO shop.interaction (user_id, item_id) VALUES ({first}, 5)"));
        assert_ne!(before, database.ask(&vector));
        let right =
            format!("SELECT embedding <-> rec_encode({first}) < 1e-6 FROM shop.user_vector WHERE user_id = {first}");
        assert_eq!(database.ask(&right), "t");
        // Somebody new with three events is somewhere.
        database.run("INSERT INTO shop.interaction (user_id, item_id) VALUES (8001, 3), (8001, 5), (8001, 9)");
        assert_eq!(database.ask("SELECT events FROM shop.user_vector WHERE user_id = 8001"), "3");
        assert_eq!(database.ask("SELECT count(*) FROM rec_near(8001, 10)"), "10");
        assert_eq!(database.ask("SELECT rec_forget(8001), rec_forget(8001)"), "t|f");
        // An item that is gone is nowhere to be found.
        database.run("DELETE FROM shop.interaction WHERE item_id = 9001; DELETE FROM shop.item WHERE item_id = 9001");
        assert_eq!(
            database.ask("SELECT count(*) FROM generate_series(1, 100) u, rec_next(u, 10) WHERE item_id = 9001"),
            "0"
        );
        assert_eq!(database.ask("SELECT count(*) FROM rec_near(7, 10000) WHERE item_id = 9001"), "0");
        assert_eq!(database.ask("SELECT count(*) FROM rec_audience(9001)"), "0");
    });
}

#[test]
fn without_triggers_a_refresh_brings_vectors_up_to_date() {
    each_database(|database| {
        publish(database);
        assert_eq!(database.ask("SELECT * FROM rec_refresh_vectors()"), "0|0");
        database.run(
            "INSERT INTO shop.item (item_id, embedding) SELECT 9000 + item_id, embedding FROM shop.item WHERE item_id <= 3;
             INSERT INTO shop.item (item_id) VALUES (9100);
             INSERT INTO shop.interaction (user_id, item_id) VALUES (7, 3), (8001, 3);
             DELETE FROM shop.interaction WHERE user_id = 9",
        );
        assert_eq!(database.ask("SELECT * FROM rec_refresh_vectors()"), "3|2");
        assert_eq!(
            database.ask("SELECT array_agg(item_id ORDER BY item_id) FROM shop.item_vector WHERE NOT trained"),
            "{9001,9002,9003}"
        );
        let there = "SELECT array_agg(user_id ORDER BY user_id) FROM shop.user_vector WHERE user_id IN (7, 9, 8001)";
        assert_eq!(database.ask(there), "{7,8001}");
        database.run("DELETE FROM shop.item WHERE item_id = 9002");
        assert_eq!(database.ask("SELECT * FROM rec_refresh_vectors()"), "0|0");
        assert_eq!(database.ask("SELECT count(*) FROM shop.item_vector WHERE NOT trained"), "2");
    });
}

#[test]
fn vectors_of_products_are_published_too_and_steer_lists() {
    each_database(|database| {
        for (family, features) in [("sasrec", "embedding"), ("hstu", "none"), ("bpr", "none")] {
            let content = if features == "none" { String::new() } else { format!("\"features\": \"{features}\", ") };
            let epochs = if family == "bpr" { 20 } else { 2 };
            let params = format!("{{{content}\"epochs\": {epochs}, \"dim\": 16}}");
            database.run(&format!("CALL rec_train('{family}', '{params}', 'shop', 'space_{family}', true)"));
            database.run("SELECT rec_publish_vectors()");
            assert_eq!(
                database.ask("SELECT item_id FROM rec_near(7, 10)"),
                database.ask("SELECT item_id FROM rec_next(7, 10)"),
                "{family}"
            );
            assert_eq!(database.ask("SELECT count(*), count(probability) FROM rec_audience(5, 10)"), "10|0");
            // All of the way to what is meant, only that counts; none of it, it does not.
            let plain = database.ask("SELECT item_id FROM rec_next(7, 10)");
            let meant = match features {
                "none" => "rec_encode(30)",
                _ => "(SELECT embedding FROM shop.item WHERE item_id = 5)",
            };
            let steered = |user: &str, weight: &str| {
                database.ask(&format!(
                    "SELECT item_id FROM rec_next({user}, 10, exclude_seen => false, steer => {meant}, weight => {weight})"
                ))
            };
            assert_eq!(steered("7", "1"), steered("30", "1"), "{family}");
            assert_eq!(steered("7", "1"), steered("-5", ".3"), "{family}");
            let seen = database.ask("SELECT item_id FROM rec_next(7, 10, exclude_seen => false)");
            assert_eq!(steered("7", "0"), seen, "{family}");
            assert_ne!(steered("7", "1"), seen, "{family}");
            assert_ne!(plain, "");
        }
        let message = database.fails("SELECT * FROM rec_next(7, 10, steer => ARRAY[1, 2]::real[])");
        assert!(message.contains("steer has 2 dimensions"), "{message}");
        let message = database.fails("SELECT * FROM rec_next(7, 10, steer => rec_encode(7), weight => 2)");
        assert!(message.contains("weight is a share from 0 to 1"), "{message}");
        let message = database.fails("SELECT * FROM rec_next(7, 10, steer => rec_encode(7), model => 'tgh')");
        assert!(message.contains("no vectors that make its scores"), "{message}");
    });
}

#[test]
fn who_may_not_read_users_gets_no_audience() {
    each_database(|database| {
        publish(database);
        let role = database.role("near_reader");
        database.run(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role}; GRANT SELECT ON shop.interaction, shop.item TO {role}"
        ));
        let as_reader = |script: &str| format!("SET ROLE {role}; {script}");
        assert_eq!(database.ask(&as_reader("SELECT count(*) FROM rec_near(7, 10)")), "10");
        let message = database.fails(&as_reader("SELECT * FROM rec_audience(5)"));
        assert!(message.contains("permission denied for view user_vector"), "{message}");
        for refused in ["rec_publish_vectors()", "rec_refresh_vectors()", "rec_unpublish_vectors()", "rec_forget(7)"] {
            let message = database.fails(&as_reader(&format!("SELECT {refused}")));
            assert!(message.contains("must be owner of recommender"), "{message}");
        }
        database.run(&format!("GRANT SELECT ON shop.user_vector TO {role}"));
        assert_eq!(database.ask(&as_reader("SELECT count(*) FROM rec_audience(5, 10)")), "10");
        // The grant outlives the next publication.
        database.run("SELECT rec_publish_vectors()");
        assert_eq!(database.ask(&as_reader("SELECT count(*) FROM rec_audience(5, 10)")), "10");
        // Whoever may insert items need not be able to read them.
        database.run(&format!(
            "CREATE TRIGGER place AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_place_item();
             REVOKE SELECT ON shop.item FROM {role}; GRANT INSERT ON shop.item TO {role}"
        ));
        let dimension = database.ask("SELECT vector_dims(embedding) FROM shop.item LIMIT 1");
        database.run(&as_reader(&format!("INSERT INTO shop.item (item_id, embedding) VALUES (9001, array_fill(1, ARRAY[{dimension}])::real[]::vector)")));
        assert_eq!(database.ask("SELECT count(*) FROM shop.item_vector WHERE item_id = 9001"), "1");
        database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    });
}

#[test]
fn what_hinders_is_said_and_what_is_dropped_leaves_nothing_behind() {
    each_database(|database| {
        for call in ["rec_near(7)", "rec_audience(5)", "rec_refresh_vectors()"] {
            let message = database.fails(&format!("SELECT * FROM {call}"));
            assert!(
                message.contains("has published no vectors") && message.contains("rec_publish_vectors"),
                "{message}"
            );
        }
        let message = database.fails("SELECT rec_publish_vectors()");
        assert!(message.contains("no vectors that make its scores"), "{message}");
        assert_eq!(database.ask("SELECT rec_unpublish_vectors()"), "f");
        database.run("CALL rec_train('cml', '{\"epochs\": 1, \"dim\": 8}', 'shop', 'plain')");
        assert_eq!(database.ask("SELECT users FROM rec_publish_vectors('plain', users => false)"), "0");
        let message = database.fails("SELECT * FROM rec_audience(5)");
        assert!(message.contains("has published no vectors of users"), "{message}");
        database.run("SELECT rec_publish_vectors('plain')");
        let message = database.fails("SELECT * FROM rec_audience(embedding => ARRAY[1, 2]::real[])");
        assert!(message.contains("does not know items by their content"), "{message}");
        let message = database.fails("SELECT * FROM rec_audience(5, attributes => ARRAY['a'])");
        assert!(message.contains("an audience of an item, or of what"), "{message}");
        assert_eq!(database.ask("SELECT count(*) FROM rec_audience(NULL)"), "0");
        assert_eq!(database.ask("SELECT count(*) FROM rec_audience(-77)"), "0");
        assert!(database.fails("SELECT * FROM rec_near(7, -1)").contains("k must not be negative"));
        // Another model serves: it is said, and its lists do not look there.
        let finding = "SELECT finding, remedy FROM rec_check('shop') WHERE subject = 'vectors of shop'";
        assert!(database.ask(finding).contains("another model than \"tgh\""));
        let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relname ~ '_vector'";
        assert_ne!(database.ask(tables), "0");
        // A trigger where nothing is published any more hinders nobody.
        database.run(
            "CREATE TRIGGER place AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_place_item();
             CREATE TRIGGER place AFTER INSERT ON shop.interaction FOR EACH ROW EXECUTE FUNCTION rec_place_user();
             SELECT rec_drop_model('plain');
             INSERT INTO shop.item (item_id) VALUES (9001);
             INSERT INTO shop.interaction (user_id, item_id) VALUES (7, 9001)",
        );
        assert_eq!(database.ask(tables), "0");
        assert_eq!(database.ask("SELECT count(*) FROM rec.publication"), "0");
        publish(database);
        // What cannot be placed is said, and the item is in.
        let warning = database.cluster.psql_in(
            &database.name,
            "SET client_min_messages = error; INSERT INTO shop.item (item_id, embedding) VALUES (9002, NULL)",
        );
        assert!(warning.is_ok());
        database
            .run("DROP TRIGGER place ON shop.item; DROP TRIGGER place ON shop.interaction; SELECT rec_drop('shop')");
        assert_eq!(database.ask(tables), "0");
    });
}

#[test]
fn ids_of_any_type_have_vectors_and_audiences() {
    each_database(|database| {
        database.run(
            "SELECT rec_create('people', user_type => 'uuid', item_type => 'text', dimension => 4);
             INSERT INTO people.item (item_id, embedding)
                SELECT 'i' || n, ARRAY[cos(n), sin(n), cos(2 * n), sin(2 * n)]::real[]::vector FROM generate_series(1, 40) n;
             INSERT INTO people.interaction (user_id, item_id)
                SELECT ('00000000-0000-0000-0000-' || lpad(u::text, 12, '0'))::uuid, 'i' || 1 + (u * 7 + e * (1 + u % 3)) % 40
                FROM generate_series(1, 60) u, generate_series(1, 6) e;
             CALL rec_train('cml', '{\"features\": \"embedding\", \"epochs\": 4, \"dim\": 8}', 'people', 'space', true);
             SELECT rec_publish_vectors(recommender => 'people');
             CREATE TRIGGER place AFTER INSERT ON people.item FOR EACH ROW EXECUTE FUNCTION rec_place_item('people');
             CREATE TRIGGER place AFTER INSERT ON people.interaction FOR EACH ROW EXECUTE FUNCTION rec_place_user('people');
             INSERT INTO people.item (item_id, embedding) VALUES ('new', '[1, 0, 1, 0]')",
        );
        let user = "'00000000-0000-0000-0000-000000000007'";
        let near = database.ask(&format!("SELECT item_id FROM people.rec_near({user}, 10)"));
        assert_eq!(near, database.ask(&format!("SELECT item_id FROM people.rec_next({user}, 10)")));
        assert_eq!(database.ask("SELECT count(*) FROM people.rec_audience('new', 10)"), "10");
        let described = "SELECT array_agg(user_id ORDER BY rank) FROM people.rec_audience(embedding => '[1,0,1,0]'::vector, k => 5)";
        let of_item = "SELECT array_agg(user_id ORDER BY rank) FROM people.rec_audience('new', 5)";
        assert_eq!(database.ask(described), database.ask(of_item));
        database
            .run(&format!("INSERT INTO people.interaction (user_id, item_id) VALUES ({user}, 'i3'), ({user}, 'new')"));
        let right = format!(
            "SELECT embedding <-> people.rec_encode({user}) < 1e-6 FROM people.user_vector WHERE user_id = {user}"
        );
        assert_eq!(database.ask(&right), "t");
        assert_eq!(
            database.ask(&format!("SELECT count(*) FROM people.rec_near({user}, 100) WHERE item_id = 'new'")),
            "0"
        );
        assert_eq!(database.ask("SELECT * FROM rec_refresh_vectors('people')"), "0|0");
        assert_eq!(database.ask(&format!("SELECT people.rec_forget({user})")), "t");
        let message = database.fails("SELECT * FROM rec_near(7, recommender => 'people')");
        assert!(message.contains("takes bigint ids"), "{message}");
    });
}

#[test]
fn columns_of_vectors_are_compared_and_models_remember_theirs() {
    each_database(|database| {
        // A column that says which of four quarters an item's own vector lies in, and one that says nothing.
        database.run(
            "ALTER TABLE shop.item ADD COLUMN quarter vector(2), ADD COLUMN number vector(2);
             UPDATE shop.item SET quarter = ARRAY[sign((embedding::real[])[1]), sign((embedding::real[])[2])]::vector,
                 number = ARRAY[cos(item_id * 7919), sin(item_id * 7919)]::vector",
        );
        let params = r#"'{"features": "embedding", "epochs": 4, "dim": 16, "content_weight": 30}'"#;
        let compared = database.ask(&format!(
            "SELECT embedding, family, metric, k, value BETWEEN low AND high AND value BETWEEN 0 AND 1
             FROM rec_compare_spaces(ARRAY['embedding', 'number'], 'cml', {params}) WHERE metric IN ('hr', 'ndcg')"
        ));
        let expected = "embedding|cml|hr|10|t\nnumber|cml|hr|10|t\nembedding|cml|ndcg|10|t\nnumber|cml|ndcg|10|t";
        assert_eq!(compared, expected);
        // What says nothing is worth less.
        let values = database.ask(&format!(
            "SELECT value FROM rec_compare_spaces(ARRAY['embedding', 'number'], 'cml', {params}) WHERE metric = 'ndcg'"
        ));
        let values: Vec<f64> = values.lines().map(|value| value.parse().unwrap()).collect();
        assert!(values[0] > values[1], "{values:?}");

        database.run(
            r#"CALL rec_train('cml', '{"features": "embedding", "embedding": "quarter", "epochs": 2, "dim": 8}', 'shop', 'quarters', true);
               SELECT rec_publish_vectors();
               INSERT INTO shop.item (item_id, quarter) VALUES (9001, '[1, -1]')"#,
        );
        assert_eq!(database.ask("SELECT * FROM rec_refresh_vectors()"), "1|0");
        assert_eq!(database.ask("SELECT params ->> 'embedding' FROM rec.models WHERE name = 'quarters'"), "quarter");
        for (column, part) in [("picture", "have no column \"picture\""), ("title", "holds text, not vectors")] {
            let call = format!("CALL rec_train('cml', '{{\"embedding\": \"{column}\"}}')");
            assert!(database.fails(&call).contains(part), "{column}");
        }
    });
}

#[test]
fn who_began_before_a_publication_goes_on_with_the_vectors_of_before() {
    each_database(|database| {
        publish(database);
        database.run(
            "CREATE TRIGGER place AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_place_item();
             INSERT INTO shop.item (item_id, embedding) SELECT 9001, embedding FROM shop.item WHERE item_id = 3",
        );
        let mut session = database.session();
        session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let ask = "SELECT array_agg((item_id, score)) FROM rec_next(7, 20)";
        let near = "SELECT array_agg((item_id, distance)) FROM rec_near(7, 20)";
        let before = (session.ask(ask), session.ask(near));
        let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'shop'::regnamespace AND relname ~ '_vector_'";
        assert_eq!(database.ask(tables), "2");
        database.run("SELECT rec_publish_vectors()");
        assert_eq!((session.ask(ask), session.ask(near)), before);
        assert_eq!(database.ask(tables), "4");
        session.ask("COMMIT");
        // What nobody sees any more goes with the next one.
        database.run("SELECT rec_publish_vectors()");
        assert_eq!(database.ask(tables), "4");
        assert_eq!((session.ask(ask), session.ask(near)), before);
        database.run("SELECT rec_unpublish_vectors()");
        assert_eq!(database.ask(tables), "0");
    });
}

#[test]
fn somebody_who_has_only_touched_what_nothing_is_known_of_gets_what_is_popular() {
    each_database(|database| {
        database.run(
            "INSERT INTO shop.item (item_id) VALUES (9001);
             CALL rec_train('content', '{\"epochs\": 1, \"dim\": 8, \"hidden\": 8}', 'shop', 'by_content', true);
             SELECT rec_publish_vectors();
             CREATE TRIGGER place AFTER INSERT ON shop.interaction FOR EACH ROW EXECUTE FUNCTION rec_place_user();
             INSERT INTO shop.interaction (user_id, item_id) VALUES (8001, 9001)",
        );
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(8001, 5)"), "5");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next_many('{7, 8001}', 5)"), "10");
        assert_eq!(database.ask("SELECT count(*) FROM rec_near(8001, 5)"), "0");
        assert_eq!(database.ask("SELECT count(*) FROM rec_audience(9001, 5)"), "0");
        assert_eq!(database.ask("SELECT rec_explain(8001, 3) ->> 'answered_by'"), "popularity");
        assert_eq!(database.ask("SELECT count(*) FROM shop.user_vector WHERE user_id = 8001"), "0");
        assert_eq!(database.ask("SELECT users FROM rec_refresh_vectors()"), "0");
        // Whoever is left with such events alone is nowhere, too.
        database.run("DELETE FROM shop.interaction WHERE user_id = 7; INSERT INTO shop.interaction (user_id, item_id) VALUES (7, 9001)");
        assert_eq!(database.ask("SELECT count(*) FROM shop.user_vector WHERE user_id = 7"), "0");
    });
}

#[test]
fn a_callers_search_path_puts_nothing_into_what_runs_as_the_owner() {
    each_database(|database| {
        publish(database);
        database
            .run("INSERT INTO shop.item (item_id, embedding) SELECT 9001, embedding FROM shop.item WHERE item_id = 3");
        let role = database.role("path_reader");
        database.run(&format!(
            "CREATE ROLE {role}; CREATE SCHEMA evil AUTHORIZATION {role}; GRANT USAGE ON SCHEMA shop TO {role};
             GRANT SELECT ON shop.interaction, shop.item, shop.user_vector TO {role};
             SET ROLE {role};
             CREATE FUNCTION evil.same(regtype, regtype) RETURNS boolean LANGUAGE plpgsql
                AS $$ BEGIN RAISE EXCEPTION 'runs as %', current_user; END $$;
             CREATE OPERATOR evil.= (LEFTARG = regtype, RIGHTARG = regtype, FUNCTION = evil.same)"
        ));
        let asked = format!(
            "SET ROLE {role}; SET search_path = evil, pg_catalog, public; SELECT count(*) FROM rec_audience(9001, 5, recommender => 'shop')"
        );
        assert_eq!(database.ask(&asked), "5");
        database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    });
}

#[test]
fn partitions_small_ids_and_items_in_several_rows_have_vectors_too() {
    each_database(|database| {
        database.run(
            "CREATE TABLE public.thing (thing_id smallint, v vector(4), label text);
             INSERT INTO thing SELECT n, ARRAY[cos(n), sin(n), cos(2 * n), sin(2 * n)]::real[]::vector, 'l' || n % 3
                FROM generate_series(1, 40) n, generate_series(1, 2);
             CREATE VIEW public.things AS SELECT thing_id, v, to_jsonb(label) AS labels FROM thing;
             CREATE TABLE public.seen (who bigint, thing_id smallint, at timestamptz) PARTITION BY RANGE (at);
             CREATE TABLE public.seen_now PARTITION OF seen FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
             INSERT INTO seen SELECT u, 1 + (u * 7 + e * (1 + u % 3)) % 40, '2026-01-01'::timestamptz + e * interval '1 h'
                FROM generate_series(1, 60) u, generate_series(1, 6) e;
             SET client_min_messages = error;
             SELECT rec_create('parts', interactions => 'public.seen', user_column => 'who', item_column => 'thing_id',
                time_column => 'at', items => 'public.things', item_id_column => 'thing_id', embedding_column => 'v',
                attributes_column => 'labels');
             CALL rec_train('cml', '{\"features\": \"both\", \"epochs\": 2, \"dim\": 8}', 'parts', 'space', true);
             SELECT rec_publish_vectors(recommender => 'parts');
             CREATE TRIGGER place AFTER INSERT ON public.seen FOR EACH ROW EXECUTE FUNCTION rec_place_user('parts');
             INSERT INTO thing SELECT 41, '[1, 0, 1, 0]', 'l' || n FROM generate_series(0, 1) n",
        );
        assert_eq!(database.ask("SELECT * FROM rec_refresh_vectors('parts')"), "1|0");
        // A trigger that warns has not placed anybody.
        database.run("INSERT INTO seen VALUES (7, 3, '2026-02-01'), (99, 5, '2026-02-01')");
        let right = "SELECT count(*) FROM parts.user_vector WHERE user_id IN (7, 99) AND embedding <-> parts.rec_encode(user_id) < 1e-6";
        assert_eq!(database.ask(right), "2");
        assert_eq!(database.ask("SELECT count(*) FROM parts.rec_audience(41, 5)"), "5");
    });
}
