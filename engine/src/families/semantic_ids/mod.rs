//! Semantic IDs: a model that codes items by their vectors, and ranks nothing.
//!
//! Vectors are those of the items relation's embedding column, or those that another model has learnt of the items
//! (`base`). How codebooks are learnt is [`crate::codes`]'s matter; here are parameters, and what is stored.

mod fit;
mod model;

pub use model::{Config, SemanticIds};

use std::sync::Arc;

use super::{Base, Family, Model, Needs};
use crate::{Artifact, Result};

const NAME: &str = "semantic_ids";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "short codes of items, learnt from their vectors; for rec_semantic_id and generative families, ranks nothing",
    needs: |_| Needs { vectors: true, ..Needs::NOTHING },
    base: Base::Optional,
    ranks: false,
    transfers: false,
    tasks: None,
    fit: Some(fit::fit),
    open,
};

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(SemanticIds::open(&artifact)?))
}

#[cfg(test)]
mod tests;
