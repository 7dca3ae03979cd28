//! The access method `usearch` as an application sees it.
#![allow(clippy::unwrap_used)]

use pgrec_tests::vectors::{VECTORS, check_index, insert};
use pgrec_tests::{Database, each_database, each_server};
use xtask::{Options, Shutdown};

/// Makes the planner take the index.
const INDEX_ONLY: &str = "SET enable_seqscan = off; SET enable_sort = off; ";

fn through_index(database: &Database<'_>, query: &str) -> String {
    let plan = database.ask(&format!("{INDEX_ONLY}EXPLAIN (COSTS off) {query}"));
    assert!(plan.contains("Index Scan"), "{query}\n{plan}");
    database.ask(&format!("{INDEX_ONLY}{query}"))
}

#[test]
fn every_operator_class_orders_by_its_operator_and_leaves_out_what_has_no_distance() {
    each_database(|database| {
        for (kind, class, operator, without_zero) in [
            ("vector", "vector_l2_ops", "<->", false),
            ("vector", "vector_ip_ops", "<#>", false),
            ("vector", "vector_cosine_ops", "<=>", true),
            ("halfvec", "halfvec_l2_ops", "<->", false),
            ("halfvec", "halfvec_ip_ops", "<#>", false),
            ("halfvec", "halfvec_cosine_ops", "<=>", true),
        ] {
            database.run(&format!(
                "DROP TABLE IF EXISTS s; CREATE TABLE s (id int, v {kind}(3));
                 INSERT INTO s VALUES (1, '[0,0,0]'), (2, '[1,2,3]'), (3, '[1,1,1]'), (4, NULL), (5, '[-1,0,2]');
                 CREATE INDEX s_v ON s USING usearch (v {class});
                 INSERT INTO s VALUES (6, '[1,2,4]'), (7, NULL), (8, '[0,0,0]'), (9, '[3,-1,0]')"
            ));
            let order = format!("ORDER BY v {operator} '[3,3,2]', id");
            let keep = if without_zero { "AND id NOT IN (1, 8)" } else { "" };
            let wanted = database.ask(&format!("SELECT id FROM s WHERE v IS NOT NULL {keep} {order}"));
            let found = through_index(database, &format!("SELECT id FROM s ORDER BY v {operator} '[3,3,2]'"));
            let distances = |ids: &str| {
                let list = ids.replace('\n', ",");
                database.ask(&format!(
                    "SELECT (v {operator} '[3,3,2]')::real FROM unnest(ARRAY[{list}]) WITH ORDINALITY o (id, place)
                     JOIN s USING (id) ORDER BY place"
                ))
            };
            assert_eq!(distances(&found), distances(&wanted), "{class}");
            // What is compared with NULL comes in any order, as it does without an index.
            let nothing = format!("SELECT count(*) FROM (SELECT id FROM s ORDER BY v {operator} NULL::{kind}) n");
            assert_eq!(database.ask(&format!("SET enable_seqscan = off; {nothing}")), "9");
        }
        // Equal directions: a distance of nothing, however the halves were rounded.
        for (scalar, kind) in [("auto", "halfvec"), ("bf16", "vector"), ("i8", "vector")] {
            database.run(&format!(
                "DROP TABLE IF EXISTS e; CREATE TABLE e (id int, v {kind}(3));
                 INSERT INTO e SELECT i, ARRAY[i, i, i]::{kind} FROM generate_series(1, 50) i;
                 CREATE INDEX ON e USING usearch (v {kind}_cosine_ops) WITH (scalar = {scalar});
                 INSERT INTO e SELECT i, ARRAY[i, i, 2 * i]::{kind} FROM generate_series(51, 90) i"
            ));
            let found =
                through_index(database, &format!("SELECT id <= 50 FROM e ORDER BY v <=> '[3,3,3]'::{kind} LIMIT 60"));
            assert_eq!(found, format!("{}{}", "t\n".repeat(50), "f\n".repeat(10)).trim_end(), "{scalar} {kind}");
        }
        database.run(
            "CREATE TABLE b (id int, v bit(10)); INSERT INTO b VALUES (1, B'1111111111'), (2, B'0000000000'), (3, NULL);
             CREATE INDEX ON b USING usearch (v bit_hamming_ops); INSERT INTO b VALUES (4, B'1111100000')",
        );
        assert_eq!(through_index(database, "SELECT id FROM b ORDER BY v <~> B'1111110000'"), "4\n1\n2");
    });
}

