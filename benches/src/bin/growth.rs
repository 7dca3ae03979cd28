//! What training in the database costs as the data grows: time and memory.

use anyhow::Result;
use clap::Parser;
use pgrec_benches::{Server, Training};
use xtask::generate::Shop;
use xtask::progress::grouped;
use xtask::{Dataset, Home, Progress};

/// Events a user, on average.
const HISTORY: usize = 100;
/// Enough that a whole softmax would not pay.
const ITEMS: usize = 40_000;
const MEGABYTE: f64 = 1e6;

/// Cost of one epoch over generated interactions, by their number.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench growth", bin_name = "cargo xtask bench growth")]
struct Arguments {
    /// Millions of interactions; may be given several times
    #[arg(long, value_name = "MILLIONS", default_values_t = [1.0, 5.0, 20.0])]
    events: Vec<f64>,
    /// rec.training_memory for each of them; may be given several times
    #[arg(long, default_values_t = ["1GB".to_owned()])]
    memory: Vec<String>,
    /// The family
    #[arg(long, default_value = "sasrec")]
    family: String,
    /// Its parameters, as a JSON object
    #[arg(long, default_value = r#"{"epochs": 1}"#)]
    params: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let server = Server::start(&home, &progress, "bench-growth")?;
    let mut results = Vec::new();
    for (place, millions) in arguments.events.iter().enumerate() {
        let database = format!("growth_{place}");
        let events = (millions * 1e6) as usize;
        let data = progress.step(&format!("making up {} interactions", grouped(events)), |_| {
            Ok(Dataset::generated(&Shop {
                users: events / HISTORY,
                items: ITEMS,
                events,
                dimension: 0,
                clusters: 100,
                ..Shop::default()
            }))
        })?;
        server.load(&progress, &database, &data)?;
        drop(data);
        for (place, memory) in arguments.memory.iter().enumerate() {
            let model = format!("{}_{place}", arguments.family);
            let training =
                Training { model: &model, family: &arguments.family, params: &arguments.params, memory: Some(memory) };
            let cost = server.train(&progress, &database, &training)?;
            let fitting = server.curve(&database, &model)?.last().map_or(0.0, |&(seconds, _)| seconds);
            results.push(format!(
                "RESULT growth.{millions}M.{memory} {:.0} s in all, {fitting:.0} s of them fitting and judging, {:.0} \
                 cpu s, {:.1} s a million, peak memory {:.0} MB",
                cost.seconds,
                cost.cpu_seconds,
                cost.seconds / millions,
                cost.memory as f64 / MEGABYTE,
            ));
            println!("{}", results.last().map_or("", String::as_str));
        }
        server.ask("postgres", &format!("DROP DATABASE {database}"))?;
    }
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}
