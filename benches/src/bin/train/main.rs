//! Training SASRec against PyTorch on the same CPU, in the same run: steps, epochs, and memory.
//!
//! Both sides train the same network with the same losses, batches and number of threads, each in a process of its
//! own, in turns. PyTorch can do it in several forms, of which the fastest counts: see `benches/train/*.py`.

mod contest;
mod histories;
mod ours;
mod peer;
mod report;

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use pgrec_benches::{ml_1m_or_shop, python};
use xtask::{Home, Progress};

use contest::{Contest, Side};
use histories::Histories;
use ours::{Ours, Run};
use peer::Peer;
use report::Report;

/// Histories in a step, on both sides.
const BATCH: usize = 128;
/// What the peer needs. It works without NumPy, but warns.
const PACKAGES: [&str; 2] = ["numpy", "torch"];

/// Training SASRec against PyTorch on the CPU.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench train", bin_name = "cargo xtask bench train")]
struct Arguments {
    /// A folder of data; without, ml-1m of the real data if it is there, else a generated shop of its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A few steps and one round, against the published port only, instead of whole epochs and three rounds
    #[arg(long)]
    quick: bool,
    /// Without PyTorch, which is a large download: only our own figures
    #[arg(long)]
    no_peer: bool,
    /// Threads of both sides; without, as many as there are cores
    #[arg(long)]
    threads: Option<usize>,
    /// How often the two sides take turns
    #[arg(long)]
    rounds: Option<usize>,
    #[command(subcommand)]
    side: Option<Hidden>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// What this program calls itself for: one training in a process of its own
    #[command(hide = true)]
    Ours(Run),
}

/// The losses, by the name both sides have for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Loss {
    /// Binary cross-entropy, one negative a position.
    Bce,
    /// Cross-entropy over the catalogue.
    Softmax,
    /// Cross-entropy over the answer and 128 uniform negatives a position, cosines over a temperature of .05.
    SampledSoftmax,
}

impl Loss {
    const ALL: [Self; 3] = [Self::Bce, Self::Softmax, Self::SampledSoftmax];

    fn name(self) -> &'static str {
        match self {
            Self::Bce => "bce",
            Self::Softmax => "softmax",
            Self::SampledSoftmax => "sampled_softmax",
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Hidden::Ours(run)) = &arguments.side {
        return run.print();
    }
    let home = Home::locate()?;
    let progress = Progress::new();
    let data = Histories::of(&ml_1m_or_shop(&home, &progress, arguments.data)?);
    let folder = home.folder("bench-train")?;
    let (equal, ragged) = if arguments.quick { (2 * BATCH, 4 * BATCH) } else { (16 * BATCH, usize::MAX) };
    let equal = data.of_equal_length(equal).written(&folder, "equal")?;
    let ragged = data.of_users(ragged).written(&folder, "ragged")?;

    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.unwrap_or(cores);
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 });
    let ours = Ours { program: std::env::current_exe().context("finding this program")?, threads };
    let peer = if arguments.no_peer { None } else { peer_or_none(&home, &progress, threads)? };
    progress.say(&format!("  threads: {threads}, cores: {cores}{}", busy()));
    let mut report = Report::default();
    for loss in Loss::ALL {
        let peer = match &peer {
            None => None,
            Some(peer) if arguments.quick => Some(peer.usual()),
            Some(peer) => Some(peer.fastest(loss, &equal, &progress)?),
        };
        let mut sides: Vec<&dyn Side> = vec![&ours];
        sides.extend(peer.as_ref().map(|peer| peer as &dyn Side));
        for histories in [&equal, &ragged] {
            let contest = Contest { loss, histories, rounds };
            let turns = contest.run(&sides, &progress)?;
            report.contest(&contest, &turns);
        }
    }
    report.results();
    Ok(())
}

/// The peer; where PyTorch cannot be installed there is none, and the bench says so.
fn peer_or_none(home: &Home, progress: &Progress, threads: usize) -> Result<Option<Peer>> {
    match python(home, &PACKAGES, progress) {
        Ok(python) => Peer::new(home, python, threads).map(Some),
        Err(error) => {
            progress.say(&format!("no peer, because PyTorch cannot be installed: {error:#}"));
            Ok(None)
        }
    }
}

/// What else the machine does: figures are worth less then.
fn busy() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let minute = load.and_then(|load| load.split_whitespace().next().map(str::to_owned));
    minute.map_or_else(String::new, |minute| format!(", load average {minute} before anything is measured"))
}