#[test]
fn an_empty_index_gives_nothing_and_takes_rows() {
    each_database(|database| {
        database.run("CREATE TABLE s (v vector(3)); CREATE INDEX s_v ON s USING usearch (v vector_l2_ops)");
        assert_eq!(through_index(database, "SELECT * FROM s ORDER BY v <-> '[1,2,3]'"), "");
        database.run("INSERT INTO s VALUES ('[1,2,3]'), (NULL); TRUNCATE s");
        assert_eq!(through_index(database, "SELECT * FROM s ORDER BY v <-> '[1,2,3]'"), "");
        database.run("INSERT INTO s VALUES ('[4,5,6]')");
        assert_eq!(through_index(database, "SELECT * FROM s ORDER BY v <-> '[1,2,3]'"), "[4,5,6]");
    });
}

#[test]
fn what_cannot_be_indexed_is_refused_with_a_reason() {
    each_database(|database| {
        database.run(
            "CREATE TABLE s (free vector, v vector(3), wide vector(2001), h halfvec(4001), b bit(8));
             CREATE INDEX s_v ON s USING usearch (v vector_l2_ops)",
        );
        for (statement, message) in [
            ("CREATE INDEX ON s USING usearch (free vector_l2_ops)", "column does not have dimensions"),
            ("CREATE INDEX ON s USING usearch (wide vector_l2_ops)", "cannot have more than 2000 dimensions"),
            ("CREATE INDEX ON s USING usearch (h halfvec_l2_ops)", "cannot have more than 4000 dimensions"),
            ("CREATE INDEX ON s USING usearch (v vector_l2_ops) WITH (scalar = i8)", "does not store i8"),
            ("CREATE INDEX ON s USING usearch (b bit_hamming_ops) WITH (scalar = f16)", "does not store f16"),
            ("CREATE INDEX ON s USING usearch (v vector_l2_ops) WITH (scalar = f8)", "invalid value for enum option"),
            ("CREATE INDEX ON s USING usearch (v vector_l2_ops) WITH (connectivity = 1)", "out of bounds"),
            ("CREATE INDEX ON s USING usearch (v vector_l2_ops, v vector_l2_ops)", "does not support multicolumn"),
            ("CREATE UNIQUE INDEX ON s USING usearch (v vector_l2_ops)", "does not support unique"),
            ("INSERT INTO s (v) VALUES ('[1,2]')", "expected 3 dimensions, not 2"),
            ("LOAD 'pgrec'; SET usearch.expansion_search = 2001", "outside the valid range"),
            ("LOAD 'pgrec'; SET usearch.iterative_scan = sometimes", "invalid value"),
            ("SELECT * FROM rec_index_stats('s')", "no index of access method usearch"),
            ("SELECT * FROM rec_index_recall('s')", "no index of access method usearch"),
            ("SELECT * FROM rec_index_recall('s_v', 0)", "at least 1"),
        ] {
            let error = database.fails(statement);
            assert!(error.contains(message), "{statement}: {error}");
        }
        let error = database.fails(&format!("{INDEX_ONLY}SELECT * FROM s ORDER BY v <-> '[1,2]' LIMIT 1"));
        assert!(error.contains("different vector dimensions 3 and 2"), "{error}");
        database.run("CREATE INDEX ON s USING usearch ((free::vector(3)) vector_cosine_ops)");
    });
}

