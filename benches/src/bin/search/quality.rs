//! How good lists are, searched for and recommended, on Amazon's cell phones, where queries are the categories of what was
//! bought.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use pgrec_benches::{object, real};
use pgrec_engine::evaluate::{EvalRow, Protocol, SearchBy, SearchSpec, Spec, evaluate, evaluate_search};
use pgrec_engine::families::{self, Training};
use pgrec_engine::{Artifact, Control, Corpus, Model};
use xtask::{Home, Progress};

use crate::Arguments;
use crate::data::Split;
use crate::ways::{Index, Ways};

/// A model of recommendation.
struct Contestant {
    label: &'static str,
    family: &'static str,
    params: &'static str,
}

const DUAL: &str = "dual_intent";

const CONTESTANTS: [Contestant; 6] = [
    Contestant { label: DUAL, family: DUAL, params: "" },
    Contestant { label: "without_searches", family: DUAL, params: r#""searches": false"# },
    Contestant { label: "without_supervision", family: DUAL, params: r#""intent_weight": 0"# },
    Contestant { label: "without_translation", family: DUAL, params: r#""translation_weight": 0"# },
    Contestant { label: "bpr", family: "bpr", params: "" },
    Contestant { label: "popularity", family: "popularity", params: "" },
];

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    let Some(data) = real(home, progress, "cell-phones")? else { return Ok(()) };
    println!("cell-phones: queries are category texts of what was bought, not what people typed");
    let (mut found, mut recommended) = (Figures::default(), Figures::default());
    for seed in arguments.contest.all_seeds() {
        let split = Split::of(&data, seed, arguments.users)?;
        for contestant in CONTESTANTS.iter().filter(|contestant| arguments.contest.wants(contestant.label)) {
            let start = Instant::now();
            let model = contestant.fit(&split.learnt, seed, arguments)?;
            println!("seed {seed}, {}: learnt in {:.0} s", contestant.label, start.elapsed().as_secs_f64());
            if contestant.label == DUAL {
                found.add(searched(&split, &*model, seed, arguments)?);
            }
            recommended.add(recommend(contestant.label, &split, &*model, arguments)?);
        }
    }
    found.print("search", results);
    recommended.print("recommendation", results);
    Ok(())
}

impl Contestant {
    fn fit(&self, corpus: &Corpus, seed: u64, arguments: &Arguments) -> Result<Box<dyn Model>> {
        let family = families::find(self.family).ok_or_else(|| anyhow!("there is no family {}", self.family))?;
        let fit = family.fit.ok_or_else(|| anyhow!("{} cannot be fitted", self.family))?;
        let more = if self.family == DUAL { &arguments.contest.params } else { "{}" };
        let params = serde_json::from_str(&object(&[self.params, more])).context("reading parameters")?;
        let control = Control::default();
        let fitted = fit(&Training { seed, ..Training::new(corpus, &params, &control) })?;
        for point in &fitted.curve {
            println!("  {point}");
        }
        println!("  {}", serde_json::Value::Object(fitted.metrics.clone()));
        Ok(families::open(Arc::new(Artifact::from_vec(fitted.artifact.finish()?)?))?)
    }
}

fn protocol(arguments: &Arguments) -> Protocol {
    if arguments.validation { Protocol::Validation } else { Protocol::Test }
}

/// Every way to search.
fn searched(split: &Split, model: &dyn Model, seed: u64, arguments: &Arguments) -> Result<Vec<EvalRow>> {
    let spec = SearchSpec { protocol: protocol(arguments), ks: &[10, 1000], by: SearchBy::Nothing, seed };
    let mut ways = Ways::new(Index::of(&split.learnt, &split.kept), model);
    let start = Instant::now();
    let mut rows = evaluate_search(&mut ways, &split.kept, &spec, &Control::default())?.rows;
    println!("  searched in {:.0} s", start.elapsed().as_secs_f64());
    rows.retain(|row| if row.metric == "mrr" { row.k > 10 } else { row.k == 10 });
    Ok(rows)
}

/// The items that were kept, without a query.
fn recommend(label: &str, split: &Split, model: &dyn Model, arguments: &Arguments) -> Result<Vec<EvalRow>> {
    let exact_limit = arguments.exact_limit;
    let spec = Spec { protocol: protocol(arguments), ks: &[5], exact_limit, ..Spec::default() };
    let start = Instant::now();
    let mut rows = evaluate(model, &split.kept, &spec, &Control::default())?.rows;
    println!("  recommended in {:.0} s", start.elapsed().as_secs_f64());
    rows.retain(|row| ["ndcg", "hr"].contains(&row.metric));
    rows.iter_mut().for_each(|row| row.grp = label.to_owned());
    Ok(rows)
}

/// Rows of all seeds.
#[derive(Default)]
struct Figures(Vec<EvalRow>);

impl Figures {
    fn add(&mut self, rows: Vec<EvalRow>) {
        self.0.extend(rows);
    }

    /// One line a contestant: of each metric the mean of the seeds, and within it the means of their intervals' ends.
    fn print(&self, table: &str, results: &mut Vec<String>) {
        let mut named: Vec<&str> = Vec::new();
        for row in &self.0 {
            if !named.contains(&row.grp.as_str()) {
                named.push(&row.grp);
            }
        }
        for name in named {
            let mut line = format!("RESULT search.quality.{table}.{name}");
            for (metric, k) in [("mrr", 1000), ("ndcg", 10), ("hr", 10), ("ndcg", 5), ("hr", 5)] {
                let of = |row: &&EvalRow| row.grp == name && row.metric == metric && row.k == k;
                let rows: Vec<&EvalRow> = self.0.iter().filter(of).collect();
                if rows.is_empty() {
                    continue;
                }
                let mean =
                    |value: fn(&EvalRow) -> f64| rows.iter().map(|row| value(row)).sum::<f64>() / rows.len() as f64;
                let (value, low, high) = (
                    mean(|row| row.value),
                    mean(|row| row.low.unwrap_or(row.value)),
                    mean(|row| row.high.unwrap_or(row.value)),
                );
                line += &format!(" {metric}@{k} {value:.4} ({low:.4} to {high:.4})");
            }
            println!("{line}");
            results.push(line);
        }
    }
}
