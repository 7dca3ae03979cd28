//! `rec_next` and `rec_next_many` against a Python process with psycopg and PyTorch, in the same run.
//!
//! This starts the server and loads the data; what is measured, and how, is in `benches/serve/*.py`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use pgrec_benches::{Server, ml_1m_or_shop, python};
use xtask::process::streamed;
use xtask::toolchain::PythonEnv;
use xtask::{Home, Progress};

const DATABASE: &str = "serve";
/// What both sides need; the peer needs PyTorch too.
const PACKAGES: [&str; 3] = ["numpy", "psycopg[binary]", "safetensors"];
const PYTORCH: &str = "torch";

/// rec_next against a Python process with psycopg and PyTorch.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench serve", bin_name = "cargo xtask bench serve")]
struct Arguments {
    /// A folder of data; without, ml-1m of the real data if it is there, else a generated shop of its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// 300 users instead of 2,000, and shorter runs
    #[arg(long)]
    quick: bool,
    /// Without PyTorch, which is a large download: only our own figures
    #[arg(long)]
    no_peer: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let data = ml_1m_or_shop(&home, &progress, arguments.data)?;
    let python = python_for(&home, &progress, !arguments.no_peer)?;
    let server = Server::start(&home, &progress, "bench-serve")?;
    server.load(&progress, DATABASE, &data)?;

    let mut bench = python.command();
    bench.arg(home.repository().join("benches/serve/main.py")).arg(server.cluster.connection(DATABASE));
    bench.arg("--pgbench").arg(server.cluster.postgres().program("pgbench"));
    bench.args(arguments.quick.then_some("--quick")).args(arguments.no_peer.then_some("--no-peer"));
    streamed(&mut bench, "the measurements")
}

/// Python with the packages. Without PyTorch there is no peer, and the bench says so.
fn python_for(home: &Home, progress: &Progress, peer: bool) -> Result<PythonEnv> {
    let mut packages = PACKAGES.to_vec();
    packages.extend(peer.then_some(PYTORCH));
    python(home, &packages, progress).or_else(|error| {
        if !peer {
            return Err(error);
        }
        progress.say(&format!("no peer, because PyTorch cannot be installed: {error:#}"));
        python(home, &PACKAGES, progress)
    })
}
