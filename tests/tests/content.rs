//! Items that are known by their content.
#![allow(clippy::unwrap_used)]

use pgrec_tests::each_database;

#[test]
fn an_item_that_nobody_has_touched_is_recommended_by_its_content() {
    each_database(|database| {
        // Like one that somebody has touched.
        database.run(
            "INSERT INTO shop.item (item_id, title, embedding, attributes)
             SELECT 9001, 'just in', embedding, attributes FROM shop.item WHERE item_id = 3",
        );
        let models = [
            ("cml", "embedding"),
            ("cml", "attributes"),
            ("sasrec", "both"),
            ("hstu", "embedding"),
            ("content", "embedding"),
            ("content", "attributes"),
        ];
        for (family, features) in models {
            let model = format!("{family}_{features}");
            database.run(&format!(
                "CALL rec_train('{family}', '{{\"features\": \"{features}\", \"epochs\": 10}}', 'shop', '{model}', true)"
            ));
            let among = |list: &str| database.ask(&format!("SELECT count(*) FROM {list} AS list WHERE item_id = 9001"));
            // The graph of family content has moved the one that somebody has touched towards its neighbours.
            let near = if family == "content" { 60 } else { 10 };
            assert_eq!(among(&format!("rec_similar(3, {near})")), "1", "{model}");
            // Whoever gets what it is like gets it, too, if the list is long enough.
            let beside = "SELECT bool_and(new.score > old.low) FROM
                (SELECT u, score FROM generate_series(1, 20) u, rec_score(u, ARRAY[9001])) new
                JOIN (SELECT u, percentile_cont(.2) WITHIN GROUP (ORDER BY s.score) AS low
                    FROM generate_series(1, 20) u, rec_score(u, ARRAY(SELECT item_id FROM shop.item)) s
                    WHERE EXISTS (SELECT FROM rec_next(u, 10) WHERE item_id = 3) GROUP BY u) old USING (u)";
            assert_ne!(database.ask(beside), "f", "{model}");
            assert_eq!(among("rec_next_session(ARRAY[3], 50)"), "1", "{model}");
        }
        // What was learnt of one catalogue serves another one, whose items nobody has touched.
        database.run(
            "SELECT rec_create('market', dimension => (SELECT vector_dims(embedding) FROM shop.item WHERE embedding IS NOT NULL LIMIT 1));
             INSERT INTO market.item (item_id, embedding)
                SELECT 500 + item_id, embedding FROM shop.item WHERE embedding IS NOT NULL;
             INSERT INTO market.interaction (user_id, item_id) VALUES (1, 503), (1, 505);
             CALL rec_train('content', '{\"init\": \"shop.content_embedding\", \"epochs\": 0}', 'market', 'lent', true)",
        );
        let nearest = database.ask("SELECT item_id FROM market.rec_similar(503, 1)");
        assert_eq!(nearest, "9501");
        assert_eq!(database.ask("SELECT count(*) FROM market.rec_next(1, 10)"), "10");
        let message = database.fails("CALL rec_train('content', '{\"epochs\": 0}', 'market')");
        assert!(message.contains("epochs is 0 only where a model is continued"), "{message}");
        let message = database.fails("CALL rec_train('sasrec', '{\"init\": \"shop.sasrec_both\"}', 'market')");
        assert!(message.contains("does not exist"), "{message}");
        database.run("SELECT rec_drop('market', tables => true)");
        let message = database.fails("CALL rec_train('cml', '{\"features\": \"pictures\"}')");
        assert!(message.contains("unknown variant") && message.contains("embedding"), "{message}");
        let message =
            database.fails("CALL rec_train('sasrec', '{\"features\": \"embedding\", \"init\": \"sasrec_both\"}')");
        assert!(message.contains("not together with init"), "{message}");
    });
}
