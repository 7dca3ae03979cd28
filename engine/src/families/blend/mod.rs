//! Several models that rank together.
//!
//! Each is asked for its best items. Every item that one of them names gets the score of each, and ranks by their weighted
//! sum: of scores that are log-probabilities up to a constant, as those of every family that learns a softmax, a logarithmic
//! opinion pool, p(item) ∝ Π_m p_m(item)^(w_m) (Genest & Zidek 1986). Weights, none below 0, are those by which what came next
//! in validation ranks best.

mod ascent;
mod fit;
mod member;
mod model;

pub use model::Blend;

use std::sync::Arc;

use super::{Base, Family, Model, Needs};
use crate::{Artifact, Result};

const NAME: &str = "blend";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "ranks by several models together, with the weights by which what came next ranks best",
    needs: |_| Needs { times: true, ..Needs::NOTHING },
    base: Base::Several,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit::fit),
    open,
};

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(Blend::open(&artifact)?))
}

#[cfg(test)]
mod tests;
