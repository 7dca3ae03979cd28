//! Learning to retrieve from logs (LRAT, Zhou et al. 2026): where among the items a query belongs, by what was opened.
//!
//! Queries and items have vectors of the application's own, and an index over those of the items. What is learnt is a
//! projection M of queries alone, so that this index keeps working and an item that is new needs no training: with one
//! projection for each side, q'Wq · Wi'v is (Wi'Wq q)·v, which one can do for both. Of a search the result that was opened is
//! to be above those that were shown and not opened, above what other searches led to, and above items that are drawn, by
//! InfoNCE (van den Oord et al. 2018) that weighs a search by how long the reader stayed. The paper trains the encoder of the
//! texts itself, by what agents read and passed over, and weighs by how long they reasoned about what they read.

use std::sync::Arc;

use serde::Deserialize;

use super::params::{self, Checks};
use super::{Base, Family, Fitted, Model, Needs, Training};
use crate::{Artifact, Result};

mod compare;
mod fit;
mod log;
mod model;
mod projection;

const NAME: &str = "retriever";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "a projection of query vectors among item vectors, learnt from what searches led to; for searching, ranks nothing",
    needs: |_| Needs { vectors: true, searches: true, query_vectors: true, ..Needs::NOTHING },
    base: Base::Nothing,
    ranks: false,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// Parameters of the family.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Rank of what the projection adds to the identity; 0: any.
    rank: usize,
    /// τ: what scores are divided by.
    temperature: f64,
    /// Items that are drawn for every step, beside those that its searches led to and were shown.
    negatives: usize,
    /// Whether searches weigh as much as ln(1 + seconds that the opened result was looked at), over its mean; those of which
    /// that is not known weigh 1, as without this all do.
    dwell: bool,
    /// AdamW's rate.
    learning_rate: f64,
    /// Its decoupled weight decay, towards the identity.
    weight_decay: f64,
    /// Searches whose gradients make a step.
    batch: usize,
    /// Passes over all searches, at most.
    epochs: u32,
    /// Epochs without a better validation figure after which training ends; 0: never before `epochs`.
    patience: u32,
    /// Searches by which the best epoch is chosen, at most.
    validation_searches: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            rank: 0,
            temperature: 0.05,
            negatives: 256,
            dwell: true,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            batch: 256,
            epochs: 50,
            patience: 5,
            validation_searches: 2_000,
        }
    }
}

impl Params {
    fn check(&self) -> Result<()> {
        let checks = Checks(NAME);
        let searches = ("validation_searches", self.validation_searches);
        checks.sizes(&[("batch", self.batch), ("epochs", self.epochs as usize), searches])?;
        checks.counts(1 << 16, &[("rank", self.rank), ("negatives", self.negatives)])?;
        checks.positive(&[("temperature", self.temperature), ("learning_rate", self.learning_rate)])?;
        checks.not_negative(&[("weight_decay", self.weight_decay)])
    }
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    params.check()?;
    fit::fit(training, &params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Retriever::open(&artifact)?))
}

#[cfg(test)]
mod gradient_tests;
#[cfg(test)]
mod tests;
