//! pg_dump and restore: the models, the user's own tables and what the user has added to them.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use pgrec_tests::{Database, Encoder, Server, each_server};
use xtask::Options;

/// What a user adds to tables that are theirs, and what shows that it is there.
const ADDITIONS: &str = "
    CREATE ROLE dump_reader;
    CREATE INDEX mine ON shop.interaction (item_id, user_id) WHERE weight > 1;
    CREATE INDEX near ON shop.item USING usearch (embedding vector_l2_ops) WITH (connectivity = 12);
    ALTER TABLE shop.item ADD COLUMN in_stock boolean NOT NULL DEFAULT true;
    CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.context = ''{\"touched\": true}'';
    RETURN NEW; END';
    CREATE TRIGGER touched BEFORE INSERT ON shop.interaction FOR EACH ROW EXECUTE FUNCTION shop.touch();
    ALTER TABLE shop.interaction ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own_events ON shop.interaction TO dump_reader USING (user_id = 1);
    GRANT USAGE ON SCHEMA shop TO dump_reader;
    GRANT SELECT ON shop.interaction, shop.item TO dump_reader;
    UPDATE shop.item SET in_stock = false WHERE item_id % 2 = 0;
    COMMENT ON TABLE shop.item IS 'my items';
    CREATE VIEW shop.upper AS SELECT user_id, item_id, at FROM shop.interaction WHERE user_id > 100;
    SELECT rec_create('upper', interactions => 'shop.upper', items => 'shop.item');
    CALL rec_train('popularity', recommender => 'upper', model => 'counts', deploy => true);
    CALL rec_train('cml', '{\"epochs\": 2, \"dim\": 8, \"features\": \"embedding\", \"leave_last\": 2}', 'shop', 'space');
    INSERT INTO shop.item (item_id, embedding) SELECT 9001, a.embedding + b.embedding FROM shop.item a, shop.item b WHERE a.item_id = 3 AND b.item_id = 4;
    SELECT rec_publish_vectors('space', recommender => 'shop');
    GRANT SELECT ON shop.user_vector TO dump_reader;
    CREATE TRIGGER place AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION rec_place_item('shop');
    SELECT rec_deploy('encoder', 'shop');";

const ADDITIONS_SEEN: &str = "
    SET enable_seqscan = off;
    SELECT item_id FROM shop.item ORDER BY embedding <-> (SELECT embedding FROM shop.item WHERE item_id = 3) LIMIT 10;
    RESET enable_seqscan;
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'shop' ORDER BY 1;
    SELECT item_id, in_stock FROM shop.item ORDER BY 1 LIMIT 4;
    SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'shop.interaction'::regclass AND NOT tgisinternal;
    SELECT polname, pg_get_expr(polqual, polrelid), relrowsecurity FROM pg_policy JOIN pg_class c ON c.oid = polrelid;
    SELECT obj_description('shop.item'::regclass);
    SET ROLE dump_reader; SELECT count(DISTINCT user_id) FROM shop.interaction; RESET ROLE;
    SELECT * FROM upper.rec_next(7, 5);
    SELECT * FROM shop.rec_near(7, 5);
    SELECT * FROM shop.rec_audience(9001, 5);
    SELECT * FROM shop.rec_score(7, ARRAY[9001, 3], model => 'space');
    SET ROLE dump_reader; SELECT count(*) FROM shop.user_vector; RESET ROLE;
    SELECT recommender_id, model_id, items, users, published_at FROM rec.publication;
    SELECT name, interactions, items FROM rec.recommender ORDER BY 1;
    SELECT recommender_id, model_id, deployed_at, deployed_by FROM rec.deployment ORDER BY deployment_id;";

fn successful(command: &mut Command, what: &str) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{what} warns: {}", String::from_utf8_lossy(&output.stderr));
}

/// Dumps `shop` in a format and restores it on another server.
fn restored(from: &Server, format: &str) -> Server {
    let to = from.another(&format!("restored-{format}"), &Options::new());
    to.cluster.psql("CREATE ROLE dump_reader; CREATE DATABASE shop").unwrap();
    let mut dump = from.cluster.client("pg_dump", "shop");
    let file = to.cluster.dir().join("dump");
    let path = file.to_str().unwrap();
    successful(dump.args(["--format", format, "--file", path]), "pg_dump");
    let mut restore = match format {
        "plain" => {
            let mut psql = to.cluster.client("psql", "shop");
            psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path]);
            psql
        }
        _ => {
            let mut restore = to.cluster.client("pg_restore", "shop");
            restore.args(["--exit-on-error", "--dbname", "shop", path]);
            restore
        }
    };
    successful(restore.stdout(Stdio::null()), "restore");
    to
}

