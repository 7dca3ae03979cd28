//! Semantic IDs: codes as data, items by their codes, and codes for items that come later.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use pgrec_tests::{Database, each_database};

/// Items and their codes, as the relation of all of them has them.
fn all(database: &Database<'_>) -> BTreeMap<i64, String> {
    let rows = database.ask("SELECT * FROM rec_semantic_ids('codes', 'shop')");
    let row = |line: &str| line.split_once('|').map(|(item, code)| (item.parse().unwrap(), code.to_owned())).unwrap();
    rows.lines().map(row).collect()
}

fn items(text: &str) -> BTreeSet<i64> {
    text.lines().map(|line| line.split('|').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn codes_print_sort_and_compare_level_by_level() {
    each_database(|database| {
        let one = |query: &str| database.ask(query);
        assert_eq!(one("SELECT '<a_12><b_7><c_65535>'::semantic_id"), "<a_12><b_7><c_65535>");
        assert_eq!(
            one("SELECT ' <a_1> <b_2> '::semantic_id, ''::semantic_id = '{}'::int[]::semantic_id"),
            "<a_1><b_2>|t"
        );
        assert_eq!(one("SELECT '<a_12><b_7>'::semantic_id::int[], ARRAY[12, 7]::semantic_id"), "{12,7}|<a_12><b_7>");
        let sorted =
            "SELECT string_agg(code::text, ' ' ORDER BY code) FROM (VALUES ('<a_2>'), ('<a_10>'), ('<a_2><b_300>'),
            ('<a_2><b_9>'), ('')) v(text), LATERAL (SELECT text::semantic_id AS code) c";
        assert_eq!(one(sorted), " <a_2> <a_2><b_9> <a_2><b_300> <a_10>");
        assert_eq!(
            one(
                "SELECT '<a_2><b_9>'::semantic_id ^@ '<a_2>', '<a_2>'::semantic_id ^@ '<a_2><b_9>', '<a_2>'::semantic_id <> '<a_3>'"
            ),
            "t|f|t"
        );
        assert_eq!(
            one(
                "SELECT rec_semantic_prefix('<a_2><b_9>', 1), rec_semantic_prefix('<a_2>', 5), rec_semantic_prefix('<a_2>', -1)"
            ),
            "<a_2>|<a_2>|"
        );
        assert_eq!(
            one(
                "SELECT code, count(*) FROM (VALUES ('<a_1>'::semantic_id), ('<a_1>'), ('<a_2>')) v(code) GROUP BY 1 ORDER BY 1"
            ),
            "<a_1>|2\n<a_2>|1"
        );
        for wrong in ["<b_1>", "<a_1", "<a_>", "<a_65536>", "<a_1><c_2>", "a_1", "<a_-1>", "<a_+1>", "<a_1>x"] {
            let message = database.fails(&format!("SELECT '{wrong}'::semantic_id"));
            assert!(message.contains("invalid input syntax for type semantic_id"), "{wrong}: {message}");
        }
        for wrong in ["ARRAY[-1]", "ARRAY[65536]", "ARRAY[NULL]::int[]", "array_fill(1, ARRAY[27])"] {
            assert!(database.fails(&format!("SELECT {wrong}::semantic_id")).contains("no semantic_id"), "{wrong}");
        }
        database.run(
            "CREATE TABLE code AS SELECT ARRAY[i % 50, i]::semantic_id AS code FROM generate_series(0, 9999) i;
            CREATE INDEX ON code (code); ANALYZE code",
        );
        let range = "FROM code WHERE code >= '<a_7>' AND code < '<a_8>'";
        assert!(one(&format!("EXPLAIN SELECT code {range}")).contains("Index"), "ranges of codes use an index");
        assert_eq!(one(&format!("SELECT count(*) {range}")), "200");
        database.run("CREATE TABLE sent (code semantic_id); COPY code TO '/dev/null' (FORMAT binary)");
    });
}

#[test]
fn every_item_has_a_code_of_its_own_and_is_found_under_its_beginnings() {
    each_database(|database| {
        database.with_codes();
        let codes = all(database);
        assert_eq!(codes.len(), 200);
        assert_eq!(codes.values().collect::<BTreeSet<_>>().len(), 200, "two items have one code");
        for levels in 0..=3 {
            let prefix = format!("SELECT rec_semantic_prefix('{}', {levels})", codes[&180]);
            let prefix = database.ask(&prefix);
            let expected = codes.iter().filter(|(_, code)| code.starts_with(&prefix)).map(|(item, _)| *item);
            let found = database.ask(&format!("SELECT * FROM rec_semantic_items('{prefix}', model => 'codes')"));
            assert_eq!(items(&found), expected.collect());
            let sorted =
                "SELECT coalesce(bool_and(before < code), true) FROM (SELECT code, lag(code) OVER () AS before FROM
                rec_semantic_items('PREFIX', model => 'codes')) s WHERE before IS NOT NULL";
            assert_eq!(database.ask(&sorted.replace("PREFIX", &prefix)), "t");
        }
        let first = "SELECT * FROM rec_semantic_items('', 7, 'codes')";
        assert_eq!(database.ask(first), database.ask("SELECT * FROM rec_semantic_ids('codes') ORDER BY code LIMIT 7"));
        assert_eq!(database.ask("SELECT * FROM rec_semantic_items('<a_9>')"), "");
        assert_eq!(database.ask("SELECT count(*) FROM rec_semantic_items(NULL, 0)"), "0");
        let near = database.ask("SELECT item_id, shared, distance FROM rec_semantic_neighbours(180, 199, 'codes')");
        assert_eq!(near.lines().count(), 199);
        let mut before = (i64::MAX, 0.0);
        for line in near.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let (item, shared, distance) = (
                fields[0].parse::<i64>().unwrap(),
                fields[1].parse::<i64>().unwrap(),
                fields[2].parse::<f64>().unwrap(),
            );
            let alike = |levels: usize| {
                database.ask(&format!(
                    "SELECT rec_semantic_prefix('{}', {levels}) = rec_semantic_prefix('{}', {levels})",
                    codes[&item], codes[&180]
                )) == "t"
            };
            if item % 40 == 0 {
                assert!(alike(shared as usize) && !alike(shared as usize + 1), "{line}");
            }
            assert!(shared < before.0 || shared == before.0 && distance >= before.1, "{line} after {before:?}");
            before = (shared, distance);
        }
        let stats = |metric: &str| {
            database
                .ask(&format!("SELECT value FROM rec_semantic_stats('codes') WHERE metric = '{metric}' ORDER BY level"))
        };
        assert_eq!((stats("items"), stats("assigned"), stats("collisions")), ("200".into(), "30".into(), "0".into()));
        assert_eq!(stats("codes"), "8\n8\n8");
        let words = "SELECT count(*), sum(items), count(DISTINCT token), min(token), max(vector_dims(embedding)) FROM
            rec_semantic_vocabulary('codes') GROUP BY level ORDER BY level";
        assert_eq!(database.ask(words), "8|200|8|<a_0>|8\n8|200|8|<b_0>|8\n8|200|8|<c_0>|8");
    });
}

