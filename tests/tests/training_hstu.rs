//! A network that looks at times, trained and asked in the database.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, each_database};

const PARAMS: &str = r#""dim": 16, "blocks": 1, "window": 20, "epochs": 30, "batch": 32, "learning_rate": 0.01, "dropout": 0.0, "leave_last": 1"#;

/// Users who walk through 40 items, one step after ten seconds and two after ten days.
fn walks(database: &Database<'_>) {
    database.run(
        "CREATE TABLE event (user_id bigint, item_id bigint, happened timestamptz);
         INSERT INTO event
         SELECT u, 100 + (u * 7 + sum(CASE WHEN soon THEN 1 ELSE 2 END) OVER w) % 40,
             timestamptz '2026-01-01' + sum(CASE WHEN soon THEN interval '10 seconds' ELSE interval '10 days' END) OVER w
         FROM (SELECT u, n, hashint8(100 * u + n) % 2 = 0 AS soon
               FROM generate_series(1, 600) u, generate_series(1, 12) n WHERE n < 5 + u % 8) e
         WINDOW w AS (PARTITION BY u ORDER BY n);
         SELECT rec_create('walk', 'event', time_column => 'happened')",
    );
}

fn train(database: &Database<'_>, recommender: &str, params: &str) -> String {
    let mut session = database.session();
    session.run("SET rec.training_threads = 2");
    session
        .run(&format!("CALL rec_train('hstu', '{{{params}}}', recommender => '{recommender}', deploy => 'always')"))
        .text
}

/// Users of whom the first item for a question asked `later` is `steps` ahead.
fn right(database: &Database<'_>, later: &str, steps: u32) -> u32 {
    let answer = database.ask(&format!(
        "SET rec.recommender = 'walk';
         SELECT count(*) FROM (SELECT DISTINCT ON (user_id) * FROM event ORDER BY user_id, happened DESC) e,
             rec_next(user_id, 1, exclude_seen => false, at => happened + interval '{later}') r
         WHERE r.item_id = 100 + (e.item_id - 100 + {steps}) % 40 AND user_id <= 200"
    ));
    answer.parse().unwrap()
}

#[test]
fn the_answer_depends_on_when_it_is_asked() {
    each_database(|database| {
        walks(database);
        train(database, "walk", PARAMS);
        for (later, steps) in [("10 seconds", 1), ("10 days", 2)] {
            let right = right(database, later, steps);
            assert!(right > 140, "{right} of 200 after {later}");
        }
        let list = |at: &str| {
            database.ask(&format!(
                "SET rec.recommender = 'walk'; SELECT string_agg(item_id || ' ' || score, ',') FROM rec_next(7{at})"
            ))
        };
        let past = list(", at => '2026-03-01'");
        assert_eq!(past, list(", at => '2026-03-01'"), "asked again");
        assert_ne!(past, list(", at => '2030-03-01'"), "asked later");
        // Buckets of time are wide after years.
        assert_eq!(list(""), list(", at => now()"));
        assert_eq!(list(""), list(", at => NULL"));

        let many = "SET rec.recommender = 'walk';
            SELECT count(*), count(*) FILTER (WHERE m.item_id = n.item_id AND abs(m.score - n.score) < 1e-5)
            FROM rec_next_many(ARRAY(SELECT generate_series(1, 600)), 5, at => '2026-03-01') m
            JOIN LATERAL rec_next(m.user_id, 5, at => '2026-03-01') n USING (rank)";
        assert_eq!(database.ask(many), "3000|3000");
        let typed = "SELECT (SELECT array_agg(r) FROM walk.rec_next(7, 5, at => '2026-03-01') r)
            = (SELECT array_agg(r) FROM rec_next(7, 5, at => '2026-03-01', recommender => 'walk') r)";
        assert_eq!(database.ask(typed), "t");
    });
}

