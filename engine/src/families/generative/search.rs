//! Beam search over the codes there are.

use std::borrow::Cow;
use std::ops::Range;

use pgrec_kernels::{Filter, Scored};

use crate::families::semantic_ids::SemanticIds;

/// Where a search may go: items in the order of their codes.
pub(super) struct Trie<'a> {
    pub(super) ids: &'a SemanticIds,
    /// Items in the order of their codes.
    pub(super) items: Cow<'a, [u32]>,
    /// Places among them, ascending, of those that may not be found.
    pub(super) closed: Vec<usize>,
}

/// The beginning of a code that some item has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Beam {
    /// Items that begin so, as places in the trie's list.
    items: Range<usize>,
    /// log p of the codes so far.
    pub(super) score: f32,
    /// Which beam of the level before it comes from.
    pub(super) parent: usize,
    /// Its last code.
    pub(super) code: u16,
}

impl<'a> Trie<'a> {
    /// Of the items that a filter lets pass.
    pub(super) fn new(ids: &'a SemanticIds, filter: &Filter<'_>) -> Self {
        let mut items = Cow::Borrowed(ids.ordered());
        if let Some(candidates) = filter.candidates {
            let mut candidates = candidates.to_vec();
            candidates.sort_by_key(|&item| ids.code(item));
            items = Cow::Owned(candidates);
        }
        let place = |item: &u32| {
            let code = ids.code(*item);
            let place = items.partition_point(|&other| ids.code(other) < code);
            (items.get(place) == Some(item)).then_some(place)
        };
        let mut closed: Vec<usize> = filter.exclude.iter().filter_map(place).collect();
        closed.sort_unstable();
        Self { ids, items, closed }
    }

    /// Whether an item of this stretch may be found.
    fn is_open(&self, places: &Range<usize>) -> bool {
        let first = self.closed.partition_point(|&place| place < places.start);
        let closed = self.closed[first..].partition_point(|&place| place < places.end);
        closed < places.len()
    }

    /// Before the first code.
    pub(super) fn root(&self) -> Beam {
        Beam { items: 0..self.items.len(), score: 0.0, parent: 0, code: 0 }
    }

    /// The best `width` of what may follow `beams` on a level, best first; ties in the order of codes. `log_shares` are
    /// log p of all codes of the level, `[beams, size]`. Only codes of items that may be found are looked at.
    pub(super) fn follow(&self, beams: &[Beam], level: usize, log_shares: &[f32], width: usize) -> Vec<Beam> {
        let size = log_shares.len() / beams.len().max(1);
        let mut all = Vec::new();
        for (parent, beam) in beams.iter().enumerate() {
            let log_shares = &log_shares[parent * size..][..size];
            let mut start = beam.items.start;
            while start < beam.items.end {
                let code = self.code(start, level);
                let rest = &self.items[start..beam.items.end];
                let end = start + rest.partition_point(|&item| self.ids.code(item)[level] <= code);
                let items = start..end;
                if self.is_open(&items) {
                    all.push(Beam { items, score: beam.score + log_shares[usize::from(code)], parent, code });
                }
                start = end;
            }
        }
        let better = |a: &Beam, b: &Beam| b.score.total_cmp(&a.score).then(a.items.start.cmp(&b.items.start));
        if width < all.len() {
            all.select_nth_unstable_by(width, better);
            all.truncate(width);
        }
        all.sort_unstable_by(better);
        all
    }

    /// The items of beams that have come to the end, best first, ties by ascending index.
    pub(super) fn found(&self, beams: &[Beam]) -> Vec<Scored> {
        let mut found: Vec<Scored> =
            beams.iter().map(|beam| Scored { item: self.items[beam.items.start], score: beam.score }).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
        found
    }

    fn code(&self, place: usize, level: usize) -> u16 {
        self.ids.code(self.items[place])[level]
    }
}

/// log softmax of every row of `size` numbers, in place.
pub(super) fn log_softmax(logits: &mut [f32], size: usize) {
    for row in logits.chunks_exact_mut(size) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|x| (x - most).exp()).sum();
        let shift = most + sum.ln();
        row.iter_mut().for_each(|x| *x -= shift);
    }
}
