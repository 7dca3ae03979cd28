//! Searching by words, by vectors, and by both.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, each_database};

/// Titles over the generated shop's: a few kinds of things in a few colours, and stock.
fn shelves(database: &Database<'_>) {
    database.run(
        "UPDATE shop.item SET title = (ARRAY['red', 'green', 'blue', 'black', 'white'])[1 + item_id % 5] || ' '
                || (ARRAY['running shoes', 'rain jackets', 'wool hats', 'leather belts'])[1 + item_id % 4]
                || repeat(' with pockets', (item_id % 3)::integer),
            description = CASE item_id WHEN 7 THEN 'limited edition for zebras' END;
         ALTER TABLE shop.item ADD COLUMN in_stock boolean DEFAULT true;
         VACUUM ANALYZE shop.item",
    );
}

/// BM25 of all items for these words, as SQL computes it from the words' positions, best first.
fn by_hand(database: &Database<'_>, query: &str, k: usize) -> String {
    database.ask(&format!(
        "WITH asked AS (SELECT unnest(tsvector_to_array(to_tsvector((SELECT search_config FROM rec.recommender WHERE name = 'shop')::regconfig, '{query}'))) AS word),
              had AS (SELECT item_id, lexeme AS word, cardinality(positions) AS times FROM shop.item, unnest(words)),
              long AS (SELECT item_id, sum(times) AS length FROM had GROUP BY item_id),
              matched AS (SELECT * FROM had JOIN asked USING (word) JOIN long USING (item_id)),
              says AS (SELECT word, ln(1 + (200 - count(*) + .5) / (count(*) + .5)) AS idf FROM matched GROUP BY word),
              mean AS (SELECT avg(length) AS mean FROM long WHERE item_id IN (SELECT item_id FROM matched))
         SELECT item_id, round(sum(idf * times * 2.2 / (times + 1.2 * (.25 + .75 * length / mean)))::numeric, 3) AS score
         FROM matched JOIN says USING (word), mean GROUP BY item_id ORDER BY score DESC, item_id LIMIT {k}"
    ))
}

#[test]
fn texts_are_ranked_by_bm25() {
    each_database(|database| {
        shelves(database);
        for query in ["zebras", "red", "red shoes", "blue belt with a pocket", "limited red running hats"] {
            let found = database.ask(&format!(
                "SELECT item_id, round(score::numeric, 3) FROM rec_search(NULL, '{query}', 40) ORDER BY 2 DESC, 1"
            ));
            assert!(!found.is_empty());
            assert_eq!(found, by_hand(database, query, 40), "{query}");
        }
    });
}

#[test]
fn what_was_written_a_line_earlier_is_found_and_what_was_rolled_back_is_not() {
    each_database(|database| {
        shelves(database);
        let found = "SELECT item_id FROM rec_search(1, 'chartreuse kayak', 1)";
        let script = format!(
            "BEGIN; INSERT INTO shop.item (item_id, title) VALUES (900, 'chartreuse kayak'); {found}; ROLLBACK; {found};"
        );
        assert_eq!(database.ask(&script), "900");
        database.run("INSERT INTO shop.item (item_id, title) VALUES (901, 'a kayak, chartreuse')");
        assert_eq!(database.ask(found), "901");
        database.run("UPDATE shop.item SET title = 'canoe' WHERE item_id = 901");
        assert_eq!(database.ask(found), "");
        assert_eq!(
            database.ask("SELECT item_id FROM rec_search(1, 'chartreuse canoe')"),
            "901",
            "an unknown word is left out"
        );
    });
}

