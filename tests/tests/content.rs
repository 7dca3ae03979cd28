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
        let models = [("cml", "embedding"), ("cml", "attributes"), ("sasrec", "both"), ("hstu", "embedding")];
        for (family, features) in models {
            let model = format!("{family}_{features}");
            database.run(&format!(
                "CALL rec_train('{family}', '{{\"features\": \"{features}\", \"epochs\": 10}}', 'shop', '{model}', true)"
            ));
            let among = |list: &str| database.ask(&format!("SELECT count(*) FROM {list} AS list WHERE item_id = 9001"));
            assert_eq!(among("rec_similar(3, 10)"), "1", "{model}");
            // Whoever gets what it is like gets it, too, if the list is long enough.
            let beside = "SELECT bool_and(new.score > old.low) FROM
                (SELECT u, score FROM generate_series(1, 20) u, rec_score(u, ARRAY[9001])) new
                JOIN (SELECT u, percentile_cont(.2) WITHIN GROUP (ORDER BY s.score) AS low
                    FROM generate_series(1, 20) u, rec_score(u, ARRAY(SELECT item_id FROM shop.item)) s
                    WHERE EXISTS (SELECT FROM rec_next(u, 10) WHERE item_id = 3) GROUP BY u) old USING (u)";
            assert_ne!(database.ask(beside), "f", "{model}");
            assert_eq!(among("rec_next_session(ARRAY[3], 50)"), "1", "{model}");
        }
        let message = database.fails("CALL rec_train('cml', '{\"features\": \"pictures\"}')");
        assert!(message.contains("unknown variant") && message.contains("embedding"), "{message}");
        let message =
            database.fails("CALL rec_train('sasrec', '{\"features\": \"embedding\", \"init\": \"sasrec_both\"}')");
        assert!(message.contains("not together with init"), "{message}");
    });
}
