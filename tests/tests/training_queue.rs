//! Trainings that wait their turn, that start when their transaction commits, and what is seen of them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use pgrec_tests::{Database, ENDLESS, Session, WORKERS, each_database, each_server, slow};
use xtask::Options;

const PHASES: &str = "SELECT string_agg(model || ' ' || phase, ', ' ORDER BY model_id) FROM rec.progress";

#[test]
fn trainings_run_one_after_the_other_in_the_order_in_which_they_were_asked_for() {
    each_server("queue", &Options::new(), |server| {
        let database = Database::create(&server.cluster, "large");
        slow(&database);
        database.run(&format!("SELECT rec_train_start({ENDLESS}, 'first')"));
        database.wait_until_fitting("first");
        let mut waiting = database.session();
        waiting.send("CALL rec_train('popularity', recommender => 'slow', model => 'second')");
        database.wait_for(PHASES, "first fitting, second queued");
        let mut leaving = database.session();
        leaving.send("CALL rec_train('popularity', recommender => 'slow', model => 'third')");
        database.wait_for(PHASES, "first fitting, second queued, third queued");
        database.run(
            "SELECT rec_train_start('popularity', recommender => 'slow', model => 'fourth');
             SELECT rec_train_start('popularity', recommender => 'slow', model => 'fifth')",
        );
        assert_eq!(database.ask("SELECT rec_train_stop('fifth', 'slow')"), "t");
        drop(leaving);
        database.wait_for(PHASES, "first fitting, second queued, fourth queued");
        assert_eq!(database.ask(WORKERS), "1", "queued trainings need no process");
        let queued = database.ask("SELECT state FROM rec.models WHERE name = 'fourth'");
        assert_eq!(queued, "queued");
        assert_eq!(database.session().run("SELECT rec_deploy('fourth', 'slow')").error(), "55000");

        // A session that waits for its turn says so after a second.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(database.ask("SELECT rec_train_stop('first', 'slow')"), "t");
        let reply = waiting.reply();
        assert_eq!(reply.sqlstate, None, "{}", reply.text);
        assert!(
            reply.text.contains("second is queued: others are trained first, and rec.max_training_workers is 1"),
            "{}",
            reply.text
        );
        database.wait_for("SELECT state FROM rec.models WHERE name = 'fourth'", "ready");
        let ended = "SELECT name, state FROM rec.model ORDER BY finished_at, model_id";
        assert_eq!(database.ask(ended), "fifth|failed\nthird|failed\nfirst|failed\nsecond|ready\nfourth|ready");
        let reasons = "SELECT name, reason FROM rec.model WHERE state = 'failed' ORDER BY 1";
        assert_eq!(
            database.ask(reasons),
            "fifth|cancelled by rec_train_stop (role \"postgres\")\nfirst|cancelled by rec_train_stop (role \"postgres\")\nthird|cancelled: the session that waited for it ended"
        );
        assert_eq!(database.ask("SELECT count(*) FROM rec.training"), "0");
        let _ = database.wait_until_idle();
    });
}

#[test]
fn the_limit_is_the_servers_and_more_workers_train_at_once() {
    each_server("limit", &Options::new(), |server| {
        let one = Database::create(&server.cluster, "one");
        slow(&one);
        let two = Database::copy(&server.cluster, "one", "two");
        for database in [&one, &two] {
            database.run(&format!("SELECT rec_train_start({ENDLESS}, 'a'); SELECT rec_train_start({ENDLESS}, 'b')"));
        }
        let phases =
            || [&one, &two].map(|database| database.ask("SELECT count(*) FROM rec.progress WHERE pid IS NOT NULL"));
        one.wait_until_fitting("a");
        assert_eq!(phases(), ["1", "0"], "another database's training counts");
        server
            .cluster
            .psql("LOAD 'pgrec'; ALTER SYSTEM SET rec.max_training_workers = 3; SELECT pg_reload_conf()")
            .unwrap();
        two.wait_for("SELECT phase <> 'queued' FROM rec.progress WHERE model = 'a'", "t");
        one.run("SELECT rec_check()");
        one.wait_for("SELECT phase <> 'queued' FROM rec.progress WHERE model = 'b'", "t");
        for database in [&one, &two] {
            database.run("SELECT rec_train_stop(model, 'slow') FROM rec.progress");
            assert_eq!(database.ask("SELECT count(*) FROM rec.training"), "0");
        }
        let _ = one.wait_until_idle();
    });
}

