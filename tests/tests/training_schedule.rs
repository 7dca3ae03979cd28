//! Trainings that are repeated.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use pgrec_tests::{Database, each_database, each_server};
use xtask::Options;

#[test]
fn what_is_due_is_started_once_by_whoever_may() {
    each_database(|database| {
        let mut session = database.session();
        session.ask("SELECT rec_schedule('shop', 'popularity', '1 hour', deploy => 'never')");
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "0", "it is not due");
        assert_eq!(
            session.ask("SELECT family, every, params, deploy, scheduled_by, next_at > now() + '59 minutes', model FROM rec.schedules"),
            "popularity|01:00:00|{\"leave_last\": 2}|never|postgres|t|"
        );
        let make_due = "UPDATE rec.schedule SET next_at = now() - interval '30 minutes'";
        database.run(make_due);
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "1");
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "0", "started twice");
        // Times that were missed are not made up for, and the rhythm is kept.
        assert_eq!(
            session.ask("SELECT next_at BETWEEN now() + '29 minutes' AND now() + '31 minutes' FROM rec.schedules"),
            "t"
        );
        database.wait_for("SELECT model, state, failure FROM rec.schedules", "popularity_1|ready|");

        // Not beside one that is not over.
        let mut holder = database.session();
        holder.ask("BEGIN; LOCK TABLE shop.item IN ACCESS EXCLUSIVE MODE");
        database.run(make_due);
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "1");
        database.run(make_due);
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "0", "two at once");
        holder.ask("COMMIT");
        database.wait_for("SELECT model, state FROM rec.schedules", "popularity_2|ready");
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "1");
        database.wait_for("SELECT model, state FROM rec.schedules", "popularity_3|ready");

        // Whoever does not own it starts nothing, and what cannot be started says why without keeping others from it.
        let role = database.role("stranger");
        database.run(&format!("CREATE ROLE {role}"));
        database.run("SELECT rec_schedule('shop', 'graph', '1 day')");
        database.run(make_due);
        let mut stranger = database.session();
        stranger.ask(&format!("SET ROLE {role}"));
        assert_eq!(stranger.ask("SELECT rec_run_schedules()"), "0");
        for call in ["SELECT rec_schedule('shop', 'graph', '1 day')", "SELECT rec_unschedule('shop', 'graph')"] {
            assert_eq!(stranger.run(call).error(), "42501", "{call}");
        }
        database.run("CALL rec_train('popularity', deploy => true)");
        assert_eq!(session.ask("SELECT rec_run_schedules()"), "1");
        let failure = session.ask("SELECT failure FROM rec.schedules WHERE family = 'graph'");
        assert!(failure.contains("cannot compare with the deployed model"), "{failure}");
        assert_eq!(session.ask("SELECT rec_unschedule('shop', 'graph')"), "t");
        assert_eq!(session.ask("SELECT rec_unschedule('shop', 'graph')"), "f");
        for (call, state) in [
            ("SELECT rec_schedule('shop', 'graph', '0', deploy => 'never')", "22023"),
            ("SELECT rec_schedule('shop', 'graph', NULL)", "22023"),
            ("SELECT rec_schedule('shop', 'oracle', '1 day')", "42704"),
            ("SELECT rec_schedule('shop', 'graph', '1 day', '{}')", "22023"),
            ("SELECT rec_unschedule('shop', NULL)", "22023"),
        ] {
            assert_eq!(session.run(call).error(), state, "{call}");
        }
        drop(stranger);
        database.run(&format!("DROP ROLE {role}"));
    });
}

#[test]
fn a_preloaded_server_trains_by_itself_and_lets_databases_be_dropped() {
    let options = Options::new().set("shared_preload_libraries", "pgrec").set("rec.schedule_naptime", "1s");
    each_server("launcher", &options, |server| {
        let shop = server.shop();
        let _without = server.cluster.psql("CREATE DATABASE without").unwrap();
        shop.run("SELECT rec_schedule('shop', 'popularity', '2 seconds', deploy => 'always')");
        shop.wait_for("SELECT count(*) >= 2 FROM rec.models WHERE name LIKE 'popularity%' AND state = 'ready'", "t");
        assert_eq!(shop.ask("SELECT deployed_by FROM rec.deployment ORDER BY deployment_id DESC LIMIT 1"), "postgres");
        // What a stop of the server has left in the queue goes on without anybody's asking.
        shop.run("SELECT rec_unschedule('shop', 'popularity')");
        let _ = shop.wait_until_idle();
        shop.run(
            "SET rec.training_threads = 1; INSERT INTO rec.model (recommender_id, name, family, state)
                  SELECT recommender_id, 'left', 'popularity', 'queued' FROM rec.recommender;
                  INSERT INTO rec.training (model_id, deploy, started_by, threads, niceness, memory)
                  SELECT model_id, 'never', 'postgres', 1, 0, 1000000 FROM rec.model WHERE name = 'left'",
        );
        shop.wait_for("SELECT state FROM rec.models WHERE name = 'left'", "ready");
        server.cluster.restart().unwrap();
        let copy = Database::copy(&server.cluster, "shop", "copy");
        copy.run("SELECT rec_schedule('shop', 'popularity', '1 second', deploy => 'never')");
        copy.wait_for("SELECT count(*) >= 1 FROM rec.models WHERE name LIKE 'popularity%' AND created_at > pg_postmaster_start_time()", "t");
        let start = Instant::now();
        server.cluster.psql("DROP DATABASE copy").unwrap();
        println!("dropped after {:.0?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5));
        server.cluster.psql("DROP DATABASE without").unwrap();
        assert_eq!(
            server
                .cluster
                .psql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgrec launcher' AND datname IS NULL")
                .unwrap(),
            "1"
        );
        assert!(!server.cluster.log().contains("ERROR:  "), "{}", server.cluster.log());
    });
}