#[test]
fn filters_hold_for_every_source() {
    each_database(|database| {
        shelves(database);
        let searches = [
            "rec_search(1, 'red shoes', 500, candidates => {}, exclude => ARRAY[5, 20], exclude_seen => {})",
            "rec_search(1, '', 500, (SELECT embedding FROM shop.item WHERE item_id = 40)::real[], {},
                exclude => ARRAY[5, 20], exclude_seen => {})",
            "rec_search(1, 'red shoes', 500, (SELECT embedding FROM shop.item WHERE item_id = 40)::real[], {},
                exclude => ARRAY[5, 20], exclude_seen => {})",
        ];
        let stocked = "ARRAY(SELECT item_id FROM shop.item WHERE item_id % 2 = 0)";
        let seen = "EXISTS (SELECT FROM shop.interaction e WHERE e.user_id = 1 AND e.item_id = s.item_id)";
        for search in searches {
            let with = |candidates: &str, unseen: &str| {
                let call = search.replacen("{}", candidates, 1).replacen("{}", unseen, 1);
                database.ask(&format!(
                    "SELECT count(*) > 0, bool_or(item_id IN (5, 20)), bool_or(item_id % 2 = 1), bool_or({seen}), \
                     count(*) = count(DISTINCT item_id) FROM {call} s"
                ))
            };
            assert_eq!(with("NULL", "false"), "t|f|t|t|t", "{search}");
            assert_eq!(with(stocked, "NULL"), "t|f|f|t|t", "{search}");
            assert_eq!(with("NULL", "true"), "t|f|t|f|t", "{search}");
            assert_eq!(with("ARRAY[]::bigint[]", "false"), "f||||t", "{search}");
        }
    });
}

#[test]
fn who_may_not_see_an_item_does_not_find_it() {
    each_database(|database| {
        shelves(database);
        let role = database.role("guest");
        database.run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA shop TO {role};
             GRANT SELECT ON shop.item, shop.interaction, shop.search TO {role};
             ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY;
             CREATE POLICY stocked ON shop.item FOR SELECT TO {role} USING (item_id % 2 = 0)"
        ));
        let odd = "SELECT count(*) > 0, bool_or(item_id % 2 = 1) FROM rec_search(NULL, 'red shoes', 100)";
        assert_eq!(database.ask(odd), "t|t");
        assert_eq!(database.ask(&format!("SET ROLE {role}; {odd}")), "t|f");
        database.run(&format!("REVOKE SELECT ON shop.item FROM {role}"));
        let message = database.fails(&format!("SET ROLE {role}; {odd}"));
        assert!(message.contains("permission denied for table item"), "{message}");
    });
}

#[test]
fn text_and_vectors_make_one_list() {
    each_database(|database| {
        shelves(database);
        database.run("CREATE INDEX near ON shop.item USING usearch (embedding vector_cosine_ops)");
        let vector = "(SELECT embedding FROM shop.item WHERE item_id = 40)::real[]";
        let by_vector = database.ask(&format!("SELECT item_id FROM rec_search(NULL, NULL, 5, {vector})"));
        let exact = "SELECT item_id FROM shop.item WHERE embedding IS NOT NULL
            ORDER BY embedding <=> (SELECT embedding FROM shop.item WHERE item_id = 40) LIMIT 5";
        assert_eq!(by_vector, database.ask(&format!("SET enable_indexscan = off; {exact}")));
        // Reciprocal ranks of both lists, by hand.
        let both = database.ask(&format!(
            "WITH lists AS (SELECT * FROM rec_search(NULL, 'zebras', 1000)
                            UNION ALL SELECT * FROM rec_search(NULL, NULL, 1000, {vector}))
             SELECT item_id, round(sum(1 / (60.0 + rank)), 5) FROM lists GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
        ));
        let found = database.ask(&format!(
            "SELECT item_id, round(score::numeric, 5) FROM rec_search(NULL, 'zebras', 20, {vector}) ORDER BY 2 DESC, 1"
        ));
        assert_eq!(found, both);
        let message = database.fails("SELECT * FROM rec_search(NULL, 'red', 5, ARRAY[1, 2]::real[])");
        assert!(message.contains("different vector dimensions"), "{message}");
        let message = database.fails("SELECT * FROM rec_search(NULL, 'red', 5, ARRAY['NaN']::real[])");
        assert!(message.contains("embedding holds something that is not a finite number"), "{message}");
    });
}

