//! What points, content and distances are worth: tags beside papers, and items that nobody has touched.

mod fit;
mod held_out;
mod measure;
mod peer;
mod tags;
mod tiers;
mod warm;
mod withheld;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use pgrec_benches::Contest;
use xtask::{Home, Progress};

/// Collaborative metric learning, content, and the cold start.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench space", bin_name = "cargo xtask bench space")]
struct Arguments {
    /// Which parts; all without
    #[arg(long, value_enum)]
    part: Vec<Part>,
    #[command(flatten)]
    contest: Contest,
    /// Names of the real data in which items are withheld, and of leave-one-out; may be given several times
    #[arg(long, default_values_t = ["ml-1m".to_owned(), "beauty".to_owned()])]
    data: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// citeulike-t, three of five papers of each user learnt from
    Tags,
    /// A fifth of the items withheld from training
    Withheld,
    /// Leave-one-out
    Warm,
    /// Leave-one-out by how much users have done
    Tiers,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let wanted = |part: Part| arguments.part.is_empty() || arguments.part.contains(&part);
    let mut results = Vec::new();
    if wanted(Part::Tags) {
        tags::run(&home, &progress, &arguments, &mut results)?;
    }
    if wanted(Part::Withheld) {
        withheld::run(&home, &progress, &arguments, &mut results)?;
    }
    if wanted(Part::Warm) {
        warm::run(&home, &progress, &arguments, &mut results)?;
    }
    if wanted(Part::Tiers) {
        tiers::run(&home, &progress, &arguments, &mut results)?;
    }
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}
