//! TGH, the training-free graph heuristic (2026), in its two forms TGH-1 and TGH-2.
//!
//! Edges a→b are counted over consecutive events; ring h of an item are the items at exactly h hops. A list is
//! filled from rings 1 and 2 of the last item (TGH-2: also of the one before it) with fixed budgets, and then
//! from popularity. Which other items look like an item is known from its attributes (TF-IDF) or its vector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Base, Family, Fitted, Model, Needs, Training, params};
use crate::content::features::Features;
use crate::evaluate::{Spec, evaluate};
use crate::{Artifact, ArtifactBuilder, Control, Corpus, Error, Result};

pub(crate) mod edges;
mod model;
mod rings;
mod stages;

use edges::Edges;
pub(crate) use rings::best;
use stages::Variant;

const NAME: &str = "graph";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "what followed the last items, and what followed that, ordered by likeness: no training, hard to beat",
    needs: |_| Needs { attributes: true, vectors: true, ..Needs::NOTHING },
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// Parameters of the family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// `tgh1` looks at the last item, `tgh2` at the last two.
    variant: Variant,
    /// What an item's likeness is computed from; `auto`: whichever of those there are, or none, finds the last
    /// events of a sample of the users best.
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
fn fit(training: &Training<'_>) -> Result<Fitted> {
    let control = training.control;
    let corpus = &training.corpus.without_last(training.leave_last);
    let params: Params = params::read(NAME, training.params)?;
    let budgets = params.budgets.unwrap_or_else(|| params.variant.default_budgets());
    let wanted = params.variant.default_budgets().len();
    if budgets.len() != wanted || budgets.iter().all(|&b| b == 0) {
        let why = format!("budgets of this variant are {wanted} whole numbers, not all of them 0");
        return Err(Error::Parameter(why));
    }
    if !(1..=1000).contains(&params.keep) {
        return Err(Error::Parameter("keep is a number of items from 1 to 1000".into()));
    }
    if corpus.interactions() == 0 {
        return Err(Error::Data("there are no interactions to build a graph from".into()));
    }
    let plan = Plan { variant: params.variant, budgets, keep: params.keep };
    let similarity = match params.similarity {
        Similarity::Auto => best_similarity(corpus, &plan, control)?,
        given => given,
    };
    Ok(plan.build(corpus, similarity, &|_| true, control)?.into())
}

/// What is built, but for the likeness.
struct Plan {
    variant: Variant,
    budgets: Vec<u32>,
    keep: usize,
}

impl Plan {
    fn build(
        &self,
        corpus: &Corpus,
        similarity: Similarity,
        anchors: &(dyn Fn(u32) -> bool + Sync),
        control: &Control,
    ) -> Result<ArtifactBuilder> {
        let features = features(corpus, similarity)?;
        let edges = Edges::count(corpus, control)?;
        let (one, two) = rings::build(edges.view(), features.view(), self.keep, anchors, control)?;
        let config = json!(Config {
            variant: self.variant,
            similarity: model::kind(&features).into(),
            budgets: self.budgets.clone(),
            keep: self.keep,
            edges: edges.items.len(),
        });
        let counts: Vec<f32> = corpus.counts().into_iter().map(|count| count as f32).collect();
        let mut artifact = ArtifactBuilder::new(NAME, &config, corpus.items(), &counts);
        model::write(&mut artifact, edges, features, one, two);
        Ok(artifact)
    }
}

/// Users on whose last event the kinds of likeness are compared.
const JUDGES: usize = 2_000;

/// Attributes that say little order the rings worse than the edges' own weights do (ml-1m: NDCG@10 .075 by genres,
/// .118 by none), and nothing about the attributes tells so beforehand. So each kind is tried on what is known: the
/// last event of a sample of users, from a graph without it. Only the rings that these users need are built.
fn best_similarity(corpus: &Corpus, plan: &Plan, control: &Control) -> Result<Similarity> {
    let choices: Vec<Similarity> = [
        (!corpus.attributes().is_empty()).then_some(Similarity::Attributes),
        (!corpus.vectors().is_empty()).then_some(Similarity::Vector),
        Some(Similarity::None),
    ]
    .into_iter()
    .flatten()
    .collect();
    let judges = corpus.sample(JUDGES);
    if choices.len() == 1 || !(0..judges.users()).any(|user| judges.history(user).len() > 1) {
        return Ok(choices[0]);
    }
    let past = corpus.without_last(1);
    let known = judges.without_last(1);
    let mut needed = vec![false; corpus.items().len()];
    for user in 0..known.users() {
        known.history(user).iter().rev().take(2).for_each(|&item| needed[item as usize] = true);
    }
    let mut best = (choices[0], f64::NEG_INFINITY);
    for similarity in choices {
        let bytes = plan.build(&past, similarity, &|item| needed[item as usize], control)?.finish()?;
        let model = model::Graph::open(&Artifact::from_vec(bytes)?)?;
        let ndcg = evaluate(&model, &judges, &Spec::default(), control)?.value("ndcg", 10).unwrap_or(0.0);
        if ndcg > best.1 {
            best = (similarity, ndcg);
        }
    }
    Ok(best.0)
}

fn features(corpus: &Corpus, similarity: Similarity) -> Result<Features> {
    match similarity {
        Similarity::Attributes => Features::attributes(corpus),
        Similarity::Vector => Features::vectors(corpus),
        Similarity::None | Similarity::Auto => Ok(Features::None),
    }
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Graph::open(&artifact)?))
}

#[cfg(test)]
mod tests;
