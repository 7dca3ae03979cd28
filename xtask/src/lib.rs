//! What surrounds the extension: provisioning of Postgres and libclang, building and installing, private clusters,
//! data sets (loaded or generated), the demo and the test run.
//!
//! The binary is `cargo xtask`; the library is for the `tests` and `benches` crates, which start their servers with
//! [`Cluster`] and take their data from [`Dataset`].

pub mod bench;
pub mod cargo;
pub mod clean;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod demo;
pub mod extension;
pub mod generate;
mod gpu;
pub mod home;
pub mod postgres;
pub mod process;
pub mod progress;
pub mod server_user;
pub mod suite;
pub mod toolchain;

pub use cluster::{Cluster, Options, Shutdown};
pub use data::Dataset;
pub use home::Home;
pub use postgres::Postgres;
pub use progress::Progress;
