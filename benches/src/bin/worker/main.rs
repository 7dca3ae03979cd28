//! The inference worker against sessions that compute by themselves: throughput, latency and memory.

mod large;
mod load;
mod memory;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use pgrec_benches::{Server, Training, ml_1m_or_shop};
use xtask::generate::Shop;
use xtask::progress::grouped;
use xtask::{Dataset, Home, Progress};

const DATABASE: &str = "worker";
const LARGE: &str = "large";

/// Who computes, and what a session is told so that it does.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// What it is called.
    pub name: &'static str,
    /// Settings, as options of a connection.
    pub options: &'static str,
}

const SESSION: Side = Side { name: "session", options: "-c rec.use_worker=off" };
const WORKER: Side = Side { name: "worker", options: "-c rec.use_worker=on" };
const CUDA: Side = Side { name: "cuda", options: "-c rec.use_worker=on -c rec.device=cuda -c rec.cuda_precision=bf16" };

/// The inference worker against sessions that compute by themselves.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench worker", bin_name = "cargo xtask bench worker")]
struct Arguments {
    /// A folder of data; without, ml-1m of the real data if it is there, else a generated shop of its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Clients; may be given several times
    #[arg(long, default_values_t = [1, 4, 16, 64])]
    clients: Vec<usize>,
    /// Seconds of a turn, in the first of which connections open and sessions warm up
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Turns of each side
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The family
    #[arg(long, default_value = "sasrec")]
    family: String,
    /// Its parameters, as a JSON object
    #[arg(long, default_value = r#"{"epochs": 1}"#)]
    params: String,
    /// Connections whose memory is measured
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Items of the large catalogue, for the same network; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000)]
    items: usize,
    /// Also with the worker on a CUDA device
    #[arg(long)]
    cuda: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let data = ml_1m_or_shop(&home, &progress, arguments.data.clone())?;
    let most = arguments.clients.iter().copied().max().unwrap_or(1).max(arguments.connections);
    let connections = (most + 20).to_string();
    let settings = [
        ("shared_preload_libraries", "pgrec"),
        ("rec.worker_fallback", "error"),
        ("rec.worker_slots", &connections),
        ("max_connections", &connections),
    ];
    let server = Server::start_with(&home, &progress, "bench-worker", &settings)?;
    let training =
        Training { model: "model", family: &arguments.family, params: &arguments.params, memory: Some("4GB") };
    server.load(&progress, DATABASE, &data)?;
    server.train(&progress, DATABASE, &training)?;
    server.ask(DATABASE, "SELECT rec_deploy('model')")?;
    let mut sides = vec![SESSION, WORKER];
    sides.extend(arguments.cuda.then_some(CUDA));
    memory::compare(&server, DATABASE, &sides, arguments.connections)?;
    load::compare(&server, DATABASE, &sides, &arguments.clients, arguments.seconds, arguments.rounds)?;
    if arguments.items > 0 {
        let data = progress.step(&format!("making up a shop of {} items", grouped(arguments.items)), |_| {
            Ok(Dataset::generated(&Shop {
                users: arguments.items / 20,
                items: arguments.items,
                events: arguments.items * 2,
                dimension: 0,
                clusters: 1000,
                ..Shop::default()
            }))
        })?;
        server.load(&progress, LARGE, &data)?;
        large::import(&server, &progress, DATABASE, LARGE, training.model, arguments.items)?;
        server.ask(LARGE, "SELECT rec_deploy('model')")?;
        memory::compare(&server, LARGE, &sides, arguments.connections)?;
        load::compare(&server, LARGE, &sides, &arguments.clients, arguments.seconds, arguments.rounds.min(2))?;
    }
    Ok(())
}

/// A script of pgbench: ten items for a random user.
fn random_call(server: &Server, database: &str) -> Result<String> {
    let range = server.ask(database, "SELECT min(user_id), max(user_id) FROM shop.interaction")?;
    let (first, last) = range.trim().split_once('|').context("no users")?;
    Ok(format!("\\set user random({first}, {last})\nSELECT * FROM rec_next(:user, 10);\n"))
}
