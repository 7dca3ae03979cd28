//! Families, fitted in this process.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use pgrec_benches::object;
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::families::{self, Model, Training};
use pgrec_engine::{Artifact, Control, Corpus};
use xtask::data::Item;

/// One that is compared.
#[derive(Clone, Copy)]
pub struct Contestant {
    pub label: &'static str,
    pub family: &'static str,
    pub params: &'static str,
}

/// Parameters of those that know items by their embeddings.
pub const CONTENT: &str = r#""features": "embedding""#;

/// A fitted one.
pub struct Fitted {
    pub model: Box<dyn Model>,
    pub seconds: f64,
    /// NDCG@10 of the events by which the best epoch was chosen.
    pub validated: Option<f64>,
}

impl Contestant {
    /// Fits it on a corpus; `more` are further parameters, as a JSON object.
    pub fn fit(&self, corpus: &Corpus, leave_last: usize, seed: u64, more: &str) -> Result<Fitted> {
        let family = families::find(self.family).ok_or_else(|| anyhow!("there is no family {}", self.family))?;
        let fit = family.fit.ok_or_else(|| anyhow!("{} cannot be fitted", self.family))?;
        let params = serde_json::from_str(&object(&[self.params, more])).context("reading parameters")?;
        let (control, start) = (Control::default(), Instant::now());
        let fitted = fit(&Training { leave_last, seed, ..Training::new(corpus, &params, &control) })?;
        let seconds = start.elapsed().as_secs_f64();
        let figures = fitted.curve.iter().filter_map(|point| point["ndcg@10"].as_f64());
        let validated = figures.max_by(f64::total_cmp);
        let artifact = Artifact::from_vec(fitted.artifact.finish()?)?;
        Ok(Fitted { model: families::open(Arc::new(artifact))?, seconds, validated })
    }
}

/// Histories over a catalogue, with what is known of its items.
pub fn corpus<'a>(items: &[Item], histories: impl Iterator<Item = &'a [i64]>) -> Result<Corpus> {
    let mut corpus = CorpusBuilder::new(IdKind::Int);
    for item in items {
        let key = ItemKey::Int(item.item_id);
        corpus.item(key)?;
        item.attributes.iter().try_for_each(|attribute| corpus.attribute(key, attribute))?;
        if let Some(vector) = &item.embedding {
            corpus.vector(key, vector)?;
        }
    }
    for history in histories {
        corpus.user()?;
        history.iter().try_for_each(|&item| corpus.event(ItemKey::Int(item), None))?;
    }
    Ok(corpus.finish()?)
}
