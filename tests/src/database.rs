//! A database with a small shop in it, and what a test asks of it.

use std::process::Command;
use std::time::{Duration, Instant};

use xtask::generate::Shop;
use xtask::{Cluster, Dataset};

use crate::checkpoint::Encoder;
use crate::session::Session;

/// Seconds to load and train, yet every user has a history and every item is touched.
const SHOP: Shop = Shop { seed: 7, users: 300, items: 200, events: 6_000, clusters: 6, dimension: 8 };

/// Calls of every serving function on every model, and the registry as it looks from outside.
const ANSWERS: &str = include_str!("answers.sql");

/// Every function on semantic IDs, and codes in a table of the user's.
const CODES: &str = "SELECT * FROM rec_semantic_ids('codes', 'shop') ORDER BY code;
    SELECT i, rec_semantic_id(i, 'codes', 'shop') FROM generate_series(1, 201) i;
    SELECT p.code, n.* FROM shop.coded p, rec_semantic_items(rec_semantic_prefix(p.code, 1), 5, 'codes', 'shop') n
    WHERE p.item_id < 20 ORDER BY 1, 3;
    SELECT i, n.* FROM generate_series(190, 201) i, rec_semantic_neighbours(i, 5, 'codes', 'shop') n ORDER BY 1, 2;
    SELECT * FROM rec_semantic_stats('codes', 'shop') ORDER BY level NULLS FIRST, metric;
    SELECT * FROM rec_semantic_vocabulary('codes', 'shop') ORDER BY level, code;
    SELECT item_id FROM shop.rec_semantic_items('<a_1>', model => 'codes');
    SELECT * FROM rec_similar(3, 5, model => 'codes', recommender => 'shop');
    SET enable_seqscan = off; SELECT * FROM shop.coded WHERE code >= '<a_2>' AND code < '<a_3>' ORDER BY code;
    RESET enable_seqscan;
    SELECT u, g.* FROM generate_series(1, 5) u, rec_generate(u, 5, 20, model => 'writer', recommender => 'shop') g
    ORDER BY 1, 2;
    SELECT u, g.* FROM generate_series(1, 5) u, rec_next(u, 5, model => 'writer', recommender => 'shop') g ORDER BY 1, 2;";

/// Before every third event somebody looked for the department of what they found.
const SEARCHES: &str = "INSERT INTO shop.search (user_id, query, item_id, at)
    SELECT user_id, attributes ->> 0, item_id, at - interval '1 second' FROM (
        SELECT e.*, i.attributes, row_number() OVER (PARTITION BY user_id ORDER BY at) AS n
        FROM shop.interaction e JOIN shop.item i USING (item_id)) s WHERE n % 3 = 0";

/// Every function that takes words, and what is next by a model that looks at searches.
const SEARCHED: &str = "SELECT q, s.* FROM (SELECT DISTINCT attributes ->> 0 FROM shop.item) i (q),
        rec_search(7, q, 5, recommender => 'shop') s WHERE q IS NOT NULL ORDER BY 1, 2;
    SELECT q, s.* FROM (SELECT DISTINCT attributes ->> 0 FROM shop.item) i (q),
        rec_search(7, q, 5, '{1,0,0,0,0,0,0,0}', model => 'dual', recommender => 'shop') s WHERE q IS NOT NULL ORDER BY 1, 2;
    SELECT u, n.* FROM generate_series(1, 5) u, rec_next(u, 5, model => 'dual', recommender => 'shop') n ORDER BY 1, 2;
    SELECT u, d.* FROM generate_series(1, 5) u, rec_demand(u, 3, 5, recommender => 'shop') d ORDER BY 1, 2;
    SELECT q, k.* FROM (SELECT DISTINCT attributes ->> 0 FROM shop.item) i (q),
        rec_keywords(ARRAY[q], 5, recommender => 'shop') k WHERE q IS NOT NULL ORDER BY 1, 2;";