#[test]
fn what_was_touched_just_now_was_touched_when_the_question_is_asked() {
    each_database(|database| {
        walks(database);
        train(database, "walk", PARAMS);
        let same = "SET rec.recommender = 'walk'; BEGIN;
            CREATE TEMP TABLE before AS
            SELECT * FROM rec_next(7, 5, session => ARRAY[105, 106], at => '2026-06-01', exclude_seen => false);
            INSERT INTO event VALUES (7, 105, '2026-06-01'), (7, 106, '2026-06-01');
            SELECT count(*) FROM rec_next(7, 5, at => '2026-06-01', exclude_seen => false) JOIN before USING (rank, item_id);
            ROLLBACK";
        // Their order is that of ties, which may be either.
        let shared: u32 = database.ask(same).parse().unwrap();
        assert!(shared >= 3, "{shared} of 5");
        let session = "SET rec.recommender = 'walk';
            SELECT string_agg(item_id::text, ' ') FROM rec_next_session(ARRAY[105, 106], 2, exclude_seen => false)";
        assert!(database.ask(session).contains("107"), "{}", database.ask(session));
    });
}

#[test]
fn without_times_a_model_is_trained_without_them_or_refused() {
    each_database(|database| {
        walks(database);
        database.run("SELECT rec_create('blind', 'event', order_column => 'happened')");
        let refused = train(database, "blind", r#""times": true"#);
        assert!(refused.contains("set times to false"), "{refused}");
        train(database, "blind", PARAMS);
        let config = "SELECT params -> 'times' FROM rec.models WHERE recommender = 'blind' AND deployed";
        let items = "SELECT count(*) FROM rec_next(7, 5, recommender => 'blind')";
        assert_eq!(database.ask(items), "5", "{}", database.ask(config));
    });
}

#[test]
fn what_is_kept_of_a_long_history_changes_no_answer() {
    each_database(|database| {
        walks(database);
        train(database, "walk", &PARAMS.replace(r#""window": 20, "epochs": 30"#, r#""window": 700, "epochs": 1"#));
        // After every change the same is asked of what is kept and of all of the history.
        database.run(
            "INSERT INTO event SELECT 7, 100 + n * n % 40, timestamptz '2026-05-01' + n * interval '1 hour'
             FROM generate_series(1, 600) n;
             CREATE TABLE change (n serial, what text);
             INSERT INTO change (what) VALUES
                 ('SELECT 1'),
                 ($$INSERT INTO event VALUES (7, 101, '2026-06-15')$$),
                 ($$INSERT INTO event SELECT 7, 100 + n, timestamptz '2026-06-16' + n * interval '1 day'
                    FROM generate_series(1, 8) n$$),
                 ($$DELETE FROM event WHERE user_id = 7 AND happened > '2026-06-20'$$),
                 ($$UPDATE event SET item_id = 139 WHERE user_id = 7 AND happened = '2026-05-03'$$),
                 ($$UPDATE event SET happened = happened - interval '1 year' WHERE user_id = 7 AND happened < '2026-05-09'$$),
                 ($$INSERT INTO event SELECT 7, 105, timestamptz '2026-07-01' + n * interval '1 second'
                    FROM generate_series(1, 120) n$$);
             CREATE TABLE answer (change int, memory text, rank bigint, item_id bigint, score real)",
        );
        let answers = database.ask(
            "SET rec.recommender = 'walk';
             DO $$ DECLARE c record; memory text; BEGIN
                 FOR c IN SELECT * FROM change ORDER BY n LOOP
                     EXECUTE c.what;
                     FOREACH memory IN ARRAY ARRAY['32MB', '0'] LOOP
                         PERFORM set_config('rec.history_memory', memory, false);
                         INSERT INTO answer SELECT c.n, memory, r.*
                         FROM rec_next(7, 40, exclude_seen => false, at => '2026-08-01') r;
                     END LOOP;
                 END LOOP;
             END $$;
             SELECT count(*), count(*) FILTER (WHERE abs(a.score - b.score) < 1e-5)
             FROM answer a JOIN answer b USING (change, item_id) WHERE a.memory = '0' AND b.memory <> '0'",
        );
        assert_eq!(answers, format!("{0}|{0}", 7 * 40));
        let differing = "SELECT count(DISTINCT score) FROM answer WHERE memory = '0' AND item_id = 100";
        assert!(database.ask(differing).parse::<u32>().unwrap() > 4, "the changes change nothing");
    });
}
