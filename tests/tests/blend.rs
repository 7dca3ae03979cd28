//! Models that rank together.
#![allow(clippy::unwrap_used)]

use pgrec_tests::each_database;

#[test]
fn models_rank_together_and_are_carried_by_the_blend() {
    each_database(|database| {
        database.run(
            "CALL rec_train('blend', '{\"leave_last\": 2, \"models\": [\"tgh\", \"popular\", \"encoder\"]}', 'shop', 'together', true)",
        );
        let stored = "SELECT params->'models', jsonb_array_length(metrics->'weights'), metrics->'learnt_from'->>'users'
            FROM rec.models WHERE name = 'together'";
        assert_eq!(database.ask(stored), "[\"tgh\", \"popular\", \"encoder\"]|3|300");
        let figure = |model: &str| -> f64 {
            let query = format!(
                "SELECT value FROM rec_evaluate('{model}', protocol => 'validation') WHERE metric = 'ndcg' AND k = 10 AND grp = 'all'"
            );
            database.ask(&query).parse().unwrap()
        };
        let best = ["tgh", "popular", "encoder"].map(figure).into_iter().fold(0.0, f64::max);
        assert!(figure("together") > best - 0.02, "{} against {best}", figure("together"));
        let lists = "SELECT u, n.* FROM generate_series(1, 30) u, rec_next(u, 10) n ORDER BY 1, 2";
        let before = database.ask(lists);
        assert_eq!(before.lines().count(), 300);
        let many = "SELECT user_id, rank, item_id, score FROM rec_next_many(ARRAY(SELECT generate_series(1, 30)), 10) ORDER BY 1, 2";
        assert_eq!(database.ask(many), before);
        let unseen = "SELECT count(*) FROM generate_series(1, 30) u, rec_next(u, 10) n
            JOIN shop.interaction i USING (item_id) WHERE i.user_id = u";
        assert_eq!(database.ask(unseen), "0");
        let scored = "SELECT max(abs(n.score - s.score)) < 1e-4 FROM rec_next(3, 10) n
            JOIN rec_score(3, ARRAY(SELECT item_id FROM rec_next(3, 10))) s USING (item_id)";
        assert_eq!(database.ask(scored), "t");
        assert_eq!(database.ask("SELECT jsonb_array_length(rec_explain(3, 17)->'reasons'->'models')"), "3");
        assert_eq!(database.ask("SELECT count(*) FROM rec_similar(3, 5)"), "5");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(99999, 5)"), "5");
        // It needs them no more.
        database.run("SELECT rec_drop_model(m) FROM unnest(ARRAY['popular', 'encoder']) m");
        assert_eq!(database.ask(lists), before);
    });
}

#[test]
fn what_cannot_be_blended_says_why() {
    each_database(|database| {
        database.run("CALL rec_train('popularity', model => 'all')");
        for (params, expected) in [
            ("{}", "needs two models or more"),
            ("{\"models\": [\"tgh\"]}", "needs two models or more"),
            ("{\"models\": \"tgh\"}", "parameter \"models\" is"),
            ("{\"models\": [\"tgh\", \"nobody\"]}", "model \"nobody\" of recommender \"shop\" does not exist"),
            (
                "{\"models\": [\"tgh\", \"all\"], \"leave_last\": 2}",
                "model \"all\" has seen events that leave_last 2 leaves out",
            ),
            ("{\"models\": [\"tgh\", \"popular\"], \"weights\": [1]}", "weights are 2 numbers"),
            ("{\"base\": \"tgh\"}", "builds on several models"),
            ("{\"models\": [\"tgh\", \"popular\"]}", "weights are learnt from events that no model has seen"),
        ] {
            let message = database.fails(&format!("CALL rec_train('blend', '{params}')"));
            assert!(message.contains(expected), "{params}: {message}");
        }
        let evaluated =
            database.fails("SELECT * FROM rec_evaluate('blend', params => '{\"models\": [\"tgh\", \"popular\"]}')");
        assert!(evaluated.contains("cannot be fitted from other models here"), "{evaluated}");
        let given =
            "CALL rec_train('blend', '{\"models\": [\"all\", \"tgh\"], \"weights\": [1, 0.5]}', model => 'given')";
        database.run(given);
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(3, 7, model => 'given')"), "7");
        let other = database.fails("CALL rec_train('graph', '{\"models\": [\"tgh\"]}')");
        assert!(other.contains("is made of no other models"), "{other}");
    });
}
