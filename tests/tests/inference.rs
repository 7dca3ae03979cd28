//! The inference worker: the same answers as in the session, whatever happens to those who ask or to the worker.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgrec_tests::{Database, Random, Server, Session, each_server};
use xtask::{Cluster, Options};

const PATIENCE: Duration = Duration::from_secs(60);

/// A worker, and no way round it.
fn options() -> Options {
    Options::new()
        .set("shared_preload_libraries", "pgrec")
        .set("rec.worker_fallback", "error")
        .set("rec.worker_threads", "2")
}

fn wait_for_worker(database: &Database<'_>) {
    database.wait_for("SELECT pid IS NOT NULL FROM rec.stat_worker", "t");
}

fn worker(database: &Database<'_>) -> String {
    wait_for_worker(database);
    database.ask("SELECT pid FROM rec.stat_worker")
}

fn signal(pid: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Nobody asks any more, so nothing may be left on the board.
fn no_slot_is_lost(database: &Database<'_>) {
    database.wait_for("SELECT slots_taken, waiting, computing FROM rec.stat_worker", "0|0|0");
}

fn shop(server: &Server) -> Database<'_> {
    let shop = server.shop();
    wait_for_worker(&shop);
    shop
}

/// The answers of sessions that compute by themselves.
fn without_worker(database: &Database<'_>, ask: impl Fn() -> String) -> String {
    let name = &database.name;
    database.run(&format!("ALTER DATABASE {name} SET rec.use_worker = off"));
    let calls = "SELECT calls FROM rec.stat_worker";
    let before = database.ask(calls);
    let answers = ask();
    assert_eq!(database.ask(calls), before, "asked the worker all the same");
    database.run(&format!("ALTER DATABASE {name} RESET rec.use_worker"));
    answers
}

#[test]
fn the_worker_answers_like_the_session_and_says_what_it_did() {
    each_server("worker", &options(), |server| {
        let shop = shop(server);
        let own = without_worker(&shop, || shop.answers());
        assert_eq!(shop.ask("SELECT calls FROM rec.stat_worker"), "0");
        assert_eq!(shop.answers(), own);
        assert_ne!(shop.ask("SELECT calls FROM rec.stat_worker"), "0", "nobody asked the worker");
        assert_eq!(
            shop.ask(
                "SELECT model, loaded, calls > 0, rows >= calls, errors, compute_ms > 0 FROM rec.stat_model ORDER BY 1"
            ),
            "encoder|t|t|t|0|t\npopular|t|t|t|0|t\ntgh|t|t|t|0|t"
        );
        assert_eq!(
            shop.ask("SELECT database, count(*), sum(bytes) = (SELECT sum(bytes) FROM rec.models) FROM rec_models_loaded() GROUP BY 1"),
            "shop|3|t"
        );
        assert_eq!(
            shop.ask(
                "SELECT batches > 0, errors, total_p50 <= total_p99, wait_p50 > 0, compute_p50 > 0,
                 (SELECT sum(n) FROM unnest(batch_sizes) n) = batches FROM rec.stat_worker"
            ),
            "t|0|t|t|t|t"
        );
        // Longer than a place: in a segment of its own, there and back.
        let many = "SELECT md5(string_agg(m::text, ';')) FROM rec_next_many(
            (SELECT array_agg(user_id ORDER BY user_id) FROM (SELECT DISTINCT user_id FROM shop.interaction) u), 100,
            model => 'encoder') m";
        assert_eq!(shop.ask(many), without_worker(&shop, || shop.ask(many)));

        assert_eq!(shop.ask("SELECT rec_evict('encoder')"), "t");
        shop.wait_for("SELECT loaded FROM rec.stat_model WHERE model = 'encoder'", "f");
        assert_eq!(shop.ask("SELECT rec_evict('encoder')"), "f");
        assert_eq!(shop.ask("SELECT count(*) FROM rec_next(1, model => 'encoder')"), "10");
        assert_eq!(shop.ask("SELECT loaded FROM rec.stat_model WHERE model = 'encoder'"), "t");
        shop.run("SELECT rec_stat_reset()");
        assert_eq!(shop.ask("SELECT calls, batches, total_p99 FROM rec.stat_worker"), "0|0|");
        no_slot_is_lost(&shop);
    });
}

