//! Trainings that are stopped, from wherever: both rows say so, and no process stays behind.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use pgrec_tests::{Database, ENDLESS, Session, each_server, slow};
use xtask::Options;

/// What is asked of an idle machine; other work on this one gets it ten times as long.
const SESSION_AIM: Duration = Duration::from_millis(100);
const SESSION_LIMIT: Duration = Duration::from_secs(1);
const WORKER_AIM: Duration = Duration::from_secs(1);
const WORKER_LIMIT: Duration = Duration::from_secs(5);

fn train(model: &str) -> String {
    format!("CALL rec_train({ENDLESS}, '{model}')")
}

/// State and reason of a model.
fn outcome(database: &Database<'_>, model: &str) -> String {
    database.ask(&format!("SELECT state, reason FROM rec.models WHERE name = '{model}'"))
}

/// As the tables say, without what the view derives.
fn stored(database: &Database<'_>, model: &str) -> String {
    database.ask(&format!(
        "SELECT m.state, m.reason, t.phase FROM rec.model m LEFT JOIN rec.training t USING (model_id) WHERE name = '{model}'"
    ))
}

fn timely(what: &str, took: Duration, aim: Duration, limit: Duration) {
    let verdict = if took <= aim { "" } else { " (slower than it should be: a busy machine?)" };
    println!("{what} after {took:.0?}{verdict}");
    assert!(took < limit, "{what} after {took:?}");
}

#[test]
fn whoever_stops_a_training_gets_back_at_once_and_leaves_no_worker() {
    each_server("stop", &Options::new(), |server| {
        let database = Database::create(&server.cluster, "large");
        slow(&database);
        cancelled(&database);
        timed_out(&database);
        terminated(&database);
        client_killed(&database);
        stopped_by_another(&database);
        stopped_by_an_open_transaction(&database);
        worker_signalled(&database);
        assert!(!server.cluster.log().contains("terminated by signal"), "{}", server.cluster.log());
    });
}

fn cancelled(database: &Database<'_>) {
    let mut session = database.session();
    for (model, phase) in [("while reading", "reading"), ("while fitting", "fitting")] {
        session.send(&train(model));
        database.wait_for(&format!("SELECT phase FROM rec.progress WHERE model = '{model}'"), phase);
        let told = Instant::now();
        database.run(&format!("SELECT pg_cancel_backend({})", session.pid));
        assert_eq!(session.reply().error(), "57014");
        timely(&format!("{model}: cancelled session is back"), told.elapsed(), SESSION_AIM, SESSION_LIMIT);
        let idle = database.wait_until_idle();
        timely(&format!("{model}: worker is gone"), idle, WORKER_AIM, WORKER_LIMIT);
        let seen = stored(database, model);
        assert_eq!(
            seen, "failed|cancelled by the session that waited for it: canceling statement due to user request|",
            "{model}"
        );
        assert_eq!(session.ask("SELECT 1"), "1");
    }
}

fn timed_out(database: &Database<'_>) {
    let mut session = database.session();
    session.ask("SET statement_timeout = '600ms'");
    let start = Instant::now();
    let reply = session.run(&train("timed out"));
    assert!(reply.text.contains("statement timeout"), "{}", reply.text);
    timely("timeout", start.elapsed().saturating_sub(Duration::from_millis(600)), SESSION_AIM, SESSION_LIMIT);
    timely("worker is gone", database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);
    assert!(
        stored(database, "timed out").starts_with("failed|cancelled by the session"),
        "{}",
        stored(database, "timed out")
    );
}

fn terminated(database: &Database<'_>) {
    let mut session = database.session();
    session.send(&train("terminated"));
    database.wait_until_fitting("terminated");
    let told = Instant::now();
    database.run(&format!("SELECT pg_terminate_backend({})", session.pid));
    assert_eq!(session.reply().error(), "lost");
    timely("terminated session is gone", told.elapsed(), SESSION_AIM, SESSION_LIMIT);
    timely("worker is gone", database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);
    assert_eq!(stored(database, "terminated"), "failed|cancelled: the session that waited for it ended|");
}

/// A client that is killed says no good-bye; the server finds its socket closed.
fn client_killed(database: &Database<'_>) {
    let mut session = database.session();
    session.send(&train("client killed"));
    database.wait_until_fitting("client killed");
    let killed = Instant::now();
    drop(session);
    let _ = database.wait_until_idle();
    timely("worker of a killed client is gone", killed.elapsed(), WORKER_AIM, WORKER_LIMIT);
    assert_eq!(stored(database, "client killed"), "failed|cancelled: the session that waited for it ended|");
}

