//! A ranking model, trained and asked in the database.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, each_database};

const PARAMS: &str = r#""dim": 16, "blocks": 2, "window": 20, "epochs": 15, "batch": 32, "learning_rate": 0.01, "dropout": 0.0, "leave_last": 2"#;

/// Users of two kinds, who rate what is of their kind 4 or 5, and the rest 1 or 2; one kind buys what it rates 5.
fn raters(database: &Database<'_>) {
    database.run(
        "CREATE TABLE rating (user_id bigint, item_id bigint, stars int, what text, happened timestamptz);
         INSERT INTO rating
         SELECT u, i, s, CASE WHEN s = 5 AND u % 2 = 0 THEN 'buy' WHEN s < 3 THEN 'skip' ELSE 'view' END,
             timestamptz '2026-01-01' + n * interval '1 hour'
         FROM (SELECT u, n, 100 + abs(hashint8(100 * u + n)) % 40 AS i FROM generate_series(1, 400) u, generate_series(1, 14) n
               WHERE n < 8 + u % 7) e,
             LATERAL (SELECT CASE WHEN i % 2 = u % 2 THEN 4 ELSE 1 END + abs(hashint8(7 * u + n)) % 2 AS s) r;
         SELECT rec_create('film', 'rating', time_column => 'happened', weight_column => 'stars', action_column => 'what')",
    );
}

fn train(database: &Database<'_>, recommender: &str, params: &str) -> String {
    let mut session = database.session();
    session.run("SET rec.training_threads = 2");
    session
        .run(&format!(
            "CALL rec_train('hstu_rank', '{{{params}}}', recommender => '{recommender}', deploy => 'always')"
        ))
        .text
}

/// A figure of the deployed model on the last events.
fn figure(database: &Database<'_>, grp: &str, metric: &str) -> f64 {
    let query = format!(
        "SELECT value FROM rec_evaluate(recommender => 'film')
         WHERE grp = '{grp}' AND metric = '{metric}' AND k IS NULL"
    );
    database.ask(&query).parse().unwrap()
}

#[test]
fn what_users_will_do_is_told_from_what_they_did() {
    each_database(|database| {
        raters(database);
        let tasks = r#""tasks": [{"name": "like", "weight_from": 4}, {"name": "buy", "actions": ["buy"], "value": 2}]"#;
        train(database, "film", &format!("{PARAMS}, {tasks}"));
        for task in ["task like", "task buy"] {
            let (auc, entropy) = (figure(database, task, "auc"), figure(database, task, "normalized_entropy"));
            assert!(auc > 0.9 && entropy < 0.7, "{task}: {auc}, {entropy}");
        }
        assert!(figure(database, "all", "auc") > 0.9);
        let validated =
            "SELECT (metrics -> 'validation' ->> 'auc')::float8 > 0.9 FROM rec.models WHERE recommender = 'film'";
        assert_eq!(database.ask(validated), "t");

        // Users of even number like items of even number, and buy half of them.
        let liked = "SET rec.recommender = 'film';
            SELECT count(*) FILTER (WHERE r.item_id % 2 = u % 2) * 100 / count(*)
            FROM generate_series(1, 50) u, rec_next(u, 5, exclude_seen => false) r";
        let share: u32 = database.ask(liked).parse().unwrap();
        assert!(share > 80, "{share} % of what is recommended is liked");
        let same = "SET rec.recommender = 'film';
            SELECT count(*), count(*) FILTER (WHERE abs(s.score - a.score) < 1e-4), count(DISTINCT s.item_id)
            FROM generate_series(1, 20) u, rec_score(u, ARRAY(SELECT generate_series(100, 139)), at => '2026-06-01') s,
                rec_score(u, ARRAY[s.item_id], at => '2026-06-01') a";
        assert_eq!(database.ask(same), "800|800|40");
        let parts = "SET rec.recommender = 'film';
            SELECT abs(score - like_ - 2 * buy) < 1e-5, like_ BETWEEN 0 AND 1, buy BETWEEN 0 AND like_ + 0.1
            FROM (SELECT (e -> 'score')::float8 AS score, (e #> '{reasons,probabilities,like}')::float8 AS like_,
                      (e #> '{reasons,probabilities,buy}')::float8 AS buy
                  FROM rec_explain(2, 102) e) x";
        assert_eq!(database.ask(parts), "t|t|t");
        let many = "SET rec.recommender = 'film';
            SELECT count(*), count(*) FILTER (WHERE abs(m.score - n.score) < 1e-4)
            FROM rec_next_many(ARRAY(SELECT generate_series(1, 30)), 5, at => '2026-06-01') m
            JOIN LATERAL rec_next(m.user_id, 5, at => '2026-06-01') n USING (rank)";
        assert_eq!(database.ask(many), "150|150");
        // Somebody of whom nothing is known gets what is popular.
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(9999, 5, recommender => 'film')"), "5");
    });
}

#[test]
fn tasks_are_suggested_by_the_data_and_refused_without_it() {
    each_database(|database| {
        raters(database);
        let short = &PARAMS.replace(r#""epochs": 15"#, r#""epochs": 1"#);
        train(database, "film", short);
        let tasks = "SELECT string_agg(t ->> 'name', ',' ORDER BY o)
            FROM rec.models, jsonb_array_elements(params -> 'tasks') WITH ORDINALITY t (t, o)
            WHERE recommender = 'film' AND deployed";
        assert_eq!(database.ask(tasks), "skip,view,buy");
        database.run("SELECT rec_create('stars', 'rating', time_column => 'happened', weight_column => 'stars')");
        train(database, "stars", short);
        assert_eq!(database.ask(&tasks.replace("film", "stars")), "above the mean");
        // The task goes on with the model.
        train(database, "stars", r#""epochs": 1, "leave_last": 2, "init": "hstu_rank_1""#);
        assert_eq!(database.ask(&tasks.replace("film", "stars")), "above the mean");

        // A weight that is no number is above nothing, and no part of a mean.
        database.run(
            "CREATE VIEW odd AS SELECT user_id, item_id, happened,
                 CASE WHEN stars < 3 THEN 'NaN'::float8 ELSE stars END AS stars FROM rating;
             SELECT rec_create('odd', 'odd', time_column => 'happened', weight_column => 'stars')",
        );
        train(database, "odd", short);
        let from = "SELECT (params #>> '{tasks,0,weight_from}')::float8 BETWEEN 4 AND 5 FROM rec.models WHERE recommender = 'odd'";
        assert_eq!(database.ask(from), "t");
        let refused = train(database, "stars", r#""window": 0"#);
        assert!(refused.contains("window 0 is not between 1"), "{refused}");

        database.run("SELECT rec_create('blind', 'rating', time_column => 'happened')");
        let refused = train(database, "blind", short);
        assert!(refused.contains("action_column or a weight_column"), "{refused}");
        let refused = train(database, "blind", r#""tasks": [{"name": "like", "weight_from": 4}]"#);
        assert!(refused.contains("asks for the weight of events"), "{refused}");
        let refused = train(database, "stars", r#""tasks": [{"name": "like"}]"#);
        assert!(refused.contains("no condition"), "{refused}");
    });
}
