//! Generation by beam search against the same model and search in PyTorch: latency by beam and history, and throughput.
//!
//! This starts the server and trains a model; what is measured, and how, is in `benches/generate/`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use pgrec_benches::{Server, Training, folder_of, python};
use xtask::generate::Shop;
use xtask::process::streamed;
use xtask::{Dataset, Home, Progress};

const DATABASE: &str = "generate";
const PACKAGES: [&str; 4] = ["psycopg[binary]", "torch", "safetensors", "numpy"];

/// Generation against PyTorch.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench generate", bin_name = "cargo xtask bench generate")]
struct Arguments {
    /// A folder of data whose items have vectors; without, beauty of the real data if it is there, else a generated shop
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Calls of each kind
    #[arg(long, default_value_t = 30)]
    turns: usize,
    /// Users who are asked about together
    #[arg(long, default_value_t = 512)]
    users: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let data = match arguments.data.or_else(|| folder_of(&home, "beauty")) {
        Some(folder) => progress.step(&format!("reading {}", folder.display()), |_| Dataset::load(&folder))?,
        None => Dataset::generated(&Shop { items: 12_000, dimension: 64, ..Shop::default() }),
    };
    if data.dimension().is_none() {
        bail!("the items have no vectors to learn codes from");
    }
    let python = python(&home, &PACKAGES, &progress)?;
    let server = Server::start(&home, &progress, "bench-generate")?;
    server.load(&progress, DATABASE, &data)?;
    drop(data);
    for (model, family, params) in [("codes", "semantic_ids", "{}"), ("writer", "generative", r#"{"epochs": 6}"#)] {
        server.train(&progress, DATABASE, &Training { model, family, params, memory: None })?;
    }
    server.ask(DATABASE, "SELECT rec_deploy('writer')")?;
    let mut bench = python.command();
    bench.arg(home.repository().join("benches/generate/main.py")).arg(server.cluster.connection(DATABASE));
    bench.args(["--turns", &arguments.turns.to_string(), "--users", &arguments.users.to_string()]);
    streamed(&mut bench, "the measurements")
}
