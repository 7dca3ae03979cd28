//! What a projection of queries is worth: a log made of beauty, where people look for something by what they touched before.
//!
//! A search is the text vector of the event before, and led to the event. Real are the vectors and what followed what; that
//! the event before was a query is made up, since no public log has queries and items with vectors of one model. The last
//! event of every user is left out, the one before it is validated by.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use pgrec_benches::{histories, object, real};
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey, SearchRow};
use pgrec_engine::families::{self, Training};
use pgrec_engine::{Control, Corpus};
use xtask::{Dataset, Home, Progress};

const DATA: &str = "beauty";

/// Parameters that are compared.
const CONTESTANTS: [(&str, &str); 3] = [("full", ""), ("rank_32", r#""rank": 32"#), ("rank_128", r#""rank": 128"#)];

pub fn run(home: &Home, progress: &Progress, params: &str, results: &mut Vec<String>) -> Result<()> {
    let Some(data) = real(home, progress, DATA)? else { return Ok(()) };
    let corpus = log(&data)?;
    let fit = families::find("retriever").and_then(|family| family.fit).ok_or_else(|| anyhow!("no retriever"))?;
    for (label, own) in CONTESTANTS {
        let params = serde_json::from_str(&object(&[own, params])).context("reading parameters")?;
        let (control, start) = (Control::default(), Instant::now());
        let fitted = fit(&Training { leave_last: 2, seed: 1, ..Training::new(&corpus, &params, &control) })?;
        fitted.curve.iter().for_each(|point| println!("{label} {point}"));
        let figure = |name: &str| fitted.metrics["validation"][name].as_f64().unwrap_or(f64::NAN);
        results.push(format!(
            "RESULT search.retriever.{DATA}.{label} mrr {:.4}, unprojected {:.4}, of {} searches; {} epochs in {:.0} s",
            figure("mrr"),
            figure("unprojected_mrr"),
            figure("searches"),
            fitted.curve.len(),
            start.elapsed().as_secs_f64(),
        ));
        println!("{}", results.last().context("no result")?);
    }
    Ok(())
}

fn log(data: &Dataset) -> Result<Corpus> {
    let mut corpus = CorpusBuilder::new(IdKind::Int);
    let mut vectors = HashMap::new();
    for item in &data.items {
        let Some(vector) = &item.embedding else { continue };
        corpus.vector(ItemKey::Int(item.item_id), vector)?;
        vectors.insert(item.item_id, vector.as_slice());
    }
    for history in histories(data) {
        corpus.user()?;
        let mut before: Option<i64> = None;
        for item in history {
            if let Some(before) = before {
                let word = before.to_string();
                let vector = vectors.get(&before).copied();
                let item = Some(ItemKey::Int(item));
                corpus.search(&SearchRow { words: &[&word], vector, item, ..SearchRow::default() })?;
            }
            corpus.event(ItemKey::Int(item), None)?;
            before = Some(item);
        }
    }
    Ok(corpus.finish()?)
}