#[test]
fn models_and_the_users_own_additions_survive_dump_and_restore() {
    each_server("dump", &Options::new(), |server| {
        let shop = server.shop();
        shop.with_codes();
        shop.with_search_models();
        shop.run(ADDITIONS);
        let (answers, codes, additions) = (shop.answers(), shop.codes(), shop.ask(ADDITIONS_SEEN));
        let searched = shop.searched();
        for format in ["plain", "custom"] {
            let copy = restored(server, format);
            let again = Database::of(&copy.cluster, "shop");
            assert_eq!(again.ask(ADDITIONS_SEEN), additions, "{format}");
            assert_eq!(again.answers(), answers, "{format}");
            assert_eq!(again.codes(), codes, "{format}");
            assert_eq!(again.searched(), searched, "{format}");
            goes_on(&again);
        }
    });
}

/// A restored database is one to work with: ids are new, what was deployed can be rolled back.
fn goes_on(database: &Database<'_>) {
    let known = database.ask(
        "SELECT max(model_id), (SELECT max(deployment_id)
        FROM rec.deployment), (SELECT max(position) FROM shop.interaction) FROM rec.model",
    );
    assert_eq!(database.ask("SELECT rec_rollback('shop')"), "tgh");
    database.run("CALL rec_train('graph', recommender => 'shop', deploy => true)");
    database.run("SELECT rec_create('another')");
    database.run(&Encoder::new(1, 5).import_sql("small", 0));
    database.run("INSERT INTO shop.interaction (user_id, item_id) VALUES (1, 1)");
    let [models, deployments, positions]: [i64; 3] =
        known.split('|').map(|n| n.parse().unwrap()).collect::<Vec<i64>>().try_into().unwrap();
    // The deployment that was rolled back may have been the largest: its number is not used again either.
    assert_eq!(
        database.ask(&format!(
            "SELECT (SELECT count(*) FROM rec.model WHERE model_id > {models}), (SELECT count(*) FROM rec.deployment
                WHERE deployment_id > {deployments}),
             (SELECT max(position) > {positions} FROM shop.interaction)"
        )),
        "2|1|t"
    );
    assert_eq!(
        database.ask("SELECT context FROM shop.interaction ORDER BY position DESC LIMIT 1"),
        "{\"touched\": true}"
    );
}

#[test]
fn dropping_the_extension_keeps_the_tables_and_their_rows() {
    each_server("drop", &Options::new(), |server| {
        let shop = server.shop();
        shop.run("CREATE INDEX mine ON shop.interaction (weight); ALTER TABLE shop.item ADD COLUMN in_stock boolean");
        let rows = "SELECT (SELECT count(*) FROM shop.interaction), (SELECT count(*)
            FROM shop.item), (SELECT count(in_stock) FROM shop.item)";
        let before = shop.ask(rows);
        shop.run("SET client_min_messages = warning; DROP EXTENSION pgrec CASCADE");
        assert_eq!(shop.ask(rows), before);
        assert_eq!(shop.ask("SELECT to_regnamespace('rec') IS NULL, to_regclass('shop.mine') IS NOT NULL"), "t|t");
        // The same tables serve again after they are bound.
        shop.run(
            "CREATE EXTENSION pgrec;
             SELECT rec_create('shop', interactions => 'shop.interaction', time_column => 'at', items => 'shop.item');
             CALL rec_train('graph', deploy => true)",
        );
        assert_eq!(shop.list("SELECT * FROM shop.rec_next(1)").len(), 10);
    });
}

#[test]
fn a_dump_without_data_restores_into_an_empty_registry() {
    each_server("schema", &Options::new(), |server| {
        let shop = server.shop();
        let to = Database::of(&server.cluster, "empty");
        server.cluster.psql("CREATE DATABASE empty").unwrap();
        let script = server.cluster.dir().join("schema.sql");
        let path = script.to_str().unwrap();
        successful(shop.client("pg_dump").args(["--schema-only", "--file", path]), "pg_dump");
        successful(
            to.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path]).stdout(Stdio::null()),
            "psql",
        );
        assert_eq!(to.ask("SELECT count(*) FROM rec.recommender"), "0");
        let message = to.fails("SELECT * FROM shop.rec_next(1)");
        assert!(message.contains("recommender \"shop\" does not exist"), "{message}");
    });
}
