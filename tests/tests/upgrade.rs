//! pg_upgrade from the oldest installation to the newest: the same answers, without training anything again.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, Server, installations};
use xtask::suite::skip;
use xtask::{Cluster, Options, Shutdown};

/// Through the index.
const NEAREST: &str = "SET enable_seqscan = off; SELECT i.item_id, (SELECT string_agg(item_id::text, ',') FROM
    (SELECT item_id FROM shop.item o ORDER BY o.embedding <=> i.embedding LIMIT 10) n)
    FROM shop.item i WHERE item_id % 10 = 1 ORDER BY 1";

/// By vectors that are published.
const NEAR: &str = "SELECT u, n.* FROM generate_series(1, 5) u, shop.rec_near(u, 5) n ORDER BY 1, 2;
    SELECT i, a.* FROM generate_series(1, 5) i, shop.rec_audience(i, 5) a ORDER BY 1, 2";

#[test]
fn models_and_indexes_answer_the_same_after_pg_upgrade() {
    let installations = installations();
    let [old, .., new] = &installations[..] else {
        skip("pg_upgrade", "there is one version only");
        return;
    };
    // Both sides must agree on checksums, whose default differs between versions.
    let options = Options::new().checksums(false);
    let server = Server::start(old, "old", &options);
    let shop = server.shop();
    shop.run(
        "ALTER TABLE shop.item ADD COLUMN in_stock boolean DEFAULT true;
        CREATE INDEX mine ON shop.interaction (weight);
        CREATE INDEX near ON shop.item USING usearch (embedding vector_cosine_ops) WITH (scalar = f16);
        INSERT INTO shop.item (item_id, embedding) SELECT item_id + 1000, embedding FROM shop.item WHERE item_id < 50;
        DELETE FROM shop.item WHERE item_id % 7 = 0; VACUUM shop.item",
    );
    shop.with_codes();
    shop.with_search_models();
    shop.run("SELECT rec_publish_vectors('encoder', recommender => 'shop')");
    let (answers, codes, searched, near) = (shop.answers(), shop.codes(), shop.searched(), shop.ask(NEAR));
    let nearest = shop.ask(NEAREST);
    server.cluster.stop(Shutdown::Fast).unwrap();

    let upgraded = Cluster::init(new, &Cluster::fresh_dir(&server.home, "new").unwrap(), &options).unwrap();
    let mut upgrade = upgraded.server_program("pg_upgrade");
    upgrade.arg("--old-bindir").arg(&old.bin).arg("--new-bindir").arg(&new.bin);
    upgrade.arg("--old-datadir").arg(server.cluster.data_dir()).arg("--new-datadir").arg(upgraded.data_dir());
    upgrade.args(["--username", "postgres", "--no-sync"]);
    let output = upgrade.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    upgraded.start_server().unwrap();
    let again = Database::of(&upgraded, "shop");
    assert_eq!(again.answers(), answers);
    assert_eq!(again.codes(), codes);
    assert_eq!(again.ask(NEAREST), nearest);
    assert_eq!(again.searched(), searched);
    assert_eq!(again.ask(NEAR), near);
    again.run("INSERT INTO shop.item (item_id, embedding) SELECT 5000, embedding FROM shop.item WHERE item_id = 5");
    assert_eq!(
        again.ask("SELECT count(*) FILTER (WHERE in_stock), to_regclass('shop.mine') IS NOT NULL FROM shop.item"),
        "216|t"
    );
    again.run("CALL rec_train('graph', recommender => 'shop', deploy => true)");
    assert_eq!(again.ask("SELECT rec_rollback('shop')"), "tgh");
    again.run("DROP EXTENSION pgrec CASCADE");
}
