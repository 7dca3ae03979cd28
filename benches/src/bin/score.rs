//! Scoring many candidates after a long history: one at a time, together, and with the history kept.
//!
//! This starts the server and loads the data; what is measured, and how, is in `benches/score/main.py`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use pgrec_benches::{Server, ml_1m_or_shop, python};
use xtask::process::streamed;
use xtask::{Home, Progress};

const DATABASE: &str = "score";
const PACKAGES: [&str; 1] = ["psycopg[binary]"];

/// Scoring many candidates after a long history.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench score", bin_name = "cargo xtask bench score")]
struct Arguments {
    /// A folder of data; without, ml-1m of the real data if it is there, else a generated shop of its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Events of the history
    #[arg(long, default_value_t = 8192)]
    events: usize,
    /// Items that are scored
    #[arg(long, default_value_t = 1000)]
    candidates: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let data = ml_1m_or_shop(&home, &progress, arguments.data)?;
    let python = python(&home, &PACKAGES, &progress)?;
    let server = Server::start(&home, &progress, "bench-score")?;
    server.load(&progress, DATABASE, &data)?;
    let mut bench = python.command();
    bench.arg(home.repository().join("benches/score/main.py")).arg(server.cluster.connection(DATABASE));
    bench.args(["--events", &arguments.events.to_string(), "--candidates", &arguments.candidates.to_string()]);
    streamed(&mut bench, "the measurements")
}
