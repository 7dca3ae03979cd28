//! pgbench on all sides, in turns: calls a second, and how long each took.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pgrec_benches::Server;

use crate::{SESSION, Side, random_call};

/// Latencies of one side, in milliseconds, and its calls a second of each turn.
#[derive(Default)]
struct Turns {
    latencies: Vec<f64>,
    rates: Vec<f64>,
}

impl Turns {
    fn percentile(&mut self, share: f64) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        let place = (share * self.latencies.len() as f64) as usize;
        self.latencies.get(place.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    fn rate(&self) -> f64 {
        self.rates.iter().sum::<f64>() / self.rates.len() as f64
    }
}

/// Random users' `rec_next` by so many clients at a time.
pub fn compare(
    server: &Server,
    database: &str,
    sides: &[Side],
    clients: &[usize],
    seconds: u32,
    rounds: usize,
) -> Result<()> {
    let script = random_call(server, database)?;
    println!("\n{database}: pgbench -M prepared, {rounds} turns of {seconds} s each, random users, rec_next(user, 10)");
    println!(
        "clients   computed by   calls/s   ratio    p50 ms    p99 ms   in the worker: calls a batch, wait p50, compute p50"
    );
    for &clients in clients {
        let mut turns: Vec<Turns> = sides.iter().map(|_| Turns::default()).collect();
        let mut inside = vec![String::new(); sides.len()];
        for round in 0..rounds {
            for turn in 0..sides.len() {
                let side = (round + turn) % sides.len();
                server.ask(database, "SELECT rec_stat_reset()")?;
                let before = server.number(database, "SELECT calls FROM rec.stat_worker")?;
                one_turn(server, database, &script, clients, seconds, sides[side], &mut turns[side])?;
                let asked = server.number(database, "SELECT calls FROM rec.stat_worker")? > before;
                if asked == (sides[side].name == SESSION.name) {
                    bail!("a turn of \"{}\" asked {} worker", sides[side].name, if asked { "the" } else { "no" });
                }
                inside[side] = server.ask(database, INSIDE)?.trim().to_owned();
            }
        }
        let rate = turns[0].rate();
        for ((side, turns), inside) in sides.iter().zip(&mut turns).zip(inside) {
            println!(
                "{clients:>7}   {:>11} {:>9.0}   {:>5.2} {:>9.3} {:>9.3}   {inside}",
                side.name,
                turns.rate(),
                turns.rate() / rate,
                turns.percentile(0.5),
                turns.percentile(0.99),
            );
        }
    }
    Ok(())
}

/// Connections of a thread of pgbench.
const CLIENTS_A_THREAD: usize = 8;

/// What the worker says of the last turn.
const INSIDE: &str = "SELECT round(calls / batches::numeric, 2) || ', ' || round(wait_p50::numeric, 3) || ', '
    || round(compute_p50::numeric, 3) FROM rec.stat_worker WHERE batches > 0";

fn one_turn(
    server: &Server,
    database: &str,
    script: &str,
    clients: usize,
    seconds: u32,
    side: Side,
    turns: &mut Turns,
) -> Result<()> {
    let folder = server.cluster.dir().join(format!("pgbench-{}", turns.rates.len()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = folder.join("script.sql");
    std::fs::write(&file, script).with_context(|| format!("writing {}", file.display()))?;
    let mut bench = server.cluster.client("pgbench", database);
    bench.env("PGOPTIONS", side.options).current_dir(&folder);
    // Before it sleeps, a thread of pgbench looks at all its connections: one of many would be what is measured.
    let jobs = clients.div_ceil(CLIENTS_A_THREAD);
    bench.args(["-n", "-M", "prepared", "-l", "-T", &seconds.to_string(), "-c", &clients.to_string()]);
    bench.args(["-j", &jobs.to_string(), "-f"]).arg(&file);
    let output = bench.output().context("starting pgbench")?;
    if !output.status.success() {
        bail!("pgbench failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let latencies = logged(&folder)?;
    turns.rates.push(latencies.len() as f64 / Duration::from_secs(u64::from(seconds)).as_secs_f64());
    turns.latencies.extend(latencies);
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

/// Milliseconds of every call in pgbench's logs: client, number, microseconds, …
fn logged(folder: &Path) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgbench_log")) {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let microseconds = |line: &str| line.split(' ').nth(2)?.parse::<f64>().ok();
            latencies.extend(text.lines().filter_map(microseconds).map(|microseconds| microseconds / 1000.0));
        }
    }
    if latencies.is_empty() {
        bail!("pgbench logged nothing");
    }
    Ok(latencies)
}
