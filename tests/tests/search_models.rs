//! Models that know queries: keywords, what a retriever has learnt, and search and recommendation by one model.
#![allow(clippy::unwrap_used)]

use pgrec_tests::each_database;

#[test]
fn a_few_words_are_enough_to_recommend_by() {
    each_database(|database| {
        database.run("CALL rec_train('keywords', model => 'words')");
        // The generated shop's departments are in its attributes; a word of a title belongs to one or two of them.
        let word = database.ask(
            "SELECT lexeme FROM shop.item, unnest(words) GROUP BY 1 HAVING count(DISTINCT attributes ->> 0) = 1 AND length(lexeme) > 5
             ORDER BY count(*) DESC, 1 LIMIT 1",
        );
        let department = database
            .ask(&format!("SELECT attributes ->> 0 FROM shop.item WHERE words @@ '''{word}'''::tsquery LIMIT 1"));
        let share = |list: &str| -> f64 {
            let share = format!(
                "SELECT avg((attributes ->> 0 = '{department}')::integer) FROM {list} JOIN shop.item USING (item_id)"
            );
            database.ask(&share).parse().unwrap()
        };
        let (found, all) = (share(&format!("rec_keywords(ARRAY['{word}'], 20)")), share("rec_next(NULL, 20)"));
        assert!(found > 0.5 && found > 2.0 * all, "{word}: {found} of {department}, and {all} without it");
        let listed = |words: &str| database.ask(&format!("SELECT * FROM rec_keywords(ARRAY[{words}], 5)"));
        let misspelt = format!("{}{}", &word[..2], &word[3..]);
        assert_eq!(listed(&format!("'{misspelt}'")), listed(&format!("'{word}'")), "{misspelt}");
        assert_eq!(listed(&format!("'{word}', NULL, '', 'xyzzyplugh'")), listed(&format!("'{word}'")));
        // Of whom nothing at all is known: what is popular, among what may be listed.
        for nothing in ["NULL::text[]", "ARRAY[]::text[]", "ARRAY['xyzzyplugh']"] {
            let list =
                database.ask(&format!("SELECT item_id FROM rec_keywords({nothing}, 3, candidates => ARRAY[7, 8])"));
            assert_eq!(list.lines().count(), 2, "{nothing}");
        }
        assert_eq!(
            database.ask(&format!("SELECT count(*) FROM shop.rec_keywords(ARRAY['{word}'], 3, exclude => ARRAY[1])")),
            "3"
        );
        // It serves as any model does, and searches by what it knows.
        database.run("SELECT rec_deploy('words')");
        assert_eq!(database.ask("SELECT count(*) FROM rec_next(1, 10)"), "10");
        assert_eq!(database.ask(&format!("SELECT count(*) FROM rec_search(1, '{misspelt}', 10)")), "10");
        let why = database.ask("SELECT rec_explain(1, (SELECT item_id FROM rec_next(1, 1))) -> 'reasons' IS NOT NULL");
        assert_eq!(why, "t");
        let message = database.fails("CALL rec_train('keywords', '{\"keep\": 0}')");
        assert!(message.contains("keep is a whole number"), "{message}");
    });
}

/// Searches whose vectors are those of the items that were bought, in another order of their numbers.
const TURNED: &str = "INSERT INTO shop.search (user_id, query, embedding, item_id, shown, dwell)
    SELECT CASE WHEN n % 3 > 0 THEN n END, 'something', turned(embedding), item_id,
        ARRAY[1 + (item_id * 7) % 200, item_id, 1 + (item_id * 13) % 200], 5 + n % 60
    FROM shop.item, generate_series(1, 12) n WHERE embedding IS NOT NULL AND item_id % 10 > 0";

