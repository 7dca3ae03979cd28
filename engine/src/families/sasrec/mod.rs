//! SASRec, self-attentive sequential recommendation (Kang & McAuley 2018).
//!
//! x_t = s·E\[i_t\] + P_t, transformer blocks with causal attention, and the state of the last event is the
//! user's vector; an item's score is its dot product with the item's row of E. One implementation serves the
//! paper's block, pre-norm and post-norm (BERT-like) ones: see [`Block`]. Padding does not exist here: a history
//! shorter than the window attends to its own events only, as in the authors' code.

mod config;
mod encoder;
mod train;

use std::sync::Arc;

#[cfg(test)]
pub(super) use train::Params;

pub use config::{Block, Config, Nonlinearity, Positions};
pub(crate) use encoder::Body;

use super::sequential::{self, Sequential};
use super::{Base, Family, Model};
use crate::content;
use crate::{Artifact, Result};

const NAME: &str = "sasrec";

/// Its line in the registry.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "self-attention over the user's latest events (SASRec), trained by gradients or imported",
    needs: content::needs,
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
#[cfg(test)]
mod training_tests;
