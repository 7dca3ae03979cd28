//! Serving: a history's vector, and the items of the largest cosines with it.

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Losses, Scored, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Features, NAME, Params};
use crate::content::{Form, Placer, Way};
use crate::families::seen::distinct;
use crate::families::sequential::{check_known, check_width};
use crate::families::table::{Asked, Table, most_alike};
use crate::families::{Geometry, Model};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, ItemContent, ItemIds, Query, Result};

/// Where content places the items: what a user begins as is their mean.
const OWN: &str = "own";
/// The sum of all layers of an item but the last, over √d: what a user gets of it is that over the root of how many there
/// are.
const PASSED: &str = "passed";
/// Items by which are ranked: the mean of their layers, of length 1. Of one that nobody has touched, whose layers but the
/// first are nothing, that is where its content places it.
const UNIT: &str = "unit";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) dim: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) window: usize,
    pub(super) features: Features,
}

/// What is stored of items, `[items, dim]` each.
pub(super) struct Places {
    /// Where content places them.
    pub(super) own: Vec<f32>,
    /// The sum of all layers but the last, over √d.
    pub(super) passed: Vec<f32>,
    /// The sum of all layers.
    pub(super) sum: Vec<f32>,
}

/// The model with these places, and the network that places what comes later and that a training may continue from.
pub(super) fn artifact(
    params: &Params,
    form: Form,
    way: &Way,
    places: Places,
    ids: &ItemIds,
    counts: &[f32],
) -> Result<ArtifactBuilder> {
    let &Params { layers, window, features, .. } = params;
    let Form { dim, hidden, .. } = form;
    let config = Config { dim, hidden, layers, window, features };
    let config = serde_json::to_value(config).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut unit = vec![0.0; places.sum.len()];
    Cpu::new().unit_rows(&places.sum, dim, &mut unit);
    let (mut artifact, shape) = (ArtifactBuilder::new(NAME, &config, ids, counts), [ids.len(), dim]);
    artifact.f32(OWN, &shape, places.own).f32(PASSED, &shape, places.passed).f32(UNIT, &shape, unit);
    way.store(&mut artifact);
    Ok(artifact)
}

/// An open model.
pub(super) struct Spread {
    config: Config,
    catalogue: Catalogue,
    own: Tensor,
    passed: Tensor,
    unit: Table,
    placer: Option<Placer>,
}

impl Spread {
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        if config.dim == 0 || config.window == 0 {
            return Err(Error::Malformed(format!("{NAME}: there are no places of 0 numbers")));
        }
        let catalogue = artifact.catalogue().clone();
        let shape = [catalogue.len(), config.dim];
        Ok(Self {
            own: artifact.tensor_of(OWN, &shape)?,
            passed: artifact.tensor_of(PASSED, &shape)?,
            unit: Table::new(artifact.tensor_of(UNIT, &shape)?),
            placer: Placer::open(artifact, config.dim)?,
            catalogue,
            config,
        })
    }

    /// The events that count.
    fn events<'a>(&self, history: &'a [u32]) -> Result<&'a [u32]> {
        let events = &history[history.len().saturating_sub(self.config.window)..];
        check_known(self.catalogue.len(), events)?;
        Ok(events)
    }

    /// Whether anything is known of an item of a history.
    fn is_told(&self, history: &[u32]) -> Result<bool> {
        let known = |tensor: &Tensor, item: u32| tensor.row(item as usize).iter().any(|&x| x != 0.0);
        Ok(self.events(history)?.iter().any(|&item| known(&self.own, item) || known(&self.passed, item)))
    }

    /// The user's vector, of length 1: Σ own/d + Σ passed/√d over the d distinct items of a history, which is the sum of
    /// the layers of a user that was attached to the graph.
    fn user(&self, history: &[u32]) -> Result<Vec<f32>> {
        if !self.is_told(history)? {
            return Err(Error::Data("the history holds no item that the model knows".into()));
        }
        let items = distinct(history, self.config.window);
        let (cpu, share) = (Cpu::new(), 1.0 / items.len() as f32);
        let mut sum = vec![0.0; self.config.dim];
        for item in items {
            cpu.add_scaled(&mut sum, share, self.own.row(item as usize));
            cpu.add_scaled(&mut sum, share.sqrt(), self.passed.row(item as usize));
        }
        Ok(self.unit_of(&sum))
    }

    fn alike(vector: Vec<f32>) -> Asked {
        Asked { vector, plus: 0.0 }
    }

    /// A vector at length 1.
    fn unit_of(&self, vector: &[f32]) -> Vec<f32> {
        let mut unit = vec![0.0; vector.len()];
        Cpu::new().unit_rows(vector, vector.len(), &mut unit);
        unit
    }

    fn cosine(&self, a: u32, b: u32) -> f32 {
        self.unit.row(a).iter().zip(self.unit.row(b)).map(|(a, b)| a * b).sum()
    }
}

impl Model for Spread {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.config.window
    }

    fn item_vector(&self, item: u32) -> Option<&[f32]> {
        ((item as usize) < self.catalogue.len()).then(|| self.unit.row(item))
    }

    fn geometry(&self) -> Option<Geometry> {
        Some(Geometry::Product)
    }

    fn place(&self, item: &ItemContent<'_>) -> Result<Option<Vec<f32>>> {
        let Some(placer) = &self.placer else { return Ok(None) };
        Ok(placer.place(item)?.map(|place| self.unit_of(&place)))
    }

    fn places(&self) -> bool {
        self.placer.is_some()
    }

    fn recommend_by(&self, vector: &[f32], query: &Query<'_>) -> Result<Option<Vec<Scored>>> {
        check_width(vector, self.config.dim)?;
        self.unit.best(Self::alike(vector.to_vec()), query).map(Some)
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        // Whoever has only touched what nothing is known of is not told anything.
        let mut queries = queries.to_vec();
        for query in &mut queries {
            query.k = if self.is_told(query.history)? { query.k } else { 0 };
        }
        self.unit.recommend(&queries, control, |query| Ok(Self::alike(self.user(query.history)?)))
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        self.unit.score(Self::alike(self.user(query.history)?), items)
    }

    /// The items of the largest cosines with it; none where nothing is known of it.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        check_known(self.catalogue.len(), &[item])?;
        let vector = self.unit.row(item).to_vec();
        match vector.iter().all(|&x| x == 0.0) {
            true => Ok(Vec::new()),
            false => self.unit.similar(item, Self::alike(vector), query),
        }
    }

    /// The user's vector, of length 1.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        self.user(query.history)
    }

    /// The cosine, and the events most like the item with theirs.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        check_known(self.catalogue.len(), &[item])?;
        let score = self.score(query, &[item])?[0];
        let events = self.events(query.history)?;
        let alike = most_alike(events, |event| self.cosine(event, item));
        Ok(json!({ "score": score, "events_used": events.len(), "alike": alike }))
    }
}