#[test]
fn a_retriever_learns_from_the_log_where_queries_belong() {
    each_database(|database| {
        database.run(&format!(
            "CREATE FUNCTION turned(v vector) RETURNS vector LANGUAGE sql RETURN
                (SELECT array_agg(x ORDER BY place DESC) FROM unnest(v::real[]) WITH ORDINALITY u (x, place))::vector;
             {TURNED}"
        ));
        // Of items whose searches nobody has seen.
        let found = "SELECT avg((r.item_id = i.item_id)::integer) FROM shop.item i,
            rec_search(NULL, NULL, 1, turned(i.embedding)::real[]) r WHERE i.item_id % 10 = 0";
        let before: f64 = database.ask(found).parse().unwrap();
        // So small a log has few steps.
        database.run("CALL rec_train('retriever', '{\"learning_rate\": 0.02, \"epochs\": 100}', model => 'turns')");
        let after: f64 = database.ask(found).parse().unwrap();
        assert!(before < 0.3 && after > 0.8, "{before} before, {after} after");
        let measured =
            "SELECT (metrics #>> '{validation,mrr}')::real > (metrics #>> '{validation,unprojected_mrr}')::real
            FROM rec.models WHERE name = 'turns'";
        assert_eq!(database.ask(measured), "t");
        let message = database.fails("SELECT rec_deploy('turns')");
        assert!(message.contains("rank nothing"), "{message}");
        let message = database.fails("SELECT * FROM rec_search(NULL, NULL, 1, ARRAY[1, 2]::real[])");
        assert!(message.contains("dimensions"), "{message}");
        database.run("SELECT rec_drop_model('turns'); DELETE FROM shop.search");
        let message = database.fails("CALL rec_train('retriever')");
        assert!(message.contains("searches"), "{message}");
    });
}

