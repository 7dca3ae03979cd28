//! Models that know queries: keywords, and what a retriever has learnt.
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
        let why = database
            .ask(&format!("SELECT rec_explain(1, (SELECT item_id FROM rec_next(1, 1))) -> 'reasons' IS NOT NULL"));
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
        database.run("CALL rec_train('retriever', model => 'turns')");
        let after: f64 = database.ask(found).parse().unwrap();
        assert!(before < 0.3 && after > 0.8, "{before} before, {after} after");
        let measured =
            "SELECT (metrics #>> '{validation,mrr}')::real > (metrics #>> '{validation,unprojected_mrr}')::real
            FROM rec.models WHERE name = 'turns'";
        assert_eq!(database.ask(measured), "t");
        let message = database.fails("SELECT rec_deploy('turns')");
        assert!(message.contains("ranks no items") || message.contains("cannot be deployed"), "{message}");
        let message = database.fails("SELECT * FROM rec_search(NULL, NULL, 1, ARRAY[1, 2]::real[])");
        assert!(message.contains("dimensions"), "{message}");
        database.run("SELECT rec_drop_model('turns'); DELETE FROM shop.search");
        let message = database.fails("CALL rec_train('retriever')");
        assert!(message.contains("searches"), "{message}");
    });
}
