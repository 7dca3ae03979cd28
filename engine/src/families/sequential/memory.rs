//! Keys and values of events that are settled: what a history that grew by one event need not compute again.
//!
//! In a causal network the row of an event depends on the events before it and, where times are looked at, on the time
//! of the next one. So all but the last event are settled: the row of the last depends on when the question is asked.

use std::sync::{Mutex, PoisonError};

use pgrec_kernels::{Device, Sequences};

use super::Architecture;
use crate::query::ascending;
use crate::{Query, Result};

/// Keys and values of one history, by layer.
pub(crate) struct Kept<'a, D: Device> {
    /// Where they lie.
    pub device: &'a D,
    /// Bounds and times of all of its events, those that are computed now among them.
    pub whole: Sequences<'a>,
    layers: Vec<[D::Matrix; 2]>,
}

impl<D: Device> Kept<'_, D> {
    /// Adds keys and values of the new events to a layer's, and gives those of all.
    pub(crate) fn add(&mut self, layer: usize, [keys, values]: [D::Matrix; 2]) -> &[D::Matrix; 2] {
        match self.layers.get_mut(layer) {
            None => self.layers.push([keys, values]),
            Some([all_keys, all_values]) => {
                self.device.append(all_keys, &keys);
                self.device.append(all_values, &values);
            }
        }
        &self.layers[layer]
    }

    /// Keys and values of all events in a layer.
    pub(crate) fn layer(&self, layer: usize) -> &[D::Matrix; 2] {
        &self.layers[layer]
    }
}

/// Histories of fewer events are computed anew: that takes a millisecond or two.
const LONG: usize = 512;

/// What is remembered of histories that were asked about, the latest last. A history is taken out while a question
/// about it is computed, so that nothing is locked meanwhile.
pub(crate) struct Remembered<M> {
    histories: Mutex<Vec<History<M>>>,
}

/// The settled events of one history.
struct History<M> {
    items: Vec<u32>,
    times: Vec<f64>,
    /// The time of the event after the last of them.
    until: Option<f64>,
    layers: Vec<[M; 2]>,
    bytes: usize,
}

impl<M> History<M> {
    fn empty() -> Self {
        Self { items: Vec::new(), times: Vec::new(), until: None, layers: Vec::new(), bytes: 0 }
    }

    /// Whether it is how a history of these items and times begins.
    fn begins(&self, items: &[u32], times: &[f64]) -> bool {
        let len = self.items.len();
        len < items.len()
            && self.until == times.get(len).copied()
            && self.items[len - 1] == items[len - 1]
            && items.starts_with(&self.items)
            && times.starts_with(&self.times)
    }

    /// Whether another one tells all that this one does.
    fn is_beginning_of(&self, other: &Self) -> bool {
        other.items.starts_with(&self.items) && other.times.starts_with(&self.times)
    }
}

impl<M> Remembered<M> {
    pub(crate) fn new() -> Self {
        Self { histories: Mutex::default() }
    }

    /// Whether a question is worth remembering: of a long history that begins where the positions do.
    pub(crate) fn suits<A: Architecture>(architecture: &A, query: &Query<'_>) -> bool {
        let timed = !architecture.timed() || query.times.len() == query.history.len();
        let long = (LONG..=architecture.window()).contains(&query.history.len());
        query.remember > 0 && architecture.remembers() && timed && long
    }

    /// What `compute` gives of a history that suits, of known items: it is given the new events, and what is kept of
    /// those before, to which it adds them. That is kept for the next question, as far as the query allows.
    pub(crate) fn compute<D: Device<Matrix = M>, A: Architecture, R>(
        &self,
        architecture: &A,
        device: &D,
        query: &Query<'_>,
        compute: impl FnOnce(&mut Kept<'_, D>, &Sequences<'_>) -> Result<R>,
    ) -> Result<R> {
        let items = query.history;
        let times: Vec<f64> = if architecture.timed() { ascending(query.times).collect() } else { Vec::new() };
        let mut history = self.take(items, &times).unwrap_or_else(History::empty);
        let (first, len) = (history.items.len(), items.len());
        let positions: Vec<u32> = architecture.position_rows(len).skip(first).collect();
        let mut until = times.get(1..).unwrap_or(&[]).to_vec();
        until.extend(times.last().map(|_| query.at));
        let new = Sequences {
            items: &items[first..],
            positions: &positions,
            offsets: &[0, len - first],
            identity: Sequences::new_identity(),
            ..Sequences::default()
        };
        let whole = Sequences {
            offsets: &[0, len],
            times: &times,
            until: &until,
            identity: Sequences::new_identity(),
            ..Sequences::default()
        };
        let mut kept = Kept { device, whole, layers: std::mem::take(&mut history.layers) };
        let result = compute(&mut kept, &new)?;

        let settled = len - 1;
        history.bytes = 0;
        for matrix in kept.layers.iter_mut().flatten() {
            device.truncate(matrix, settled);
            history.bytes += device.bytes(matrix);
        }
        history.layers = kept.layers;
        history.items.extend_from_slice(&items[first..settled]);
        history.times = times.get(..settled).unwrap_or(&[]).to_vec();
        history.until = times.get(settled).copied();
        self.keep(history, query.remember);
        Ok(result)
    }

    /// What is remembered of how this history begins.
    fn take(&self, items: &[u32], times: &[f64]) -> Option<History<M>> {
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        let known = histories.iter().position(|history| history.begins(items, times))?;
        Some(histories.remove(known))
    }

    /// Remembers a history, and forgets what was not asked about for longest beyond so many bytes.
    fn keep(&self, history: History<M>, most: usize) {
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody who was asked the same at the same time has begun anew.
        histories.retain(|other| !other.is_beginning_of(&history));
        histories.push(history);
        let mut bytes: usize = histories.iter().map(|history| history.bytes).sum();
        let mut gone = 0;
        while bytes > most && gone < histories.len() {
            bytes -= histories[gone].bytes;
            gone += 1;
        }
        histories.drain(..gone);
    }
}
