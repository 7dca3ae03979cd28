//! HSTU, hierarchical sequential transduction units (Zhai et al. 2024), as in the authors' research code.
//!
//! x_t = √d·E\[i_t\] + P_t; layers of n = LN(x), u, v, q, k = SiLU(n·W), y = W_o·(u ∘ LN(A·v)) + b_o + x with
//! A = SiLU(q·kᵀ + bias)/N; no softmax, no feed-forward half, no norm at the end. The bias is by position and by the
//! time between an event and what comes after the one that looks at it; the state of the last event, scaled to length
//! 1, is the user's vector, and an item's score is the cosine with its row of E. Padding does not exist here, and an
//! event attends to itself and those before it, as in the authors' code.

mod config;
mod encoder;
mod past;
mod train;

use std::sync::Arc;

pub(super) use encoder::Encoder;
pub(super) use past::{Beyond, Nothing};
pub(super) use train::Params;

pub use config::Config;

use super::sequential::{self, Sequential};
use super::{Base, Family, Model, Needs};
use crate::content;
use crate::{Artifact, Result};

const NAME: &str = "hstu";

/// The authors pad histories by this many places: for what is still to come, and for the next item.
pub(crate) const PADDING: usize = 11;

/// Its line in the registry.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "pointwise attention over the user's latest events and their times (HSTU), trained by gradients or imported",
    needs: |params| Needs { times: true, ..content::needs(params) },
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(sequential::fit::<train::Params>),
    open,
};

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(Sequential::<Config>::open(artifact)?))
}

#[cfg(test)]
mod tests;
