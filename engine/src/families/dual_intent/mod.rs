//! Search and recommendation by one graph (UDITSR, Zhang et al. 2024): who found what by which words, and what others are
//! likely to want though they do not say it.
//!
//! Edges between users and items carry an intent: the query that led there, or one that a network generates from the user,
//! their latest queries, the item and the queries that led others to it. Users and items take from their neighbours along the
//! intents, and two networks score an item for a user and an intent: one that was typed, one that is generated.
//!
//! Users have no vectors of their own: one is the mean over their items (`layers`), so that whoever has one event has a place,
//! and is the same whether learnt from or not. While an item is learnt from, it is left out of its user, and so is what they
//! typed to find it. Of an edge of the user q is the mean intent of its item: what else was typed to find the item counts as
//! much as what the user typed. Users are now and then nobody, so that a search by somebody unknown is answered, too.
//!
//! What is generated for edges without a query is generated anew once an epoch, and nothing is learnt through it there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::params::{self, Checks};
use super::{Base, Family, Fitted, Model, Needs, Training};
use crate::content::{self, Use};
use crate::{Artifact, Result};

mod distances;
mod fit;
mod graph;
mod layers;
mod learnt;
mod model;
mod network;
mod ops;
mod ranking;
mod sparse;
mod step;
mod validated;
mod weighed;

const NAME: &str = "dual_intent";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "search and recommendation by one graph of users, items and queries, with the intents of those who typed nothing",
    needs,
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// What scores an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scoring {
    /// The networks alone, as published.
    Mlp,
    /// And the product of user + intent with the item, and a number of the item's own.
    Product,
    /// And the squared distance between user + intent and the item, and a number of the item's own.
    Translation,
}

/// product·(user + intent)·item − square·‖item‖² is what counts beside the networks.
#[derive(Debug, Clone, Copy)]
struct Shape {
    product: f32,
    square: f32,
}

impl Scoring {
    fn shape(self) -> Shape {
        match self {
            Self::Mlp => Shape { product: 0.0, square: 0.0 },
            Self::Product => Shape { product: 1.0, square: 0.0 },
            Self::Translation => Shape { product: 2.0, square: 1.0 },
        }
    }
}

/// Parameters of the family. Where they are not the published ones they were chosen by validation on Amazon's cell phones: MRR
/// of search and NDCG@5 of recommendation, of 1,500 users and one seed, so that NDCG@5 is ± .007. The networks alone rank less
/// well than with a product beside them (.0854 and .0174, with it .0932 and .0238; with a distance .0883 and .0204), and two
/// other items an edge (rate .003) less well than six (rate .004; .0992 and .0264, with six .1081 and .0295). An item's own
/// number begins at the logarithm of how many found it, which is what it would slowly become.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Numbers of a vector, a multiple of 4. Published: 100; 32 keep an epoch short, more were not compared.
    dim: usize,
    /// How many of the latest events of a user count.
    window: usize,
    /// Whether what was looked for is looked at; else all intents are generated, and nothing says which are right.
    searches: bool,
    /// How many of the latest queries of a user count, as published.
    recent: usize,
    /// How much less a query counts for each event, and each query, that came after it.
    decay: f64,
    /// How many of the queries that led to an item count, as published.
    item_queries: usize,
    /// What scores an item.
    scorer: Scoring,
    /// What it costs that a generated intent is not what was typed, as published; 0: nothing.
    intent_weight: f64,
    /// What it costs that another item is as near to user + intent as the one that was found, as published; 0: nothing.
    translation_weight: f64,
    /// What is known of items besides: a projection of that is added to their own vectors.
    features: Use,
    /// The projection's learning rate over that of the vectors.
    content_rate: f64,
    /// Items that each edge is compared with; 1, as published, makes the loss BPR.
    negatives: usize,
    /// Whether an item is where it would be if the user of the edge had not found it, as one that is still to be found is; the
    /// paper has it where it is with all its users (.1035 and .0275).
    leave_out: bool,
    /// The share of edges that is learnt as if nothing was known of the user.
    user_dropout: f64,
    /// Items that the networks score in catalogues above the limit of exact search: those nearest to user + intent.
    candidates: usize,
    /// How much it counts beside text and vectors in a search; without, as much as validation says (`weighed`).
    search_weight: Option<f64>,
    /// AdamW's rate. Published: 1e-4, with batches of 256.
    learning_rate: f64,
    /// Its decoupled weight decay, as published.
    weight_decay: f64,
    /// Edges whose gradients make a step.
    batch: usize,
    /// Passes over all edges, at most.
    epochs: u32,
    /// Epochs without a better validation figure after which training ends; 0: never before `epochs`.
    patience: u32,
    /// Users by whose validation event the best epoch is chosen, at most.
    validation_users: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            dim: 32,
            window: 50,
            searches: true,
            recent: 3,
            decay: 0.7,
            item_queries: 10,
            scorer: Scoring::Product,
            intent_weight: 1.5,
            translation_weight: 0.2,
            features: Use::None,
            content_rate: 1.0,
            negatives: 6,
            leave_out: true,
            user_dropout: 0.2,
            candidates: 1000,
            search_weight: None,
            learning_rate: 4e-3,
            weight_decay: 1e-5,
            batch: 2048,
            epochs: 20,
            patience: 3,
            validation_users: 5_000,
        }
    }
}

impl Params {
    fn check(&self) -> Result<()> {
        let checks = Checks(NAME);
        checks.sizes(&[
            ("dim", self.dim),
            ("window", self.window),
            ("negatives", self.negatives),
            ("candidates", self.candidates),
            ("batch", self.batch),
            ("validation_users", self.validation_users),
            ("epochs", self.epochs as usize),
        ])?;
        if !self.dim.is_multiple_of(4) {
            return checks.wrong("dim is a multiple of 4");
        }
        checks.counts(1 << 10, &[("recent", self.recent), ("item_queries", self.item_queries)])?;
        let weight = self.search_weight.unwrap_or(0.0);
        let bounded =
            [("decay", self.decay, 1.0), ("user_dropout", self.user_dropout, 0.9), ("search_weight", weight, 1e6)];
        if let Some((name, _, most)) = bounded.into_iter().find(|(_, x, most)| !(0.0..=*most).contains(x)) {
            return checks.wrong(format_args!("{name} is a number from 0 to {most}"));
        }
        checks.positive(&[("learning_rate", self.learning_rate), ("content_rate", self.content_rate)])?;
        checks.not_negative(&[
            ("intent_weight", self.intent_weight),
            ("translation_weight", self.translation_weight),
            ("weight_decay", self.weight_decay),
        ])
    }

    /// What a query weighs after which so many events and queries came.
    fn weight(&self, since: usize) -> f32 {
        weight(self.decay, since)
    }
}

/// decay^since
fn weight(decay: f64, since: usize) -> f32 {
    decay.powf(since as f64) as f32
}

/// Searches and their words, where they are not left out, and what the parameter `features` says.
fn needs(params: &Value) -> Needs {
    let searches = params.get("searches").and_then(Value::as_bool).unwrap_or(true);
    Needs { words: searches, searches, ..content::needs(params) }
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    params.check()?;
    fit::fit(training, &params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::DualIntent::open(&artifact)?))
}

#[cfg(test)]
mod gradient_tests;
#[cfg(test)]
mod tests;