/// One row of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// From 1.
    pub rank: i32,
    /// The item.
    pub item: i64,
    /// `NaN` where the function gives none.
    pub score: f32,
}

/// A database of a running server.
#[derive(Debug)]
pub struct Database<'a> {
    /// The server.
    pub cluster: &'a Cluster,
    /// The database's name.
    pub name: String,
}

impl<'a> Database<'a> {
    /// A database that is there already.
    #[must_use]
    pub fn of(cluster: &'a Cluster, name: &str) -> Self {
        Self { cluster, name: name.to_owned() }
    }

    /// A new database with the extension.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn create(cluster: &'a Cluster, name: &str) -> Self {
        let database = Self::of(cluster, name);
        cluster.psql(&format!("CREATE DATABASE {name}")).unwrap();
        database.run("CREATE EXTENSION pgrec CASCADE");
        database
    }

    /// A new database that is a copy of another one, which nobody may be connected to.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn copy(cluster: &'a Cluster, template: &str, name: &str) -> Self {
        cluster.psql(&format!("CREATE DATABASE {name} TEMPLATE {template}")).unwrap();
        Self::of(cluster, name)
    }

    /// A new database with the generated shop, its recommender `shop` and the models `popular`, `tgh` (deployed)
    /// and `encoder`, none of which has seen the last two events of any user.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn with_shop(cluster: &'a Cluster, name: &str) -> Self {
        let database = Self::create(cluster, name);
        let data = Dataset::generated(&SHOP);
        database.run(&format!("SELECT rec_create('shop', dimension => {})", SHOP.dimension));
        let fill = |table: &str, columns: Vec<&str>| format!("shop.{table} ({})", columns.join(", "));
        cluster.copy_in(name, &fill("item", data.item_columns()), |rows| data.copy_items(rows)).unwrap();
        let interactions = fill("interaction", data.interaction_columns());
        cluster.copy_in(name, &interactions, |rows| data.copy_interactions(rows)).unwrap();
        database.run(
            "VACUUM ANALYZE shop.interaction, shop.item;
             CALL rec_train('popularity', '{\"leave_last\": 2}', model => 'popular');
             CALL rec_train('graph', '{\"leave_last\": 2}', model => 'tgh', deploy => true)",
        );
        database.run(&Encoder::new(11, SHOP.items).import_sql("encoder", 2));
        database
    }

    /// Runs a script, each statement in its own transaction, and returns the rows, columns separated by `|`.
    ///
    /// # Panics
    /// When a statement fails, with the server's message.
    #[must_use = "what it prints is the answer"]
    pub fn ask(&self, script: &str) -> String {
        match self.cluster.psql_in(&self.name, script) {
            Ok(text) => text,
            Err(error) => panic!("{error:#}\nin: {}", script.chars().take(2_000).collect::<String>()),
        }
    }

    /// Runs a script for its effect.
    ///
    /// # Panics
    /// When a statement fails, with the server's message.
    pub fn run(&self, script: &str) {
        let _ = self.ask(script);
    }

    /// Runs a script that must fail, and returns the message.
    ///
    /// # Panics
    /// When it succeeds.
    #[must_use = "the message is the answer"]
    pub fn fails(&self, script: &str) -> String {
        match self.cluster.psql_in(&self.name, script) {
            Ok(text) => panic!("this should fail, and prints {text}:\n{script}"),
            Err(error) => format!("{error:#}"),
        }
    }

    /// The rows of a query that gives rank, item and score.
    ///
    /// # Panics
    /// When it fails, or gives something else.
    #[must_use]
    pub fn list(&self, query: &str) -> Vec<Ranked> {
        self.ask(query).lines().map(ranked).collect()
    }

    /// The items of [`Database::list`].
    ///
    /// # Panics
    /// As it does.
    #[must_use]
    pub fn items(&self, query: &str) -> Vec<i64> {
        self.list(query).iter().map(|row| row.item).collect()
    }

    /// Trains the model `codes` of semantic IDs in the shop, such that some items were coded by the training, the last
    /// thirty since, and item 201 not at all; keeps a copy of the codes in a table of the user's; and trains the model
    /// `writer` that generates them.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn with_codes(&self) {
        self.run(
            "CREATE TABLE later AS SELECT item_id, embedding FROM shop.item WHERE item_id > 170;
             UPDATE shop.item SET embedding = NULL WHERE item_id > 170;
             CALL rec_train('semantic_ids', '{\"levels\": 3, \"codes\": 8, \"leave_last\": 2}', 'shop', 'codes');
             UPDATE shop.item i SET embedding = l.embedding FROM later l WHERE i.item_id = l.item_id;
             SELECT rec_semantic_assign('codes', 'shop');
             INSERT INTO shop.item (item_id, embedding) SELECT 201, embedding FROM later WHERE item_id = 180;
             DROP TABLE later;
             CREATE TABLE shop.coded (item_id bigint, code semantic_id);
             INSERT INTO shop.coded SELECT * FROM rec_semantic_ids('codes', 'shop');
             CALL rec_train('generative', '{\"leave_last\": 2, \"dim\": 16, \"heads\": 2, \"blocks\": 1, \"depth\": 1, \"epochs\": 1,
                 \"fusion\": 0.5}', 'shop', 'writer');
             CREATE UNIQUE INDEX ON shop.coded (code)",
        );
    }

    /// What every function on semantic IDs answers after [`Database::with_codes`]: text to compare.
    ///
    /// # Panics
    /// When a call fails.
    #[must_use]
    pub fn codes(&self) -> String {
        self.ask(CODES)
    }

    /// Makes a log of searches for departments.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn with_searches(&self) {
        self.run(SEARCHES);
    }

    /// The same, and trains the models `dual` and `words` by them.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn with_search_models(&self) {
        self.with_searches();
        self.run(
            "CALL rec_train('dual_intent', '{\"leave_last\": 2, \"epochs\": 2, \"dim\": 8}', 'shop', 'dual');
             CALL rec_train('keywords', '{\"leave_last\": 2}', 'shop', 'words')",
        );
    }

    /// What is found by words after [`Database::with_search_models`]: text to compare. How rare words are is told by the
    /// statistics that ANALYZE gathers, and of a table this small it looks at all rows.
    ///
    /// # Panics
    /// When a call fails.
    #[must_use]
    pub fn searched(&self) -> String {
        if self.ask("SELECT pg_is_in_recovery()") == "f" {
            self.run("ANALYZE shop.item");
        }
        self.ask(SEARCHED)
    }

    /// What every serving function answers with every model, and what the registry shows: text to compare.
    ///
    /// # Panics
    /// When a call fails.
    #[must_use]
    pub fn answers(&self) -> String {
        self.ask(ANSWERS)
    }

    /// Repeats a query until it prints `expected`.
    ///
    /// # Panics
    /// When it still prints something else after twenty seconds.
    pub fn wait_for(&self, query: &str, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let printed = self.ask(query);
            if printed == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{query}\nprints {printed} instead of {expected}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection.
    ///
    /// # Panics
    /// When psql cannot be started.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::open(self.cluster, &self.name)
    }

    /// A client program that connects to this database.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        self.cluster.client(program, &self.name)
    }

    /// A role's name that no other test uses; roles belong to the whole server.
    #[must_use]
    pub fn role(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }
}

fn ranked(line: &str) -> Ranked {
    let fields: Vec<&str> = line.split('|').collect();
    let [rank, item, score] = fields[..] else { panic!("no row of a list: {line}") };
    let score = if score.is_empty() { f32::NAN } else { score.parse().unwrap() };
    Ranked { rank: rank.parse().unwrap(), item: item.parse().unwrap(), score }
}
