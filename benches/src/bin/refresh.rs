//! A model that continues with the newest interactions against one that begins anew.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use pgrec_benches::{Cost, Server, Training, best, ml_1m_or_shop, object};
use xtask::progress::grouped;
use xtask::{Dataset, Home, Progress};

const DATABASE: &str = "refresh";

/// A refresh with the newest interactions, against a training from nothing on all of them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench refresh", bin_name = "cargo xtask bench refresh")]
struct Arguments {
    /// A folder of data; without, ml-1m of the real data if it is there, else a generated shop of its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The share of the interactions that is new
    #[arg(long, default_value_t = 0.01)]
    new: f64,
    /// How many times, each with a seed of its own
    #[arg(long, default_value_t = 3)]
    seeds: u32,
    /// The family
    #[arg(long, default_value = "sasrec")]
    family: String,
    /// More parameters of the trainings from nothing, as a JSON object
    #[arg(long, default_value = "{}")]
    params: String,
    /// More parameters of the refresh, as a JSON object
    #[arg(long, default_value = "{}")]
    refresh: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let server = Server::start(&home, &progress, "bench-refresh")?;
    let (known, new) = parted(ml_1m_or_shop(&home, &progress, arguments.data)?, arguments.new);
    println!("{} interactions, then {} more", grouped(known.interactions.len()), grouped(new.interactions.len()));

    server.load(&progress, DATABASE, &known)?;
    let train = |model: &str, seed: u32, start: Option<&str>| -> Result<(Cost, f64)> {
        let more = if start.is_some() { &arguments.refresh } else { &arguments.params };
        let init = start.map_or_else(String::new, |start| format!("\"init\": \"{start}\""));
        let params = object(&[r#""leave_last": 2"#, &format!("\"seed\": {seed}"), &init, more]);
        let training = Training { model, family: &arguments.family, params: &params, memory: None };
        let cost = server.train(&progress, DATABASE, &training)?;
        Ok((cost, best(&server.curve(DATABASE, model)?)))
    };
    for seed in 1..=arguments.seeds {
        train(&format!("known_{seed}"), seed, None)?;
    }
    new.fill(&server.cluster, DATABASE)?;
    let mut results = Vec::new();
    let (mut losses, mut shares) = (Vec::new(), Vec::new());
    for seed in 1..=arguments.seeds {
        let (whole, anew) = train(&format!("anew_{seed}"), seed, None)?;
        let (part, refreshed) = train(&format!("refreshed_{seed}"), seed, Some(&format!("known_{seed}")))?;
        losses.push(anew - refreshed);
        shares.push(100.0 * part.cpu_seconds / whole.cpu_seconds);
        results.push(format!(
            "RESULT refresh.{seed} validation ndcg@10 anew {anew:.4} refreshed {refreshed:.4} ({:+.4}); {:.1} s and \
             {:.1} s ({:.1} %); {:.1} and {:.1} cpu s ({:.1} %)",
            refreshed - anew,
            whole.seconds,
            part.seconds,
            100.0 * part.seconds / whole.seconds,
            whole.cpu_seconds,
            part.cpu_seconds,
            100.0 * part.cpu_seconds / whole.cpu_seconds,
        ));
        println!("{}", results.last().map_or("", String::as_str));
    }
    let (loss, error) = mean(&losses);
    results.push(format!(
        "RESULT refresh.mean of {}: ndcg@10 {loss:.4} (standard error {error:.4}) below a training anew for {:.1} % of its \
         cpu time",
        losses.len(),
        mean(&shares).0,
    ));
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}

/// The mean of some measurements and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
}

/// All but the newest share of the interactions, and those. Where only the order of each user's events is known, the
/// newest are those with the smallest part of their history after them.
fn parted(mut data: Dataset, share: f64) -> (Dataset, Dataset) {
    let events = std::mem::take(&mut data.interactions);
    let mut lengths: HashMap<i64, u64> = HashMap::new();
    for event in &events {
        *lengths.entry(event.user_id).or_default() += 1;
    }
    let mut places: HashMap<i64, u64> = HashMap::new();
    let timed = events.iter().all(|event| event.at.is_some());
    let mut keyed: Vec<(f64, u64, _)> = events
        .into_iter()
        .map(|event| {
            let place = places.entry(event.user_id).or_default();
            *place += 1;
            let key = match event.at {
                Some(at) if timed => at as f64,
                _ => *place as f64 / lengths[&event.user_id] as f64,
            };
            // Users whose events are equally new come in no order of theirs.
            (key, (event.user_id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), event)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let known = keyed.len() - (keyed.len() as f64 * share) as usize;
    let new = keyed.split_off(known).into_iter().map(|(.., event)| event).collect();
    data.interactions = keyed.into_iter().map(|(.., event)| event).collect();
    (data, Dataset { interactions: new, ..Dataset::default() })
}
