//! Signal 9 to the whole server at any moment, and cache files that are gone or damaged.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use pgrec_tests::{Database, Encoder, Random, Server, array, each_server, hex};
use xtask::Options;

/// Crashes for each version.
const ROUNDS: usize = 5;

/// A checkpoint that takes several chunks of artifact, so that a crash can fall between them.
const LARGE: usize = 40_000;

/// Rows that contradict each other, whatever happened. Must print nothing.
const CONTRADICTIONS: &str = "
    SELECT 'incomplete', m.name FROM rec.model m WHERE state = 'ready' AND bytes IS DISTINCT FROM
        (SELECT sum(octet_length(data)) FROM rec.artifact a WHERE a.model_id = m.model_id);
    SELECT 'gap', m.name FROM rec.model m WHERE state = 'ready' AND
        (SELECT count(*) - 1 FROM rec.artifact a WHERE a.model_id = m.model_id) <> (SELECT max(chunk)
        FROM rec.artifact a WHERE a.model_id = m.model_id);
    SELECT 'half-written', m.name FROM rec.model m WHERE state <> 'ready' AND EXISTS (SELECT FROM rec.artifact a
    WHERE a.model_id = m.model_id);
    SELECT 'unfinished', m.name, state FROM rec.models m WHERE state IN ('queued', 'training');
    SELECT 'deployed though not ready', m.name FROM rec.deployment d JOIN rec.model m USING (model_id)
    WHERE m.state <> 'ready';
    SELECT 'imports are one transaction', m.name FROM rec.models m WHERE m.family = 'sasrec' AND state <> 'ready';";

/// How every model that is ready answers: each must open, and open from a cache file.
const ALL_OPEN: &str = "SELECT name, (SELECT count(*) FROM rec_next(3, 5, model => m.name, recommender => 'shop'))
    FROM rec.models m WHERE state = 'ready'";

fn options() -> Options {
    Options::new().durable().set("synchronous_commit", "on").set("checkpoint_timeout", "30s")
}

#[test]
fn a_killed_server_comes_back_with_whole_models_that_answer_the_same() {
    each_server("crash", &options(), |server| {
        let shop = server.shop();
        let file = hex(&Encoder::new(2, LARGE).bytes());
        shop.run(&format!("CREATE TABLE weights AS SELECT {file} AS file, {}::bigint[] AS ids", array(1..=LARGE)));
        let answers = shop.answers();
        let mut random = Random::fresh();
        for round in 0..ROUNDS {
            // Importing, training and deploying at once, each over and over until the lights go out.
            let scripts = [
                (0..50)
                    .map(|n| {
                        format!(
                            "SELECT rec_import('large_{round}_{n}', file, ids, recommender => 'shop')
                    FROM weights;\n"
                        )
                    })
                    .collect::<String>(),
                "CALL rec_train('graph', recommender => 'shop', deploy => true);\n".repeat(100),
                "SELECT rec_deploy('popular', 'shop'); SELECT rec_deploy('encoder', 'shop');
                    SELECT rec_rollback('shop');\n"
                    .repeat(2_000),
            ];
            let mut sessions = [shop.session(), shop.session(), shop.session()];
            let writers: Vec<_> =
                sessions.iter_mut().zip(&scripts).map(|(session, script)| session.feed(script)).collect();
            std::thread::sleep(Duration::from_millis(20 + random.below(700) as u64));
            server.cluster.crash().unwrap();
            drop(sessions);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            server.cluster.start_server().unwrap();

            assert_eq!(shop.ask(CONTRADICTIONS), "", "round {round}");
            for line in shop.ask(ALL_OPEN).lines() {
                assert!(line.ends_with("|5"), "round {round}: {line}");
            }
            println!(
                "round {round}: {}",
                shop.ask("SELECT state, coalesce(reason, ''), count(*) FROM rec.models GROUP BY 1, 2 ORDER BY 1")
                    .replace('\n', ", ")
            );
            shop.run("SELECT rec_deploy('tgh', 'shop')");
            assert_eq!(shop.answers(), answers, "round {round}");
            clean(&shop);
        }
    });
}

/// What a crash left is called by its name and can be removed.
fn clean(shop: &Database<'_>) {
    let reasons = shop.ask("SELECT DISTINCT reason FROM rec.models WHERE state = 'failed'");
    let known = |reason: &str| reason.starts_with("interrupted: ") || reason.starts_with("cancelled: the session");
    assert!(reasons.lines().all(known), "{reasons}");
    shop.run("SELECT rec_drop_model(name, 'shop') FROM rec.models WHERE name NOT IN ('popular', 'tgh', 'encoder')");
    assert_eq!(shop.ask("SELECT count(*) FROM rec.model"), "3");
    assert_eq!(shop.ask("SELECT count(*) FROM rec.progress"), "0");
}

