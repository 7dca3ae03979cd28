//! Matrix factorisation by Bayesian personalised ranking (Rendle et al. 2009): x(u, i) = p_u·q_i + b_i, learnt so that what a
//! user has touched scores above what they have not. The baseline of families of one vector a user.
//!
//! Vectors of users are learnt and left behind: who asks gets the one that fits their history best (`folding`), so that
//! nobody has to have been there in training, and the next event moves it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::params::{self, Checks};
use super::{Base, Family, Fitted, Model, Needs, Training};
use crate::{Artifact, Result};

mod fit;
mod folding;
mod model;
mod strata;

const NAME: &str = "bpr";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "matrix factorisation: what a user has touched is ranked above what they have not, whatever the order of events",
    needs: |_| Needs::NOTHING,
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// From what an event's other item is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Negatives {
    /// All items, each as likely.
    Uniform,
    /// All events.
    Popular,
}

/// Parameters of the family.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Numbers of a vector.
    dim: usize,
    /// How many of the latest events a vector is fitted to when it is asked for.
    window: usize,
    /// Rate of the steps.
    learning_rate: f64,
    /// λ: how much long vectors cost, in each step.
    l2: f64,
    /// From what an event's other item is drawn.
    negatives: Negatives,
    /// Passes over all events, at most.
    epochs: u32,
    /// Epochs without a better validation figure after which training ends; 0: never before `epochs`.
    patience: u32,
    /// Epochs between validations.
    validate_every: u32,
    /// Users by whose validation event the best epoch is chosen, at most.
    validation_users: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            dim: 64,
            window: 500,
            learning_rate: 0.05,
            l2: 0.03,
            negatives: Negatives::Popular,
            epochs: 500,
            patience: 100,
            validate_every: 5,
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
            ("validation_users", self.validation_users),
            ("epochs", self.epochs as usize),
            ("validate_every", self.validate_every as usize),
        ])?;
        checks.positive(&[("learning_rate", self.learning_rate), ("l2", self.l2)])
    }
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    params.check()?;
    fit::fit(training, &params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Bpr::open(&artifact)?))
}

#[cfg(test)]
mod tests;
