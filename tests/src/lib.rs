//! Black-box tests of the extension: real servers, real clients, independent answers.
//!
//! `cargo xtask test` says by `PGREC_PG16` and the like which installations there are (paths of `pg_config`, the
//! extension installed); every test runs on each of them. [`each_database`] is for tests that need a database,
//! [`each_server`] for those that need a server of their own to kill, copy or restart.

// A helper that cannot do its work fails the test that called it.
#![allow(clippy::unwrap_used)]

mod checkpoint;
mod database;
mod random;
mod servers;
mod session;
mod slow;
pub mod vectors;

pub use checkpoint::{Encoder, array, hex};
pub use database::{Database, Ranked};
pub use random::Random;
pub use servers::{Server, each_database, each_server, installations};
pub use session::{Reply, Session};
pub use slow::{ENDLESS, WORKERS, slow};
