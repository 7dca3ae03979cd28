//! Serving: candidates in, probabilities out.

use std::sync::Arc;

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::cuda::Cuda;
use pgrec_kernels::{Device, Rows, Scored, Sequences, Tensor};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::config::{Config, Weights};
use crate::families::Model;
use crate::families::hstu::Beyond;
use crate::families::sequential::{
    self, Architecture, ITEMS, Kept, Remembered, allowed, best, check_known, most_similar,
};
use crate::{Artifact, Catalogue, Control, Error, Query, Result, Task};

/// Candidates of a microbatch: enough that laying out the keys of a history for them costs little, few enough for a
/// core's caches.
pub(super) const MICROBATCH: usize = 512;

/// An open model.
pub(super) struct Ranker {
    artifact: Arc<Artifact>,
    config: Config,
    weights: Weights<Tensor>,
    /// Rows of items, then of outcomes.
    rows: Tensor,
    device: Cpu,
    remembered: Remembered<Matrix>,
}

/// A history as the network sees it.
struct Rowed {
    /// Items and outcomes in turns, as rows of the table.
    rows: Vec<u32>,
    times: Vec<f64>,
}

impl Rowed {
    /// The question about it: a candidate comes after all events.
    fn query<'a>(&'a self, asked: &Query<'_>) -> Query<'a> {
        let at = self.times.iter().copied().fold(asked.at, f64::max);
        Query { history: &self.rows, times: &self.times, at, remember: asked.remember, ..Query::default() }
    }
}

impl Ranker {
    pub(super) fn open(artifact: Arc<Artifact>) -> Result<Self> {
        let (config, weights) = sequential::open::<Config>(&artifact)?;
        let (rows, remembered) = (artifact.tensor(ITEMS)?, Remembered::new());
        Ok(Self { artifact, config, weights, rows, device: Cpu::new(), remembered })
    }

    fn items(&self) -> usize {
        self.artifact.catalogue().len()
    }

    fn known(&self, items: &[u32]) -> Result<()> {
        check_known(self.items(), items)
    }

    /// The latest events of a history, in rows.
    fn rowed(&self, query: &Query<'_>) -> Result<Rowed> {
        let missing =
            |what: &str| Error::Data(format!("the model looks at {what} of events, and the history has none"));
        let first = query.history.len().saturating_sub(self.config.window());
        let history = &query.history[first..];
        if history.is_empty() {
            return Err(Error::Data("the history holds no item that the model knows".into()));
        }
        self.known(history)?;
        let outcomes = query.outcomes.get(first..).filter(|outcomes| outcomes.len() == history.len());
        let outcomes = outcomes.ok_or_else(|| missing("the outcomes"))?;
        if let Some(outcome) = outcomes.iter().find(|&&outcome| outcome as usize >= self.config.outcomes()) {
            return Err(Error::Parameter(format!("outcome {outcome} is not one of {}", self.config.outcomes())));
        }
        let none = self.items() as u32;
        let rows = history.iter().zip(outcomes).flat_map(|(&item, &outcome)| [item, none + outcome]).collect();
        if !self.config.timed() {
            return Ok(Rowed { rows, times: Vec::new() });
        }
        let times = query.times.get(first..).filter(|times| times.len() == history.len());
        let times = times.ok_or_else(|| missing("the times"))?;
        Ok(Rowed { rows, times: times.iter().flat_map(|&time| [time; 2]).collect() })
    }

    /// Logits `[candidates, tasks]`.
    fn logits(&self, query: &Query<'_>, candidates: &[u32], control: &Control) -> Result<Vec<f32>> {
        let rowed = self.rowed(query)?;
        let query = rowed.query(query);
        if Remembered::<Matrix>::suits(&self.config.body, &query) {
            self.logits_on(&self.device, &self.remembered, &query, candidates, control)
        } else {
            self.logits_on(&self.device, &Remembered::new(), &query, candidates, control)
        }
    }

