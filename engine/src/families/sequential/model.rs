//! Serving: queries in, ranked items out.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::cuda::Cuda;
use pgrec_kernels::{Device, Filter, Rows, Scored, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::memory::Remembered;
use super::{Architecture, Batch, ITEMS, SCORED, check_known, check_width, unit_rows};
use crate::content::Placer;
use crate::families::neighbours::Neighbours;
use crate::families::{Geometry, Model};
use crate::{Artifact, Catalogue, Control, ItemContent, Query, Result};

/// Floating-point operations of one slice of a large call: some 10 ms on one core, so that a cancel is heard
/// and every core gets its share.
const SLICE: usize = 200_000_000;

/// Of a slice on a CUDA device: long enough that starting kernels does not count, and some gigabytes of memory.
const DEVICE_SLICE: usize = 1_000_000_000_000;

/// Events left out, one at a time, to explain a score.
const EXPLAINED_EVENTS: usize = 50;
/// Operations spent on that, at most: about a second.
const EXPLAINED_COST: usize = 50_000_000_000;
/// Contributions shown.
const EXPLAINED_TOP: usize = 5;

/// An open model.
pub(crate) struct Sequential<A: Architecture> {
    artifact: Arc<Artifact>,
    architecture: A,
    encoder: A::Encoder<Tensor>,
    /// The table that items are scored by.
    scored: Tensor,
    device: Cpu,
    neighbours: Neighbours,
    remembered: Remembered<Matrix>,
    placer: Option<Placer>,
}

impl<A: Architecture> Sequential<A> {
    pub(crate) fn open(artifact: Arc<Artifact>) -> Result<Self> {
        let (architecture, encoder): (A, _) = super::open(&artifact)?;
        let scored = artifact.tensor(if artifact.has(SCORED) { SCORED } else { ITEMS })?;
        let (placer, neighbours) = (Placer::open(&artifact, architecture.dim())?, Neighbours::of(&artifact)?);
        Ok(Self {
            architecture,
            encoder,
            scored,
            artifact,
            device: Cpu::new(),
            neighbours,
            remembered: Remembered::new(),
            placer,
        })
    }

    fn items(&self) -> usize {
        self.artifact.catalogue().len()
    }

    /// The vectors of the queries' histories, `[queries, dim]`.
    fn vectors<'a>(&self, device: &impl Device, queries: impl Iterator<Item = Query<'a>>) -> Result<Vec<f32>> {
        let batch = Batch::new(&self.architecture, self.items(), queries)?;
        let encoded = self.architecture.encode(&self.encoder, device, &batch.sequences(), Rows::Last);
        Ok(device.download(&encoded)?.into_owned())
    }

    /// The vector of a long history, of which all that was settled when it was asked about before is remembered.
    fn remembered(&self, query: &Query<'_>) -> Result<Option<Vec<f32>>> {
        if !Remembered::<Matrix>::suits(&self.architecture, query) {
            return Ok(None);
        }
        self.known(query.history)?;
        let vector = self.remembered.compute(&self.architecture, &self.device, query, |kept, new| {
            self.architecture.encode_new(&self.encoder, kept, new)
        })?;
        Ok(Some(self.device.download(&vector)?.into_owned()))
    }

    fn dot(&self, vector: &[f32], item: u32) -> f32 {
        dot(vector, self.scored.row(item as usize))
    }

    fn known(&self, items: &[u32]) -> Result<()> {
        check_known(self.items(), items)
    }

    /// Operations that the vector of a history costs, roughly, and those of ranking by one.
    fn encoding_cost(&self, query: &Query<'_>) -> usize {
        self.architecture.cost(query.history.len().min(self.architecture.window()))
    }

    fn ranking_cost(&self) -> usize {
        2 * self.items() * self.architecture.dim()
    }

    /// Lists by the vectors that `encode` gives of some queries at a time: as many as cost `most`, at least one. Then as
    /// many are ranked together as cost that, which are more. `beside`: slices at the same time.
    fn answers<D: Device + Sync>(
        &self,
        device: &D,
        queries: &[Query<'_>],
        most: usize,
        beside: bool,
        control: &Control,
        encode: impl Fn(&[Query<'_>]) -> Result<Vec<f32>> + Sync,
    ) -> Result<Vec<Vec<Scored>>> {
        let mut answers = vec![Vec::new(); queries.len()];
        let asked: Vec<usize> =
            (0..queries.len()).filter(|&i| queries[i].k > 0 && !queries[i].history.is_empty()).collect();
        if asked.is_empty() {
            return Ok(answers);
        }
        for &i in &asked {
            self.known(queries[i].filter.candidates.unwrap_or(&[]))?;
        }
        let queries: Vec<Query<'_>> = asked.iter().map(|&i| queries[i]).collect();
        let vectors = in_slices(
            &queries,
            most,
            beside,
            |query| self.encoding_cost(query),
            |slice| {
                control.check()?;
                encode(&queries[slice])
            },
        )?;
        let dim = self.architecture.dim();
        let lists = in_slices(
            &queries,
            most,
            beside,
            |_| self.ranking_cost(),
            |slice| {
                control.check()?;
                self.ranked(device, &queries[slice.clone()], &vectors[slice.start * dim..slice.end * dim])
            },
        )?;
        for (i, list) in asked.into_iter().zip(lists) {
            answers[i] = list;
        }
        Ok(answers)
    }

    /// The best items by the vectors of queries.
    fn ranked(&self, device: &impl Device, queries: &[Query<'_>], vectors: &[f32]) -> Result<Vec<Vec<Scored>>> {
        let mut lists = vec![Vec::new(); queries.len()];
        let (mut exact, mut exact_vectors) = (Vec::new(), Vec::new());
        for (i, vector) in vectors.chunks_exact(self.architecture.dim()).enumerate() {
            match self.neighbours(vector, &queries[i])? {
                Some(found) => lists[i] = found,
                None => {
                    exact.push(i);
                    exact_vectors.extend_from_slice(vector);
                }
            }
        }
        let k: Vec<usize> = exact.iter().map(|&i| queries[i].k.min(self.items())).collect();
        let filters: Vec<Filter<'_>> = exact.iter().map(|&i| queries[i].filter).collect();
        let found = device.top_k(&exact_vectors, &self.scored, &k, &filters)?;
        for (i, found) in exact.into_iter().zip(found) {
            lists[i] = found;
        }
        Ok(lists)
    }

    /// The answer by nearest neighbours, scored exactly; `None` when every item has to be scored: a small
    /// catalogue, no segment, or a filter that leaves too little of what the segment finds.
    fn neighbours(&self, vector: &[f32], query: &Query<'_>) -> Result<Option<Vec<Scored>>> {
        let Filter { exclude, candidates } = query.filter;
        if self.items() <= query.exact_limit || candidates.is_some() {
            return Ok(None);
        }
        // Twice as many as needed: the last of the k are found more surely from further out.
        let reach = query.k.saturating_add(exclude.len()).saturating_mul(2);
        let Some(found) = self.neighbours.nearest(vector, reach, exclude, query.k)? else { return Ok(None) };
        self.known(&found)?;
        let filter = Filter { exclude: &[], candidates: Some(&found) };
        Ok(self.device.top_k(vector, &self.scored, &[query.k], &[filter])?.pop())
    }
}

impl<A: Architecture> Model for Sequential<A> {
    fn catalogue(&self) -> &Catalogue {
        self.artifact.catalogue()
    }

    fn window(&self) -> usize {
        self.architecture.window()
    }

    fn timed(&self) -> bool {
        self.architecture.timed()
    }

    fn item_vector(&self, item: u32) -> Option<&[f32]> {
        ((item as usize) < self.items()).then(|| self.scored.row(item as usize))
    }

    fn geometry(&self) -> Option<Geometry> {
        (self.architecture.outcomes() == 0).then_some(Geometry::Product)
    }

    fn place(&self, item: &ItemContent<'_>) -> Result<Option<Vec<f32>>> {
        let Some(placer) = &self.placer else { return Ok(None) };
        let place = placer.place(item)?;
        let scored = |place: Vec<f32>| match self.architecture.normalized() {
            true => unit_rows(&place, place.len()),
            false => place,
        };
        Ok(place.map(scored))
    }

    fn places(&self) -> bool {
        self.placer.is_some()
    }

    fn recommend_by(&self, vector: &[f32], query: &Query<'_>) -> Result<Option<Vec<Scored>>> {
        check_width(vector, self.architecture.dim())?;
        self.known(query.filter.candidates.unwrap_or(&[]))?;
        let k = query.k.min(self.items());
        Ok(self.device.top_k(vector, &self.scored, &[k], &[query.filter])?.pop())
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.answers(&self.device, queries, SLICE, true, control, |asked| {
            if asked.iter().any(|query| Remembered::<Matrix>::suits(&self.architecture, query)) {
                let vectors: Result<Vec<_>> = asked.iter().map(|query| self.encode(query)).collect();
                return Ok(vectors?.concat());
            }
            self.vectors(&self.device, asked.iter().copied())
        })
    }

    fn recommend_on(&self, device: &Cuda, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let encode = |asked: &[Query<'_>]| self.vectors(device, asked.iter().copied());
        self.answers(device, queries, DEVICE_SLICE, false, control, encode)
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        self.known(items)?;
        let vector = self.encode(query)?;
        let mut wanted = items.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        // The operator that ranks, so that a score is the same number in a list and alone.
        let filter = Filter { exclude: &[], candidates: Some(&wanted) };
        let scored = self.device.top_k(&vector, &self.scored, &[wanted.len()], &[filter])?;
        let scored: HashMap<u32, f32> = scored.into_iter().flatten().map(|s| (s.item, s.score)).collect();
        Ok(items.iter().map(|item| scored.get(item).copied().unwrap_or(f32::NAN)).collect())
    }

    /// By the cosine of the item vectors; every item is looked at.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        self.known(&[item])?;
        self.known(query.filter.candidates.unwrap_or(&[]))?;
        Ok(most_similar(&self.scored, self.items(), item, query))
    }

    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        match self.remembered(query)? {
            Some(vector) => Ok(vector),
            None => self.vectors(&self.device, std::iter::once(*query)),
        }
    }

    /// The score, and how much it falls when one of the latest events is left out of the history; the only
    /// event of a history accounts for all of it.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        self.known(&[item])?;
        let window = self.architecture.window();
        let score = self.dot(&self.encode(query)?, item);
        // One more than the window: what is left out is replaced by the event before the window.
        let first = query.history.len().saturating_sub(window + 1);
        let recent = &query.history[first..];
        let times = query.times.get(first..).unwrap_or(&[]);
        let used = recent.len().min(window);
        let affordable = (EXPLAINED_COST / self.encoding_cost(query).max(1)).max(1);
        let considered = used.min(EXPLAINED_EVENTS).min(affordable);
        let mut changes = Vec::with_capacity(considered);
        for age in 0..considered {
            let place = recent.len() - 1 - age;
            let (rest, rest_times) = (without(recent, place), without(times, place));
            let shorter = Query { history: &rest, times: &rest_times, remember: 0, ..*query };
            let left = if rest.is_empty() { 0.0 } else { self.dot(&self.encode(&shorter)?, item) };
            changes.push((recent[place], age, score - left));
        }
        changes.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
        let contributions: Vec<Value> = changes
            .iter()
            .take(EXPLAINED_TOP)
            .map(|(item, age, change)| json!({ "item": item, "events_ago": age, "contribution": change }))
            .collect();
        Ok(json!({
            "score": score,
            "window": window,
            "events_used": used,
            "events_considered": considered,
            "contributions": contributions,
        }))
    }
}

/// What `work` gives for slices of some queries, one after the other or beside each other, in the order of the queries.
/// Queries of a slice cost no more than `most` together, unless it is one.
fn in_slices<T: Send>(
    queries: &[Query<'_>],
    most: usize,
    beside: bool,
    cost: impl Fn(&Query<'_>) -> usize,
    work: impl Fn(Range<usize>) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let mut slices = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, query) in queries.iter().enumerate() {
        let more = cost(query);
        if index > start && sum + more > most {
            slices.push(start..index);
            (start, sum) = (index, 0);
        }
        sum += more;
    }
    slices.push(start..queries.len());
    let parts: Result<Vec<Vec<T>>> = if beside && slices.len() > 1 {
        slices.into_par_iter().map(&work).collect()
    } else {
        slices.into_iter().map(&work).collect()
    };
    Ok(parts?.into_iter().flatten().collect())
}

/// The items whose rows of a table have the largest cosines with that of `item`, of the first `items` rows.
pub(crate) fn most_similar(table: &Tensor, items: usize, item: u32, query: &Query<'_>) -> Vec<Scored> {
    let anchor = table.row(item as usize);
    let anchor_norm = dot(anchor, anchor).sqrt();
    let cosine = |other: u32| {
        let row = table.row(other as usize);
        let norms = anchor_norm * dot(row, row).sqrt();
        Scored { item: other, score: if norms > 0.0 { dot(anchor, row) / norms } else { 0.0 } }
    };
    let all = allowed(items, query).filter(|&other| other != item);
    best(all.map(cosine).collect(), query.k)
}

/// The items that a query's filter lets pass, of so many.
pub(crate) fn allowed<'a>(items: usize, query: &Query<'a>) -> impl Iterator<Item = u32> + 'a {
    let Filter { exclude, candidates } = query.filter;
    let all = if candidates.is_none() { 0..items as u32 } else { 0..0 };
    let all = candidates.unwrap_or(&[]).iter().copied().chain(all);
    all.filter(|item| exclude.binary_search(item).is_err())
}

/// The best `k`, best first, ties by ascending index.
pub(crate) fn best(mut all: Vec<Scored>, k: usize) -> Vec<Scored> {
    let better = |a: &Scored, b: &Scored| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item));
    if k < all.len() {
        all.select_nth_unstable_by(k, better);
        all.truncate(k);
    }
    all.sort_unstable_by(better);
    all
}

/// All but one, where that is there.
fn without<T: Copy>(all: &[T], place: usize) -> Vec<T> {
    all.iter().enumerate().filter(|&(other, _)| other != place).map(|(_, &x)| x).collect()
}

/// In eight lanes, so that the compiler may use vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + tail
}