#[test]
fn without_a_free_worker_a_training_says_so_and_waits() {
    // The launcher of logical replication takes the only one.
    each_server("crowded", &Options::new().set("max_worker_processes", "1"), |server| {
        let shop = Database::create(&server.cluster, "shop");
        shop.run("SELECT rec_create('shop'); INSERT INTO shop.interaction (user_id, item_id) SELECT n, n FROM generate_series(1, 10) n");
        let reply = shop.session().run("SELECT rec_train_start('popularity', model => 'alone')");
        assert!(
            reply.text.contains("stays queued: no background worker is free (max_worker_processes)"),
            "{}",
            reply.text
        );
        let mut session = shop.session();
        session.ask("SET statement_timeout = '3s'");
        let reply = session.run("CALL rec_train('popularity', model => 'waiting')");
        assert!(reply.text.contains("waiting is queued: no background worker is free"), "{}", reply.text);
        assert_eq!(reply.error(), "57014");
        assert_eq!(shop.ask("SELECT name, state FROM rec.models ORDER BY 1"), "alone|queued\nwaiting|failed");
    });
}

#[test]
fn what_was_queued_when_the_server_stopped_is_trained_after_it_started_again() {
    each_server("restart", &Options::new(), |server| {
        let database = Database::create(&server.cluster, "large");
        slow(&database);
        database.run(&format!("SELECT rec_train_start({ENDLESS}, 'cut short')"));
        database.wait_until_fitting("cut short");
        database.run("SELECT rec_train_start('popularity', recommender => 'slow', model => 'kept')");
        let mut session = database.session();
        session.send("CALL rec_train('popularity', recommender => 'slow', model => 'nobody waits')");
        database.wait_for(PHASES, "cut short fitting, kept queued, nobody waits queued");
        server.cluster.crash().unwrap();
        server.cluster.start_server().unwrap();
        let seen = "SELECT name, state, left(reason, 11) FROM rec.models ORDER BY created_at";
        assert_eq!(database.ask(seen), "cut short|failed|interrupted\nkept|queued|\nnobody waits|failed|cancelled: ");
        assert_eq!(database.ask(PHASES), "kept queued");
        database.run("SELECT rec_check()");
        database.wait_for("SELECT state FROM rec.models WHERE name = 'kept'", "ready");
        let stored = "SELECT name, state, left(reason, 11) FROM rec.model ORDER BY model_id";
        assert_eq!(database.ask(stored), "cut short|failed|interrupted\nkept|ready|\nnobody waits|failed|cancelled: ");
    });
}

#[test]
fn a_started_training_begins_with_the_commit_of_its_transaction_and_not_without_it() {
    each_database(|database| {
        let mut session = database.session();
        assert_eq!(session.ask("BEGIN; SELECT rec_train_start('popularity', model => 'undone')"), "undone");
        session.ask("ROLLBACK");
        session.ask("BEGIN; SAVEPOINT a; SELECT rec_train_start('popularity', model => 'taken back'); ROLLBACK TO a");
        session.ask("SELECT rec_train_start('popularity', model => 'begun', deploy => true)");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(database.ask("SELECT count(*) FROM rec.progress"), "0", "it began before the commit");
        session.ask("COMMIT");
        database.wait_for(
            "SELECT name, state, deployed FROM rec.models WHERE name IN ('undone', 'taken back', 'begun')",
            "begun|ready|t",
        );
        // The role that asked is the one that has deployed.
        assert_eq!(
            database.ask("SELECT deployed_by FROM rec.deployment ORDER BY deployment_id DESC LIMIT 1"),
            "postgres"
        );
        // From a function, where rec_train refuses.
        database.run("DO $$ BEGIN PERFORM rec_train_start('graph', model => 'inside'); END $$");
        database.wait_for("SELECT state FROM rec.models WHERE name = 'inside'", "ready");
    });
}