#[test]
fn a_search_moves_what_is_next_and_what_is_next_explains_itself_in_words() {
    each_database(|database| {
        // A word that nobody looks for.
        database.run("UPDATE shop.item SET title = 'obelisk' WHERE item_id = 12");
        database.with_searches();
        database.run(
            "CALL rec_train('dual_intent', '{\"leave_last\": 2, \"epochs\": 15, \"learning_rate\": 0.005}', model => 'dual', deploy => true)",
        );
        let departments: Vec<String> = database
            .ask("SELECT DISTINCT attributes ->> 0 FROM shop.item ORDER BY 1")
            .lines()
            .map(str::to_owned)
            .collect();
        assert!(departments.len() >= 5);
        // The share of a department among what is next, before and after it was searched for in the same transaction, and
        // after four events more.
        let next = "(SELECT avg((attributes ->> 0 = d)::integer) FROM rec_next(u, 10) JOIN shop.item USING (item_id))";
        let shares = |made: &str| -> f64 {
            let script = format!(
                "BEGIN; {made}; SELECT avg({next}) FROM generate_series(1, 40) u, unnest('{{{}}}'::text[]) d
                 WHERE d = (SELECT (array_agg(DISTINCT attributes ->> 0))[1 + u % 5] FROM shop.item); ROLLBACK",
                departments.join(",")
            );
            database.ask(&script).parse().unwrap()
        };
        let search = "INSERT INTO shop.search (user_id, query, at) SELECT u, (array_agg(DISTINCT attributes ->> 0))[1 + u % 5], now()
            FROM generate_series(1, 40) u, shop.item GROUP BY u";
        let events = "INSERT INTO shop.interaction (user_id, item_id, at) SELECT u, 1 + (u * 37 + n * 11) % 200, now() + n * interval '1 minute'
            FROM generate_series(1, 40) u, generate_series(1, 8) n";
        let (before, after) = (shares("SELECT"), shares(search));
        assert!(after > before + 0.1, "{before} before, {after} after");
        let (watched, worn) = (shares(events), shares(&format!("{search}; {events}")));
        assert!((worn - watched).abs() < 0.5 * (after - before), "{watched} and {worn} eight events later");
        assert!((shares("SELECT") - before).abs() < 1e-9, "nothing is left of what was rolled back");

        // What is wanted of an item is said in words, of which the model knows those of the queries.
        let words = database.ask("SELECT string_agg(word, ' ' ORDER BY rank), bool_and(weight BETWEEN 0 AND 1), count(*) FROM rec_demand(1, 5)");
        assert!(words.ends_with("|t|5"), "{words}");
        assert_eq!(database.ask("SELECT count(*) FROM shop.rec_demand(1, 5, 3)"), "3");
        assert_eq!(
            database.ask("SELECT count(*) FROM rec_demand(-7, 5) UNION ALL SELECT count(*) FROM rec_demand(1, 99999)"),
            "0\n0"
        );

        // A user of whom only a search is known; and one of whom nothing is.
        let stranger = "BEGIN; INSERT INTO shop.search (user_id, query) VALUES (777, 'coffee');
            SELECT rec_explain(777, 1) ->> 'answered_by'; ROLLBACK; SELECT rec_explain(777, 1) ->> 'answered_by'";
        assert_eq!(database.ask(stranger), "searches\npopularity");

        // The model is one of the sources of rec_search, with and without a user.
        let right = |user: &str| -> f64 {
            let found = format!(
                "SELECT avg((attributes ->> 0 = 'coffee')::integer) FROM rec_search({user}, 'coffee', 10) JOIN shop.item USING (item_id)"
            );
            database.ask(&found).parse().unwrap()
        };
        assert!(right("1") > 0.8 && right("NULL") > 0.8, "{} {}", right("1"), right("NULL"));
        assert_eq!(database.ask("SELECT count(*) FROM rec_search(1, 'cofffee', 10)"), "10", "a slip of the finger");
        assert_eq!(
            database.ask("SELECT item_id FROM rec_search(1, 'obelisk', 1)"),
            "12",
            "the model knows nothing of it"
        );
        // What came after the training is found by its text, before what the model only guesses.
        database.run("INSERT INTO shop.item (item_id, title) VALUES (950, 'samovar for coffee')");
        assert_eq!(database.ask("SELECT item_id FROM rec_search(1, 'coffee samovar', 1)"), "950");

        // Every source is measured by itself, on searches that the model has not seen.
        let measured = database.ask(
            "SELECT string_agg(DISTINCT grp, ', ' ORDER BY grp), bool_and(value BETWEEN 0 AND 1 AND low <= value AND value <= high),
             count(DISTINCT metric) FROM rec_evaluate('dual', task => 'search', k => '{10}')",
        );
        assert_eq!(measured, "all, all without user, model, text|t|3");
        let by = "SELECT count(DISTINCT grp) > 8 FROM rec_evaluate('dual', task => 'search', by => 'frequency')";
        assert_eq!(database.ask(by), "t");
        let value = |grp: &str| -> f64 {
            database
                .ask(&format!(
                    "SELECT value FROM rec_evaluate('dual', task => 'search') WHERE grp = '{grp}' AND metric = 'hr'"
                ))
                .parse()
                .unwrap()
        };
        assert!(value("model") > 0.1, "{}", value("model"));
        database.run("CALL rec_train('dual_intent', '{\"epochs\": 1}', model => 'all')");
        for (call, why) in [
            ("rec_evaluate('all', task => 'search')", "has seen what it would be asked for"),
            ("rec_evaluate('dual', task => 'guess')", "task \"guess\" does not exist"),
            ("rec_evaluate('dual', task => 'search', by => 'popularity')", "searches cannot be grouped"),
            ("rec_evaluate('tgh', task => 'search')", "knows no queries"),
        ] {
            let message = database.fails(&format!("SELECT * FROM {call}"));
            assert!(message.contains(why), "{call}: {message}");
        }
        database.run("DELETE FROM shop.search");
        let message = database.fails("CALL rec_train('dual_intent')");
        assert!(message.contains("search"), "{message}");
    });
}