#[test]
fn searches_travel_to_the_worker_with_the_question() {
    each_server("worker-searches", &options(), |server| {
        let shop = shop(server);
        shop.run(
            "INSERT INTO shop.search (user_id, query, item_id, at)
                SELECT user_id, attributes ->> 0, item_id, at - interval '1 second'
                FROM shop.interaction JOIN shop.item USING (item_id) WHERE item_id % 3 = 0;
             CALL rec_train('dual_intent', '{\"epochs\": 2}', model => 'dual', deploy => true)",
        );
        let lists = "SELECT u, n.* FROM generate_series(1, 9) u, rec_next(u, 5) n ORDER BY 1, 2;
            SELECT * FROM rec_next_many(ARRAY[1, 2, 3], 5); SELECT * FROM rec_score(4, ARRAY[1, 2, 3]);
            SELECT * FROM rec_search(5, 'coffee', 5); SELECT * FROM rec_search(NULL, 'coffee', 5)";
        let answers = || shop.ask(lists);
        assert_eq!(without_worker(&shop, answers), answers());
        assert_eq!(shop.ask("SELECT calls > 10 FROM rec.stat_model WHERE model = 'dual'"), "t");
        let before = answers();
        shop.run("INSERT INTO shop.search (user_id, query) SELECT u, 'running' FROM generate_series(1, 9) u");
        assert_ne!(answers(), before, "a search just now changes nothing");
        assert_eq!(without_worker(&shop, answers), answers());
    });
}

#[test]
fn whoever_may_not_ask_may_not_ask_through_the_worker_either() {
    each_server("worker-rights", &options(), |server| {
        let shop = shop(server);
        shop.run(
            "CREATE ROLE reader; GRANT USAGE ON SCHEMA shop TO reader; GRANT SELECT ON shop.item TO reader;
             CREATE ROLE customer; GRANT USAGE ON SCHEMA shop TO customer;
             GRANT SELECT ON shop.interaction, shop.item TO customer;
             ALTER TABLE shop.interaction ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON shop.interaction TO customer USING (user_id = 7)",
        );
        let mut session = shop.session();
        session.ask("SET ROLE reader");
        assert_eq!(session.run("SELECT * FROM rec_next(7)").error(), "42501");
        for call in ["SELECT rec_evict('tgh')", "SELECT rec_stat_reset()"] {
            assert_eq!(session.run(call).error(), "42501", "{call}");
        }
        let list = |session: &mut Session, user: u32| session.ask(&format!("SELECT item_id FROM rec_next({user})"));
        session.ask("RESET ROLE");
        let (seventh, eighth) = (list(&mut session, 7), list(&mut session, 8));
        session.ask("SET ROLE customer");
        assert_eq!(list(&mut session, 7), seventh);
        assert_ne!(list(&mut session, 8), eighth, "another's history was read");
    });
}

#[test]
fn a_deployment_takes_effect_with_its_transaction() {
    each_server("worker-deploy", &options(), |server| {
        let shop = shop(server);
        let list = "SELECT item_id, score FROM rec_next(9)";
        let graph = shop.ask(list);
        let (mut one, mut other) = (shop.session(), shop.session());
        one.ask("BEGIN; SELECT rec_deploy('encoder')");
        let encoder = one.ask(list);
        assert_ne!(encoder, graph);
        assert_eq!(other.ask(list), graph);
        one.ask("ROLLBACK");
        assert_eq!(one.ask(list), graph);
        one.ask("SELECT rec_deploy('encoder')");
        assert_eq!(other.ask(list), encoder);
        // What was inserted a line earlier counts.
        one.ask("BEGIN; INSERT INTO shop.interaction (user_id, item_id) VALUES (9, 100)");
        assert_ne!(one.ask(list), encoder);
        assert_eq!(other.ask(list), encoder);
    });
}

