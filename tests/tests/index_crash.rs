//! Signal 9 to the server while an index is built, filled, vacuumed and merged.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use pgrec_tests::vectors::{VECTORS, check_index, insert};
use pgrec_tests::{Database, Random, each_server};
use xtask::Options;

/// Crashes for each version; `PGREC_CRASHES` asks for more.
const ROUNDS: usize = 6;

fn rounds() -> usize {
    std::env::var("PGREC_CRASHES").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

#[test]
fn an_index_agrees_with_its_table_after_any_crash() {
    let options = Options::new().durable().set("synchronous_commit", "on").set("checkpoint_timeout", "30s");
    each_server("index-crash", &options, |server| {
        let database = Database::create(&server.cluster, "indexes");
        database.run(VECTORS);
        database.run(&insert(1, 1_200));
        let mut random = Random::fresh();
        for round in 0..rounds() {
            let base = 100_000 * (round + 1);
            let inserts: String = (0..400).map(|n| insert(base + n * 40, base + n * 40 + 39) + ";\n").collect();
            let mut scripts = vec![
                inserts,
                "DELETE FROM t WHERE random() < 0.02; VACUUM t;\n".repeat(500),
                "DROP INDEX IF EXISTS other; CREATE INDEX other ON t USING usearch (v vector_cosine_ops);\n".repeat(50),
            ];
            // Which of them run is a matter of chance, so that each meets the end alone, too.
            scripts.retain(|_| random.below(3) > 0);
            let mut sessions: Vec<_> = scripts.iter().map(|_| database.session()).collect();
            let writers: Vec<_> = sessions.iter_mut().zip(&scripts).map(|(s, script)| s.feed(script)).collect();
            std::thread::sleep(Duration::from_millis(10 + random.below(1_500) as u64));
            server.cluster.crash().unwrap();
            drop(sessions);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            server.cluster.start_server().unwrap();
            check_index(&database, &format!("round {round}"));
            if random.below(2) == 0 {
                database.run("VACUUM t");
                check_index(&database, &format!("round {round}, vacuumed"));
            }
            database.run("DELETE FROM t WHERE id % 3 = 1 AND id > 1200");
            println!("round {round}: {}", database.ask("SELECT * FROM rec_index_stats('t_v')"));
        }
    });
}