#[test]
fn a_training_shows_how_far_it_is_and_holds_nothing_while_it_fits() {
    each_server("progress", &Options::new(), |server| {
        let database = Database::create(&server.cluster, "large");
        slow(&database);
        let mut session = database.session();
        session.ask("SET rec.training_threads = 1; SET rec.training_niceness = 7; SET rec.training_memory = '300MB'");
        session.send(&format!("CALL rec_train({ENDLESS}, 'watched')"));
        database.wait_until_fitting("watched");
        let worker =
            "SELECT application_name, state, query, backend_xmin IS NULL, xact_start IS NULL FROM pg_stat_activity
            WHERE backend_type = 'pgrec training'";
        assert_eq!(database.ask(worker), "pgrec training|active|rec_train: model watched of slow, fitting|t|t");
        let locks = "SELECT locktype, count(*) FROM pg_locks JOIN rec.progress USING (pid) GROUP BY 1";
        assert_eq!(database.ask(locks), "advisory|3", "other locks than those of place, slot and training");
        let waiter = format!("SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = {}", session.pid);
        assert_eq!(database.ask(&waiter), "t", "the waiting session holds back vacuum");
        assert_eq!(
            database
                .ask(&format!("SELECT count(*) FROM pg_locks WHERE pid = {} AND locktype = 'relation'", session.pid)),
            "0"
        );
        assert_eq!(database.ask("SELECT threads, niceness, memory FROM rec.training"), "1|7|307200");
        database.wait_for("SELECT step > 0 AND steps >= step AND updated_at > started_at FROM rec.progress", "t");
        let niceness = database.ask("SELECT pid FROM rec.progress");
        let nice = std::process::Command::new("ps").args(["-L", "-o", "ni=,comm=", "-p", &niceness]).output();
        if let Ok(threads) = nice {
            let threads = String::from_utf8_lossy(&threads.stdout).into_owned();
            assert!(
                threads.lines().any(|line| line.contains("pgrec 0") && line.trim_start().starts_with('7')),
                "{threads}"
            );
        }
        // A waiting session says every two seconds how far it is.
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(database.ask("SELECT rec_train_stop('watched', 'slow')"), "t");
        let reply = session.reply();
        assert!(reply.text.contains("NOTICE:  watched: epoch "), "{}", reply.text);
        assert_eq!(reply.error(), "57014");
        session.ask("CALL rec_train('popularity', recommender => 'slow', model => 'done')");
        assert_eq!(
            database.ask(
                "SELECT seconds > 0, cpu_seconds > 0, versions->>'threads', seed FROM rec.models WHERE name = 'done'"
            ),
            "t|t|1|42"
        );
    });
}

#[test]
fn a_training_reads_with_the_rights_of_an_owner_that_cannot_log_in() {
    each_database(|database| {
        let owner = database.role("no_login");
        database.run(&format!("CREATE ROLE {owner} NOLOGIN; GRANT CREATE ON DATABASE {} TO {owner}", database.name));
        let mut session = database.session();
        session.ask(&format!("SET ROLE {owner}"));
        session.ask("SELECT rec_create('own')");
        session.ask("INSERT INTO own.interaction (user_id, item_id) SELECT n, n % 3 FROM generate_series(1, 10) n");
        let reply = session.run("CALL rec_train('popularity', recommender => 'own', deploy => true)");
        assert_eq!(reply.sqlstate, None, "{}", reply.text);
        assert_eq!(session.ask("SELECT items FROM rec.models WHERE recommender = 'own'"), "3");
        assert_eq!(database.ask("SELECT deployed_by FROM rec.deployment ORDER BY deployment_id DESC LIMIT 1"), owner);
        // An owner passes its own policies, unless they are forced on it.
        session.ask("ALTER TABLE own.interaction ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON own.interaction USING (item_id = 1)");
        session.ask("CALL rec_train('popularity', recommender => 'own', model => 'passed')");
        session.ask("ALTER TABLE own.interaction FORCE ROW LEVEL SECURITY");
        session.ask("CALL rec_train('popularity', recommender => 'own', model => 'forced')");
        assert_eq!(
            session.ask("SELECT name, items FROM rec.models WHERE name IN ('passed', 'forced') ORDER BY 1"),
            "forced|1\npassed|3"
        );
        drop(session);
        database.run(&format!(
            "SET client_min_messages = warning; SELECT rec_drop('own', true); DROP OWNED BY {owner}; DROP ROLE {owner}"
        ));
    });
}

/// What a training says when it is over.
fn said(session: &mut Session, arguments: &str) -> String {
    let reply = session.run(&format!("CALL rec_train({arguments})"));
    assert_eq!(reply.sqlstate, None, "{}", reply.text);
    reply.text
}

