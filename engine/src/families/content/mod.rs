//! Content spread over who touched what (AlphaRec, Sheng et al. 2024): no item has a vector of its own that is learnt.
//!
//! A network places an item by its content; users begin where their items are on average; light graph convolution lets both
//! take from their neighbours, and what a user likes are the items of the largest cosines. So an item that nobody has touched
//! has a place like any other, and the network places the items of another catalogue, too: a training that continues a
//! model (`init`) for 0 epochs serves that catalogue by it.
//!
//! A user is the same whether learnt from or not: where the convolution would put them with their history attached to the
//! graph of the training, whose items stay where they are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::params::{self, Checks};
use super::{Base, Family, Fitted, Model, Needs, Training};
use crate::content::Use;
use crate::{Artifact, Result};

mod contrast;
mod fit;
mod graph;
mod model;
mod placing;

const NAME: &str = "content";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "what is known of items, placed by a network and spread over who touched what: new items rank like old ones",
    needs,
    base: Base::Nothing,
    ranks: true,
    transfers: true,
    tasks: None,
    fit: Some(fit),
    open,
};

/// What of items they are placed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Features {
    /// Their vectors.
    #[default]
    Embedding,
    /// Their attributes.
    Attributes,
    /// Vectors and attributes.
    Both,
}

impl From<Features> for Use {
    fn from(features: Features) -> Self {
        match features {
            Features::Embedding => Self::Embedding,
            Features::Attributes => Self::Attributes,
            Features::Both => Self::Both,
        }
    }
}

/// Parameters of the family. The paper has a learning rate of 5e-4, and leaves the item that is learnt among its user's: by
/// what is left in, an item is found without being known (NDCG@10 of .0338 instead of .0383 after 8 epochs; Amazon Beauty,
/// validation).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Numbers of a place; absent: 64, or as in the model that is continued.
    dim: Option<usize>,
    /// Numbers between content and place; 0: places are linear in the content; absent: 256, or as in the model that is
    /// continued.
    hidden: Option<usize>,
    /// How often places are passed on to neighbours.
    layers: usize,
    /// How many of the latest events of a user count, in training as in serving.
    window: usize,
    /// What is known of items by which they are placed.
    features: Features,
    /// τ: what cosines are divided by.
    temperature: f64,
    /// Whether a user is where they would be without the item that is learnt, as it is where it is asked for: the paper has
    /// them where they are with it.
    leave_out: bool,
    /// Items that are drawn to compare each pair of a user and an item with, among those that somebody has touched.
    negatives: usize,
    /// AdamW's rate.
    learning_rate: f64,
    /// Its decoupled weight decay.
    weight_decay: f64,
    /// Pairs whose gradients make a step.
    batch: usize,
    /// Passes over all pairs, at most; 0 where a model is continued: then nothing is learnt.
    epochs: u32,
    /// Epochs without a better validation figure after which training ends; 0: never before `epochs`.
    patience: u32,
    /// Users by whose validation event the best epoch is chosen, at most.
    validation_users: usize,
}

/// Numbers of a place, and between content and place, where nothing is said.
const DIM: usize = 64;
const HIDDEN: usize = 256;

/// Most layers.
const LAYERS: usize = 8;

impl Default for Params {
    fn default() -> Self {
        Self {
            dim: None,
            hidden: None,
            layers: 2,
            window: 200,
            features: Features::Embedding,
            temperature: 0.15,
            leave_out: true,
            negatives: 256,
            learning_rate: 5e-3,
            weight_decay: 1e-6,
            batch: 4096,
            epochs: 50,
            patience: 5,
            validation_users: 10_000,
        }
    }
}

impl Params {
    fn check(&self, continued: bool) -> Result<()> {
        let checks = Checks(NAME);
        checks.sizes(&[
            ("window", self.window),
            ("negatives", self.negatives),
            ("batch", self.batch),
            ("validation_users", self.validation_users),
            ("dim", self.dim.unwrap_or(DIM)),
        ])?;
        checks.counts(1 << 20, &[("hidden", self.hidden.unwrap_or(HIDDEN)), ("epochs", self.epochs as usize)])?;
        checks.counts(LAYERS, &[("layers", self.layers)])?;
        checks.positive(&[("temperature", self.temperature), ("learning_rate", self.learning_rate)])?;
        checks.not_negative(&[("weight_decay", self.weight_decay)])?;
        if self.epochs == 0 && !continued {
            return checks.wrong("epochs is 0 only where a model is continued (init), which then serves as it is");
        }
        if continued && self.features != Features::Embedding {
            let why = "a model is continued by vectors alone: attributes are other ones in every catalogue";
            return checks.wrong(format_args!("{why}; leave out features, or init"));
        }
        Ok(())
    }
}

/// What has to be read of items by the parameter `features`; one that cannot be read is complained of when the model is
/// fitted.
fn needs(params: &Value) -> Needs {
    let features = params.get("features").cloned().and_then(|features| serde_json::from_value(features).ok());
    let features: Use = features.unwrap_or(Features::default()).into();
    Needs { attributes: features.attributes(), vectors: features.vectors(), ..Needs::NOTHING }
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    params.check(training.start.is_some())?;
    fit::fit(training, &params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Spread::open(&artifact)?))
}

#[cfg(test)]
mod gradient_tests;
#[cfg(test)]
mod tests;
