//! Semantic IDs: how codes are used and what they lose, by quantizer; and how fast items are found by their codes.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use pgrec_benches::{Server, Training, real};
use pgrec_engine::codes::{Codes, statistics};
use serde_json::Value;
use xtask::generate::Shop;
use xtask::progress::grouped;
use xtask::{Dataset, Home, Progress};

/// Items that a look-up gives at most.
const PAGE: usize = 1_000;

/// Quantizers side by side, on real vectors; and look-ups among generated ones.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench codes", bin_name = "cargo xtask bench codes")]
struct Arguments {
    /// Folders of the real data, or their names, whose item vectors are coded; may be given several times
    #[arg(long, default_values_t = ["instruments".to_owned(), "beauty".to_owned()])]
    data: Vec<String>,
    /// Quantizers; may be given several times
    #[arg(long, default_values_t = ["residual".to_owned(), "rq_vae".to_owned(), "product".to_owned(), "mixture".to_owned()])]
    quantizer: Vec<String>,
    /// Items of the catalogue that is looked up in; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000)]
    items: usize,
    /// Look-ups that are timed for each length of a prefix
    #[arg(long, default_value_t = 2_000)]
    lookups: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let server = Server::start(&home, &progress, "bench-codes")?;
    for name in &arguments.data {
        let Some(data) = real(&home, &progress, name)? else { continue };
        let database =
            Path::new(name).file_name().map_or("codes".into(), |name| name.to_string_lossy().replace('-', "_"));
        server.load(&progress, &database, &data)?;
        let rows = arguments.quantizer.iter().map(|quantizer| trained(&server, &progress, &database, quantizer));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        println!(
            "\n{name}: {} items, 4 levels of 256\nquantizer    seconds   lost, greedy   lost, unique   ratio   collisions before, after   used, entropy in bits a level",
            grouped(data.items.len())
        );
        rows.iter().for_each(|row| println!("{row}"));
        if let Some(row) = published(&data) {
            println!("{row}");
        }
    }
    if arguments.items > 0 {
        look_up(&server, &progress, arguments.items, arguments.lookups)?;
    }
    Ok(())
}

/// Trains one, and gives its line.
fn trained(server: &Server, progress: &Progress, database: &str, quantizer: &str) -> Result<String> {
    let params = format!(r#"{{"quantizer": "{quantizer}"}}"#);
    let training = Training { model: quantizer, family: "semantic_ids", params: &params, memory: Some("4GB") };
    let cost = server.train(progress, database, &training)?;
    let metrics =
        server.ask(database, &format!("SELECT metrics->'codes' FROM rec.models WHERE name = '{quantizer}'"))?;
    let metrics: Value = serde_json::from_str(metrics.trim())?;
    let number = |name: &str| metrics[name].as_f64().with_context(|| format!("no {name} in {metrics}"));
    let list =
        |name: &str| -> Vec<f64> { metrics[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect() };
    let (greedy, unique) = (number("greedy_error")?, number("error")?);
    Ok(format!(
        "{quantizer:<10} {:>9.1} {greedy:>14.4} {unique:>14.4} {:>7.3} {:>17} {:>8}   {}",
        cost.seconds,
        unique / greedy,
        number("greedy_collisions")?,
        number("collisions")?,
        usage(&list("used"), &list("entropy")),
    ))
}

fn usage(used: &[f64], entropy: &[f64]) -> String {
    used.iter().zip(entropy).map(|(used, entropy)| format!("{used} {entropy:.2}")).collect::<Vec<_>>().join(", ")
}

/// The line of the codes that were published with the data.
fn published(data: &Dataset) -> Option<String> {
    let levels = data.codes.first()?.1.len();
    let codes = Codes { levels, of: data.codes.iter().flat_map(|(_, code)| code).copied().collect() };
    let found = statistics::levels(&codes, &vec![256; levels]);
    let used: Vec<f64> = found.iter().map(|level| level.used as f64).collect();
    let entropy: Vec<f64> = found.iter().map(|level| level.entropy).collect();
    Some(format!(
        "{:<10} {:>9} {:>14} {:>14} {:>7} {:>17} {:>8}   {}",
        "published",
        "",
        "",
        "",
        "",
        statistics::collisions(&codes),
        "",
        usage(&used, &entropy)
    ))
}

/// Times look-ups of random prefixes in a large catalogue, as the server measures them.
fn look_up(server: &Server, progress: &Progress, items: usize, lookups: usize) -> Result<()> {
    const DATABASE: &str = "large";
    let data = progress.step(&format!("making up {} items", grouped(items)), |_| {
        Ok(Dataset::generated(&Shop {
            users: 1_000,
            items,
            events: 100_000,
            dimension: 32,
            clusters: 1_000,
            ..Shop::default()
        }))
    })?;
    server.load(progress, DATABASE, &data)?;
    let training = Training { model: "codes", family: "semantic_ids", params: "{}", memory: Some("4GB") };
    let cost = server.train(progress, DATABASE, &training)?;
    println!("\n{} generated items of 32 numbers coded in {:.0} s", grouped(items), cost.seconds);
    println!("prefix   look-ups   items a look-up   ms: median, p99");
    for levels in 0..=4 {
        let script = format!(
            "SELECT setseed(0.5); DO $$DECLARE p record; t timestamptz; n bigint; BEGIN
                 CREATE TEMP TABLE took (ms float8, items bigint);
                 FOR p IN SELECT rec_semantic_prefix(rec_semantic_id(1 + (random() * {last})::bigint), {levels}) AS code
                          FROM generate_series(1, {lookups}) LOOP
                     t := clock_timestamp();
                     SELECT count(*) INTO n FROM rec_semantic_items(p.code, {PAGE});
                     INSERT INTO took VALUES (1000 * extract(epoch FROM clock_timestamp() - t), n);
                 END LOOP;
             END$$;
             SELECT count(*), avg(items)::numeric(10,1), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric(10,3),
                 percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric(10,3) FROM took",
            last = items - 1
        );
        let row = server.ask(DATABASE, &script)?;
        let fields: Vec<&str> = row.lines().last().unwrap_or_default().split('|').collect();
        let [count, found, median, p99] = fields[..] else { anyhow::bail!("the look-ups print {row:?}") };
        println!("{levels:>6} {count:>10} {found:>17} {median:>9}, {p99}");
    }
    Ok(())
}
