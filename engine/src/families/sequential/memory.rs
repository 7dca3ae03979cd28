//! Keys and values of events that are settled: what a history that grew by one event need not compute again.
//!
//! In a causal network the row of an event depends on the events before it and, where times are looked at, on the time
//! of the next one. So all but the last event are settled: the row of the last depends on when the question is asked.

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

/// What is remembered of histories that were asked about, the latest last.
pub(crate) struct Remembered<M> {
    histories: Vec<History<M>>,
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
}

impl<M> Remembered<M> {
    pub(crate) fn new() -> Self {
        Self { histories: Vec::new() }
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
        &mut self,
        architecture: &A,
        device: &D,
        query: &Query<'_>,
        compute: impl FnOnce(&mut Kept<'_, D>, &Sequences<'_>) -> Result<R>,
    ) -> Result<R> {
        let items = query.history;
        let times: Vec<f64> = if architecture.timed() { ascending(query.times).collect() } else { Vec::new() };
        let known = self.histories.iter().position(|history| history.begins(items, &times));
        let mut history = known.map_or_else(History::empty, |place| self.histories.remove(place));

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
        self.histories.push(history);
        self.shrink_to(query.remember);
        Ok(result)
    }

    /// Forgets what was not asked about for longest.
    fn shrink_to(&mut self, most: usize) {
        let mut bytes: usize = self.histories.iter().map(|history| history.bytes).sum();
        let mut gone = 0;
        while bytes > most && gone < self.histories.len() {
            bytes -= self.histories[gone].bytes;
            gone += 1;
        }
        self.histories.drain(..gone);
    }
}
