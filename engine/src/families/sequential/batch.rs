//! Laying histories out end to end.

use pgrec_kernels::Sequences;

use super::{Architecture, check_known};
use crate::query::ascending;
use crate::{Error, Query, Result};

/// Histories laid end to end, cut to the window.
#[derive(Default)]
pub(crate) struct Batch {
    items: Vec<u32>,
    positions: Vec<u32>,
    offsets: Vec<usize>,
    times: Vec<f64>,
    until: Vec<f64>,
    identity: u64,
}

impl Batch {
    /// Lays out the histories of queries, of known items, none of them empty.
    pub(crate) fn new<'a, A: Architecture>(
        architecture: &A,
        items: usize,
        queries: impl Iterator<Item = Query<'a>>,
    ) -> Result<Self> {
        let mut batch = Self { offsets: vec![0], identity: Sequences::new_identity(), ..Self::default() };
        for query in queries {
            let first = query.history.len().saturating_sub(architecture.window());
            let latest = &query.history[first..];
            if latest.is_empty() {
                return Err(Error::Data("the history holds no item that the model knows".into()));
            }
            check_known(items, latest)?;
            batch.items.extend_from_slice(latest);
            batch.positions.extend(architecture.position_rows(latest.len()));
            batch.offsets.push(batch.items.len());
            if architecture.timed() {
                let times = query.times.get(first..).filter(|times| times.len() == latest.len());
                let times = times.ok_or_else(|| {
                    Error::Data("the model looks at the times of events, and the history has none".into())
                })?;
                batch.times.extend(ascending(times));
                batch.until.extend(ascending(times).skip(1));
                batch.until.push(query.at);
            }
        }
        Ok(batch)
    }

    pub(crate) fn sequences(&self) -> Sequences<'_> {
        let Self { items, positions, offsets, times, until, identity } = self;
        Sequences { items, positions, offsets, times, until, identity: *identity }
    }
}