#[test]
fn a_worker_that_ends_is_replaced_and_nobody_hangs() {
    each_server("worker-ends", &options(), |server| {
        let shop = shop(server);
        let list = "SELECT item_id, score FROM rec_next(9)";
        let expected = shop.ask(list);
        let mut session = shop.session();
        let first = worker(&shop);

        // Stopped in its tracks, it keeps nobody from leaving.
        signal(&first, "-STOP");
        session.ask("SET statement_timeout = '200ms'");
        let asked = Instant::now();
        for _ in 0..3 {
            assert_eq!(session.run(list).error(), "57014");
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        let mut cancelled = shop.session();
        cancelled.send(list);
        std::thread::sleep(Duration::from_millis(100));
        session.ask(&format!("SELECT pg_cancel_backend({})", cancelled.pid));
        assert_eq!(cancelled.reply().error(), "57014");
        let mut ended = shop.session();
        ended.send(list);
        std::thread::sleep(Duration::from_millis(100));
        session.ask(&format!("SELECT pg_terminate_backend({}, 5000)", ended.pid));
        assert!(matches!(ended.reply().error().as_str(), "57P01" | "lost"));
        signal(&first, "-CONT");
        session.ask("RESET statement_timeout");
        assert_eq!(session.ask(list), expected);
        no_slot_is_lost(&shop);

        // Ended while somebody waits.
        signal(&first, "-STOP");
        let mut waiting = shop.session();
        waiting.send(list);
        std::thread::sleep(Duration::from_millis(100));
        shop.run(&format!("SELECT pg_terminate_backend({first})"));
        signal(&first, "-CONT");
        let reply = waiting.reply();
        // It was answered at the last moment, or told that nobody will.
        assert!(matches!(reply.sqlstate.as_deref(), None | Some("57P03")), "{reply:?}");
        assert!(reply.sqlstate.is_some() || reply.text == expected);
        shop.wait_for(&format!("SELECT pid IS DISTINCT FROM {first} FROM rec.stat_worker"), "t");
        // None is there for a second.
        let reply = session.run(list);
        if let Some(state) = &reply.sqlstate {
            assert_eq!(state, "57P03", "{reply:?}");
            assert!(
                reply.text.contains("It is not running.") && reply.text.contains("rec.worker_fallback"),
                "{reply:?}"
            );
            session.ask("SET rec.worker_fallback = local");
            assert_eq!(session.ask(list), expected);
            session.ask("RESET rec.worker_fallback");
        }
        let second = worker(&shop);
        assert_ne!(first, second);
        assert_eq!(session.ask(list), expected);
        assert_eq!(shop.ask("SELECT starts FROM rec.stat_worker"), "2");
        no_slot_is_lost(&shop);

        // Killed, it takes the server's sessions with it as any process of Postgres does.
        signal(&second, "-KILL");
        let is_there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {second}");
        server.cluster.wait_for(&is_there, "0", PATIENCE).unwrap();
        wait_for_worker(&shop);
        assert_eq!(shop.ask(list), expected);
        no_slot_is_lost(&shop);
    });
}

#[test]
fn an_error_inside_the_worker_is_the_callers_alone() {
    each_server("worker-errors", &options(), |server| {
        let shop = shop(server);
        let list = "SELECT item_id, score FROM rec_next(9, model => 'encoder')";
        let expected = shop.ask(list);
        let mut session = shop.session();
        assert_eq!(session.ask(list), expected);
        let before = worker(&shop);
        // The file behind the model is damaged, and the worker has to open it again.
        let id = shop.ask("SELECT model_id FROM rec.model WHERE name = 'encoder'");
        let folder = server.cluster.data_dir().join("pgsql_tmp_pgrec");
        let file = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.to_string_lossy().contains(&format!("_{id}_"))).unwrap();
        let size = std::fs::metadata(&file).unwrap().len() as usize;
        let damaged = file.with_extension("damaged");
        std::fs::write(&damaged, vec![7; size]).unwrap();
        std::fs::rename(&damaged, &file).unwrap();
        assert_eq!(session.ask("SELECT rec_evict('encoder')"), "t");
        shop.wait_for("SELECT loaded FROM rec.stat_model WHERE model = 'encoder'", "f");
        let reply = session.run(list);
        assert_eq!(reply.sqlstate.as_deref(), Some("57P03"), "{reply:?}");
        assert!(reply.text.contains("cannot open the model"), "{reply:?}");
        assert!(server.cluster.log().contains("is damaged"));
        session.ask("SET rec.worker_fallback = local");
        assert_eq!(session.ask(list), expected, "the session has the file mapped as it was");
        assert_eq!(shop.ask("SELECT count(*) FROM rec_next(9)"), "10", "another model does not answer any more");
        assert_eq!(worker(&shop), before);
        // A file that is gone is made again.
        std::fs::remove_file(&file).unwrap();
        session.ask("RESET rec.worker_fallback");
        assert_eq!(session.ask(list), expected);
        // What was asked for and is not there is named.
        session.ask("SET rec.device = cuda");
        let reply = session.run(list);
        if let Some(state) = &reply.sqlstate {
            assert_eq!(state, "58000", "{reply:?}");
            let missing = session.ask("SELECT detail FROM rec_devices() WHERE device LIKE 'cuda%' LIMIT 1");
            assert!(reply.text.contains(&missing), "{reply:?}\n{missing}");
        }
        session.ask("SET rec.device = auto");
        let all = "SELECT count(*) FROM rec_next_many((SELECT array_agg(i::bigint) FROM generate_series(1, 600) i), 5,
            model => 'encoder')";
        assert_eq!(session.ask(all), "3000");
        assert_eq!(session.ask(all), "3000");
        no_slot_is_lost(&shop);
    });
}

