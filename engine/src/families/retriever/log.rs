//! What searches led to: what is learnt from, and what is validated by.

use std::ops::Range;

use pgrec_kernels::Tensor;

use super::Params;
use crate::content::features::to_unit;
use crate::corpus::Search;
use crate::families::Training;
use crate::random::SplitMix;
use crate::{Corpus, Error, Result};

/// One search in so many is kept back from learning, where no event is kept back that others validate by.
const KEPT_BACK: usize = 10;

/// A search that led to an item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Example {
    pub(super) query: u32,
    /// The row of the item that was opened.
    pub(super) opened: u32,
    /// Where the rows are, in [`Log::shown`], of what was shown and not opened.
    pub(super) shown: Range<usize>,
    /// How much it counts.
    pub(super) weight: f32,
}

/// Searches with their vectors.
pub(super) struct Log {
    /// Of the queries, of length 1 or zeros, `[queries, dim]`.
    queries: Vec<f32>,
    /// Of the items that have one, of length 1, `[rows, dim]`.
    pub(super) items: Tensor,
    pub(super) shown: Vec<u32>,
    pub(super) learnt: Vec<Example>,
    pub(super) validation: Vec<Example>,
    /// Queries, and what was opened for them in what is learnt from, ascending.
    opened: Vec<(u32, u32)>,
}

impl Log {
    /// The searches that a training may look at.
    pub(super) fn of(training: &Training<'_>, params: &Params) -> Result<Self> {
        let corpus = training.corpus;
        check(corpus)?;
        let (items, rows) = vectors(corpus.vectors(), corpus.vector_dim());
        let mut queries = corpus.query_vectors().to_vec();
        queries.chunks_exact_mut(corpus.query_dim()).for_each(to_unit);
        let items = Tensor::from_vec(items, vec![rows.iter().flatten().count(), corpus.vector_dim()])?;
        let mut log = Self { queries, items, shown: vec![], learnt: vec![], validation: vec![], opened: vec![] };

        let known = corpus.without_last(training.leave_last);
        let mut dwells = Vec::new();
        let all = known.anonymous_searches().chain((0..known.users()).flat_map(|user| known.searches(user)));
        for search in all {
            if let Some(example) = log.example(&search, &rows) {
                log.learnt.push(example);
                dwells.push(search.dwell.filter(|_| params.dwell));
            }
        }
        weigh(&mut log.learnt, &dwells);
        if training.leave_last >= 2 {
            let kept = corpus.without_last(training.leave_last - 1);
            for search in (0..kept.users()).flat_map(|user| kept.searches_for(user, 1)) {
                let example = log.example(&search, &rows);
                log.validation.extend(example);
            }
        }
        SplitMix::new(training.seed).shuffle(&mut log.learnt);
        if log.validation.is_empty() {
            let kept = log.learnt.len().div_ceil(KEPT_BACK).min(params.validation_searches);
            log.validation = log.learnt.split_off(log.learnt.len() - kept);
        }
        SplitMix::new(training.seed).shuffle(&mut log.validation);
        log.validation.truncate(params.validation_searches);
        if log.learnt.is_empty() {
            let why = "fewer than two searches led to an item, both with vectors: bind searches with their query vectors and the item that was opened";
            return Err(Error::Data(why.into()));
        }
        log.opened = log.learnt.iter().map(|example| (example.query, example.opened)).collect();
        log.opened.sort_unstable();
        Ok(log)
    }

    /// A search as an example; None where it led to nothing, or where it or that has no vector.
    fn example(&mut self, search: &Search<'_>, rows: &[Option<u32>]) -> Option<Example> {
        let item = search.item?;
        let opened = rows[item as usize]?;
        if self.query(search.query).iter().all(|&x| x == 0.0) {
            return None;
        }
        let begin = self.shown.len();
        let unopened = search.shown.iter().filter(|&&shown| shown != item);
        self.shown.extend(unopened.filter_map(|&shown| rows[shown as usize]));
        Some(Example { query: search.query, opened, shown: begin..self.shown.len(), weight: 1.0 })
    }

    /// The vector of a query.
    pub(super) fn query(&self, query: u32) -> &[f32] {
        let dim = self.items.cols();
        &self.queries[query as usize * dim..][..dim]
    }

    /// Whether an item was opened for a query in what is learnt from.
    pub(super) fn led(&self, query: u32, row: u32) -> bool {
        self.opened.binary_search(&(query, row)).is_ok()
    }
}

fn check(corpus: &Corpus) -> Result<()> {
    let wrong = |why: &str| Err(Error::Data(why.into()));
    if !corpus.has_searches() {
        return wrong("nobody has searched: bind searches");
    }
    if corpus.query_vectors().is_empty() {
        return wrong("no query has a vector: bind searches with a column of query vectors");
    }
    if corpus.vectors().is_empty() {
        return wrong("no item has a vector: bind an embedding column of the items");
    }
    let (queries, items) = (corpus.query_dim(), corpus.vector_dim());
    if queries != items {
        return wrong(&format!(
            "vectors of queries have {queries} dimensions, those of items {items}: bind vectors of one model"
        ));
    }
    Ok(())
}

/// Rows that are not all zeros, of length 1, and the place of each among them.
fn vectors(all: &[f32], dim: usize) -> (Vec<f32>, Vec<Option<u32>>) {
    let (mut unit, mut rows) = (Vec::with_capacity(all.len()), Vec::new());
    for vector in all.chunks_exact(dim) {
        let some = vector.iter().any(|&x| x != 0.0);
        rows.push(some.then_some((unit.len() / dim) as u32));
        if some {
            unit.extend_from_slice(vector);
        }
    }
    unit.chunks_exact_mut(dim).for_each(to_unit);
    (unit, rows)
}

/// Weighs examples by how long what was opened was looked at.
fn weigh(examples: &mut [Example], dwells: &[Option<f32>]) {
    let logs = || dwells.iter().flatten().map(|&dwell| f64::from(dwell).ln_1p());
    let mean = logs().sum::<f64>() / (logs().count() as f64).max(1.0);
    for (example, dwell) in examples.iter_mut().zip(dwells) {
        if let (Some(dwell), true) = (dwell, mean > 0.0) {
            example.weight = (f64::from(*dwell).ln_1p() / mean) as f32;
        }
    }
}
