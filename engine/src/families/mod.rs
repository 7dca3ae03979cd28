//! The registry of families: one file a family, one line here.

use std::sync::Arc;

use pgrec_kernels::Scored;
use pgrec_kernels::cuda::Cuda;
use serde_json::{Map, Value};

use crate::calibration::Logistic;
use crate::train::Kept;
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Corpus, Error, ItemContent, Query, Result, Task};

pub mod blend;
pub mod bpr;
pub mod cml;
pub mod content;
pub mod dual_intent;
pub(crate) mod epochs;
pub mod generative;
pub mod graph;
pub mod hstu;
pub mod hstu_rank;
pub mod keywords;
pub(crate) mod moments;
pub(crate) mod neighbours;
pub(crate) mod params;
pub mod popularity;
pub mod retriever;
pub mod sasrec;
pub(crate) mod seen;
pub mod semantic_ids;
pub(crate) mod sequential;
pub(crate) mod table;

use generative::Generated;
use semantic_ids::SemanticIds;

/// One trained instance of a family, open for serving. Cheap to share between threads.
pub trait Model: Send + Sync {
    /// The items the model knows and how often each was touched in training.
    fn catalogue(&self) -> &Catalogue;

    /// How many of the latest events of a history can change the answer; 0 when none can.
    fn window(&self) -> usize;

    /// Whether the times of the events and of the question can change the answer.
    fn timed(&self) -> bool {
        false
    }

    /// What it predicts of an event, where it is a ranking model; then queries need outcomes, and scores are made of the
    /// tasks' probabilities.
    fn tasks(&self) -> &[Task] {
        &[]
    }

    /// For given items the probability that the answer to each task is yes, `[items, tasks]`, of a ranking model.
    fn probabilities(&self, _query: &Query<'_>, _items: &[u32]) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    /// For each query its `k` best items, best first, scores not increasing, ties by ascending index.
    /// A list may be shorter than `k` only when the filter leaves fewer items. A history that tells the
    /// model nothing gets an empty list: the caller falls back ([`crate::serve`] is not the family's matter).
    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>>;

    /// The same computed on a CUDA device, by families that have something to compute there.
    fn recommend_on(&self, _device: &Cuda, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.recommend(queries, control)
    }

    /// The scores behind [`Model::recommend`] for given items, in their order.
    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>>;

    /// Items most like `item`, best first, without itself. `query` gives k and filter; its history is ignored.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>>;

    /// The user's vector, for families that have one: `score = vector · item vector`.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>>;

    /// The vector that the model has of an item, where it has one.
    fn item_vector(&self, _item: u32) -> Option<&[f32]> {
        None
    }

    /// How a user's vector and an item's make a score, where they alone do.
    fn geometry(&self) -> Option<Geometry> {
        None
    }

    /// The vector that content gives an item that came after the training; None where nothing is known of it that the
    /// model has learnt to look at, or the model looks at none.
    ///
    /// # Errors
    /// [`crate::Error::Data`] of a vector of other dimensions than those of the training.
    fn place(&self, _item: &ItemContent<'_>) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }

    /// Whether [`Model::place`] can place items.
    fn places(&self) -> bool {
        false
    }

    /// [`Model::recommend`] of one query, by a vector in the place of its history's; None of a model without geometry.
    fn recommend_by(&self, _vector: &[f32], _query: &Query<'_>) -> Result<Option<Vec<Scored>>> {
        Ok(None)
    }

    /// What turns the distance of a user and an item into the probability that the user's next interaction is with it, where
    /// that was measured; `placed`: of an item that only its content places.
    fn calibration(&self, _placed: bool) -> Option<Logistic> {
        None
    }

    /// Whether a question may say in words what is wanted ([`Query::words`]).
    fn knows_words(&self) -> bool {
        false
    }

    /// The number of a word; None of one that the model does not know.
    fn word(&self, _word: &str) -> Option<u32> {
        None
    }

    /// The word of a number, of a model that answers search queries.
    fn word_text(&self, _word: u32) -> Option<String> {
        None
    }

    /// The known word that a word which is not known was most likely meant to be; None where none is near.
    fn nearest_word(&self, _word: &str) -> Option<u32> {
        None
    }

    /// Whether [`Query::words`] is a search query for it, by which it recommends and scores.
    fn answers_queries(&self) -> bool {
        false
    }

    /// How much it counts beside text and vectors, each of which counts 1, where somebody searches.
    fn search_weight(&self) -> f64 {
        1.0
    }

    /// How many of the latest searches of a user can change the answer ([`Query::searches`]); 0 when none can.
    fn searches(&self) -> usize {
        0
    }

    /// The words nearest to what the user would want of `item` now, and how near they are, from 0 to 1, nearest first; at
    /// most `query.k`, and none for somebody of whom nothing is known. None of a model that knows nothing of that.
    fn demand(&self, _query: &Query<'_>, _item: u32) -> Result<Option<Vec<(u32, f32)>>> {
        Ok(None)
    }

    /// A query's vector among those of the items, of a model that has learnt from searches which are near; None of others.
    ///
    /// # Errors
    /// [`crate::Error::Parameter`] of a vector of other dimensions than those of the training.
    fn project(&self, _vector: &[f32]) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }

    /// How wide the model's own beam search is; None of a model that does not generate.
    fn beam(&self) -> Option<usize> {
        None
    }

    /// The `k` best items for a query by a beam search of this width, or of the model's own where none is given; None of
    /// a model that does not generate.
    fn generate(&self, _query: &Query<'_>, _beam: Option<usize>, _control: &Control) -> Result<Option<Vec<Generated>>> {
        Ok(None)
    }

    /// The semantic IDs that it has given its items, where it has.
    fn semantic_ids(&self) -> Option<&SemanticIds> {
        None
    }

    /// Why `item` gets its score: what the family can honestly say, as JSON. Items appear as dense indices
    /// under keys named `item` or `items`; the caller translates them.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value>;
}

/// How two vectors make a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// −‖u − v‖²
    Distance,
    /// u·v
    Product,
}