#[test]
fn databases_are_dropped_under_the_worker() {
    each_server("worker-drop", &options(), |server| {
        let shop = shop(server);
        let other = Database::copy(&server.cluster, "shop", "other");
        // Nobody is kept waiting by a worker that has much to do for one session.
        let idle = Database::create(&server.cluster, "idle");
        let mut lone = shop.session();
        lone.send("SELECT count(*) FROM generate_series(1, 100000000) i, LATERAL rec_next(9, at => now() + i * interval '1 s')");
        std::thread::sleep(Duration::from_millis(300));
        let dropped = Instant::now();
        server.cluster.psql("DROP DATABASE idle").unwrap();
        assert!(dropped.elapsed() < Duration::from_secs(10), "{:?}", dropped.elapsed());
        drop(idle);
        shop.run(&format!("SELECT pg_cancel_backend({})", lone.pid));
        assert_eq!(lone.reply().error(), "57014");
        let expected = shop.ask("SELECT item_id FROM rec_next(9)");
        assert_eq!(other.ask("SELECT item_id FROM rec_next(9)"), expected);
        assert_eq!(shop.ask("SELECT count(*) FROM rec_models_loaded()"), "2");
        let mut asking = other.session();
        asking.send("SELECT count(*) FROM generate_series(1, 100000000) i, LATERAL rec_next(1 + i % 300)");
        std::thread::sleep(Duration::from_millis(200));
        let dropped = Instant::now();
        server.cluster.psql("DROP DATABASE other WITH (FORCE)").unwrap();
        assert!(dropped.elapsed() < Duration::from_secs(10), "{:?}", dropped.elapsed());
        assert!(matches!(asking.reply().sqlstate.as_deref(), Some("57P01" | "lost")));
        no_slot_is_lost(&shop);
        // Its cache file is removed by whoever makes the next one, and the worker lets go of it then.
        shop.run(
            "CALL rec_train('popularity', model => 'another'); SELECT count(*) FROM rec_next(9, model => 'another')",
        );
        shop.wait_for("SELECT count(*) FROM rec_models_loaded() WHERE database IS NULL", "0");
        assert_eq!(shop.ask("SELECT item_id FROM rec_next(9)"), expected);
    });
}

