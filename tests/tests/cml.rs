//! Items and users as points of one space.
#![allow(clippy::unwrap_used)]

use pgrec_tests::each_database;

#[test]
fn near_items_are_recommended_and_a_new_event_moves_its_user_at_once() {
    each_database(|database| {
        database.run("CALL rec_train('cml', '{\"leave_last\": 2, \"epochs\": 15}', 'shop', 'space', true)");
        let figure = |model: &str| -> f64 {
            let query =
                format!("SELECT value FROM rec_evaluate('{model}') WHERE metric = 'ndcg' AND k = 10 AND grp = 'all'");
            database.ask(&query).parse().unwrap()
        };
        assert!(figure("space") > figure("popular"), "{} against {}", figure("space"), figure("popular"));
        let lists = "SELECT u, n.* FROM generate_series(1, 30) u, rec_next(u, 10) n ORDER BY 1, 2";
        let before = database.ask(lists);
        assert_eq!(before.lines().count(), 300);
        let many = "SELECT user_id, rank, item_id, score FROM rec_next_many(ARRAY(SELECT generate_series(1, 30)), 10) ORDER BY 1, 2";
        assert_eq!(database.ask(many), before);
        let unseen = "SELECT count(*) FROM generate_series(1, 30) u, rec_next(u, 10) n
            JOIN shop.interaction i USING (item_id) WHERE i.user_id = u";
        assert_eq!(database.ask(unseen), "0");
        // Scores are squared distances made negative, and the same in a list and alone.
        let scored = "SELECT bool_and(n.score <= 0 AND n.score = s.score) FROM rec_next(3, 10) n
            JOIN rec_score(3, ARRAY(SELECT item_id FROM rec_next(3, 10))) s USING (item_id)";
        assert_eq!(database.ask(scored), "t");
        let own = "WITH why AS (SELECT jsonb_array_elements(rec_explain(3, 17)->'reasons'->'nearest') AS event)
            SELECT count(*) > 0 AND bool_and((event->>'item')::bigint IN (SELECT item_id FROM shop.interaction WHERE user_id = 3)
                AND (event->>'distance')::float8 BETWEEN 0 AND 2) FROM why";
        assert_eq!(database.ask(own), "t");
        assert_eq!(database.ask("SELECT count(*), bool_or(item_id = 3) FROM rec_similar(3, 5)"), "5|f");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next_session(ARRAY[5], 10)"), "10");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(99999, 5)"), "5");
        let (point, list) =
            ("SELECT rec_encode(3)::text", "SELECT string_agg(item_id::text, ',') FROM rec_next(3, 10)");
        let (stood, had) = (database.ask(point), database.ask(list));
        database
            .run("INSERT INTO shop.interaction (user_id, item_id, at) SELECT 3, item_id, now() FROM rec_next(3, 1)");
        assert!(database.ask(point) != stood && database.ask(list) != had, "the user has not moved");
        let message = database.fails("CALL rec_train('cml', '{\"margin\": -1}')");
        assert!(message.contains("margin is a number above 0"), "{message}");
    });
}
