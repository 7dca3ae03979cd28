//! A streaming standby: read-only, and it answers like the primary.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use pgrec_tests::{Database, Server, each_server};
use xtask::{Cluster, Options};

const PATIENCE: Duration = Duration::from_secs(60);
const FOLDER: &str = "pgsql_tmp_pgrec";

fn standby(server: &Server) -> Cluster {
    let dir = Cluster::fresh_dir(&server.home, "standby").unwrap();
    server.cluster.standby(&dir, &Options::new()).unwrap()
}

fn files(data: &Path) -> usize {
    std::fs::read_dir(data.join(FOLDER)).map_or(0, Iterator::count)
}

#[test]
fn a_standby_answers_like_its_primary_and_follows_its_deployments() {
    each_server("primary", &Options::new(), |server| {
        let shop = server.shop();
        let answers = shop.answers();
        assert!(files(&server.cluster.data_dir()) > 0);
        let standby = standby(server);
        assert_eq!(files(&standby.data_dir()), 0, "a base backup carries the cache");
        let there = Database::of(&standby, "shop");
        assert_eq!(there.ask("SELECT pg_is_in_recovery()"), "t");
        assert_eq!(there.answers(), answers);
        assert_eq!(files(&standby.data_dir()), 3, "cache files are made on the standby");
        assert_eq!(
            there.ask("SELECT name, state FROM rec.models ORDER BY 1"),
            "encoder|ready\npopular|ready\ntgh|ready"
        );

        // One session throughout: what it has open must not outlive a deployment.
        let mut session = there.session();
        let query = "SELECT * FROM rec_next(9, recommender => 'shop')";
        let same = |session: &mut pgrec_tests::Session, after: &str| {
            standby.wait_for_replay(&server.cluster, PATIENCE).unwrap();
            assert_eq!(session.ask(query), shop.ask(query), "after {after}");
        };
        same(&mut session, "nothing");
        for (statement, deployed) in [
            ("SELECT rec_deploy('encoder', 'shop')", "encoder"),
            ("SELECT rec_deploy('popular', 'shop')", "popular"),
            ("SELECT rec_rollback('shop')", "encoder"),
            ("CALL rec_train('graph', recommender => 'shop', model => 'newer', deploy => true)", "newer"),
            ("INSERT INTO shop.interaction (user_id, item_id) VALUES (9, 100)", "newer"),
            ("DELETE FROM shop.item WHERE item_id % 3 = 0", "newer"),
            ("SELECT rec_rollback('shop'); SELECT rec_drop_model('newer', 'shop')", "encoder"),
        ] {
            shop.run(statement);
            same(&mut session, statement);
            assert_eq!(there.ask("SELECT name FROM rec.models WHERE deployed"), deployed);
        }
        assert_eq!(there.answers(), shop.answers());
    });
}

#[test]
fn what_writes_is_refused_on_a_standby_and_works_after_promotion() {
    each_server("promoted", &Options::new(), |server| {
        let shop = server.shop();
        shop.with_codes();
        shop.with_search_models();
        let (answers, codes, searched) = (shop.answers(), shop.codes(), shop.searched());
        let standby = standby(server);
        let there = Database::of(&standby, "shop");
        for statement in [
            "CALL rec_train('graph', recommender => 'shop')",
            "SELECT rec_deploy('encoder', 'shop')",
            "SELECT rec_rollback('shop')",
            "SELECT rec_drop_model('encoder', 'shop')",
            "SELECT rec_semantic_assign('codes', 'shop')",
            "SELECT rec_create('another')",
            "SELECT rec_drop('shop')",
            "SELECT rec_import('again', rec_export('encoder', 'shop'), NULL::bigint[], recommender => 'shop')",
        ] {
            let reply = there.session().run(statement);
            assert_eq!(reply.sqlstate.as_deref(), Some("25006"), "{statement}: {}", reply.text);
        }
        // What only reads is for standbys too.
        there.run("SELECT * FROM rec_check('shop')");
        there.run("SELECT * FROM rec_audit('shop')");
        there.run("SELECT count(*) FROM rec_evaluate('graph', recommender => 'shop')");
        assert_eq!(there.answers(), answers);
        assert_eq!(there.codes(), codes);
        assert_eq!(there.searched(), searched);
        // A search on the primary moves what a standby recommends.
        let next = "SELECT * FROM rec_next(7, 10, model => 'dual', recommender => 'shop')";
        let before = there.ask(next);
        shop.run(
            "INSERT INTO shop.search (user_id, query) SELECT 7, attributes ->> 0 FROM shop.item WHERE item_id = 5",
        );
        standby.wait_for_replay(&server.cluster, PATIENCE).unwrap();
        assert_eq!(there.ask(next), shop.ask(next));
        assert_ne!(there.ask(next), before);

        server.cluster.crash().unwrap();
        assert_eq!(there.answers(), answers, "with the primary gone");
        standby.promote().unwrap();
        assert_eq!(there.answers(), answers, "after promotion");
        assert_eq!(there.codes(), codes, "after promotion");
        assert_eq!(there.ask("SELECT rec_semantic_assign('codes', 'shop')"), "1");
        there.run("CALL rec_train('graph', recommender => 'shop', deploy => true)");
        assert_eq!(there.ask("SELECT name, state FROM rec.models WHERE deployed"), "graph_1|ready");
        assert_eq!(there.ask("SELECT rec_rollback('shop')"), "tgh");
        assert_eq!(there.answers(), answers);
    });
}

#[test]
fn a_training_seen_from_a_standby_is_not_called_failed() {
    each_server("seen", &Options::new(), |server| {
        let shop = server.shop();
        let standby = standby(server);
        let mut holder = shop.session();
        holder.ask("BEGIN; LOCK TABLE shop.item IN ROW EXCLUSIVE MODE");
        // The standby cannot see who holds which lock on the primary.
        shop.run(
            "INSERT INTO rec.model (recommender_id, name, family, state) SELECT recommender_id, 'at work',
            'graph', 'training' FROM rec.recommender",
        );
        standby.wait_for_replay(&server.cluster, PATIENCE).unwrap();
        let there = Database::of(&standby, "shop");
        assert_eq!(there.ask("SELECT state FROM rec.models WHERE name = 'at work'"), "training");
        assert_eq!(there.list("SELECT * FROM rec_next(1, recommender => 'shop')").len(), 10);
    });
}