#[test]
fn new_items_get_codes_that_nobody_has_and_old_ones_keep_theirs() {
    each_database(|database| {
        database.with_codes();
        let before = all(database);
        // Reading gives a code and keeps none; item 201 has the vector of item 180.
        let provisional = database.ask("SELECT rec_semantic_id(201)");
        assert!(provisional.starts_with("<a_") && !before.values().any(|code| *code == provisional));
        assert_eq!(all(database), before);
        assert_eq!(database.ask("SELECT rec_semantic_id(999) IS NULL, rec_semantic_id(NULL) IS NULL"), "t|t");
        assert_eq!(
            database.ask("BEGIN; SELECT rec_semantic_assign(); SELECT rec_semantic_id(201); ROLLBACK"),
            format!("1\n{provisional}")
        );
        assert_eq!(database.ask("SELECT rec_semantic_assign()"), "1");
        assert_eq!(database.ask("SELECT rec_semantic_id(201)"), provisional);
        assert_eq!(database.ask("SELECT rec_semantic_assign()"), "0");
        // A trigger does it at once, also for a role that may do nothing else.
        let role = database.role("stocker");
        database.run(&format!(
            "CREATE TRIGGER code AFTER INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_semantic_assign_new('shop');
             CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role}; GRANT INSERT ON shop.item TO {role};
             SET ROLE {role}; INSERT INTO shop.item (item_id, embedding) VALUES (300, '[1,2,3,4,5,6,7,8]'), (301, NULL)"
        ));
        assert!(all(database).contains_key(&300) && !all(database).contains_key(&301));
        database.run("UPDATE shop.item SET embedding = '[8,7,6,5,4,3,2,1]' WHERE item_id IN (300, 301)");
        let after = all(database);
        assert!(after.contains_key(&301) && before.iter().all(|(item, code)| after[item] == *code));
        // What hinders a code does not hinder the item.
        database.run("INSERT INTO shop.item (item_id, embedding) VALUES (302, '[1,2,3,4,5,6,7,8]'); DROP TRIGGER code ON shop.item;
            CREATE TABLE other (id bigint);
            CREATE TRIGGER code AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION rec_semantic_assign_new('shop');
            INSERT INTO other VALUES (1)");
        assert_eq!(database.ask("SELECT count(*) FROM other"), "1");
        database.run(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"));
    });
}

#[test]
fn sessions_that_code_alike_items_at_the_same_time_give_different_codes() {
    each_database(|database| {
        database.with_codes();
        database.run(
            "CREATE TRIGGER code AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_semantic_assign_new()",
        );
        let alike =
            |item: i64| format!("INSERT INTO shop.item (item_id, embedding) VALUES ({item}, '[1,2,3,4,5,6,7,8]')");
        let (mut first, mut second) = (database.session(), database.session());
        let _ = first.run("BEGIN").rows();
        let _ = first.run(&alike(401)).rows();
        // It wants the same code, and waits for the first session's decision.
        second.send(&alike(402));
        database.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
            "1",
        );
        let _ = first.run("COMMIT").rows();
        let _ = second.reply().rows();
        let (a, b) = (database.ask("SELECT rec_semantic_id(401)"), database.ask("SELECT rec_semantic_id(402)"));
        assert_ne!(a, b);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let database = &database;
                scope.spawn(move || (0..20).for_each(|at| database.run(&alike(500 + 20 * worker + at))));
            }
        });
        let codes = all(database);
        assert_eq!(codes.len(), 282 + usize::from(codes.contains_key(&201)));
        assert_eq!(codes.values().collect::<BTreeSet<_>>().len(), codes.len());
    });
}

