//! Collaborative metric learning (Hsieh et al. 2017): items are points of a ball, users are points among those of their
//! items, and what is near is liked.
//!
//! A user is no row of a table: their point is a mean of the points in their history, whose weights are learnt (of the item,
//! and of how many events ago it was), as where films are placed that nobody has seen yet (Campo et al. 2018). So whoever has
//! one event has a point, and the next event moves it.
//!
//! Where the content of items is known, a network learns where it places them, points are drawn there (the feature loss of
//! section 3.3), and items that nobody has touched are there.

use std::sync::Arc;

use serde::Deserialize;

use super::params::{self, Checks};
use super::{Base, Family, Fitted, Model, Training};
use crate::content::{self, Use};
use crate::{Artifact, Result};

mod batch;
mod calibration;
mod fit;
mod model;
mod placing;
mod pooling;
mod shares;
mod space;

const NAME: &str = "cml";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "items and users as points whose distance says who likes what, learnt by comparing with the nearest of others",
    needs: content::needs,
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// Parameters of the family. The paper has points of 100 numbers and a margin of 1.9, which rank no better (Amazon Beauty,
/// validation), and a content weight of .1 without decay, by which content places what nobody has touched less well.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Numbers of a point.
    dim: usize,
    /// How many of the latest events make a user's point.
    window: usize,
    /// Whether an item is learnt from the events before it; else from all others of its user, whatever their order.
    ordered: bool,
    /// m: by how much another item's squared distance is to be larger.
    margin: f64,
    /// Items that are drawn to compare each event with.
    negatives: usize,
    /// λ_c: how much correlated coordinates cost.
    covariance: f64,
    /// What is known of items by which they are placed too: those that nobody has touched by nothing else.
    features: Use,
    /// λ_f: how much it costs that a point is not where the item's content places it.
    content_weight: f64,
    /// Numbers between content and place.
    content_hidden: usize,
    /// AdamW's rate for the network that places items.
    content_learning_rate: f64,
    /// Its decoupled weight decay.
    content_decay: f64,
    /// AdaGrad's rate.
    learning_rate: f64,
    /// Events whose gradients make a step.
    batch: usize,
    /// Passes over all events, at most.
    epochs: u32,
    /// Epochs without a better validation figure after which training ends; 0: never before `epochs`.
    patience: u32,
    /// Users by whose validation event the best epoch is chosen, at most.
    validation_users: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            dim: 64,
            window: 50,
            ordered: true,
            margin: 1.0,
            negatives: 20,
            covariance: 10.0,
            features: Use::None,
            content_weight: 3.0,
            content_hidden: 256,
            content_learning_rate: 1e-3,
            content_decay: 0.1,
            learning_rate: 0.1,
            batch: 1024,
            epochs: 50,
            patience: 5,
            validation_users: 10_000,
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
            ("batch", self.batch),
            ("content_hidden", self.content_hidden),
            ("validation_users", self.validation_users),
            ("epochs", self.epochs as usize),
        ])?;
        checks.positive(&[("margin", self.margin), ("learning_rate", self.learning_rate)])?;
        checks.not_negative(&[
            ("covariance", self.covariance),
            ("content_weight", self.content_weight),
            ("content_learning_rate", self.content_learning_rate),
            ("content_decay", self.content_decay),
        ])
    }
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    params.check()?;
    fit::fit(training, &params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Cml::open(&artifact)?))
}

#[cfg(test)]
mod tests;
