//! Networks trained in the database: repeatable, better than what needs no training, continued from day to day.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use pgrec_tests::{Database, each_database};

/// Small and quick.
const PARAMS: &str =
    r#""dim": 16, "blocks": 1, "window": 20, "epochs": 30, "batch": 32, "learning_rate": 0.01, "dropout": 0.1"#;

/// Users who walk through 40 items in steps of 1 or 2, each user in one kind, the same on every server.
fn walks(database: &Database<'_>) {
    database.run(
        "CREATE TABLE event (user_id bigint, item_id bigint, n bigint);
         INSERT INTO event SELECT u, 100 + (u * 7 + n * (1 + u % 2)) % 40, n
         FROM generate_series(1, 600) u, generate_series(1, 12) n WHERE n < 4 + u % 9;
         SELECT rec_create('walk', 'event', order_column => 'n')",
    );
}

fn train(database: &Database<'_>, model: &str, params: &str, deploy: &str) -> String {
    let mut session = database.session();
    session.run("SET rec.training_threads = 2");
    let reply = session.run(&format!(
        "CALL rec_train('sasrec', '{{{params}}}', recommender => 'walk', model => '{model}', deploy => '{deploy}')"
    ));
    assert_eq!(reply.sqlstate, None, "{}", reply.text);
    database.ask(&format!("SELECT checksum FROM rec.models WHERE name = '{model}'"))
}

#[test]
fn the_same_seed_gives_the_same_bits_on_every_server_and_learns() {
    let seen = Mutex::new(None);
    each_database(|database| {
        walks(database);
        let params = format!(r#"{PARAMS}, "leave_last": 2, "seed": 5"#);
        let checksum = train(database, "a", &params, "always");
        assert_eq!(checksum, train(database, "b", &params, "never"), "trained again");
        let first = seen.lock().unwrap().get_or_insert_with(|| checksum.clone()).clone();
        assert_eq!(checksum, first, "trained on another server");
        assert_ne!(checksum, train(database, "c", &params.replace("5", "6"), "never"), "another seed");

        let ndcg = |name: &str| -> f64 {
            let query = format!(
                "SELECT value FROM rec_evaluate('{name}', recommender => 'walk') WHERE metric = 'ndcg' AND k = 10"
            );
            database.ask(&query).parse().unwrap()
        };
        let (trained, popularity) = (ndcg("a"), ndcg("popularity"));
        assert!(trained > 0.5 && trained > 2.0 * popularity, "{trained}, popularity {popularity}");

        let row = "SELECT seed, seconds > 0, cpu_seconds > 0, versions ? 'pgrec' \
                   FROM rec.models WHERE name = 'a'";
        assert_eq!(database.ask(row), "5|t|t|t");
        let curve =
            "SELECT bool_and(loss > 0), count(*) = max(epoch) FROM rec.curve WHERE model = 'a' AND metric = 'ndcg@10'";
        assert_eq!(database.ask(curve), "t|t");
    });
}

#[test]
fn a_model_is_continued_with_new_items_and_deployed_only_if_better() {
    each_database(|database| {
        walks(database);
        let params = format!(r#"{PARAMS}, "leave_last": 2"#);
        train(database, "day 1", &params, "always");
        database.run("INSERT INTO event SELECT u, 140 + u % 3, 100 FROM generate_series(1, 600) u");
        let next = r#""leave_last": 2, "init": "day 1", "epochs": 3, "learning_rate": 0.01"#;
        train(database, "day 2", next, "if_better");
        let items = "SELECT string_agg(items::text, ' ' ORDER BY name) FROM rec.models WHERE name LIKE 'day%'";
        assert_eq!(database.ask(items), "40 43");
        train(database, "worse", r#""dim": 8, "epochs": 1, "leave_last": 2"#, "if_better");
        assert_ne!(database.ask("SELECT name FROM rec.models WHERE deployed"), "worse");
        let refused = database.session().run(
            "CALL rec_train('sasrec', '{\"init\": \"day 1\", \"dim\": 8}', recommender => 'walk', model => 'other')",
        );
        assert!(refused.text.contains("continues a model"), "{}", refused.text);
    });
}