#[test]
fn models_of_codes_rank_nothing_and_say_so() {
    each_database(|database| {
        database.with_codes();
        for (call, expected) in [
            ("SELECT rec_deploy('codes')", "rank nothing"),
            ("CALL rec_train('semantic_ids', deploy => true)", "rank nothing"),
            ("SELECT * FROM rec_next(1, model => 'codes')", "ranks nothing"),
            ("SELECT * FROM rec_evaluate('semantic_ids')", "rank nothing"),
            ("SELECT * FROM rec_evaluate('codes')", "rank nothing"),
            ("SELECT rec_semantic_id(1, 'tgh')", "model \"tgh\" has no semantic IDs"),
            ("SELECT rec_semantic_id(1, 'none')", "does not exist"),
            ("SELECT * FROM rec_semantic_items('', -1)", "k must not be negative"),
            ("CALL rec_train('graph', '{\"base\": \"codes\"}')", "builds on no other model"),
            ("CALL rec_train('semantic_ids', '{\"base\": \"tgh\"}')", "has no vectors of these items"),
            ("CALL rec_train('semantic_ids', '{\"levels\": 1, \"codes\": 4}')", "raise levels or codes"),
        ] {
            let message = database.fails(call);
            assert!(message.contains(expected), "{call}: {message}");
        }
        assert_eq!(database.ask("SELECT count(*) FROM rec_similar(3, 5, model => 'codes')"), "5");
        // Those of another model's vectors: none for an item that it does not know.
        database.run("CALL rec_train('semantic_ids', '{\"base\": \"encoder\", \"levels\": 2, \"codes\": 32}', model => 'learnt')");
        assert_eq!(database.ask("SELECT count(*) FROM rec_semantic_ids()"), "200");
        assert_eq!(database.ask("SELECT rec_semantic_id(201) IS NULL"), "t");
        assert!(database.fails("SELECT rec_semantic_assign()").contains("vectors of another model"));
        assert_eq!(database.ask("SELECT metrics->'codes'->>'collisions' FROM rec.models WHERE name = 'learnt'"), "0");
    });
}

#[test]
fn who_may_not_read_the_interactions_sees_no_codes_and_only_owners_give_them() {
    each_database(|database| {
        database.with_codes();
        let role = database.role("coder");
        database.run(&format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role}"));
        let as_role = |query: &str| format!("SET ROLE {role}; {query}");
        for query in
            ["SELECT rec_semantic_id(1)", "SELECT * FROM rec_semantic_ids()", "SELECT * FROM rec.semantic_code"]
        {
            assert!(database.fails(&as_role(query)).contains("permission denied"), "{query}");
        }
        database.run(&format!("GRANT SELECT ON shop.interaction TO {role}"));
        assert_eq!(database.ask(&as_role("SELECT count(*) FROM rec_semantic_ids()")), "200");
        assert!(database.fails(&as_role("SELECT rec_semantic_assign()")).contains("must be owner"));
        database.run(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"));
    });
}

#[test]
fn items_of_every_id_type_have_codes_through_the_functions_of_their_schema() {
    each_database(|database| {
        database.run("CREATE TABLE by_name (id text, v vector(2));
            INSERT INTO by_name SELECT 'item ' || i, format('[%s,%s]', i, i % 7)::vector FROM generate_series(1, 40) i;
            CREATE TABLE seen (who uuid, what text, at timestamptz);
            SELECT rec_create('named', interactions => 'seen', user_column => 'who', item_column => 'what', time_column => 'at',
                items => 'by_name', item_id_column => 'id', embedding_column => 'v');
            CALL rec_train('semantic_ids', '{\"levels\": 2, \"codes\": 8}', 'named', 'codes')");
        assert_eq!(database.ask("SELECT count(*), count(DISTINCT code) FROM named.rec_semantic_ids()"), "40|40");
        database.run("INSERT INTO by_name VALUES ('new', '[3,3]'); SELECT rec_semantic_assign(recommender => 'named')");
        let own = "SELECT item_id FROM named.rec_semantic_items(named.rec_semantic_id('new'))";
        assert_eq!(database.ask(own), "new");
        assert_eq!(
            database
                .ask("SELECT pg_typeof(item_id), count(*) FROM named.rec_semantic_neighbours('item 7', 3) GROUP BY 1"),
            "text|3"
        );
        assert!(database.fails("SELECT rec_semantic_id(7, recommender => 'named')").contains("takes bigint ids"));
    });
}
