//! Writers, readers and vacuum on one index at the same time.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrec_tests::vectors::{VECTORS, check_index};
use pgrec_tests::{Database, each_server};
use xtask::Options;

/// Seconds for each version; `PGREC_SECONDS` asks for more.
const SECONDS: u64 = 8;
const WRITERS: usize = 8;
const READERS: usize = 8;

/// The rows a snapshot has, through the table and through the index; the nearest ten of both, if they differ much.
const SNAPSHOT: &str = "
    BEGIN ISOLATION LEVEL REPEATABLE READ;
    SET LOCAL usearch.iterative_scan = relaxed_order; SET LOCAL enable_sort = off;
    SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = on;
    SELECT count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM t;
    SET LOCAL enable_indexscan = on; SET LOCAL enable_seqscan = off;
    SELECT count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM
        (SELECT id FROM t ORDER BY v <-> make_vector(1, 512)::vector(512) LIMIT 1000000) n;
    COMMIT";

#[test]
fn writers_readers_and_vacuum_at_once_meet_no_error_and_no_wrong_answer() {
    let seconds = std::env::var("PGREC_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let options = Options::new().set("max_worker_processes", "16").set("autovacuum", "off");
    each_server("index-concurrency", &options, |server| {
        let database = Database::create(&server.cluster, "indexes");
        database.run(VECTORS);
        let stop = AtomicBool::new(false);
        let compared =
            std::thread::scope(|scope| {
                let (database, stop) = (&database, &stop);
                for writer in 0..WRITERS {
                    scope.spawn(move || {
                        let mut session = database.session();
                        let mut id = writer * 10_000_000;
                        while !stop.load(Ordering::SeqCst) {
                            id += 1;
                            let own = format!("id BETWEEN {} AND {}", writer * 10_000_000, id);
                            session.ask(&format!(
                                "INSERT INTO t SELECT {id} * 10 + i, i, make_vector({id} * 10 + i, 512)
                             FROM generate_series(0, 9) i"
                            ));
                            match id % 10 {
                            3 => drop(session.ask(&format!("DELETE FROM t WHERE {own} AND id % 3 = 0"))),
                            6 => drop(session.ask(&format!(
                                "UPDATE t SET v = make_vector(id + 1, 512) WHERE id = {id} * 10 + 4"
                            ))),
                            9 => drop(session.ask(&format!(
                                "BEGIN; INSERT INTO t VALUES ({id} * 10 + 1000000000, 0, make_vector(1, 512)); ROLLBACK"
                            ))),
                            _ => {}
                        }
                        }
                    });
                }
                scope.spawn(move || {
                    let mut session = database.session();
                    while !stop.load(Ordering::SeqCst) {
                        session.ask("DELETE FROM t WHERE id % 10 IN (1, 2, 5); VACUUM t");
                    }
                });
                let readers: Vec<_> = (0..READERS)
                    .map(|_| {
                        scope.spawn(move || {
                            let (mut session, mut compared) = (database.session(), 0);
                            while !stop.load(Ordering::SeqCst) {
                                let both = session.ask(SNAPSHOT);
                                let rows: Vec<&str> = both.lines().collect();
                                assert_eq!(rows[0], rows[1], "the index and the snapshot disagree");
                                compared += 1;
                            }
                            compared
                        })
                    })
                    .collect();
                let end = Instant::now() + Duration::from_secs(seconds);
                while Instant::now() < end && !readers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                stop.store(true, Ordering::SeqCst);
                readers.into_iter().map(|reader| reader.join().unwrap()).sum::<usize>()
            });
        assert!(compared >= READERS, "{compared} comparisons");
        println!("{compared} comparisons; {}", database.ask("SELECT * FROM rec_index_stats('t_v')"));
        database.run("VACUUM t");
        check_index(&database, "in the end");
        assert!(!server.cluster.log().contains("deadlock"), "a deadlock");
    });
}