#[test]
fn rows_are_sealed_removed_and_merged_and_the_index_agrees_with_the_table_throughout() {
    each_database(|database| {
        database.run(VECTORS);
        check_index(database, "empty");
        database.run(&insert(1, 700));
        check_index(database, "rows one by one");
        let stats = "SELECT segments, rows, dead, delta_rows FROM rec_index_stats('t_v')";
        assert_eq!(database.ask(stats), "0|700|0|700");
        database.run(&insert(701, 2_200));
        check_index(database, "segments");
        let segments: i32 = database.ask("SELECT segments FROM rec_index_stats('t_v')").parse().unwrap();
        assert!(segments >= 1, "nothing was sealed");
        database.run("DELETE FROM t WHERE id % 3 = 0; UPDATE t SET grp = grp WHERE id % 7 = 0");
        check_index(database, "deleted, not vacuumed");
        database.run("VACUUM t");
        check_index(database, "vacuumed");
        let dead: i32 = database.ask("SELECT dead FROM rec_index_stats('t_v')").parse().unwrap();
        assert!(dead == 0, "vacuum leaves {dead} removed rows in segments that are a third of removed rows");
        database.run(&insert(10_000, 13_500));
        database.run("VACUUM t");
        check_index(database, "merged");
        let segments: i32 = database.ask("SELECT segments FROM rec_index_stats('t_v')").parse().unwrap();
        assert!(segments < 4, "{segments} segments after vacuum");
        let pages =
            |database: &Database<'_>| -> i64 { database.ask("SELECT pg_relation_size('t_v') / 8192").parse().unwrap() };
        let before = pages(database);
        database.run("DELETE FROM t; VACUUM t");
        check_index(database, "all deleted");
        database.run(&insert(20_000, 21_500));
        assert!(pages(database) <= before, "pages of removed segments are not used again");
        database
            .run("BEGIN; SAVEPOINT s; INSERT INTO t SELECT id + 50000, grp, v FROM t LIMIT 500; ROLLBACK TO s; COMMIT");
        check_index(database, "rolled back");
        database.run("VACUUM t");
        check_index(database, "rolled back and vacuumed");
    });
}

#[test]
fn filters_get_full_results_and_each_row_once() {
    each_database(|database| {
        database.run(VECTORS);
        database.run(&insert(1, 3_000));
        database.run("VACUUM ANALYZE t");
        let query = |rest: &str| format!("SELECT id FROM t {rest} ORDER BY v <-> make_vector(5, 512)::vector(512)");
        for (settings, filter, rows) in [
            ("", "WHERE grp = 7", 10),
            ("SET usearch.iterative_scan = relaxed_order; ", "WHERE grp = 7", 10),
            ("SET usearch.max_scan_tuples = 1; ", "WHERE grp = 7", 10),
            ("SET usearch.max_scan_tuples = 1; SET usearch.iterative_scan = relaxed_order; ", "WHERE id = 2999", 1),
        ] {
            let script = format!("{INDEX_ONLY}{settings}{} LIMIT 10", query(filter));
            let ids: Vec<String> = database.ask(&script).lines().map(str::to_owned).collect();
            assert_eq!(ids.len(), rows, "{settings}{filter}");
            let mut distinct = ids.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), rows, "{settings}{filter}: a row came twice");
        }
        let off = "SET usearch.iterative_scan = off; SET usearch.expansion_search = 20; ";
        let found = database.ask(&format!("{INDEX_ONLY}{off}SELECT count(*) FROM ({}) n", query("")));
        assert!(found.parse::<i32>().unwrap() == 20, "off gives {found} rows");
        let ascending = "SELECT bool_and(d >= before) FROM (SELECT d, lag(d, 1, 0) OVER (ORDER BY place) before FROM
            (SELECT v <-> make_vector(5, 512)::vector(512) d, row_number() OVER () place
             FROM (SELECT v FROM t ORDER BY v <-> make_vector(5, 512)::vector(512) LIMIT 500) n) o) p";
        let strict = format!("{INDEX_ONLY}SET usearch.expansion_search = 4; {ascending}");
        assert_eq!(database.ask(&strict), "t", "strict order is not in order");
    });
}

