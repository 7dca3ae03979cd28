//! Serving: a history's point, and the items that are nearest to it.

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Scored, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pooling::Pooling;
use super::space::{Space, into_ball};
use super::{NAME, Params, calibration};
use crate::calibration::Logistic;
use crate::content::Placer;
use crate::families::sequential::{check_known, check_width};
use crate::families::table::{Asked, Table};
use crate::families::{Geometry, Model};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, ItemContent, ItemIds, Query, Result};

/// Points, and their squared lengths made negative, so that what a product with (2u, 1) lacks to −d² is the same for all.
const POINTS: &str = "points";
const ATTENTION: &str = "attention";
const RECENCY: &str = "recency";

/// Events that an explanation names.
const EXPLAINED: usize = 5;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    dim: usize,
    window: usize,
}

/// The model with these points, as it is stored.
pub(super) fn artifact(params: &Params, space: &Space, ids: &ItemIds, counts: &[f32]) -> Result<ArtifactBuilder> {
    let (dim, items) = (space.dim, ids.len());
    let config =
        serde_json::to_value(Config { dim, window: params.window }).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut points = Vec::with_capacity(items * (dim + 1));
    for (point, square) in space.points.as_slice().chunks_exact(dim).zip(&space.squares) {
        points.extend_from_slice(point);
        points.push(-square);
    }
    let mut artifact = ArtifactBuilder::new(NAME, &config, ids, counts);
    artifact.f32(POINTS, &[items, dim + 1], points).f32(ATTENTION, &[items], space.attention.clone()).f32(
        RECENCY,
        &[params.window],
        space.recency.clone(),
    );
    Ok(artifact)
}

/// An open model.
pub(super) struct Cml {
    config: Config,
    catalogue: Catalogue,
    points: Table,
    attention: Tensor,
    recency: Tensor,
    placer: Option<Placer>,
    calibrations: [Option<Logistic>; 2],
}

impl Cml {
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        let catalogue = artifact.catalogue().clone();
        let width = config.dim.checked_add(1).filter(|_| config.dim > 0 && config.window > 0);
        let width = width.ok_or_else(|| Error::Malformed(format!("{NAME}: there are no points of 0 numbers")))?;
        Ok(Self {
            points: Table::new(artifact.tensor_of(POINTS, &[catalogue.len(), width])?),
            attention: artifact.tensor_of(ATTENTION, &[catalogue.len()])?,
            recency: artifact.tensor_of(RECENCY, &[config.window])?,
            placer: Placer::open(artifact, config.dim)?,
            calibrations: calibration::open(artifact)?,
            catalogue,
            config,
        })
    }

    /// Where an item is.
    pub(super) fn point(&self, item: u32) -> &[f32] {
        &self.points.row(item)[..self.config.dim]
    }

    /// The events that a user's point is made of, and the share of each.
    fn shares<'a>(&self, history: &'a [u32]) -> Result<(&'a [u32], Vec<f32>)> {
        let events = &history[history.len().saturating_sub(self.config.window)..];
        check_known(self.catalogue.len(), events)?;
        if events.is_empty() {
            return Err(Error::Data("the history holds no item that the model knows".into()));
        }
        let pooling = Pooling { attention: self.attention.as_slice(), recency: self.recency.as_slice() };
        Ok((events, pooling.shares(events)))
    }

    /// Where somebody with this history is.
    pub(super) fn user(&self, history: &[u32]) -> Result<Vec<f32>> {
        let (events, shares) = self.shares(history)?;
        let (cpu, mut user) = (Cpu::new(), vec![0.0; self.config.dim]);
        cpu.add_weighted(&mut user, events.iter().zip(&shares).map(|(&item, &share)| (share, self.point(item))));
        Ok(user)
    }

    /// What ranks items by −d² to a point: −‖u‖² + (2u, 1)·(v, −‖v‖²).
    fn nearness(point: &[f32]) -> Asked {
        let square: f32 = point.iter().map(|x| x * x).sum();
        Asked { vector: point.iter().map(|x| 2.0 * x).chain([1.0]).collect(), plus: -square }
    }

    fn distance(&self, one: &[f32], item: u32) -> f32 {
        one.iter().zip(self.point(item)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    }
}

impl Model for Cml {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.config.window
    }

    fn item_vector(&self, item: u32) -> Option<&[f32]> {
        ((item as usize) < self.catalogue.len()).then(|| self.point(item))
    }

    fn geometry(&self) -> Option<Geometry> {
        Some(Geometry::Distance)
    }

    fn place(&self, item: &ItemContent<'_>) -> Result<Option<Vec<f32>>> {
        let Some(placer) = &self.placer else { return Ok(None) };
        let mut place = placer.place(item)?;
        place.iter_mut().for_each(|place| {
            into_ball(place);
        });
        Ok(place)
    }

    fn places(&self) -> bool {
        self.placer.is_some()
    }

    fn recommend_by(&self, vector: &[f32], query: &Query<'_>) -> Result<Option<Vec<Scored>>> {
        check_width(vector, self.config.dim)?;
        self.points.best(Self::nearness(vector), query).map(Some)
    }

    fn calibration(&self, placed: bool) -> Option<Logistic> {
        self.calibrations[usize::from(placed)]
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.points.recommend(queries, control, |query| Ok(Self::nearness(&self.user(query.history)?)))
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        self.points.score(Self::nearness(&self.user(query.history)?), items)
    }

    /// The nearest other items.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        check_known(self.catalogue.len(), &[item])?;
        self.points.similar(item, Self::nearness(self.point(item)), query)
    }

    /// The user's point.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        self.user(query.history)
    }

    /// The distance, and the events nearest to the item with theirs, and their shares in the user's point.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        check_known(self.catalogue.len(), &[item])?;
        let distance = self.distance(&self.user(query.history)?, item);
        let (events, shares) = self.shares(query.history)?;
        let ago = (0..events.len()).rev();
        let mut near: Vec<(u32, usize, f32, f32)> = events
            .iter()
            .zip(shares)
            .zip(ago)
            .map(|((&event, share), ago)| (event, ago, self.distance(self.point(event), item), share))
            .collect();
        near.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.1.cmp(&b.1)));
        let near: Vec<Value> = near
            .into_iter()
            .take(EXPLAINED)
            .map(|(item, ago, distance, share)| {
                json!({ "item": item, "events_ago": ago, "distance": distance, "share": share })
            })
            .collect();
        Ok(json!({ "score": -distance * distance, "distance": distance, "events_used": events.len(), "nearest": near }))
    }
}