#[test]
fn a_worker_ends_in_order_while_it_computes() {
    each_server("worker-shutdown", &options(), |server| {
        let shop = shop(server);
        let many = "SELECT count(*) FROM generate_series(1, 1000000) i,
            LATERAL rec_next_many(ARRAY(SELECT generate_series(1, 300)::bigint), 90 + i % 7, model => 'encoder')";
        let mut sessions: Vec<Session> = (0..4).map(|_| shop.session()).collect();
        for round in 0..3 {
            sessions.iter_mut().for_each(|session| session.send(many));
            std::thread::sleep(Duration::from_millis(150 + 37 * round));
            let first = shop.ask("SELECT pg_terminate_backend(pid), pid FROM rec.stat_worker WHERE pid IS NOT NULL");
            assert!(first.starts_with("t|"), "{first}");
            for session in &mut sessions {
                shop.run(&format!("SELECT pg_cancel_backend({})", session.pid));
                assert!(matches!(session.reply().error().as_str(), "57P03" | "57014"));
            }
            wait_for_worker(&shop);
            no_slot_is_lost(&shop);
        }
        assert!(!server.cluster.log().contains("terminated by signal"), "{}", server.cluster.log());
    });
}

#[test]
fn a_standby_has_a_worker_of_its_own() {
    each_server("worker-primary", &options(), |server| {
        let shop = shop(server);
        let answers = shop.answers();
        let dir = Cluster::fresh_dir(&server.home, "worker-standby").unwrap();
        let standby = server.cluster.standby(&dir, &options()).unwrap();
        let there = Database::of(&standby, "shop");
        wait_for_worker(&there);
        assert_eq!(there.answers(), answers);
        assert_ne!(there.ask("SELECT calls FROM rec.stat_worker"), "0");
        shop.run("SELECT rec_deploy('encoder')");
        standby.wait_for_replay(&server.cluster, PATIENCE).unwrap();
        let list = "SELECT item_id, score FROM rec_next(9)";
        assert_eq!(there.ask(list), shop.ask(list));
        standby.promote().unwrap();
        there.run("INSERT INTO shop.interaction (user_id, item_id) VALUES (9, 100); SELECT rec_rollback()");
        shop.run("INSERT INTO shop.interaction (user_id, item_id) VALUES (9, 100); SELECT rec_rollback()");
        assert_eq!(there.ask(list), shop.ask(list));
        no_slot_is_lost(&there);
    });
}

/// What clients ask all the time in the test of faults.
const CALLS: [&str; 6] = [
    "SELECT item_id, score FROM rec_next(9)",
    "SELECT item_id, score FROM rec_next(33, model => 'encoder')",
    "SELECT item_id, score FROM rec_score(12, ARRAY(SELECT item_id FROM shop.item), model => 'encoder')",
    "SELECT rec_encode(77, model => 'encoder')",
    "SELECT md5(string_agg(m::text, ';')) FROM rec_next_many(ARRAY(SELECT generate_series(1, 300)::bigint), 10) m",
    "SELECT md5(string_agg(m::text, ';')) FROM rec_next_many(ARRAY(SELECT generate_series(1, 300)::bigint), 90,
     model => 'encoder') m",
];

