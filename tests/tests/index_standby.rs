//! The index on a streaming standby.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use pgrec_tests::vectors::{VECTORS, check_index, insert};
use pgrec_tests::{Database, each_server};
use xtask::{Cluster, Options};

const PATIENCE: Duration = Duration::from_secs(60);

/// The nearest rows to some vectors, through the index.
const NEAREST: &str = "SET enable_seqscan = off; SET enable_sort = off;
    SELECT q, (SELECT string_agg(id::text, ',') FROM
        (SELECT id FROM t ORDER BY v <-> make_vector(q, 512)::vector(512) LIMIT 20) n) FROM generate_series(1, 5) q";

#[test]
fn a_standby_gives_the_primarys_answers_after_every_change_and_is_promoted() {
    // Nothing is vacuumed between the two questions.
    each_server("index-primary", &Options::new().set("autovacuum", "off"), |server| {
        let database = Database::create(&server.cluster, "indexes");
        database.run(VECTORS);
        let dir = Cluster::fresh_dir(&server.home, "index-standby").unwrap();
        let standby = server.cluster.standby(&dir, &Options::new()).unwrap();
        let there = Database::of(&standby, "indexes");
        let mut session = there.session();
        for statement in [
            insert(1, 900),
            insert(901, 2_500),
            "UPDATE t SET v = make_vector(id + 7, 512) WHERE id % 11 = 0".into(),
            "DELETE FROM t WHERE id % 4 = 0".into(),
            "VACUUM t".into(),
            insert(10_000, 13_200),
            "VACUUM t".into(),
            "REINDEX INDEX t_v".into(),
            "DELETE FROM t WHERE id < 1000; VACUUM t".into(),
            insert(20_000, 20_100),
        ] {
            database.run(&statement);
            // A merge may be under way in the background; it is waited for, so that both have the same graphs.
            database.wait_for("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgrec index'", "0");
            standby.wait_for_replay(&server.cluster, PATIENCE).unwrap();
            let what: String = statement.chars().take(60).collect();
            assert_eq!(session.ask(NEAREST), database.ask(NEAREST), "{what}");
            assert_eq!(
                there.ask("SELECT segments, rows, dead, delta_rows, bytes FROM rec_index_stats('t_v')"),
                database.ask("SELECT segments, rows, dead, delta_rows, bytes FROM rec_index_stats('t_v')"),
                "{what}"
            );
        }
        server.cluster.crash().unwrap();
        standby.promote().unwrap();
        there.run(&insert(30_000, 31_500));
        check_index(&there, "promoted");
        there.run("DELETE FROM t WHERE id % 2 = 0; VACUUM t");
        check_index(&there, "vacuumed after promotion");
    });
}

#[test]
fn scans_of_a_standby_survive_the_recycling_of_pages() {
    let options = Options::new().set("max_standby_streaming_delay", "60s");
    each_server("index-recycling", &options, |server| {
        let database = Database::create(&server.cluster, "indexes");
        database.run(VECTORS);
        database.run(&insert(1, 1_500));
        let dir = Cluster::fresh_dir(&server.home, "index-recycling-standby").unwrap();
        let standby = server.cluster.standby(&dir, &options).unwrap();
        let there = Database::of(&standby, "indexes");
        let scans = "SET enable_seqscan = off; SET usearch.iterative_scan = relaxed_order;\n".to_owned()
            + &"SELECT count(*) >= 1500 FROM (SELECT id FROM t ORDER BY v <-> make_vector(2, 512)::vector(512) LIMIT 100000) n;\n"
                .repeat(60);
        let reader = std::thread::scope(|scope| {
            let reader = scope.spawn(|| there.ask(&scans));
            for round in 0..6 {
                let base = 10_000 * (round + 1);
                database.run(&insert(base, base + 1_200));
                database.run(&format!("DELETE FROM t WHERE id >= {base}"));
                database.run("VACUUM t");
            }
            reader.join().unwrap()
        });
        assert!(reader.lines().all(|line| line == "t"), "{reader}");
        standby.wait_for_replay(&server.cluster, PATIENCE).unwrap();
        check_index(&there, "after recycling");
    });
}
