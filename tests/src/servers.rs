//! Which servers there are, and how a test gets one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use xtask::extension::variable;
use xtask::postgres::SUPPORTED;
use xtask::{Cluster, Home, Options, Postgres};

use crate::database::Database;

/// The database that shared servers copy for every test.
const TEMPLATE: &str = "shop_template";

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where more clusters can be made.
    pub home: Home,
    /// The server.
    pub cluster: Cluster,
}

impl Server {
    /// Starts a server of its own.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(postgres: &Postgres, label: &str, options: &Options) -> Self {
        let home = Home::locate().unwrap();
        let cluster = Cluster::temporary(&home, postgres, label, options).unwrap();
        Self { home, cluster }
    }

    /// A second server of the same installation, empty.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn another(&self, label: &str, options: &Options) -> Self {
        Self::start(self.cluster.postgres(), label, options)
    }

    /// A database `shop` with the generated shop and its models.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn shop(&self) -> Database<'_> {
        Database::with_shop(&self.cluster, "shop")
    }
}

/// The installations under test, oldest version first.
///
/// # Panics
/// When none is named, because then nothing would be tested.
#[must_use]
pub fn installations() -> Vec<Postgres> {
    let named = SUPPORTED.filter_map(|major| std::env::var_os(variable(major)));
    let found: Vec<Postgres> = named.map(|path| Postgres::from_pg_config(Path::new(&path)).unwrap()).collect();
    assert!(
        !found.is_empty(),
        "no server to test on: run cargo xtask test, or set PGREC_PG16 to the pg_config of an installation with pgrec"
    );
    found
}

/// Calls `test` once for every installation with a server of its own, which is gone afterwards.
///
/// # Panics
/// As the test does.
pub fn each_server(label: &str, options: &Options, test: impl Fn(&Server)) {
    for postgres in installations() {
        println!("{label} on {}", postgres.version);
        test(&Server::start(&postgres, label, options));
    }
}

/// Calls `test` once for every installation with a fresh database that holds the generated shop, its recommender
/// `shop` and three models, `popular`, `tgh` (deployed) and `encoder`. The server is shared by the tests that run
/// at the same time, so roles need names of their own: [`Database::role`].
///
/// # Panics
/// As the test does.
pub fn each_database(test: impl Fn(&Database<'_>)) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    for postgres in installations() {
        println!("on {}", postgres.version);
        let server = shared(&postgres);
        let name = format!("shop_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        test(&Database::copy(&server.cluster, TEMPLATE, &name));
    }
}

/// The server that tests running now share. It lives as long as one of them holds it: a static would outlive the
/// process's last chance to stop it.
fn shared(postgres: &Postgres) -> Arc<Server> {
    static SERVERS: Mutex<Option<HashMap<u32, Weak<Server>>>> = Mutex::new(None);
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let servers = servers.get_or_insert_default();
    if let Some(server) = servers.get(&postgres.major).and_then(Weak::upgrade) {
        return server;
    }
    // Tests that run at the same time must not see each other's trainings in the queue.
    let options = Options::new().set("rec.max_training_workers", "8").set("max_worker_processes", "24");
    let server = Arc::new(Server::start(postgres, "shared", &options));
    drop(Database::with_shop(&server.cluster, TEMPLATE));
    servers.insert(postgres.major, Arc::downgrade(&server));
    server
}
