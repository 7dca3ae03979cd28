//! `hstu_rank` against matrix factorisation: who tells better what users will like.
//!
//! This starts the server and loads the data; what is measured, and how, is in `benches/rank/*.py`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use pgrec_benches::{Server, folder_of, ml_1m_or_shop, python};
use xtask::process::streamed;
use xtask::{Home, Progress};

const DATABASE: &str = "rank";
const PACKAGES: [&str; 2] = ["numpy", "psycopg[binary]"];

/// `hstu_rank` against matrix factorisation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench rank", bin_name = "cargo xtask bench rank")]
struct Arguments {
    /// A folder of data with ratings; without, ml-100k of the real data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many trainings
    #[arg(long, default_value_t = 3)]
    seeds: u32,
    /// More parameters of `hstu_rank`, as a JSON object
    #[arg(long, default_value = "{}")]
    params: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let folder = arguments
        .data
        .or_else(|| folder_of(&home, "ml-100k"))
        .context("ratings are needed: give a folder of data with them by --data")?;
    let data = ml_1m_or_shop(&home, &progress, Some(folder))?;
    let python = python(&home, &PACKAGES, &progress)?;
    let server = Server::start(&home, &progress, "bench-rank")?;
    server.load(&progress, DATABASE, &data)?;
    let mut bench = python.command();
    bench.arg(home.repository().join("benches/rank/main.py")).arg(server.cluster.connection(DATABASE));
    bench.args(["--seeds", &arguments.seeds.to_string(), "--params", &arguments.params]);
    streamed(&mut bench, "the measurements")
}
