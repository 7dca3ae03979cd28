//! Serving: the vector that fits a history, and the items of the largest products with it.

use pgrec_kernels::{Scored, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::folding::{Others, fold};
use super::{NAME, Negatives, Params};
use crate::families::moments::moments;
use crate::families::sequential::{check_known, check_width};
use crate::families::table::{Asked, Table, most_alike};
use crate::families::{Geometry, Model};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, ItemIds, Query, Result};

/// `[items, dim + 1]`, the bias last.
const ITEMS: &str = "items";
/// Mean and covariance of the rows from which others are drawn.
const MEAN: &str = "mean";
const COVARIANCE: &str = "covariance";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    dim: usize,
    window: usize,
    l2: f64,
}

/// The model with these rows, as it is stored.
pub(super) fn artifact(params: &Params, rows: &[f32], ids: &ItemIds, counts: &[f32]) -> Result<ArtifactBuilder> {
    let &Params { dim, window, l2, .. } = params;
    let width = dim + 1;
    let config = serde_json::to_value(Config { dim, window, l2 }).map_err(|e| Error::Malformed(e.to_string()))?;
    let uniform = || vec![1.0; counts.len()];
    let drawn = if params.negatives == Negatives::Uniform { uniform() } else { counts.to_vec() };
    let (mean, covariance) = moments(rows, width, &drawn)?;
    let mut artifact = ArtifactBuilder::new(NAME, &config, ids, counts);
    artifact.f32(ITEMS, &[ids.len(), width], rows.to_vec()).f32(MEAN, &[width], mean).f32(
        COVARIANCE,
        &[width, width],
        covariance,
    );
    Ok(artifact)
}

/// An open model.
pub(super) struct Bpr {
    config: Config,
    catalogue: Catalogue,
    items: Table,
    mean: Tensor,
    covariance: Tensor,
}

impl Bpr {
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        let catalogue = artifact.catalogue().clone();
        let width = config.dim.checked_add(1).filter(|_| config.dim > 0 && config.window > 0 && config.l2 > 0.0);
        let width = width.ok_or_else(|| Error::Malformed(format!("{NAME}: there are no vectors of 0 numbers")))?;
        Ok(Self {
            items: Table::new(artifact.tensor_of(ITEMS, &[catalogue.len(), width])?),
            mean: artifact.tensor_of(MEAN, &[width])?,
            covariance: artifact.tensor_of(COVARIANCE, &[width, width])?,
            catalogue,
            config,
        })
    }

    fn events<'a>(&self, history: &'a [u32]) -> Result<&'a [u32]> {
        let events = &history[history.len().saturating_sub(self.config.window)..];
        check_known(self.catalogue.len(), events)?;
        match events.is_empty() {
            true => Err(Error::Data("the history holds no item that the model knows".into())),
            false => Ok(events),
        }
    }

    fn user(&self, history: &[u32]) -> Result<Vec<f32>> {
        let rows = self.events(history)?.iter().map(|&item| self.items.row(item));
        let Self { config, mean, covariance, .. } = self;
        let others = Others { dim: config.dim, mean: mean.as_slice(), covariance: covariance.as_slice() };
        Ok(fold(&others, rows, config.l2))
    }

    /// What ranks items by p·q + b.
    fn liking(user: Vec<f32>) -> Asked {
        Asked { vector: user.into_iter().chain([1.0]).collect(), plus: 0.0 }
    }

    fn vector(&self, item: u32) -> &[f32] {
        &self.items.row(item)[..self.config.dim]
    }

    fn cosine(&self, a: u32, b: u32) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let (a, b) = (self.vector(a), self.vector(b));
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
    }
}

impl Model for Bpr {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.config.window
    }

    fn item_vector(&self, item: u32) -> Option<&[f32]> {
        ((item as usize) < self.catalogue.len()).then(|| self.items.row(item))
    }

    fn geometry(&self) -> Option<Geometry> {
        Some(Geometry::Product)
    }

    fn recommend_by(&self, vector: &[f32], query: &Query<'_>) -> Result<Option<Vec<Scored>>> {
        check_width(vector, self.config.dim + 1)?;
        self.items.best(Asked { vector: vector.to_vec(), plus: 0.0 }, query).map(Some)
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.items.recommend(queries, control, |query| Ok(Self::liking(self.user(query.history)?)))
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        self.items.score(Self::liking(self.user(query.history)?), items)
    }

    /// What whoever has touched this item alone would be recommended.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        self.items.similar(item, Self::liking(self.user(&[item])?), query)
    }

    /// The user's vector, and 1: that of an item ends with its bias.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        Ok(Self::liking(self.user(query.history)?).vector)
    }

    /// What score and bias are, and the events whose vectors are most like the item's.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        check_known(self.catalogue.len(), &[item])?;
        let events = self.events(query.history)?;
        let score = self.score(query, &[item])?[0];
        let alike = most_alike(events, |event| self.cosine(event, item));
        let bias = self.items.row(item)[self.config.dim];
        Ok(json!({ "score": score, "bias": bias, "events_used": events.len(), "alike": alike }))
    }
}
