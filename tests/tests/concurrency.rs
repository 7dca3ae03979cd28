//! Many connections at once, while models come and go.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgrec_tests::{Database, each_server};
use xtask::Options;

const CLIENTS: usize = 8;
const DURATION: Duration = Duration::from_secs(10);

fn next(user: usize) -> String {
    format!("SELECT * FROM rec_next({user}, recommender => 'shop')")
}

/// The answers that are right for each user: those of every model that is ever deployed.
fn right(shop: &Database<'_>) -> Vec<HashSet<String>> {
    let of = |user: usize, model: &str| {
        shop.ask(&format!("SELECT * FROM rec_next({user}, model => '{model}', recommender => 'shop')"))
    };
    (1..=CLIENTS).map(|user| ["popular", "tgh", "encoder"].iter().map(|model| of(user, model)).collect()).collect()
}

#[test]
fn every_answer_is_that_of_a_deployed_model_while_models_come_and_go() {
    each_server("concurrency", &Options::new(), |server| {
        let shop = server.shop();
        let right = right(&shop);
        let (over, calls, seen) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for (index, right) in right.iter().enumerate() {
                let (shop, over, calls, seen) = (&shop, &over, &calls, &seen);
                scope.spawn(move || {
                    let mut session = shop.session();
                    let mut kinds = HashSet::new();
                    while !over.load(Ordering::Relaxed) {
                        let answer = session.run(&next(index + 1));
                        // Whoever fails ends the test for all.
                        if answer.sqlstate.is_some() || !right.contains(&answer.text) {
                            over.store(true, Ordering::Relaxed);
                            panic!("user {}: {:?} {}", index + 1, answer.sqlstate, answer.text);
                        }
                        if kinds.insert(answer.text) {
                            seen.fetch_max(kinds.len(), Ordering::Relaxed);
                        }
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let rounds = churn(&shop, &over, &seen);
            println!(
                "{} calls by {CLIENTS} clients while models changed {rounds} times",
                calls.load(Ordering::Relaxed)
            );
        });
        assert_eq!(seen.load(Ordering::Relaxed), 3, "the clients did not meet every model");
        assert_eq!(shop.ask("SELECT count(*) FROM rec.model WHERE state <> 'ready'"), "0");
        assert!(!server.cluster.log().contains("ERROR"), "{}", server.cluster.log());
    });
}

/// Trains, imports, deploys, rolls back and drops until the time is up, and on a machine whose clients leave little room for a
/// training until one of them has met all three models; the number of rounds.
fn churn(shop: &Database<'_>, over: &AtomicBool, seen: &AtomicUsize) -> usize {
    let start = Instant::now();
    let mut session = shop.session();
    let mut rounds = 0;
    let is_due = || start.elapsed() < DURATION || seen.load(Ordering::Relaxed) < 3 && start.elapsed() < 6 * DURATION;
    while is_due() && !over.load(Ordering::Relaxed) {
        rounds += 1;
        for statement in [
            "SELECT rec_deploy('encoder', 'shop')",
            // The same parameters on the same data give the same answers.
            "CALL rec_train('graph', '{\"leave_last\": 2}', 'shop', 'again', deploy => true)",
            "SELECT rec_import('copy', rec_export('encoder', 'shop'), NULL::bigint[], recommender => 'shop')",
            "SELECT rec_deploy('copy', 'shop')",
            "SELECT rec_deploy('popular', 'shop')",
            "BEGIN; SELECT rec_deploy('encoder', 'shop'); ROLLBACK",
            "SELECT rec_rollback('shop')",
            "SELECT rec_rollback('shop')",
            "SELECT rec_rollback('shop')",
            "SELECT rec_drop_model('again', 'shop')",
            "SELECT rec_drop_model('copy', 'shop')",
            "SELECT rec_rollback('shop')",
        ] {
            let reply = session.run(statement);
            if reply.sqlstate.is_some() {
                over.store(true, Ordering::Relaxed);
                panic!("{statement}: {}", reply.text);
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    rounds
}

#[test]
fn first_calls_of_many_sessions_at_once_agree_and_leave_one_file() {
    each_server("first", &Options::new(), |server| {
        let shop = server.shop();
        let query = "SELECT * FROM rec_next(1, 20, model => 'encoder', recommender => 'shop')";
        let expected = shop.ask(query);
        let cache = server.cluster.data_dir().join("pgsql_tmp_pgrec");
        for round in 0..5 {
            std::fs::remove_dir_all(&cache).unwrap();
            let mut sessions: Vec<_> = (0..16).map(|_| shop.session()).collect();
            sessions.iter_mut().for_each(|session| session.send(query));
            for session in &mut sessions {
                assert_eq!(session.reply().rows(), expected, "round {round}");
            }
            assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1, "round {round}");
            for session in &mut sessions {
                let maps = std::fs::read_to_string(format!("/proc/{}/maps", session.ask("SELECT pg_backend_pid()")));
                let own: Vec<&str> =
                    maps.as_ref().unwrap().lines().filter(|line| line.contains("pgsql_tmp_pgrec")).collect();
                let same = own.iter().all(|line| !line.ends_with("(deleted)"));
                assert!(same && !own.is_empty(), "round {round}: a file of its own, {own:?}");
            }
        }
    });
}

#[test]
fn a_session_with_more_models_than_it_may_keep_open_answers_from_all_of_them() {
    each_server("open", &Options::new(), |server| {
        let shop = server.shop();
        let mut session = shop.session();
        session.ask("SET rec.open_models = 1");
        let models = ["popular", "tgh", "encoder"];
        let query = |model: &str| format!("SELECT * FROM rec_next(2, model => '{model}', recommender => 'shop')");
        let expected = models.map(|model| shop.ask(&query(model)));
        for _ in 0..20 {
            for (model, expected) in models.iter().zip(&expected) {
                assert_eq!(&session.ask(&query(model)), expected, "{model}");
            }
        }
        // All of them in one statement.
        let together = "SELECT m, n.* FROM unnest('{popular,tgh,encoder,popular}'::text[]) m, rec_next(2, model => m,
            recommender => 'shop') n";
        assert_eq!(session.ask(together), shop.ask(together));
    });
}

#[test]
fn trainings_and_deployments_of_one_recommender_at_once_get_names_of_their_own() {
    each_server("trainings", &Options::new(), |server| {
        let shop = server.shop();
        let mut sessions: Vec<_> = (0..6).map(|_| shop.session()).collect();
        sessions
            .iter_mut()
            .for_each(|session| session.send("CALL rec_train('graph', recommender => 'shop', deploy => true)"));
        for session in &mut sessions {
            let reply = session.reply();
            assert_eq!(reply.sqlstate, None, "{}", reply.text);
        }
        let ready =
            "SELECT count(*), count(DISTINCT name) FROM rec.models WHERE name LIKE 'graph%' AND state = 'ready'";
        assert_eq!(shop.ask(ready), "6|6");
        assert_eq!(shop.ask("SELECT count(*) FROM rec.models WHERE deployed"), "1");
    });
}
