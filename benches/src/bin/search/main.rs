//! Searching: time and quality of what rec_search does.

mod catalogue;
mod speed;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use xtask::{Home, Progress};

/// Searching, against Postgres' own text search and pgvector alone.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench search", bin_name = "cargo xtask bench search")]
struct Arguments {
    /// Which parts; all without
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Items of the generated catalogue
    #[arg(long, default_value_t = 1_000_000)]
    items: usize,
    /// Questions
    #[arg(long, default_value_t = 300)]
    asked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A million items: how long it takes
    Speed,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let wanted = |part: Part| arguments.part.is_empty() || arguments.part.contains(&part);
    let mut results = Vec::new();
    if wanted(Part::Speed) {
        speed::run(&home, &progress, &arguments, &mut results)?;
    }
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}
