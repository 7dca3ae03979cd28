//! TGH, the training-free graph heuristic (2026), in its two forms TGH-1 and TGH-2.
//!
//! Edges a→b are counted over consecutive events; ring h of an item are the items at exactly h hops. A list is
//! filled from rings 1 and 2 of the last item (TGH-2: also of the one before it) with fixed budgets, and then
//! from popularity. Which other items look like an item is known from its attributes (TF-IDF) or its vector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Family, Model, params};
use crate::{Artifact, ArtifactBuilder, Control, Corpus, Error, Result};

pub(crate) mod edges;
pub(crate) mod features;
mod model;
mod rings;
mod stages;

use edges::Edges;
use features::Features;
use stages::Variant;

const NAME: &str = "graph";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "what followed the last items, and what followed that, ordered by likeness: no training, hard to beat",
    fit: Some(fit),
    open,
};

/// Parameters of the family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// `tgh1` looks at the last item, `tgh2` at the last two.
    variant: Variant,
    /// What an item's likeness is computed from; `auto`: attributes where there are any, else vectors, else none.
    similarity: Similarity,
    /// Shares of a list for ring 1 and ring 2 of the last item and, in `tgh2`, of the one before it.
    budgets: Option<Vec<u32>>,
    /// Items kept of each ring.
    keep: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { variant: Variant::Tgh2, similarity: Similarity::Auto, budgets: None, keep: 60 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Similarity {
    Auto,
    Attributes,
    Vector,
    None,
}

/// What a fitted model remembers of its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    variant: Variant,
    similarity: String,
    budgets: Vec<u32>,
    keep: usize,
    edges: usize,
}

/// Counts the edges and orders the rings of every item. Costs one visit to every walk of two steps.
fn fit(corpus: &Corpus, params: &Value, control: &Control) -> Result<ArtifactBuilder> {
    let params: Params = params::read(NAME, params)?;
    let budgets = params.budgets.unwrap_or_else(|| params.variant.default_budgets());
    let wanted = params.variant.default_budgets().len();
    if budgets.len() != wanted || budgets.iter().all(|&b| b == 0) {
        let why = format!("budgets of this variant are {wanted} whole numbers, not all of them 0");
        return Err(Error::Parameter(why));
    }
    if !(1..=1000).contains(&params.keep) {
        return Err(Error::Parameter("keep is a number of items from 1 to 1000".into()));
    }
    if corpus.events.is_empty() {
        return Err(Error::Data("there are no interactions to build a graph from".into()));
    }
    let features = features(corpus, params.similarity)?;
    let edges = Edges::count(corpus, control)?;
    let (one, two) = rings::build(edges.view(), features.view(), params.keep, control)?;

    let config = json!(Config {
        variant: params.variant,
        similarity: model::kind(&features).into(),
        budgets,
        keep: params.keep,
        edges: edges.items.len(),
    });
    let counts: Vec<f32> = corpus.counts().into_iter().map(|count| count as f32).collect();
    let mut artifact = ArtifactBuilder::new(NAME, &config, &corpus.items, &counts);
    model::write(&mut artifact, edges, features, one, two);
    Ok(artifact)
}

fn features(corpus: &Corpus, similarity: Similarity) -> Result<Features> {
    match similarity {
        Similarity::Attributes => Features::attributes(corpus),
        Similarity::Vector => Features::vectors(corpus),
        Similarity::None => Ok(Features::None),
        Similarity::Auto if !corpus.attributes.is_empty() => Features::attributes(corpus),
        Similarity::Auto if !corpus.vectors.is_empty() => Features::vectors(corpus),
        Similarity::Auto => Ok(Features::None),
    }
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Graph::open(&artifact)?))
}

#[cfg(test)]
mod tests;
