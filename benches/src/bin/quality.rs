//! What models trained in the database are worth: several seeds, full ranking, and quality over minutes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Parser;
use pgrec_benches::{Server, Training, best, ml_1m_or_shop, object};
use xtask::{Dataset, Home, Progress};

/// One that is compared.
struct Contestant {
    label: &'static str,
    family: &'static str,
    /// Its own parameters.
    params: &'static str,
    /// Whether a seed changes anything.
    random: bool,
    /// Whose weights it has, of the same seed.
    of: Option<&'static str>,
    /// Which ones it blends, of the same seed.
    blends: &'static [&'static str],
}

const fn contestant(label: &'static str, family: &'static str, params: &'static str, random: bool) -> Contestant {
    Contestant { label, family, params, random, of: None, blends: &[] }
}

/// A generative model with the weights of another, which serves them otherwise.
const fn variant(label: &'static str, of: &'static str, params: &'static str) -> Contestant {
    Contestant { label, family: "generative", params, random: true, of: Some(of), blends: &[] }
}

const fn blend(label: &'static str, blends: &'static [&'static str]) -> Contestant {
    Contestant { label, family: "blend", params: "", random: true, of: None, blends }
}

/// Those that are compared.
const CONTESTANTS: [Contestant; 22] = [
    contestant("popularity", "popularity", "", false),
    contestant("graph", "graph", "", false),
    contestant("original", "sasrec", ORIGINAL, true),
    contestant("sasrec", "sasrec", "", true),
    contestant("hstu", "hstu", "", true),
    contestant("cml", "cml", "", true),
    contestant("generative", "generative", r#""base": "codes""#, true),
    contestant("fused", "generative", r#""base": "codes", "fusion": 1"#, true),
    contestant(
        "wide",
        "generative",
        r#""base": "codes", "fusion": 1, "dim": 128, "heads": 4, "dropout": 0.4, "epochs": 30"#,
        true,
    ),
    contestant("aligned", "generative", r#""base": "codes", "alignment": 1"#, true),
    variant("fused_3", "fused", r#""base": "codes", "fusion": 3"#),
    variant("fused_codes", "fused", r#""base": "codes", "fusion": 1e-6"#),
    blend("blend", &["sasrec", "generative"]),
    blend("blend_graph", &["sasrec", "graph"]),
    blend("blend_cml", &["sasrec", "cml"]),
    blend("blend_all", &["sasrec", "generative", "graph"]),
    contestant("together", "generative", r#""base": "parallel", "order": "together""#, true),
    contestant("confidence", "generative", r#""base": "parallel", "order": "confidence""#, true),
    variant("by_levels", "confidence", r#""base": "parallel", "order": "levels""#),
    variant("consistent_90", "confidence", r#""base": "parallel", "order": "confidence", "consistency": 0.9"#),
    variant("consistent_95", "confidence", r#""base": "parallel", "order": "confidence", "consistency": 0.95"#),
    variant("consistent_99", "confidence", r#""base": "parallel", "order": "confidence", "consistency": 0.99"#),
];

/// Parameters of the parallel codes that some learn.
const PARALLEL: &str = r#"{"quantizer": "product"}"#;

/// SASRec as published: its block, its loss, Adam at .001 on the latest window.
const ORIGINAL: &str = r#""form": "original", "loss": "bce", "shared_negatives": false, "dim": 50, "batch": 128,
    "windows": "latest", "learning_rate": 0.001, "schedule": "constant", "warmup": 0, "weight_decay": 0,
    "average": 0, "anneal_dropout": 0, "epochs": 200, "patience": 20"#;

/// Validation figures this far apart are the same.
const SAME: f64 = 0.003;

/// Families trained in the database, by rec_evaluate.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench quality", bin_name = "cargo xtask bench quality")]
struct Arguments {
    /// A folder of data, may be given several times; without, ml-1m of the real data, else a generated shop
    #[arg(long, value_name = "DIR")]
    data: Vec<PathBuf>,
    /// How many trainings of each family that begins at random
    #[arg(long, default_value_t = 3)]
    seeds: u32,
    /// Only these; may be given several times
    #[arg(long, value_parser = CONTESTANTS.map(|contestant| contestant.label))]
    only: Vec<String>,
    /// More parameters of networks but `original`, as a JSON object
    #[arg(long, default_value = "{}")]
    params: String,
    /// Parameters of the semantic IDs that `generative` and `fused` learn, as a JSON object
    #[arg(long, default_value = "{}")]
    codes: String,
    /// Codes that were published with the data instead
    #[arg(long, conflicts_with = "codes")]
    published_codes: bool,
}

/// One training's figures.
struct Run {
    hr: f64,
    ndcg: f64,
    seconds: f64,
    /// Seconds until the validation figure was within [`SAME`] of its best.
    settled: Option<f64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let server = Server::start(&home, &progress, "bench-quality")?;
    let folders: Vec<Option<&Path>> = match arguments.data.as_slice() {
        [] => vec![None],
        folders => folders.iter().map(|folder| Some(folder.as_path())).collect(),
    };
    let mut results = Vec::new();
    for (place, folder) in folders.into_iter().enumerate() {
        let mut data = ml_1m_or_shop(&home, &progress, folder.map(Path::to_path_buf))?;
        if arguments.published_codes {
            code_by_published(&mut data)?;
        }
        let name = folder.and_then(Path::file_name).map_or("default".into(), |name| name.to_string_lossy());
        let database = format!("quality_{place}");
        server.load(&progress, &database, &data)?;
        let vectors = data.dimension().is_some();
        let described = data.items.iter().any(|item| !item.attributes.is_empty());
        drop(data);
        let (mut coded, mut there) = (false, Vec::new());
        for Contestant { label, family, params: own, random, of, blends } in CONTESTANTS {
            let is_wanted = arguments.only.is_empty() || arguments.only.iter().any(|only| only == label);
            if !is_wanted || !of.iter().chain(blends).all(|other| there.contains(other)) {
                continue;
            }
            if family == "generative" && !vectors {
                println!("{label}: the items have no vectors to learn codes from");
                continue;
            }
            if label == "aligned" && !described {
                println!("{label}: the items have no attributes to learn words from");
                continue;
            }
            there.push(label);
            if family == "generative" && !coded {
                let params = if arguments.published_codes { r#"{"quantizer": "given"}"# } else { &arguments.codes };
                for (model, params) in [("codes", params), ("parallel", PARALLEL)] {
                    let codes = Training { model, family: "semantic_ids", params, memory: None };
                    server.train(&progress, &database, &codes)?;
                }
                coded = true;
            }
            let more = if random && label != "original" && blends.is_empty() { arguments.params.as_str() } else { "" };
            let mut runs = Vec::new();
            for seed in 1..=if random { arguments.seeds } else { 1 } {
                let model = format!("{label}_{seed}");
                let start = of.map_or_else(String::new, |of| format!(r#""init": "{of}_{seed}", "epochs": 0"#));
                let models: Vec<String> = blends
                    .iter()
                    .map(|label| format!("\"{label}_{}\"", if is_random(label) { seed } else { 1 }))
                    .collect();
                let models =
                    if models.is_empty() { String::new() } else { format!("\"models\": [{}]", models.join(", ")) };
                let seeded = format!(r#""seed": {seed}"#);
                let params = object(&[r#""leave_last": 2"#, &seeded, more, own, &start, &models]);
                let training = Training { model: &model, family, params: &params, memory: None };
                let cost = server.train(&progress, &database, &training)?;
                runs.push(measured(&server, &database, &model, cost.seconds, seed == 1)?);
            }
            results.push(line(&name, label, &runs));
            println!("{}", results.last().map_or("", String::as_str));
        }
    }
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}

/// Whether a seed changes anything of a contestant.
fn is_random(label: &str) -> bool {
    CONTESTANTS.iter().any(|contestant| contestant.label == label && contestant.random)
}

/// Makes published codes the items' vectors; they begin at 1, since a vector of zeros is none.
fn code_by_published(data: &mut Dataset) -> Result<()> {
    if data.codes.is_empty() {
        bail!("no codes were published with this data");
    }
    let codes: HashMap<i64, &Vec<u16>> = data.codes.iter().map(|(item, code)| (*item, code)).collect();
    for item in &mut data.items {
        let vector = |code: &&Vec<u16>| code.iter().map(|&code| f32::from(code) + 1.0).collect();
        item.embedding = codes.get(&item.item_id).map(vector);
    }
    Ok(())
}

/// What a model is worth on the events that it has not seen.
fn measured(server: &Server, database: &str, model: &str, seconds: f64, show: bool) -> Result<Run> {
    let metric = |name: &str| {
        let query = format!("SELECT value FROM rec_evaluate('{model}', k => ARRAY[10]) WHERE metric = '{name}'");
        server.number(database, &query)
    };
    let curve = server.curve(database, model)?;
    let best = best(&curve);
    let settled = curve.iter().find(|&&(_, value)| value >= best - SAME).map(|&(seconds, _)| seconds);
    if show && !curve.is_empty() {
        let every = curve.len().div_ceil(12);
        let points = curve.iter().step_by(every).map(|(seconds, value)| format!("{seconds:.0} s {value:.4}"));
        println!("    validation ndcg@10: {}", points.collect::<Vec<_>>().join(", "));
    }
    Ok(Run { hr: metric("hr")?, ndcg: metric("ndcg")?, seconds, settled })
}

/// One line of results: means, and the least and most of the seeds.
fn line(data: &str, label: &str, runs: &[Run]) -> String {
    let figure = |of: fn(&Run) -> f64| {
        let values: Vec<f64> = runs.iter().map(of).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if values.len() > 1 { format!("{mean:.4} ({least:.4} … {most:.4})") } else { format!("{mean:.4}") }
    };
    let mean = |of: &dyn Fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let settled = match runs.iter().all(|run| run.settled.is_some()) {
        true => format!(", within {SAME} of its best after {:.0} s", mean(&|run| run.settled.unwrap_or(0.0))),
        false => String::new(),
    };
    format!(
        "RESULT quality.{data}.{label} hr@10 {} ndcg@10 {}, {}, {:.0} s{settled}",
        figure(|run| run.hr),
        figure(|run| run.ndcg),
        if runs.len() > 1 { format!("{} seeds", runs.len()) } else { "one seed".to_owned() },
        mean(&|run| run.seconds),
    )
}