fn stopped_by_another(database: &Database<'_>) {
    let mut session = database.session();
    session.send(&train("stopped"));
    database.wait_until_fitting("stopped");
    assert_eq!(database.ask("SELECT rec_train_stop('stopped', 'slow')"), "t");
    let reply = session.reply();
    assert!(reply.text.contains("cancelled by rec_train_stop (role \"postgres\")"), "{}", reply.text);
    assert_eq!(reply.error(), "57014");
    timely("worker is gone", database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);
    assert_eq!(database.ask("SELECT rec_train_stop('stopped', 'slow')"), "f", "stopped twice");
    // Whoever does not own the recommender may not.
    let role = database.role("other");
    database.run(&format!("CREATE ROLE {role}"));
    let mut other = database.session();
    other.ask(&format!("SET ROLE {role}"));
    assert_eq!(other.run("SELECT rec_train_stop('stopped', 'slow')").error(), "42501");
}

/// Whoever stops a training and does not commit keeps its row, but not the next training.
fn stopped_by_an_open_transaction(database: &Database<'_>) {
    database.run(&format!("SELECT rec_train_start({ENDLESS}, 'held')"));
    database.wait_until_fitting("held");
    let mut holder = database.session();
    assert_eq!(holder.ask("BEGIN; SELECT rec_train_stop('held', 'slow')"), "t");
    database.run("CALL rec_train('popularity', recommender => 'slow', model => 'next')");
    holder.ask("ROLLBACK");
    assert_eq!(outcome(database, "held"), "failed|interrupted: the process or server that trained it ended");
    database.run(&format!("SELECT rec_train_start({ENDLESS}, 'first'); SELECT rec_train_start('popularity', recommender => 'slow', model => 'taken')"));
    database.wait_until_fitting("first");
    assert_eq!(holder.ask("BEGIN; SELECT rec_train_stop('taken', 'slow')"), "t");
    database.run("SELECT rec_train_stop('first', 'slow')");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(database.ask("SELECT state FROM rec.models WHERE name = 'taken'"), "queued");
    holder.ask("ROLLBACK");
    database.wait_for("SELECT state FROM rec.models WHERE name = 'taken'", "ready");
    let _ = database.wait_until_idle();
}

/// What an administrator may do who sees a busy process.
fn worker_signalled(database: &Database<'_>) {
    let signal = |session: &mut Session, model: &str, function: &str| {
        session.send(&train(model));
        database.wait_until_fitting(model);
        database.run(&format!("SELECT {function}(pid) FROM rec.progress WHERE model = '{model}'"));
        let reply = session.reply();
        timely(function, database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);
        (reply, outcome(database, model))
    };
    let mut session = database.session();
    let (reply, outcome) = signal(&mut session, "cancelled worker", "pg_cancel_backend");
    assert_eq!(reply.error(), "57014");
    assert!(outcome.starts_with("failed|cancelled: "), "{outcome}");
    let (reply, outcome) = signal(&mut session, "ended worker", "pg_terminate_backend");
    assert!(reply.text.contains("interrupted"), "{}", reply.text);
    assert_eq!(outcome, "failed|interrupted: its worker was ended, by an administrator or with the server");
    assert_eq!(database.ask("SELECT count(*) FROM rec.training"), "0");
}

#[test]
fn a_killed_worker_leaves_a_failed_model_and_the_next_training_works() {
    each_server("killed", &Options::new(), |server| {
        let database = Database::create(&server.cluster, "large");
        slow(&database);
        let mut session = database.session();
        session.send(&train("killed"));
        database.wait_until_fitting("killed");
        let worker = database.ask("SELECT pid FROM rec.progress");
        assert!(std::process::Command::new("kill").args(["-9", &worker]).status().unwrap().success());
        assert_eq!(session.reply().error(), "lost");
        server.cluster.wait_for("SELECT 1", "1", Duration::from_secs(20)).unwrap();
        assert_eq!(outcome(&database, "killed"), "failed|interrupted: the process or server that trained it ended");
        assert_eq!(database.ask("SELECT count(*) FROM rec.progress"), "0");
        database.run("CALL rec_train('popularity', recommender => 'slow', model => 'next')");
        assert!(stored(&database, "killed").starts_with("failed|interrupted"), "{}", stored(&database, "killed"));
        assert_eq!(database.ask("SELECT count(*) FROM rec.training"), "0");
        assert_eq!(
            database.ask("SELECT count(*) FROM rec.artifact JOIN rec.model USING (model_id) WHERE name = 'killed'"),
            "0"
        );
        let _ = database.wait_until_idle();
    });
}

