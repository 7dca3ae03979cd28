//! Generative recommendation over semantic IDs: the next item's code, level after level.
//!
//! The RQ-Transformer's division (Lee et al. 2022): a transformer over events, each the sum of its code words' vectors,
//! gives one vector h a history, for every prefix in one pass; from h and the codes before, a decoder tells the code of
//! each level: s_l = h + Σ_{j<l} D_j\[c_j\], p(c_l | h, c_<l) = softmax(O_l · f(s_l)), where f are residual feed-forward
//! blocks. log p(item | history) is the sum over its levels, so that a beam search over the codes there are (TIGER,
//! Rajput et al. 2023; LC-Rec) ranks items, and one as wide as the catalogue ranks all of them exactly.

mod confidence;
mod config;
mod decode;
mod fused;
mod levels;
mod model;
mod network;
mod search;
mod train;
mod vocabulary;

pub use model::Generative;
pub use search::Generated;

use std::sync::Arc;

use super::{Base, Family, Model};
use crate::{Artifact, Result};

const NAME: &str = "generative";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "generates the semantic ID of the next item, code after code, by beam search over the codes there are",
    needs: train::needs,
    base: Base::Needed,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(train::fit),
    open,
};

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(Generative::open(&artifact)?))
}

#[cfg(test)]
mod tests;
