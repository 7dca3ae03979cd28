//! One of the models, asked in the items of all of them.

use std::borrow::Cow;
use std::sync::Arc;

use pgrec_kernels::cuda::Cuda;
use pgrec_kernels::{Filter, Scored};
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::NAME;
use crate::families::{self, Model};
use crate::{Artifact, Catalogue, Control, Error, Query, Result};

/// A model with the catalogue of the blend.
pub(super) struct Member {
    pub(super) family: String,
    pub(super) model: Box<dyn Model>,
    all: Catalogue,
    /// Whether its items are those of the blend.
    same: bool,
}

/// A query in the items of one model.
struct Own<'a> {
    history: Cow<'a, [u32]>,
    times: Cow<'a, [f64]>,
    exclude: Cow<'a, [u32]>,
    candidates: Option<Cow<'a, [u32]>>,
}

impl Member {
    /// Opens a model that ranks and is no blend itself.
    pub(super) fn open(artifact: &Arc<Artifact>, all: &Catalogue) -> Result<Self> {
        let family = artifact.header().family.clone();
        let ranks = families::find(&family).is_some_and(|family| family.ranks && family.name != NAME);
        let model = if ranks { Some(families::open(Arc::clone(artifact))?) } else { None };
        let Some(model) = model.filter(|model| model.tasks().is_empty()) else {
            return Err(Error::Parameter(format!(
                "a model of family \"{family}\" does not say what comes next by itself: it cannot be blended"
            )));
        };
        let own = model.catalogue();
        let same = own.has_items_of(all);
        if !same && (0..own.len() as u32).any(|item| all.index_of(&own.id(item)).is_none()) {
            return Err(Error::Malformed(format!("{NAME}: a model has an item that the blend has not")));
        }
        Ok(Self { family, model, all: all.clone(), same })
    }

    /// The model's number of an item.
    pub(super) fn own(&self, item: u32) -> Option<u32> {
        if self.same { Some(item) } else { self.model.catalogue().index_of(&self.all.id(item)) }
    }

    fn common(&self, item: u32) -> u32 {
        // The blend has every item of its models, or it would not have opened.
        if self.same { item } else { self.all.index_of(&self.model.catalogue().id(item)).unwrap_or_default() }
    }

    /// Items as the model numbers them, without those that it does not know; ids ascend in both catalogues, and so do these.
    fn known<'a>(&self, items: &'a [u32]) -> Cow<'a, [u32]> {
        if self.same { items.into() } else { items.iter().filter_map(|&item| self.own(item)).collect() }
    }

    fn translate<'a>(&self, query: &Query<'a>) -> Own<'a> {
        let times = match self.same || query.times.is_empty() {
            true => query.times.into(),
            false => {
                let known = query.history.iter().zip(query.times).filter(|(item, _)| self.own(**item).is_some());
                known.map(|(_, time)| *time).collect()
            }
        };
        Own {
            history: self.known(query.history),
            times,
            exclude: self.known(query.filter.exclude),
            candidates: query.filter.candidates.map(|items| self.known(items)),
        }
    }

    fn ask<T>(&self, queries: &[Query<'_>], work: impl FnOnce(&[Query<'_>]) -> T) -> T {
        let own: Vec<Own<'_>> = queries.iter().map(|query| self.translate(query)).collect();
        let asked = queries.iter().zip(&own).map(|(query, own)| Query {
            history: &own.history,
            times: &own.times,
            outcomes: &[],
            words: &[],
            filter: Filter { exclude: &own.exclude, candidates: own.candidates.as_deref() },
            ..*query
        });
        work(&asked.collect::<Vec<_>>())
    }

    /// Whether a question in the model's own items tells it nothing.
    fn is_silent(&self, query: &Query<'_>) -> bool {
        query.history.is_empty() && self.model.window() > 0
    }

    /// As [`Model::recommend`].
    pub(super) fn recommend(
        &self,
        device: Option<&Cuda>,
        queries: &[Query<'_>],
        control: &Control,
    ) -> Result<Vec<Vec<Scored>>> {
        let mut lists = self.ask(queries, |queries| match device {
            None => self.model.recommend(queries, control),
            Some(device) => self.model.recommend_on(device, queries, control),
        })?;
        lists.iter_mut().flatten().for_each(|scored| scored.item = self.common(scored.item));
        Ok(lists)
    }

    /// What the model says of some items of each query, ascending, that it knows; of a history that tells it nothing it
    /// says nothing.
    pub(super) fn scores(
        &self,
        queries: &[Query<'_>],
        items: &[Vec<u32>],
        control: &Control,
    ) -> Result<Vec<Vec<Scored>>> {
        let scores = |(query, items): (&Query<'_>, &Vec<u32>)| {
            control.check()?;
            let own = self.known(items);
            self.ask(std::slice::from_ref(query), |queries| {
                if own.is_empty() || self.is_silent(&queries[0]) {
                    return Ok(Vec::new());
                }
                let scores = self.model.score(&queries[0], &own)?;
                Ok(own.iter().zip(scores).map(|(&item, score)| Scored { item: self.common(item), score }).collect())
            })
        };
        match queries {
            // A session's call for one user is computed on its own thread.
            [] | [_] => queries.iter().zip(items).map(scores).collect(),
            _ => queries.par_iter().zip(items).map(scores).collect(),
        }
    }

    /// As [`Model::similar`].
    pub(super) fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        let Some(own) = self.own(item) else { return Ok(Vec::new()) };
        let mut list = self.ask(std::slice::from_ref(query), |queries| self.model.similar(own, &queries[0]))?;
        list.iter_mut().for_each(|scored| scored.item = self.common(scored.item));
        Ok(list)
    }

    /// As [`Model::explain`]; null where the model knows nothing of the history or the item.
    pub(super) fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let Some(own) = self.own(item) else { return Ok(Value::Null) };
        self.ask(std::slice::from_ref(query), |queries| match self.is_silent(&queries[0]) {
            true => Ok(Value::Null),
            false => self.model.explain(&queries[0], own).map(|reasons| self.renumbered(reasons)),
        })
    }

    /// Numbers of items under the keys `item` and `items` as the blend has them.
    fn renumbered(&self, value: Value) -> Value {
        if self.same {
            return value;
        }
        let number = |value: Value| match value.as_u64().and_then(|item| u32::try_from(item).ok()) {
            Some(item) => Value::from(self.common(item)),
            None => value,
        };
        let field = |(key, value): (String, Value)| {
            let value = match (key.as_str(), value) {
                ("item", value @ Value::Number(_)) => number(value),
                ("items", Value::Array(items)) => items
                    .into_iter()
                    .map(|item| if item.is_number() { number(item) } else { self.renumbered(item) })
                    .collect(),
                (_, value) => self.renumbered(value),
            };
            (key, value)
        };
        match value {
            Value::Object(fields) => Value::Object(fields.into_iter().map(field).collect::<Map<_, _>>()),
            Value::Array(values) => values.into_iter().map(|value| self.renumbered(value)).collect(),
            other => other,
        }
    }
}