impl Geometry {
    /// The score of an item with vector `item` for a user with vector `user`.
    pub fn score(self, user: &[f32], item: &[f32]) -> f32 {
        let pairs = user.iter().zip(item);
        match self {
            Self::Distance => -pairs.map(|(u, v)| (u - v) * (u - v)).sum::<f32>(),
            Self::Product => pairs.map(|(u, v)| u * v).sum(),
        }
    }

    /// A user's vector, a share `weight` of the way to what is meant (`[dim]`): where scores are products, what is meant is
    /// as long as the user's vector first, so that the weight says all of how much it counts.
    pub fn steered(self, user: &[f32], meant: &[f32], weight: f32) -> Vec<f32> {
        let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let by = match self {
            Self::Product if length(meant) > 0.0 => length(user) / length(meant),
            Self::Distance | Self::Product => 1.0,
        };
        user.iter().zip(meant).map(|(u, m)| (1.0 - weight) * u + weight * by * m).collect()
    }
}

/// A family: how to fit it and how to open what was fitted.
pub struct Family {
    /// Its name in SQL.
    pub name: &'static str,
    /// One sentence for `rec_families()`.
    pub summary: &'static str,
    /// What it is fitted on besides who touched what, by its parameters.
    pub needs: fn(&Value) -> Needs,
    /// Whether it builds on another model.
    pub base: Base,
    /// Whether its models rank items, so that one can be deployed.
    pub ranks: bool,
    /// Whether a training may continue a model of another catalogue: what it learns is of no item.
    pub transfers: bool,
    /// What it is to predict of events by these parameters, which its training then has to know of every event.
    pub tasks: Option<Tasks>,
    /// Fits in the calling process; `None` for families whose weights are imported.
    pub fit: Option<Fit>,
    /// Opens an artifact of this family.
    pub open: fn(Arc<Artifact>) -> Result<Box<dyn Model>>,
}

/// What of a corpus is read besides the ids. What a family does not need costs no memory and no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Times of the events.
    pub times: bool,
    /// Attributes of the items.
    pub attributes: bool,
    /// Vectors of the items.
    pub vectors: bool,
    /// Words of the items' texts.
    pub words: bool,
    /// What was looked for, in words.
    pub searches: bool,
    /// Vectors of the queries.
    pub query_vectors: bool,
}

