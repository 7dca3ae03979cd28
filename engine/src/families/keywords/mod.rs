//! What goes with a few words: the retriever of KALM4Rec (Kieu et al. 2024), for people of whom nothing else is known.
//!
//! Keywords are the words of the texts of items, and of queries. A user has those of what they touched and looked for; how
//! much a keyword has to do with an item is its row of an adjacency, and the score of an item is the sum of its places in the
//! rows of the keywords that are given. The paper takes keywords out of reviews and weighs them by TF-IUF, term frequency ×
//! inverse user frequency, of the keywords of an item's own reviews. Without reviews an item's own words are few, so by default
//! they are spread over who touched what: from a keyword to the users who have it of other items, and on to what else they
//! touched.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::params::{self, Checks};
use super::{Base, Family, Fitted, Model, Needs, Training};
use crate::{Artifact, Result};

mod adjacency;
mod fit;
mod graph;
mod model;

const NAME: &str = "keywords";

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "what goes with a few words, by the users who have them: for people of whom nothing else is known",
    needs: |_| Needs { words: true, searches: true, ..Needs::NOTHING },
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// What a keyword has to do with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Adjacency {
    /// What users who have the keyword touched, and a share of what is direct.
    Propagated,
    /// TF-IUF: how often the item's text, and queries that led to it, have the keyword.
    Direct,
}

/// Parameters of the family. The paper has the direct adjacency.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// What a keyword has to do with an item. By all words of what users touched who are not learnt from, their next item is
    /// found with an NDCG@10 of .0435 by the propagated one, .0236 by the direct one; by three of these words, .0286 and .0088
    /// (Amazon Beauty, validation).
    adjacency: Adjacency,
    /// How much TF-IUF counts beside what is propagated: it is all that is known of items that nobody has touched.
    direct: f64,
    /// Items kept of a keyword, the strongest.
    keep: usize,
    /// Keywords kept, those that most users have.
    keywords: usize,
    /// How many of the latest events' words are keywords where none are given.
    window: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { adjacency: Adjacency::Propagated, direct: 0.05, keep: 1000, keywords: 100_000, window: 50 }
    }
}

impl Params {
    fn check(&self) -> Result<()> {
        let checks = Checks(NAME);
        checks.sizes(&[("keep", self.keep), ("keywords", self.keywords), ("window", self.window)])?;
        checks.not_negative(&[("direct", self.direct)])
    }
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    params.check()?;
    fit::fit(training, &params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Keywords::open(&artifact)?))
}

#[cfg(test)]
mod tests;
