//! A training that was interrupted goes on when it is asked for again.

use pgrec_tests::{Database, each_server};
use xtask::Options;

/// Epochs, of which each takes some milliseconds.
const EPOCHS: u32 = 2000;

fn train(epochs: u32, model: &str) -> String {
    let params = format!(r#"{{"dim": 8, "blocks": 1, "heads": 1, "patience": 0, "epochs": {epochs}}}"#);
    format!("'sasrec', '{params}', 'again', '{model}'")
}

#[test]
fn an_interrupted_training_goes_on_when_it_is_asked_for_again() {
    each_server("again", &Options::new().set("rec.training_checkpoint", "0"), |server| {
        let database = Database::create(&server.cluster, "walks");
        database.run(
            "CREATE TABLE event (user_id bigint, item_id bigint, n integer);
             INSERT INTO event SELECT u, 1 + (u + n * (1 + u % 2)) % 40, n FROM generate_series(1, 200) u, generate_series(1, 9) n;
             SELECT rec_create('again', 'event', order_column => 'n')",
        );
        // Not what a crash has left half written.
        let kept = "SELECT count(*) FROM pg_ls_dir('pgsql_tmp_pgrec') f WHERE f ~ '_unfinished_[0-9a-f]{16}$'";
        database.run(&format!("SELECT rec_train_start({})", train(EPOCHS, "crashed")));
        database.wait_for("SELECT epoch >= 3 FROM rec.progress WHERE model = 'crashed'", "t");
        server.cluster.crash().expect("the server crashes");
        server.cluster.start_server().expect("the server starts again");
        assert_eq!(database.ask("SELECT state FROM rec.models WHERE name = 'crashed'"), "failed");
        assert_eq!(database.ask(kept), "1");

        database.run(&format!("SELECT rec_train_start({})", train(EPOCHS, "stopped")));
        database.wait_for("SELECT epoch >= 4 FROM rec.progress WHERE model = 'stopped'", "t");
        database.run("SELECT rec_train_stop('stopped')");

        // Other words begin anew.
        database.run(&format!("CALL rec_train({})", train(2, "other")));
        let before = |model: &str| {
            let epochs = "coalesce((metrics->>'went_on_after_epoch')::integer, 0)";
            let epochs = database.ask(&format!("SELECT {epochs} FROM rec.model WHERE name = '{model}'"));
            epochs.parse::<u32>().expect("a number of epochs")
        };
        assert_eq!(before("other"), 0);
        assert_eq!(database.ask(kept), "1");

        database.run(&format!("CALL rec_train({})", train(EPOCHS, "whole")));
        assert!((4..=EPOCHS).contains(&before("whole")), "went on after epoch {}", before("whole"));
        let curve = "SELECT jsonb_array_length(curve), curve->0->>'epoch', curve->-1->>'epoch' FROM rec.model WHERE name = 'whole'";
        assert_eq!(database.ask(curve), format!("{EPOCHS}|1|{EPOCHS}"));
        assert_eq!(database.ask(kept), "0");
    });
}