#[test]
fn smaller_numbers_are_ranked_again_by_the_rows_own() {
    each_database(|database| {
        database.run(
            "CREATE FUNCTION noise(seed int, dim int) RETURNS real[] LANGUAGE sql IMMUTABLE
             RETURN (SELECT array_agg((hashint8extended(seed, i) % 1000) / 1000.0) FROM generate_series(1, dim) i)::real[];
             CREATE TABLE s AS SELECT i AS id, noise(i, 24)::vector(24) AS v FROM generate_series(1, 1500) i;
             ALTER TABLE s ALTER v TYPE vector(24)",
        );
        for (scalar, class, operator) in [
            ("f16", "vector_l2_ops", "<->"),
            ("bf16", "vector_l2_ops", "<->"),
            ("bf16", "vector_ip_ops", "<#>"),
            ("f16", "vector_cosine_ops", "<=>"),
            ("i8", "vector_cosine_ops", "<=>"),
        ] {
            database.run(&format!(
                "DROP INDEX IF EXISTS s_v; CREATE INDEX s_v ON s USING usearch (v {class}) WITH (scalar = {scalar});
                 INSERT INTO s SELECT i, noise(i, 24)::vector(24) FROM generate_series(1501, 1550) i"
            ));
            let nearest = format!("SELECT id FROM s ORDER BY v {operator} noise(77777, 24)::vector(24) LIMIT 20");
            let found = through_index(database, &nearest);
            let wide = database.ask(&format!("{INDEX_ONLY}SET usearch.expansion_search = 400; {nearest}"));
            let exact = database.ask(&format!("SET enable_indexscan = off; {nearest}"));
            let places = |ids: &str| -> Vec<usize> {
                let all = database.ask(&format!("SET enable_indexscan = off; {}", nearest.replace("LIMIT 20", "")));
                ids.lines().map(|id| all.lines().position(|other| other == id).unwrap()).collect()
            };
            assert!(places(&found).is_sorted() && found.lines().count() == 20, "{scalar} {class}: not in order");
            // A graph may hide a row or two; rounding must not.
            let hits = exact.lines().filter(|id| wide.lines().any(|other| other == *id)).count();
            assert!(hits >= 18, "{scalar} {class}: {hits} of 20");
            database.run("DELETE FROM s WHERE id > 1500");
        }
    });
}

#[test]
fn what_a_dba_does_to_an_index_leaves_it_right() {
    let options = Options::new().set("allow_in_place_tablespaces", "on");
    each_server("index", &options, |server| {
        let database = Database::create(&server.cluster, "indexes");
        database.run(VECTORS);
        database.run(&insert(1, 1_500));
        for statement in [
            "REINDEX INDEX t_v",
            "REINDEX INDEX CONCURRENTLY t_v",
            "DROP INDEX t_v; CREATE INDEX CONCURRENTLY t_v ON t USING usearch (v vector_l2_ops)",
            "SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''; ALTER INDEX t_v SET TABLESPACE elsewhere",
            "CLUSTER t USING t_pkey",
            "VACUUM FULL t",
            "ALTER TABLE t SET UNLOGGED",
            "ALTER TABLE t SET LOGGED",
            "ALTER INDEX t_v SET (expansion_search = 100)",
            "TRUNCATE t",
        ] {
            database.run(statement);
            check_index(&database, statement);
        }
        database.run(&insert(1, 300));
        database.run("ALTER TABLE t SET UNLOGGED");
        server.cluster.crash().unwrap();
        server.cluster.start_server().unwrap();
        check_index(&database, "an unlogged table after a crash");
        assert_eq!(database.ask("SELECT count(*) FROM t"), "0");
        database.run(&insert(1, 300));
        check_index(&database, "an unlogged table that is filled again");

        database.run(
            "SET usearch.iterative_scan = relaxed_order;
             CREATE TEMP TABLE own (v vector(512)); CREATE INDEX ON own USING usearch (v vector_l2_ops);
             INSERT INTO own SELECT v FROM t; INSERT INTO own SELECT v FROM t; INSERT INTO own SELECT v FROM own;
             INSERT INTO own SELECT v FROM own; SET enable_seqscan = off; SET enable_sort = off;
             DO $$ BEGIN ASSERT (SELECT count(*) FROM (SELECT FROM own ORDER BY v <-> make_vector(1, 512)::vector(512)
                 LIMIT 3000) n) = 2400; END $$",
        );
        database.run(
            "CREATE TABLE parts (id int, v vector(512)) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (200);
             CREATE TABLE high PARTITION OF parts FOR VALUES FROM (200) TO (400);
             INSERT INTO parts SELECT id, v FROM t;
             CREATE INDEX parts_v ON parts USING usearch (v vector_l2_ops)",
        );
        let nearest = "SELECT id FROM parts ORDER BY v <-> make_vector(9, 512)::vector(512) LIMIT 5";
        let plan = database.ask(&format!("{INDEX_ONLY}EXPLAIN (COSTS off) {nearest}"));
        assert_eq!(plan.matches("Index Scan").count(), 2, "{plan}");
        let wide = "SET usearch.expansion_search = 300; ";
        let found = database.ask(&format!("{INDEX_ONLY}{wide}{nearest}"));
        assert_eq!(found, database.ask(&format!("SET enable_indexscan = off; {nearest}")));

        // Files of indexes that are gone are seen, and go with the next one that is written.
        let files = || {
            let folder = server.cluster.data_dir().join("pgsql_tmp_pgrec");
            std::fs::read_dir(folder).map_or(0, |entries| {
                entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("index_")).count()
            })
        };
        database.run("DROP TABLE parts");
        let orphans = database.ask("SELECT finding FROM rec_check() WHERE subject = 'model cache'");
        assert!(orphans.contains("no index"), "{orphans} ({} files)", files());
        database.run("REINDEX TABLE t");
        check_index(&database, "reindexed");
        assert_eq!(files(), 1, "files of indexes that are gone stay");
    });
}

