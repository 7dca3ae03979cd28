//! Long calls let go when they are told to: by a cancel, a timeout, the end of their session.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use pgrec_tests::{Database, Session, each_server};
use xtask::generate::Shop;
use xtask::{Dataset, Options};

/// What is asked of an idle machine; other work on this one gets it ten times as long.
const AIM: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(1);

/// Cancels of each call, at different moments of it.
const CANCELS: u32 = 5;

/// Large enough that each of these takes seconds.
const CALLS: [(&str, &str); 6] = [
    (
        "rec_next_many of the encoder",
        "SELECT count(*) FROM rec_next_many((SELECT array_agg(user_id) FROM users), 10, model => 'encoder')",
    ),
    (
        "rec_next_many of the graph",
        "SELECT count(*) FROM rec_next_many((SELECT array_agg(user_id) FROM users), 1000, model => 'tgh')",
    ),
    ("rec_evaluate of the encoder", "SELECT * FROM rec_evaluate('encoder', k => '{5,10,100}')"),
    ("rec_evaluate of the graph", "SELECT * FROM rec_evaluate('tgh', k => '{5,10,1000}')"),
    ("rec_evaluate of a family", "SELECT * FROM rec_evaluate('graph')"),
    ("rec_train", "CALL rec_train('graph', deploy => true)"),
];

/// A shop on which the calls take long enough to be interrupted.
fn large(database: &Database<'_>) {
    let shop = Shop { seed: 3, users: 40_000, items: 6_000, events: 600_000, clusters: 40, dimension: 0 };
    let data = Dataset::generated(&shop);
    database.run("SELECT rec_create('shop')");
    let target = |table: &str, columns: Vec<&str>| format!("shop.{table} ({})", columns.join(", "));
    let name = &database.name;
    database.cluster.copy_in(name, &target("item", data.item_columns()), |rows| data.copy_items(rows)).unwrap();
    database
        .cluster
        .copy_in(name, &target("interaction", data.interaction_columns()), |rows| data.copy_interactions(rows))
        .unwrap();
    database.run(
        "VACUUM ANALYZE shop.interaction, shop.item;
         CREATE TABLE users AS SELECT user_id FROM shop.interaction GROUP BY 1;
         CALL rec_train('graph', '{\"leave_last\": 2}', model => 'tgh', deploy => true)",
    );
    database.run(&pgrec_tests::Encoder::new(1, shop.items).import_sql("encoder", 2));
}

/// Lets a call run for a while, stops it with `stop`, and returns how long the client then waited; `None` when the
/// call was over before.
fn stopped(
    database: &Database<'_>,
    session: &mut Session,
    call: &str,
    after: Duration,
    stop: &str,
) -> Option<Duration> {
    let mut other = database.session();
    session.send(call);
    std::thread::sleep(after);
    let told = Instant::now();
    other.ask(&format!("SELECT {stop}({})", session.pid));
    let reply = session.reply();
    let waited = told.elapsed();
    match reply.sqlstate.as_deref() {
        None => None,
        Some("57014" | "lost") => Some(waited),
        Some(_) => panic!("{call}: {}", reply.text),
    }
}

#[test]
fn long_calls_end_soon_after_a_cancel_a_timeout_or_their_session() {
    each_server("cancel", &Options::new().set("shared_buffers", "256MB"), |server| {
        let database = Database::create(&server.cluster, "large");
        large(&database);
        for (name, call) in CALLS {
            cancelled(&database, name, call);
        }
        timed_out(&database);
        terminated(&database);
    });
}

#[test]
fn long_calls_to_the_worker_end_as_soon() {
    let options = Options::new().set("shared_buffers", "256MB").set("shared_preload_libraries", "pgrec");
    each_server("cancel-worker", &options.set("rec.worker_fallback", "error"), |server| {
        let database = Database::create(&server.cluster, "large");
        large(&database);
        database.wait_for("SELECT pid IS NOT NULL FROM rec.stat_worker", "t");
        for (name, call) in &CALLS[..2] {
            cancelled(&database, name, call);
        }
        timed_out(&database);
        terminated(&database);
        assert_ne!(database.ask("SELECT abandoned FROM rec.stat_worker"), "0");
        // Nobody computes for those who went away.
        database.wait_for("SELECT slots_taken, computing FROM rec.stat_worker", "0|0");
    });
}

fn cancelled(database: &Database<'_>, name: &str, call: &str) {
    let mut session = database.session();
    let mut waits = Vec::new();
    for n in 1..=CANCELS {
        waits.extend(stopped(
            database,
            &mut session,
            call,
            Duration::from_millis(u64::from(n * n) * 70),
            "pg_cancel_backend",
        ));
        assert_eq!(
            session.ask("SELECT count(*) FROM rec_next(1)"),
            "10",
            "{name}: the session is not usable afterwards"
        );
    }
    waits.sort();
    let (Some(median), Some(longest)) = (waits.get(waits.len() / 2), waits.last()) else {
        panic!("{name} was over before every cancel");
    };
    let verdict = if *median <= AIM { "" } else { " (slower than 100 ms: a busy machine?)" };
    println!("{name}: cancelled {} times, median {median:.1?}, longest {longest:.1?}{verdict}", waits.len());
    assert!(*median < LIMIT, "{name}: {waits:?}");
    assert_eq!(database.ask("SELECT count(*) FROM rec.progress"), "0", "{name}");
}

fn timed_out(database: &Database<'_>) {
    let mut session = database.session();
    session.ask("SET statement_timeout = '150ms'");
    let start = Instant::now();
    let reply = session.run(CALLS[0].1);
    let took = start.elapsed();
    assert!(reply.text.contains("statement timeout"), "{}", reply.text);
    assert_eq!(reply.error(), "57014");
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(session.ask("SELECT count(*) FROM rec_next(1)"), "10");
}

fn terminated(database: &Database<'_>) {
    for (name, call) in [CALLS[0], CALLS[3], CALLS[4]] {
        let waited =
            stopped(database, &mut database.session(), call, Duration::from_millis(100), "pg_terminate_backend");
        let waited = waited.unwrap_or_else(|| panic!("{name} was over too soon"));
        println!("{name}: session ended after {waited:.1?}");
        assert!(waited < LIMIT, "{name}: {waited:?}");
    }
    // A backend that died of it would have taken every session with it.
    assert!(!database.cluster.log().contains("terminated by signal"), "{}", database.cluster.log());
    assert_eq!(database.list("SELECT * FROM rec_next(1)").len(), 10);
}
