//! Collaborative metric learning against the same update in PyTorch: events a second on the same CPU.

use std::fmt::Write as _;
use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use pgrec_benches::{histories, ml_1m_or_shop, python};
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::families::{self, Training};
use pgrec_engine::{Control, Corpus};
use serde_json::json;
use xtask::process::captured;
use xtask::{Home, Progress};

/// The family's own, which both sides have.
const DIM: usize = 64;
const WINDOW: usize = 50;
const BATCH: usize = 1024;
/// Epochs of ours, of which the first does not count.
const EPOCHS: usize = 3;

/// Collaborative metric learning against PyTorch.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench cml", bin_name = "cargo xtask bench cml")]
struct Arguments {
    /// A folder of data; without, ml-1m of the real data if it is there, else a generated shop of its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How often the two sides take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of both sides; without, as many as there are cores
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let data = ml_1m_or_shop(&home, &progress, arguments.data)?;
    let mut ids: Vec<i64> = data.items.iter().map(|item| item.item_id).collect();
    ids.sort_unstable();
    let dense = |id: &i64| ids.binary_search(id).map_err(|_| anyhow!("item {id} is in no catalogue"));
    let users = histories(&data);
    let users = users.iter().map(|user| user.iter().map(dense).collect()).collect::<Result<Vec<Vec<usize>>>>()?;
    let threads = arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    let python = python(&home, &["numpy", "torch"], &progress)?;
    let file = home.folder("bench-cml")?.join("histories.txt");
    let mut text = String::new();
    for user in &users {
        let line: Vec<String> = user.iter().map(usize::to_string).collect();
        writeln!(text, "{}", line.join(" "))?;
    }
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let corpus = corpus(&users, ids.len())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("starting threads")?;
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        let rate = progress.step(&format!("round {round}, ours"), |_| pool.install(|| ours(&corpus)))?;
        let mut peer = python.command();
        peer.env("OMP_NUM_THREADS", threads.to_string());
        peer.arg(home.repository().join("benches/cml/peer.py")).arg(&file);
        for (name, value) in
            [("items", ids.len()), ("dim", DIM), ("window", WINDOW), ("batch", BATCH), ("threads", threads)]
        {
            peer.args([format!("--{name}"), value.to_string()]);
        }
        let told = progress.step(&format!("round {round}, the peer"), |_| captured(&mut peer, "the peer"))?;
        let (form, peer) = told.trim().rsplit_once(' ').context("the peer tells no rate")?;
        let peer: f64 = peer.parse().context("reading the peer's rate")?;
        println!("  {rate:.0} events a second, the peer ({form}) {peer:.0}: {:.1} times", rate / peer);
        own.push(rate);
        others.push(peer);
    }
    let (own, others) = (median(own), median(others));
    println!(
        "RESULT cml.training {own:.0} events a second, PyTorch {others:.0}, ratio {:.1}, {threads} threads",
        own / others
    );
    Ok(())
}

fn corpus(users: &[Vec<usize>], items: usize) -> Result<Corpus> {
    let mut corpus = CorpusBuilder::new(IdKind::Int);
    (0..items).try_for_each(|item| corpus.item(ItemKey::Int(item as i64)))?;
    for user in users {
        corpus.user()?;
        user.iter().try_for_each(|&item| corpus.event(ItemKey::Int(item as i64), None))?;
    }
    Ok(corpus.finish()?)
}

/// Events a second of the epochs that count.
fn ours(corpus: &Corpus) -> Result<f64> {
    let fit = families::find("cml").and_then(|family| family.fit).context("there is no cml")?;
    let params = json!({
        "dim": DIM, "window": WINDOW, "batch": BATCH, "epochs": EPOCHS, "patience": 0, "validation_users": 1
    });
    let control = Control::default();
    let curve = fit(&Training::new(corpus, &params, &control))?.curve;
    let seconds = |epoch: usize| curve[epoch]["seconds"].as_f64().context("an epoch without its time");
    let events: usize = corpus.histories().map(|history| history.len().saturating_sub(1)).sum();
    Ok((events * (EPOCHS - 1)) as f64 / (seconds(EPOCHS - 1)? - seconds(0)?))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