impl Needs {
    /// Nothing but the ids.
    pub const NOTHING: Self =
        Self { times: false, attributes: false, vectors: false, words: false, searches: false, query_vectors: false };
    /// Everything there is.
    pub const ALL: Self =
        Self { times: true, attributes: true, vectors: true, words: true, searches: true, query_vectors: true };
}

/// Whether a family builds on another model, which a training names as `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// It does not.
    Nothing,
    /// Where one is named.
    Optional,
    /// Always.
    Needed,
    /// On several at once, which a training names as `models`.
    Several,
}

/// What a family is fitted on.
pub struct Training<'a> {
    /// All histories.
    pub corpus: &'a Corpus,
    /// How many of the last events of every user must not be learnt from. From 2 on, the second-last of all is
    /// what a family may validate by; below, it keeps events of some users back for that by itself.
    pub leave_last: usize,
    /// The family's own parameters, a JSON object; unknown keys are an error that lists the known ones.
    pub params: &'a Value,
    /// The same seed, data, parameters and number of threads give the same weights.
    pub seed: u64,
    /// The model to continue from, of the same family.
    pub start: Option<Arc<Artifact>>,
    /// The model to build on, where the family does: [`Family::base`].
    pub base: Option<Arc<dyn Model>>,
    /// The models that it is made of, where the family builds on several.
    pub members: &'a [Arc<Artifact>],
    /// Bytes that weights, gradients and optimiser may take, beside the corpus.
    pub memory: usize,
    /// Where a family of epochs keeps how far it is, and goes on from.
    pub kept: Option<Kept<'a>>,
    /// Cancellation and progress.
    pub control: &'a Control,
}

impl<'a> Training<'a> {
    /// On all of a corpus, from scratch, with seed 0 and without a bound on memory.
    pub fn new(corpus: &'a Corpus, params: &'a Value, control: &'a Control) -> Self {
        Self {
            corpus,
            leave_last: 0,
            params,
            seed: 0,
            start: None,
            base: None,
            members: &[],
            memory: usize::MAX,
            kept: None,
            control,
        }
    }

    /// Refuses what needs more memory than is allowed. `of` names what needs so many bytes, `less` how it would be fewer.
    pub(crate) fn require_memory(&self, needed: usize, of: &str, less: &str) -> Result<()> {
        if needed <= self.memory {
            return Ok(());
        }
        let mb = |bytes: usize| bytes.div_ceil(1 << 20);
        let (needed, bound) = (mb(needed), mb(self.memory));
        Err(Error::Memory(format!("out of training memory: {needed} MB for {of}, the bound is {bound} MB; {less}")))
    }
}

/// What fitting gives.
pub struct Fitted {
    /// The model.
    pub artifact: ArtifactBuilder,
    /// One object an epoch: `epoch`, `loss`, `seconds`, and the validation metric under its name. Empty for
    /// families without epochs.
    pub curve: Vec<Value>,
    /// What was measured of the model, by name.
    pub metrics: Map<String, Value>,
}

impl From<ArtifactBuilder> for Fitted {
    fn from(artifact: ArtifactBuilder) -> Self {
        Self { artifact, curve: Vec::new(), metrics: Map::new() }
    }
}

/// Reads what a family is to predict from its parameters; nothing where the caller is to choose.
pub type Tasks = fn(&Value) -> Result<Vec<Task>>;

/// Fits a model.
pub type Fit = fn(&Training<'_>) -> Result<Fitted>;

/// All families, in the order in which they are shown.
pub static FAMILIES: &[Family] = &[
    popularity::FAMILY,
    graph::FAMILY,
    sasrec::FAMILY,
    hstu::FAMILY,
    hstu_rank::FAMILY,
    bpr::FAMILY,
    cml::FAMILY,
    content::FAMILY,
    dual_intent::FAMILY,
    keywords::FAMILY,
    semantic_ids::FAMILY,
    retriever::FAMILY,
    generative::FAMILY,
    blend::FAMILY,
];

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

#[cfg(test)]
mod geometry_tests;
