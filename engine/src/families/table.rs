//! Items as rows of a table, ranked by their product with what is asked.

use std::collections::HashMap;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Device, Filter, Scored, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::sequential::check_known;
use crate::{Control, Query, Result};

/// Queries that are answered on one thread.
const SLICE: usize = 32;

/// Events that an explanation names.
const EXPLAINED: usize = 5;

/// The events of a history (oldest first) that are most like an item, most alike first, of equal ones the latest, as an
/// explanation names them.
pub(crate) fn most_alike(events: &[u32], cosine: impl Fn(u32) -> f32) -> Vec<Value> {
    let ago = (0..events.len()).rev();
    let mut alike: Vec<(u32, usize, f32)> =
        events.iter().zip(ago).map(|(&event, ago)| (event, ago, cosine(event))).collect();
    alike.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.1.cmp(&b.1)));
    let named = alike.into_iter().take(EXPLAINED);
    named.map(|(item, ago, cosine)| json!({ "item": item, "events_ago": ago, "cosine": cosine })).collect()
}

/// What a row is multiplied with, and what is added to every product.
pub(crate) struct Asked {
    pub(crate) vector: Vec<f32>,
    pub(crate) plus: f32,
}

/// `[items, width]`
pub(crate) struct Table {
    rows: Tensor,
    device: Cpu,
}

impl Table {
    pub(crate) fn new(rows: Tensor) -> Self {
        Self { rows, device: Cpu::new() }
    }

    pub(crate) fn row(&self, item: u32) -> &[f32] {
        self.rows.row(item as usize)
    }

    fn top_k(&self, asked: &[Asked], k: &[usize], filters: &[Filter<'_>]) -> Result<Vec<Vec<Scored>>> {
        for filter in filters {
            check_known(self.rows.rows(), filter.candidates.unwrap_or(&[]))?;
        }
        let vectors: Vec<f32> = asked.iter().flat_map(|asked| &asked.vector).copied().collect();
        let k: Vec<usize> = k.iter().map(|&k| k.min(self.rows.rows())).collect();
        let mut lists = self.device.top_k(&vectors, &self.rows, &k, filters)?;
        for (list, asked) in lists.iter_mut().zip(asked) {
            list.iter_mut().for_each(|scored| scored.score += asked.plus);
        }
        Ok(lists)
    }

    /// [`super::Model::recommend`] of a model that asks this of a query with a history; others get nothing.
    pub(crate) fn recommend(
        &self,
        queries: &[Query<'_>],
        control: &Control,
        ask: impl Fn(&Query<'_>) -> Result<Asked> + Sync,
    ) -> Result<Vec<Vec<Scored>>> {
        let answer = |queries: &[Query<'_>]| -> Result<Vec<Vec<Scored>>> {
            control.check()?;
            let some: Vec<usize> =
                (0..queries.len()).filter(|&q| queries[q].k > 0 && !queries[q].history.is_empty()).collect();
            let asked = some.iter().map(|&q| ask(&queries[q])).collect::<Result<Vec<_>>>()?;
            let k: Vec<usize> = some.iter().map(|&q| queries[q].k).collect();
            let filters: Vec<Filter<'_>> = some.iter().map(|&q| queries[q].filter).collect();
            let mut lists = vec![Vec::new(); queries.len()];
            for (q, list) in some.into_iter().zip(self.top_k(&asked, &k, &filters)?) {
                lists[q] = list;
            }
            Ok(lists)
        };
        // A session's call for one user is computed on its own thread, and starts no others.
        match queries.len() > SLICE {
            true => Ok(queries.par_chunks(SLICE).map(answer).collect::<Result<Vec<_>>>()?.concat()),
            false => answer(queries),
        }
    }

    /// The best items of one query for what is asked.
    pub(crate) fn best(&self, asked: Asked, query: &Query<'_>) -> Result<Vec<Scored>> {
        Ok(self.top_k(&[asked], &[query.k], &[query.filter])?.pop().unwrap_or_default())
    }

    /// Scores of items, by the operator that ranks: a score is the same number in a list and alone.
    pub(crate) fn score(&self, asked: Asked, items: &[u32]) -> Result<Vec<f32>> {
        let mut wanted = items.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let filter = Filter { exclude: &[], candidates: Some(&wanted) };
        let scored = self.top_k(&[asked], &[wanted.len()], &[filter])?;
        let scored: HashMap<u32, f32> = scored.into_iter().flatten().map(|s| (s.item, s.score)).collect();
        Ok(items.iter().map(|item| scored.get(item).copied().unwrap_or(f32::NAN)).collect())
    }

    /// The best items for what is asked of an item's own, without that item.
    pub(crate) fn similar(&self, item: u32, asked: Asked, query: &Query<'_>) -> Result<Vec<Scored>> {
        let mut exclude = query.filter.exclude.to_vec();
        if let Err(place) = exclude.binary_search(&item) {
            exclude.insert(place, item);
        }
        self.best(asked, &Query { filter: Filter { exclude: &exclude, ..query.filter }, ..*query })
    }
}
