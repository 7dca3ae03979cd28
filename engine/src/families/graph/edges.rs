//! The transition graph: which item followed which, and how often.

use rayon::prelude::*;

use crate::{Control, Corpus, Result};

/// Rows of the graph are handled in slices of this many, so that a cancellation is seen between two of them.
const SLICE: usize = 256;

/// Counted edges a→b over consecutive events, as CSR, targets ascending within a row. An item that follows
/// itself has an edge to itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edges {
    /// Start of each item's row, and the end of the last.
    pub(crate) offsets: Vec<u64>,
    /// Targets.
    pub(crate) items: Vec<u32>,
    /// How often each edge was walked.
    pub(crate) counts: Vec<u32>,
}

impl Edges {
    /// Counts the consecutive pairs of every history.
    pub(crate) fn count(corpus: &Corpus, control: &Control) -> Result<Self> {
        let n = corpus.items().len();
        let pairs = || corpus.histories().flat_map(|history| history.windows(2));
        let mut starts = vec![0usize; n + 1];
        pairs().for_each(|pair| starts[pair[0] as usize + 1] += 1);
        (0..n).for_each(|item| starts[item + 1] += starts[item]);
        let mut next = starts.clone();
        let mut targets = vec![0u32; starts[n]];
        for pair in pairs() {
            let place = &mut next[pair[0] as usize];
            targets[*place] = pair[1];
            *place += 1;
        }
        control.check()?;

        let mut rows: Vec<&mut [u32]> = Vec::with_capacity(n);
        let mut rest = targets.as_mut_slice();
        for item in 0..n {
            let (row, tail) = rest.split_at_mut(starts[item + 1] - starts[item]);
            rows.push(row);
            rest = tail;
        }
        let slices: Vec<Vec<Vec<(u32, u32)>>> = rows
            .par_chunks_mut(SLICE)
            .map(|rows| {
                control.check()?;
                Ok(rows.iter_mut().map(|row| run_lengths(row)).collect())
            })
            .collect::<Result<_>>()?;
        let mut edges = Self { offsets: vec![0], ..Self::default() };
        for row in slices.into_iter().flatten() {
            edges.items.extend(row.iter().map(|edge| edge.0));
            edges.counts.extend(row.iter().map(|edge| edge.1));
            edges.offsets.push(edges.items.len() as u64);
        }
        Ok(edges)
    }

    /// The graph as slices.
    pub(crate) fn view(&self) -> EdgesView<'_> {
        EdgesView { offsets: &self.offsets, items: &self.items, counts: &self.counts }
    }
}

fn run_lengths(row: &mut [u32]) -> Vec<(u32, u32)> {
    row.sort_unstable();
    row.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).collect()
}

/// [`Edges`], wherever they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EdgesView<'a> {
    /// Start of each item's row, and the end of the last.
    pub(crate) offsets: &'a [u64],
    /// Targets.
    pub(crate) items: &'a [u32],
    /// How often each edge was walked.
    pub(crate) counts: &'a [u32],
}

impl<'a> EdgesView<'a> {
    fn range(&self, item: u32) -> std::ops::Range<usize> {
        self.offsets[item as usize] as usize..self.offsets[item as usize + 1] as usize
    }

    /// The items that followed `item`, ascending.
    pub(crate) fn targets(&self, item: u32) -> &'a [u32] {
        &self.items[self.range(item)]
    }

    /// How often each of them did.
    pub(crate) fn counts(&self, item: u32) -> &'a [u32] {
        &self.counts[self.range(item)]
    }

    /// How often `to` followed `from`.
    pub(crate) fn count(&self, from: u32, to: u32) -> u32 {
        self.targets(from).binary_search(&to).map_or(0, |place| self.counts(from)[place])
    }
}