#[test]
fn a_model_that_is_to_be_better_is_compared_on_events_that_neither_has_seen() {
    each_database(|database| {
        let mut session = database.session();
        let deployed = || database.ask("SELECT name FROM rec.models WHERE deployed");
        assert_eq!(deployed(), "tgh");
        let measure = |model: &str| {
            database
                .ask(&format!("SELECT value FROM rec_evaluate('{model}', 'validation') WHERE metric = 'ndcg'"))
                .parse::<f64>()
                .unwrap()
        };
        // The same again is not better.
        let text = said(&mut session, "'graph', '{\"leave_last\": 2}', model => 'same', deploy => 'if_better'");
        assert!(
            text.contains("is ready and not deployed: ndcg@10 ") && text.contains("is not better than the "),
            "{text}"
        );
        assert_eq!(deployed(), "tgh");
        let (old, new) = (measure("tgh"), measure("same"));
        assert_eq!(
            database.ask("SELECT metrics->'comparison'->>'deployed_model', metrics->'comparison'->>'this_model', metrics->'comparison'->>'with' FROM rec.models WHERE name = 'same'"),
            format!("{old}|{new}|tgh")
        );
        // Popularity first, then what beats it.
        database.run("SELECT rec_deploy('popular')");
        assert!(measure("tgh") > measure("popular"), "the generated shop has changed: nothing is compared here");
        let text = said(&mut session, "'graph', '{\"leave_last\": 2}', model => 'better', deploy => 'if_better'");
        assert!(text.contains("is ready and deployed: ndcg@10 "), "{text}");
        assert_eq!(deployed(), "better");

        let refused = session.run("CALL rec_train('graph', deploy => 'if_better')");
        assert!(refused.text.contains("leave_last is 0"), "{}", refused.text);
        assert_eq!(refused.error(), "22023");
        said(&mut session, "'graph', model => 'everything', deploy => 'always'");
        let refused =
            session.run("CALL rec_train('graph', '{\"leave_last\": 2}', model => 'late', deploy => 'if_better')");
        assert!(refused.text.contains("cannot compare with the deployed model \"everything\""), "{}", refused.text);
        assert_eq!(refused.error(), "55000");
        assert_eq!(database.ask("SELECT count(*) FROM rec.model WHERE name = 'late'"), "0");

        // Every way to write it.
        for (deploy, expected) in [
            ("true", "given_1"),
            ("false", "given_1"),
            ("'never'", "given_1"),
            ("NULL", "given_1"),
            ("'always'::text", "given_5"),
        ] {
            let n = database.ask("SELECT count(*) + 1 FROM rec.model WHERE name LIKE 'given%'");
            said(&mut session, &format!("'popularity', model => 'given_{n}', deploy => {deploy}"));
            assert_eq!(deployed(), expected, "{deploy}");
        }
        assert_eq!(session.run("CALL rec_train('graph', deploy => 'perhaps')").error(), "22P02");
        // Where nothing is deployed there is nothing to beat.
        database.run("SELECT rec_create('new'); INSERT INTO new.interaction (user_id, item_id) SELECT n % 5, n FROM generate_series(1, 50) n");
        let text = said(&mut session, "'popularity', '{\"leave_last\": 2}', 'new', deploy => 'if_better'");
        assert!(text.contains("is ready and deployed: no model was"), "{text}");
    });
}

#[test]
fn a_model_continues_only_from_one_of_its_family() {
    each_database(|database| {
        let mut session = database.session();
        for (arguments, state, message) in [
            ("'graph', '{\"init\": \"popular\"}'", "22023", "which is of family \"popularity\""),
            ("'graph', '{\"init\": \"nobody\"}'", "42704", "does not exist"),
            ("'graph', '{\"init\": 3}'", "22023", "name of a model"),
            ("'graph', '{\"seed\": -1}'", "22023", "whole number"),
        ] {
            let reply = session.run(&format!("CALL rec_train({arguments}, 'shop', 'next')"));
            assert!(reply.text.contains(message), "{}", reply.text);
            assert_eq!(reply.error(), state, "{arguments}");
        }
        assert_eq!(database.ask("SELECT count(*) FROM rec.model WHERE name = 'next'"), "0");
        session.ask("CALL rec_train('graph', '{\"init\": \"tgh\", \"seed\": 5}', 'shop', 'next')");
        assert_eq!(database.ask("SELECT seed, params FROM rec.models WHERE name = 'next'"), "5|{\"init\": \"tgh\"}");
    });
}