#[test]
fn the_planner_takes_the_index_where_it_is_the_faster_way() {
    each_database(|database| {
        database.run(
            "CREATE TABLE big AS SELECT i AS id, i % 5000 AS rare, ARRAY[sin(i), cos(i * 3), sin(i * 7), cos(i * 11)]::vector(4) AS v
             FROM generate_series(1, 20000) i; ALTER TABLE big ALTER v TYPE vector(4);
             CREATE INDEX big_v ON big USING usearch (v vector_l2_ops); CREATE INDEX ON big (rare);
             CREATE TABLE small AS SELECT * FROM big WHERE id <= 10; ALTER TABLE small ALTER v TYPE vector(4);
             CREATE INDEX small_v ON small USING usearch (v vector_l2_ops); ANALYZE big; ANALYZE small",
        );
        let plan = |query: &str| database.ask(&format!("EXPLAIN (COSTS off) {query}"));
        assert!(plan("SELECT id FROM big ORDER BY v <-> '[1,0,0,0]' LIMIT 10").contains("using big_v"));
        assert!(plan("SELECT id FROM small ORDER BY v <-> '[1,0,0,0]' LIMIT 10").contains("Seq Scan"));
        assert!(!plan("SELECT id FROM big WHERE rare = 3 ORDER BY v <-> '[1,0,0,0]' LIMIT 10").contains("big_v"));
        assert!(!plan("SELECT count(*) FROM big").contains("big_v"));
    });
}

#[test]
fn an_index_of_another_format_says_how_to_build_it_anew() {
    /// Where the format stands in an index's file: after the page's header and that of all of the index's pages.
    const FORMAT: usize = 24 + 32;
    each_server("index-format", &Options::new().checksums(false), |server| {
        let database = Database::create(&server.cluster, "formats");
        database.run(VECTORS);
        database.run(&insert(1, 1_500));
        let file = server.cluster.data_dir().join(database.ask("SELECT pg_relation_filepath('t_v')"));
        server.cluster.stop(Shutdown::Fast).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[FORMAT] += 1;
        std::fs::write(&file, bytes).unwrap();
        server.cluster.start_server().unwrap();
        let search = format!("{INDEX_ONLY}SELECT id FROM t ORDER BY v <-> (SELECT v FROM t WHERE id = 5) LIMIT 3");
        for statement in [search.as_str(), &insert(2_000, 2_001), "SELECT * FROM rec_index_stats('t_v')"] {
            let refused = database.fails(statement);
            assert!(refused.contains("this version reads") && refused.contains("REINDEX INDEX \"t_v\""), "{refused}");
        }
        database.run("REINDEX INDEX t_v");
        database.run(&insert(2_000, 2_001));
        check_index(&database, "built anew");
    });
}