#[test]
fn a_fast_shutdown_does_not_wait_for_a_training_and_says_what_happened_to_it() {
    each_server("shutdown", &Options::new(), |server| {
        let database = Database::create(&server.cluster, "large");
        slow(&database);
        for (model, waits) in [("waited for", true), ("alone", false)] {
            let mut session = database.session();
            match waits {
                true => session.send(&train(model)),
                false => drop(session.ask(&format!("SELECT rec_train_start({ENDLESS}, '{model}')"))),
            }
            database.wait_until_fitting(model);
            let told = Instant::now();
            server.cluster.stop(xtask::Shutdown::Fast).unwrap();
            timely("server is down", told.elapsed(), Duration::from_secs(2), Duration::from_secs(10));
            server.cluster.start_server().unwrap();
            let seen = stored(&database, model);
            assert!(seen.starts_with("failed|interrupted") || seen.starts_with("failed|cancelled"), "{model}: {seen}");
            assert!(seen.ends_with('|'), "{seen}");
        }
    });
}

#[test]
fn what_is_dropped_is_not_trained_to_the_end() {
    each_server("dropped", &Options::new(), |server| {
        let template = Database::create(&server.cluster, "template");
        slow(&template);
        let database = Database::copy(&server.cluster, "template", "large");
        let mut session = database.session();

        session.send(&train("dropped model"));
        database.wait_until_fitting("dropped model");
        database.run("SELECT rec_drop_model('dropped model', 'slow')");
        let reply = session.reply();
        assert!(reply.text.contains("was dropped while it was trained"), "{}", reply.text);
        timely("worker is gone", database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);
        assert_eq!(database.ask("SELECT count(*) FROM rec.model"), "0");

        // Its data was read, and nothing holds a lock on where it came from.
        session.send("CALL rec_train('graph', '{\"keep\": 1000}', 'slow', 'without a table')");
        database.wait_until_fitting("without a table");
        database.run("DROP TABLE event");
        assert_eq!(session.reply().sqlstate, None);
        let reply = session.run(&train("after"));
        assert!(reply.text.contains("has been dropped"), "{}", reply.text);
        assert_eq!(reply.error(), "42P01");
        assert!(
            stored(&database, "after").starts_with("failed|the interactions relation"),
            "{}",
            stored(&database, "after")
        );
        drop(session);
        let _ = database.wait_until_idle();

        let database = Database::copy(&server.cluster, "template", "second");
        let mut session = database.session();
        session.send(&train("dropped recommender"));
        database.wait_for("SELECT phase FROM rec.progress", "reading");
        database.run("SELECT rec_drop('slow')");
        assert!(session.reply().text.contains("was dropped while it was trained"));
        timely("worker is gone", database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);
        assert_eq!(database.ask("SELECT (SELECT count(*) FROM rec.model), (SELECT count(*) FROM rec.training)"), "0|0");

        let database = Database::copy(&server.cluster, "template", "third");
        database.run(&format!("SELECT rec_train_start({ENDLESS})"));
        database.wait_until_fitting("sasrec_1");
        database.run("DROP EXTENSION pgrec CASCADE");
        timely("worker is gone", database.wait_until_idle(), WORKER_AIM, WORKER_LIMIT);

        let database = Database::copy(&server.cluster, "template", "fourth");
        database.run(&format!("SELECT rec_train_start({ENDLESS})"));
        database.wait_until_fitting("sasrec_1");
        let told = Instant::now();
        server.cluster.psql("DROP DATABASE fourth WITH (FORCE)").unwrap();
        timely("database is dropped", told.elapsed(), WORKER_AIM, WORKER_LIMIT);
        assert_eq!(server.cluster.psql(pgrec_tests::WORKERS).unwrap(), "0");

        // Without FORCE the server waits five seconds for a training to end.
        let database = Database::copy(&server.cluster, "template", "fifth");
        database.run(&format!("SELECT rec_train_start({ENDLESS}); SELECT rec_train_start({ENDLESS})"));
        database.wait_until_fitting("sasrec_1");
        server.cluster.psql("ALTER DATABASE fifth RENAME TO sixth").unwrap();
        let models = "SELECT name, state, reason FROM rec.models ORDER BY 1";
        assert_eq!(
            server.cluster.psql_in("sixth", models).unwrap(),
            "sasrec_1|failed|cancelled: the database was to be dropped or renamed\nsasrec_2|queued|"
        );
        server.cluster.psql_in("sixth", &format!("SELECT rec_train_start({ENDLESS})")).unwrap();
        server.cluster.psql("DROP DATABASE sixth").unwrap();
        assert!(!server.cluster.log().contains("terminated by signal"), "{}", server.cluster.log());
    });
}