    /// The same of a history in rows.
    fn logits_on<D: Device>(
        &self,
        device: &D,
        remembered: &Remembered<D::Matrix>,
        query: &Query<'_>,
        candidates: &[u32],
        control: &Control,
    ) -> Result<Vec<f32>> {
        self.known(candidates)?;
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        remembered.compute(&self.config.body, device, query, |kept, new| {
            self.weights.body.states(&self.config.body, device, kept, new, Rows::Last);
            let after = self.config.position_rows(query.history.len() + 1).end - 1;
            let mut logits = Vec::with_capacity(candidates.len() * self.config.tasks.len());
            for candidates in candidates.chunks(MICROBATCH) {
                control.check()?;
                logits.extend(self.of_candidates(kept, candidates, after)?);
            }
            Ok(logits)
        })
    }

    /// Logits of a microbatch after a history that is kept, at row `after` of the positions.
    fn of_candidates<D: Device>(&self, kept: &Kept<'_, D>, candidates: &[u32], after: u32) -> Result<Vec<f32>> {
        let (config, device) = (&self.config, kept.device);
        let positions = vec![after; candidates.len()];
        let offsets: Vec<usize> = (0..=candidates.len()).collect();
        let batch = Sequences { items: candidates, positions: &positions, offsets: &offsets, ..Sequences::default() };
        let states = self.weights.body.states(&config.body, device, &mut Beyond(kept), &batch, Rows::All);
        Ok(device.download(&self.weights.logits(config, device, &states))?.into_owned())
    }

    /// What probabilities of one item make of its score.
    fn value(&self, probabilities: &[f32]) -> f32 {
        self.config.tasks.iter().zip(probabilities).map(|(task, p)| task.value * p).sum()
    }

    fn probabilities(&self, query: &Query<'_>, items: &[u32], control: &Control) -> Result<Vec<f32>> {
        Ok(probabilities(self.logits(query, items, control)?))
    }

    /// The best of the items that a query's filter lets pass, by their logits.
    fn ranked(&self, query: &Query<'_>, logits: impl FnOnce(&[u32]) -> Result<Vec<f32>>) -> Result<Vec<Scored>> {
        if query.k == 0 || query.history.is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<u32> = allowed(self.items(), query).collect();
        let probabilities = probabilities(logits(&items)?);
        let of_items = items.iter().zip(probabilities.chunks(self.config.tasks.len()));
        Ok(best(of_items.map(|(&item, p)| Scored { item, score: self.value(p) }).collect(), query.k))
    }
}

/// σ of logits.
fn probabilities(logits: Vec<f32>) -> Vec<f32> {
    logits.into_iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
}

impl Model for Ranker {
    fn catalogue(&self) -> &Catalogue {
        self.artifact.catalogue()
    }

    fn window(&self) -> usize {
        self.config.window()
    }

    fn timed(&self) -> bool {
        self.config.timed()
    }

    fn tasks(&self) -> &[Task] {
        &self.config.tasks
    }

    fn probabilities(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        self.probabilities(query, items, &Control::default())
    }

    /// By the sum of the tasks' probabilities times their values; every item that the filter lets pass is scored.
    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let ranked = |query: &Query<'_>| self.ranked(query, |items| self.logits(query, items, control));
        match queries {
            [only] => Ok(vec![ranked(only)?]),
            _ => queries.par_iter().map(ranked).collect(),
        }
    }

    fn recommend_on(&self, device: &Cuda, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let ranked = |query: &Query<'_>| {
            self.ranked(query, |items| {
                let rowed = self.rowed(query)?;
                let query = Query { remember: 0, ..rowed.query(query) };
                self.logits_on(device, &Remembered::new(), &query, items, control)
            })
        };
        queries.iter().map(ranked).collect()
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        let probabilities = Model::probabilities(self, query, items)?;
        Ok(probabilities.chunks(self.config.tasks.len()).map(|p| self.value(p)).collect())
    }

    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        self.known(&[item])?;
        self.known(query.filter.candidates.unwrap_or(&[]))?;
        Ok(most_similar(&self.rows, self.items(), item, query))
    }

    fn encode(&self, _query: &Query<'_>) -> Result<Vec<f32>> {
        Err(Error::Unsupported { family: super::NAME.into(), what: "has no user vectors".into() })
    }

    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let probabilities = Model::probabilities(self, query, &[item])?;
        let named: Map<String, Value> =
            self.config.tasks.iter().zip(&probabilities).map(|(task, p)| (task.name.clone(), json!(p))).collect();
        Ok(json!({
            "score": self.value(&probabilities),
            "probabilities": named,
            "window": self.config.window(),
            "events_used": query.history.len().min(self.config.window()),
        }))
    }
}
