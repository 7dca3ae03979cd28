//! Generation over semantic IDs: what a beam search gives, through every function.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use pgrec_tests::{Database, each_database};

/// Small and quick; what it has learnt is no matter here.
const TRAIN: &str =
    "CALL rec_train('generative', '{\"leave_last\": 2, \"dim\": 32, \"heads\": 2, \"blocks\": 1, \"window\": 20,
    \"depth\": 1, \"epochs\": 2}', 'shop', 'author', true)";

fn trained(database: &Database<'_>) {
    database.with_codes();
    database.run(TRAIN);
}

fn items(database: &Database<'_>, query: &str) -> Vec<i64> {
    database.ask(query).lines().map(|line| line.split('|').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn generated_items_exist_are_unseen_and_have_the_code_that_was_generated() {
    each_database(|database| {
        trained(database);
        assert_eq!(database.ask("SELECT params->>'base' FROM rec.models WHERE name = 'author'"), "codes");
        for user in [1, 7, 42] {
            let wrong = format!(
                "SELECT count(*), count(*) FILTER (WHERE path IS DISTINCT FROM rec_semantic_id(g.item_id)),
                     count(*) FILTER (WHERE EXISTS (SELECT FROM shop.interaction i WHERE i.user_id = {user} AND i.item_id = g.item_id)),
                     count(*) FILTER (WHERE NOT EXISTS (SELECT FROM shop.item i WHERE i.item_id = g.item_id)),
                     bool_and(score < 0 AND score <= before)
                 FROM (SELECT *, lag(score, 1, 0) OVER (ORDER BY rank) AS before FROM rec_generate({user}, 20)) g"
            );
            assert_eq!(database.ask(&wrong), "20|0|0|0|t");
        }
        // A beam as wide as the catalogue ranks all, as scores do.
        let ranked = items(database, "SELECT * FROM rec_generate(3, 1000, 1000, exclude_seen => false)");
        let scored = items(database, "SELECT * FROM rec_score(3, ARRAY(SELECT item_id FROM rec_semantic_ids()))");
        assert_eq!(ranked.len(), 170, "items that came after the training of the codes are not learnt");
        assert_eq!(ranked, scored[..170]);
        assert_eq!(
            items(database, "SELECT * FROM rec_next(3, 5)"),
            items(database, "SELECT * FROM rec_generate(3, 5)")
        );
        let some =
            "SELECT * FROM rec_generate(3, 10, candidates => '{5,6,7,150}', exclude => '{6}', exclude_seen => false)";
        let some: BTreeSet<i64> = items(database, some).into_iter().collect();
        assert_eq!(some, BTreeSet::from([5, 7, 150]));
        // Fresh to the last event, and to one that is not stored.
        let before = database.ask("SELECT * FROM rec_generate(3)");
        assert_ne!(database.ask("SELECT * FROM rec_generate(3, session => '{100,101}')"), before);
        assert_ne!(database.ask("BEGIN; INSERT INTO shop.interaction (user_id, item_id) VALUES (3, 100); SELECT * FROM rec_generate(3); ROLLBACK"), before);
        assert_eq!(database.ask("SELECT count(*) FROM rec_generate(99999)"), "0");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(99999)"), "10");
        database.run("DELETE FROM shop.item WHERE item_id % 2 = 0");
        assert!(items(database, "SELECT * FROM rec_generate(3, 50)").iter().all(|item| item % 2 == 1));
    });
}

#[test]
fn a_generative_model_is_measured_explained_and_refused_like_any_other() {
    each_database(|database| {
        trained(database);
        let measured = database.ask(
            "SELECT value BETWEEN 0 AND 1 FROM rec_evaluate('author') WHERE metric = 'ndcg' AND k = 10 AND grp = 'all'",
        );
        assert_eq!(measured, "t");
        assert_eq!(database.ask("SELECT jsonb_array_length(rec_explain(3, 17)->'reasons'->'levels')"), "3");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next_many('{1,2,3}', 4)"), "12");
        assert_eq!(
            database.ask("SELECT item_id FROM rec_similar(3, 3)"),
            database.ask("SELECT item_id FROM rec_similar(3, 3, model => 'codes')")
        );
        assert_eq!(database.ask("SELECT rec_semantic_id(3)"), database.ask("SELECT rec_semantic_id(3, 'codes')"));
        for (call, expected) in [
            ("SELECT * FROM rec_generate(3, model => 'tgh')", "model \"tgh\" generates nothing"),
            ("SELECT * FROM rec_generate(3, beam => 0)", "beam must be positive"),
            ("SELECT * FROM rec_generate(3, -1)", "k must not be negative"),
            ("CALL rec_train('generative', '{\"base\": \"tgh\"}')", "needs codes"),
        ] {
            let message = database.fails(call);
            assert!(message.contains(expected), "{call}: {message}");
        }
        database.run("SELECT rec_rollback(); SELECT rec_drop_model('author'); SELECT rec_drop_model('codes')");
        assert!(database.fails(TRAIN).contains("builds on semantic IDs, and there are none"));
    });
}

#[test]
fn codes_may_be_told_in_any_order_and_a_model_be_served_otherwise_without_training() {
    each_database(|database| {
        database.run("CALL rec_train('semantic_ids', '{\"quantizer\": \"product\", \"levels\": 4, \"codes\": 8}', 'shop', 'parts')");
        let train = |model: &str, more: &str| {
            let params = format!(
                "{{\"leave_last\": 2, \"base\": \"parts\", \"dim\": 16, \"blocks\": 1, \"window\": 20, \"fusion\": 0.5, {more}}}"
            );
            database.run(&format!("CALL rec_train('generative', '{params}', 'shop', '{model}', true)"));
        };
        train("sure", "\"epochs\": 2, \"order\": \"confidence\"");
        let agreed =
            "SELECT count(*), bool_and(kept), min(agreement) >= 0, max(agreement) <= 1 FROM rec_generate(3, 20)";
        assert_eq!(database.ask(agreed), "20|t|t|t");
        assert_eq!(
            database.ask("SELECT * FROM shop.rec_generate(3, 20)"),
            database.ask("SELECT * FROM rec_generate(3, 20)")
        );
        let steps = "jsonb_array_elements(rec_explain(3, 17)->'reasons'->'levels')";
        assert_eq!(database.ask(&format!("SELECT count(DISTINCT s->'level') FROM {steps} s")), "4");
        // With the same weights.
        train("strict", "\"init\": \"sure\", \"epochs\": 0, \"order\": \"confidence\", \"consistency\": 1");
        assert_eq!(database.ask("SELECT count(*) > 0 FROM rec_generate(3, 20) WHERE NOT kept"), "t");
        assert_eq!(
            database.ask("SELECT rec_score(3, '{1,2,3}')"),
            database.ask("SELECT rec_score(3, '{1,2,3}', model => 'sure')")
        );
        train("levels", "\"init\": \"sure\", \"epochs\": 0, \"order\": \"levels\"");
        assert_eq!(database.ask("SELECT count(*) FROM rec_generate(3, 20) WHERE kept AND agreement IS NULL"), "20");
        train("once", "\"epochs\": 2");
        assert_eq!(database.ask("SELECT count(*) FROM rec_generate(3, 20) WHERE kept AND agreement IS NULL"), "20");
        let params = "{\"base\": \"parts\", \"epochs\": 0}";
        let refused = database.fails(&format!("CALL rec_train('generative', '{params}')"));
        assert!(refused.contains("only a model that is continued"), "{refused}");
    });
}

#[test]
fn words_of_the_items_say_what_is_wanted() {
    each_database(|database| {
        database.with_codes();
        // The shop's own attributes, and the words of its titles.
        database.run(
            "CREATE VIEW shop.described AS
                 SELECT item_id, embedding, to_tsvector('simple', title || ' ' || (attributes ->> 0)) AS words FROM shop.item;
             SELECT rec_create('texts', interactions => 'shop.interaction', items => 'shop.described', order_column => 'position',
                 attributes_column => 'words', embedding_column => 'embedding')",
        );
        database.run("CALL rec_train('semantic_ids', '{\"levels\": 3, \"codes\": 8}', 'texts', 'coded')");
        let train = |recommender: &str| {
            let params = "{\"leave_last\": 2, \"dim\": 32, \"heads\": 2, \"blocks\": 1, \"window\": 20, \"epochs\": 20,
                \"learning_rate\": 0.005, \"dropout\": 0.1, \"patience\": 0, \"alignment\": 1}";
            database.run(&format!("CALL rec_train('generative', '{params}', '{recommender}', 'reader', true)"));
        };
        ["shop", "texts"].iter().for_each(|recommender| train(recommender));
        let department = database.ask("SELECT attributes ->> 0 FROM shop.item WHERE item_id = 5");
        let word = department.split(' ').next().unwrap().to_lowercase();
        let of = |recommender: &str, user: &str, words: &str| {
            let list = format!(
                "SELECT item_id FROM rec_generate({user}, 10, words => {words}, recommender => '{recommender}')"
            );
            database.ask(&format!(
                "SELECT count(*) FROM shop.item WHERE attributes ->> 0 = '{department}' AND item_id IN ({list})"
            ))
        };
        let most = |count: String| count.parse::<i32>().unwrap() >= 8;
        assert!(most(of("shop", "NULL", &format!("ARRAY['{department}']"))));
        assert!(most(of("texts", "NULL", &format!("tsvector_to_array(to_tsvector('simple', '{word}'))"))));
        assert!(most(of("shop", "3", &format!("ARRAY['{department}', 'unheard of', NULL]"))));
        let typed = format!("SELECT * FROM shop.rec_generate(NULL, words => ARRAY['{department}'])");
        assert_eq!(
            database.ask(&typed),
            database.ask(&typed.replace("shop.rec_generate(NULL,", "rec_generate(NULL, recommender => 'shop',"))
        );
        assert_eq!(
            database.ask("SELECT count(*) FROM rec_generate(NULL, words => '{unheard of}', recommender => 'shop')"),
            "0"
        );
        assert_eq!(
            database.ask("SELECT * FROM rec_generate(3, words => '{unheard of}', recommender => 'shop')"),
            database.ask("SELECT * FROM rec_generate(3, recommender => 'shop')")
        );
        let refused =
            database.fails("SELECT * FROM rec_generate(3, words => '{a}', model => 'writer', recommender => 'shop')");
        assert!(refused.contains("model \"writer\" knows no words"), "{refused}");
    });
}