#[test]
fn an_empty_query_is_rec_next() {
    each_database(|database| {
        let next = database.ask("SELECT * FROM rec_next(1, 7)");
        for nothing in ["NULL", "''", "E' \\n\\t '"] {
            assert_eq!(database.ask(&format!("SELECT * FROM rec_search(1, {nothing}, 7)")), next);
        }
        let message = database.fails("SELECT * FROM rec_search(1, 'red', model => 'tgh')");
        assert!(message.contains("knows no queries"), "{message}");
    });
}

#[test]
fn an_applications_own_tables_are_searched_in_its_own_language() {
    each_database(|database| {
        database.run(
            "CREATE TABLE goods (code uuid PRIMARY KEY, name varchar(80), in_stock boolean);
             CREATE TABLE visits (visitor text, good uuid, seen timestamptz);
             CREATE TABLE asked (visitor text, query text, bought uuid, asked_at timestamptz);
             CREATE INDEX ON visits (visitor, seen); CREATE INDEX ON asked (visitor, asked_at);
             INSERT INTO goods SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid,
                (ARRAY['rote Häuser', 'ein rotes Haus', 'grüne Bäume'])[n], true FROM generate_series(1, 3) n;
             INSERT INTO visits SELECT 'eve', code, now() FROM goods;
             SELECT rec_create('garten', 'visits', 'visitor', 'good', items => 'goods', item_id_column => 'code',
                title_column => 'name', searches => 'asked', search_user_column => 'visitor',
                search_item_column => 'bought', search_config => 'german')",
        );
        // Stems of the language, and typed functions with exactly its ids.
        assert_eq!(
            database.ask("SELECT right(item_id::text, 1) FROM garten.rec_search('eve', 'Haus') ORDER BY 1"),
            "1\n2"
        );
        let one = "SELECT right(item_id::text, 1) FROM garten.rec_search(NULL, 'das rote Haus',
            candidates => ARRAY(SELECT code FROM goods WHERE name LIKE 'ein%'))";
        assert_eq!(database.ask(one), "2");
        // The same through an index on the words.
        database.run("CREATE INDEX ON goods USING gin (to_tsvector('german', name)); ANALYZE goods");
        assert_eq!(database.ask(one), "2");
        let message = database.fails("SELECT * FROM rec_search(1, 'x', recommender => 'garten')");
        assert!(message.contains("Call garten.rec_search(…)"), "{message}");
        let bound = "SELECT query_column, search_time_column, search_config FROM rec.recommender WHERE name = 'garten'";
        assert_eq!(database.ask(bound), "query|asked_at|pg_catalog.german");
        database.run("DROP TABLE asked");
        assert!(database.ask("SELECT finding FROM rec_check('garten')").contains("their relation has been dropped"));
    });
}

#[test]
fn missing_indexes_are_named_with_the_statement_that_makes_them() {
    each_database(|database| {
        database.run(
            "CREATE TABLE wares (item_id bigint PRIMARY KEY, title text, embedding vector(3));
             INSERT INTO wares SELECT n, 'thing ' || n, ARRAY[n, 1, 0]::real[]::vector FROM generate_series(1, 12000) n;
             CREATE TABLE visits (user_id bigint, item_id bigint, at timestamptz);
             CREATE TABLE asked (user_id bigint, query text);
             CREATE INDEX ON visits (user_id, at);
             SELECT rec_create('depot', 'visits', items => 'wares', title_column => 'title',
                embedding_column => 'embedding', searches => 'asked', search_config => 'english'); ANALYZE wares",
        );
        let missing = "SELECT count(*) FROM rec_check('depot') WHERE remedy LIKE 'CREATE INDEX%'";
        assert_eq!(database.ask(missing), "3");
        database.run("SELECT remedy FROM rec_check('depot') WHERE remedy LIKE 'CREATE INDEX%' \\gexec");
        assert_eq!(database.ask(missing), "0", "what it says makes them");
        let plan = database.ask(
            "EXPLAIN SELECT * FROM wares WHERE to_tsvector('pg_catalog.english', title) @@ '''thing'' & ''77'''::tsquery",
        );
        assert!(plan.contains("Bitmap Index Scan"), "{plan}");
    });
}