#[test]
fn a_training_whose_server_was_killed_is_shown_as_failed() {
    each_server("training", &options(), |server| {
        let shop = server.shop();
        // The training waits for a lock on the items, so that the crash finds it at work.
        let mut holder = shop.session();
        holder.ask("BEGIN; LOCK TABLE shop.item IN ACCESS EXCLUSIVE MODE");
        let mut trainer = shop.session();
        trainer.send("CALL rec_train('graph', recommender => 'shop', model => 'cut short', deploy => true)");
        shop.wait_for("SELECT phase FROM rec.progress", "reading");
        assert_eq!(shop.ask("SELECT state FROM rec.models WHERE name = 'cut short'"), "training");
        server.cluster.crash().unwrap();
        server.cluster.start_server().unwrap();
        assert_eq!(trainer.reply().error(), "lost");
        let seen = shop.ask("SELECT state, reason, deployed FROM rec.models WHERE name = 'cut short'");
        assert!(seen.starts_with("failed|interrupted") && seen.ends_with("|f"), "{seen}");
        assert_eq!(shop.ask("SELECT * FROM rec.progress"), "", "progress of a training that is dead");
        assert!(
            shop.ask("SELECT finding FROM rec_check('shop') WHERE subject LIKE '%cut short%'").contains("interrupted")
        );
        assert_eq!(shop.ask("SELECT name FROM rec.models WHERE deployed"), "tgh");
        let message = shop.fails("SELECT rec_deploy('cut short', 'shop')");
        assert!(message.contains("not ready"), "{message}");
        shop.run(
            "SELECT rec_drop_model('cut short', 'shop'); CALL rec_train('graph', recommender => 'shop',
            model => 'cut short')",
        );
    });
}

#[test]
fn a_training_whose_session_was_killed_is_shown_as_failed() {
    each_server("session", &Options::new(), |server| {
        let shop = server.shop();
        let mut holder = shop.session();
        holder.ask("BEGIN; LOCK TABLE shop.item IN ACCESS EXCLUSIVE MODE");
        let mut trainer = shop.session();
        trainer.send("CALL rec_train('graph', recommender => 'shop', model => 'cut short')");
        shop.wait_for("SELECT phase FROM rec.progress", "reading");
        shop.run(&format!("SELECT pg_terminate_backend({}, 10000)", trainer.pid));
        let seen = shop.ask("SELECT state, left(reason, 11) FROM rec.models WHERE name = 'cut short'");
        assert_eq!(seen, "failed|cancelled: ");
        holder.ask("COMMIT");
        let mut trainer = shop.session();
        assert!(trainer.ask("CALL rec_train('graph', recommender => 'shop', model => 'after')").contains("ready"));
        // A cancelled one says so itself.
        let mut holder = shop.session();
        holder.ask("BEGIN; LOCK TABLE shop.item IN ACCESS EXCLUSIVE MODE");
        trainer.send("CALL rec_train('graph', recommender => 'shop', model => 'cancelled')");
        shop.wait_for(
            "SELECT count(*) FROM rec.progress WHERE pid IN (SELECT pid FROM pg_stat_activity
            WHERE wait_event_type = 'Lock')",
            "1",
        );
        shop.run(&format!("SELECT pg_cancel_backend({})", trainer.pid));
        assert_eq!(trainer.reply().error(), "57014");
        holder.ask("COMMIT");
        assert_eq!(
            shop.ask("SELECT state, reason FROM rec.models WHERE name = 'cancelled'"),
            "failed|cancelled by the session that waited for it: canceling statement due to user request"
        );
        assert_eq!(trainer.ask("SELECT count(*) FROM rec_next(1, recommender => 'shop')"), "10");
    });
}

fn cache(server: &Server) -> PathBuf {
    server.cluster.data_dir().join("pgsql_tmp_pgrec")
}

fn files(server: &Server) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(cache(server)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn cache_files_that_are_gone_cut_or_left_half_written_are_made_again() {
    each_server("cache", &options(), |server| {
        let shop = server.shop();
        let answers = shop.answers();
        let made = files(server);
        assert_eq!(made.len(), 3, "{made:?}");

        std::fs::remove_dir_all(cache(server)).unwrap();
        assert_eq!(shop.answers(), answers, "without the folder");
        assert_eq!(files(server), made);

        for (cut, file) in [0, 1, 4_096].iter().zip(&made) {
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(*cut).unwrap();
        }
        assert_eq!(shop.answers(), answers, "with files cut short");
        let mut longer = std::fs::OpenOptions::new().append(true).open(&made[0]).unwrap();
        std::io::Write::write_all(&mut longer, b"and more").unwrap();
        assert_eq!(shop.answers(), answers, "with a file too long");

        // A writer that died left its temporary file; another database and another model are gone.
        let name = made[0].file_name().unwrap().to_str().unwrap();
        let (database, rest) = name.split_once('_').unwrap();
        for orphan in [format!("{name}.tmp4194304"), format!("4294967290_{rest}"), format!("{database}_99999_00000000")]
        {
            std::fs::write(cache(server).join(orphan), b"left behind").unwrap();
        }
        assert_eq!(shop.ask("SELECT count(*) FROM rec_check() WHERE finding LIKE '3 cache files%'"), "1");
        std::fs::remove_file(&made[1]).unwrap();
        assert_eq!(shop.answers(), answers, "with orphans");
        assert_eq!(files(server), made);

        shop.run("SELECT rec_drop_model('popular', 'shop')");
        assert_eq!(files(server).len(), 2, "the file of a dropped model stays");
    });
}

#[test]
fn sessions_that_have_a_model_open_do_not_notice_that_its_file_goes() {
    each_server("unlinked", &Options::new(), |server| {
        let shop = server.shop();
        let mut session = shop.session();
        let query = "SELECT * FROM rec_next(5, 20, model => 'encoder', recommender => 'shop')";
        let before = session.ask(query);
        std::fs::remove_dir_all(cache(server)).unwrap();
        assert_eq!(session.ask(query), before);
        assert_eq!(shop.ask(query), before);
    });
}
