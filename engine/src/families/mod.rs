//! The registry of families: one file a family, one line here.

use std::sync::Arc;

use pgrec_kernels::Scored;
use serde_json::Value;

use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Corpus, Query, Result};

pub mod graph;
pub(crate) mod params;
pub mod popularity;
pub mod sasrec;

/// One trained instance of a family, open for serving. Cheap to share between threads.
pub trait Model: Send + Sync {
    /// The items the model knows and how often each was touched in training.
    fn catalogue(&self) -> &Catalogue;

    /// How many of the latest events of a history can change the answer; 0 when none can.
    fn window(&self) -> usize;

    /// For each query its `k` best items, best first, scores not increasing, ties by ascending index.
    /// A list may be shorter than `k` only when the filter leaves fewer items. A history that tells the
    /// model nothing gets an empty list: the caller falls back ([`crate::serve`] is not the family's matter).
    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>>;

    /// The scores behind [`Model::recommend`] for given items, in their order.
    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>>;

    /// Items most like `item`, best first, without itself. `query` gives k and filter; its history is ignored.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>>;

    /// The user's vector, for families that have one: `score = vector · item vector`.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>>;

    /// Why `item` gets its score: what the family can honestly say, as JSON. Items appear as dense indices
    /// under keys named `item` or `items`; the caller translates them.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value>;
}

/// A family: how to fit it and how to open what was fitted.
pub struct Family {
    /// Its name in SQL.
    pub name: &'static str,
    /// One sentence for `rec_families()`.
    pub summary: &'static str,
    /// Fits in the calling process; `None` for families whose weights are imported.
    pub fit: Option<Fit>,
    /// Opens an artifact of this family.
    pub open: fn(Arc<Artifact>) -> Result<Box<dyn Model>>,
}

/// Fits a model on a corpus. `params` is a JSON object; unknown keys are an error that lists the known ones.
pub type Fit = fn(&Corpus, params: &Value, &Control) -> Result<ArtifactBuilder>;

/// All families, in the order in which they are shown.
pub static FAMILIES: &[Family] = &[popularity::FAMILY, graph::FAMILY, sasrec::FAMILY];

/// Looks a family up by name.
pub fn find(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.name == name)
}

/// Opens an artifact with the family its header names.
pub fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    let family = find(&artifact.header().family)
        .ok_or_else(|| crate::Error::Malformed(format!("unknown family \"{}\"", artifact.header().family)))?;
    (family.open)(artifact)
}