/// How long clients are tormented; `PGREC_SECONDS` has it last longer.
fn torment() -> Duration {
    let seconds = std::env::var("PGREC_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

#[test]
fn clients_that_are_killed_and_models_that_are_dropped_leave_no_trace() {
    each_server("worker-faults", &options().set("rec.worker_slots", "6"), |server| {
        let shop = shop(server);
        let expected = CALLS.map(|call| shop.ask(call));
        let stop = AtomicBool::new(false);
        let (answered, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..10_u64 {
                let (shop, expected, stop, answered, failed) = (&shop, &expected, &stop, &answered, &failed);
                scope.spawn(move || {
                    let mut random = Random::new(client);
                    let mut session = shop.session();
                    session.ask("SET application_name = 'victim'");
                    while !stop.load(Ordering::Relaxed) {
                        let call = random.below(CALLS.len());
                        let timeout = if random.below(4) == 0 { 1 + random.below(20) } else { 20_000 };
                        let asked = Instant::now();
                        let set = session.run(&format!("SET statement_timeout = '{timeout}ms'"));
                        let reply = if set.sqlstate.is_none() { session.run(CALLS[call]) } else { set };
                        assert!(
                            asked.elapsed() < Duration::from_secs(20),
                            "{} took {:?}",
                            CALLS[call],
                            asked.elapsed()
                        );
                        match reply.sqlstate.as_deref() {
                            None => {
                                // psql may say before it that it has lost an idle connection and made another, and after
                                // it that the connection was ended once the answer was there.
                                let answer = reply.text.split("\nFATAL:  terminating connection").next();
                                assert!(
                                    answer.is_some_and(|answer| answer.ends_with(&expected[call])),
                                    "a wrong answer to {}: {}",
                                    CALLS[call],
                                    reply.text
                                );
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            // Cancelled, ended, gone, or without a worker.
                            Some("57014" | "57P03") => _ = failed.fetch_add(1, Ordering::Relaxed),
                            Some("57P01" | "lost") => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                session = shop.session();
                                session.ask("SET application_name = 'victim'");
                            }
                            Some(other) => panic!("{other}: {}", reply.text),
                        }
                    }
                });
            }
            // If a client's assertion fails, the others still have to be told to end.
            let _stopping = Stop(&stop);
            fate(&shop, torment());
        });
        let (answered, failed) = (answered.into_inner(), failed.into_inner());
        println!("{answered} calls answered, {failed} cut off");
        assert!(answered > 50 && failed > 10, "{answered} answered, {failed} cut off");
        wait_for_worker(&shop);
        no_slot_is_lost(&shop);
        assert_eq!(CALLS.map(|call| shop.ask(call)), expected);
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does this and that to clients, models and, once, the worker.
fn fate(shop: &Database<'_>, time: Duration) {
    let begun = Instant::now();
    let mut random = Random::new(99);
    let mut session = shop.session();
    let mut ended = false;
    let victim = "(SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' ORDER BY random() LIMIT 1)";
    while begun.elapsed() < time {
        match random.below(12) {
            0..=3 => _ = session.ask(&format!("SELECT pg_cancel_backend({victim})")),
            4..=6 => _ = session.ask(&format!("SELECT pg_terminate_backend({victim})")),
            7 => _ = session.ask("SELECT rec_evict('encoder'), rec_evict('tgh')"),
            8 => {
                // A model that is dropped while it is asked.
                session.ask("CALL rec_train('popularity', model => 'doomed')");
                let mut asking = shop.session();
                asking.send("SELECT count(*) FROM generate_series(1, 200) i, LATERAL rec_next(i, model => 'doomed')");
                session.ask("SELECT rec_drop_model('doomed')");
                let reply = asking.reply();
                assert!(matches!(reply.sqlstate.as_deref(), None | Some("42704" | "57P03")), "{reply:?}");
            }
            9 if !ended && begun.elapsed() > time / 2 => {
                ended = true;
                session.ask("SELECT pg_terminate_backend(pid) FROM rec.stat_worker");
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(random.below(60) as u64));
    }
}
