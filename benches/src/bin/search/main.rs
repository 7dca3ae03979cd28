//! Searching: what rec_search, keywords and projected queries find, and how long it takes.

mod catalogue;
mod data;
mod fresh;
mod keywords;
mod quality;
mod retriever;
mod speed;
mod ways;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use pgrec_benches::Contest;
use xtask::{Home, Progress};

/// Searching: what is found, and how long it takes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench search", bin_name = "cargo xtask bench search")]
struct Arguments {
    /// Which parts; all without
    #[arg(long, value_enum)]
    part: Vec<Part>,
    #[command(flatten)]
    contest: Contest,
    /// Measure the quality by the pairs kept for validation, by which parameters are chosen, instead of those of the test
    #[arg(long)]
    validation: bool,
    /// Measure the quality for so many users at most
    #[arg(long, default_value_t = usize::MAX)]
    users: usize,
    /// Catalogues above this size are ranked by the nearest candidates in recommendation
    #[arg(long, default_value_t = usize::MAX)]
    exact_limit: usize,
    /// Items of the generated catalogue, over which the speed is measured
    #[arg(long, default_value_t = 1_000_000)]
    items: usize,
    /// Questions asked for the speed
    #[arg(long, default_value_t = 300)]
    asked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Search, and recommendation by what was looked for, on cell-phones
    Quality,
    /// People of whom a few words are known, on beauty
    Keywords,
    /// Queries projected among items, on beauty
    Retriever,
    /// A search, and what is recommended next, on ml-1m with derived searches
    Fresh,
    /// A million items: how long it takes
    Speed,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let wanted = |part: Part| arguments.part.is_empty() || arguments.part.contains(&part);
    let mut results = Vec::new();
    if wanted(Part::Quality) {
        quality::run(&home, &progress, &arguments, &mut results)?;
    }
    if wanted(Part::Keywords) {
        keywords::run(&home, &progress, &arguments.contest, &mut results)?;
    }
    if wanted(Part::Retriever) {
        retriever::run(&home, &progress, &arguments.contest.params, &mut results)?;
    }
    if wanted(Part::Fresh) {
        fresh::run(&home, &progress, &arguments, &mut results)?;
    }
    if wanted(Part::Speed) {
        speed::run(&home, &progress, &arguments, &mut results)?;
    }
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}
