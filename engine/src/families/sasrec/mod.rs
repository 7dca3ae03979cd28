//! SASRec, self-attentive sequential recommendation (Kang & McAuley 2018).
//!
//! x_t = s·E\[i_t\] + P_t, transformer blocks with causal attention, and the state of the last event is the
//! user's vector; an item's score is its dot product with the item's row of E. One implementation serves the
//! paper's block, pre-norm and post-norm (BERT-like) ones: see [`Block`]. Padding does not exist here: a history
//! shorter than the window attends to its own events only, as in the authors' code.

mod config;
mod encoder;
mod model;
mod train;

use std::sync::Arc;

pub use config::{Block, Config, Nonlinearity, Positions};

use super::{Family, Model, Needs};
use crate::{Artifact, Result};

const NAME: &str = "sasrec";

/// Its line in the registry.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "self-attention over the user's latest events (SASRec), trained by gradients or imported",
    needs: Needs::NOTHING,
    fit: Some(train::fit),
    open,
};

/// Name of the artifact's nearest-neighbour index over the item vectors, for large catalogues.
pub(crate) const SEGMENT: &str = "segment";

/// Models of more items than this get a nearest-neighbour segment when they are made; the natural default of
/// [`crate::Query::exact_limit`]. Scoring 100,000 items 64 wide takes some 1.5 ms on one core, finding
/// neighbours among them nearly as long, and building the segment a minute.
pub const SEGMENT_ABOVE: usize = 200_000;

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Sasrec::open(artifact)?))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;
