//! What a training reads is the same whatever memory it may take.
#![allow(clippy::unwrap_used)]

use pgrec_tests::each_database;

#[test]
fn histories_that_outgrow_memory_give_the_same_model() {
    each_database(|database| {
        // 12 bytes an event, of which the smallest bound holds less than half.
        database.run(
            "CREATE TABLE event (user_id bigint, item_id bigint, at timestamptz);
             INSERT INTO event SELECT u, 1 + floor(500 * random() ^ 2), to_timestamp(86400 * n + u)
             FROM generate_series(1, 2000) u, generate_series(1, 100) n;
             SELECT rec_create('large', 'event', time_column => 'at')",
        );
        for family in ["popularity", "graph"] {
            let checksum = |memory: &str| {
                let model = format!("{family} in {memory}");
                let mut session = database.session();
                session.run(&format!("SET rec.training_memory = '{memory}'"));
                let reply =
                    session.run(&format!("CALL rec_train('{family}', recommender => 'large', model => '{model}')"));
                assert_eq!(reply.sqlstate, None, "{}", reply.text);
                database.ask(&format!("SELECT checksum FROM rec.models WHERE name = '{model}'"))
            };
            assert_eq!(checksum("1MB"), checksum("1GB"), "{family}");
        }
    });
}

#[test]
fn a_model_too_large_for_its_memory_fails_with_what_to_do() {
    each_database(|database| {
        database.run(
            "CREATE TABLE event (user_id bigint, item_id bigint, n bigint);
             INSERT INTO event SELECT u, 1 + floor(5000 * random()), n FROM generate_series(1, 500) u, generate_series(1, 20) n;
             SELECT rec_create('wide', 'event', order_column => 'n')",
        );
        let mut session = database.session();
        session.run("SET rec.training_memory = '1MB'");
        let refused = session.run("CALL rec_train('sasrec', recommender => 'wide', model => 'm')");
        assert!(refused.text.contains("out of training memory"), "{}", refused.text);
        assert!(refused.text.contains("rec.training_memory"), "{}", refused.text);
        let reason = database.ask("SELECT state || ': ' || reason FROM rec.models WHERE name = 'm'");
        assert!(reason.starts_with("failed: out of training memory"), "{reason}");
    });
}
