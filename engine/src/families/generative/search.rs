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
    /// The same of all items, as places in their order.
    all: Range<usize>,
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
        Beam { items: 0..self.items.len(), all: 0..self.ids.ordered().len(), score: 0.0, parent: 0, code: 0 }
    }

    /// The best `width` of what may follow `beams` on a level, best first; ties in the order of codes. `logits` are those
    /// of all codes of the level, `[beams, size]`; shares are of the codes that some item has after a beam's. Only codes
    /// of items that may be found are given.
    pub(super) fn follow(&self, beams: &[Beam], level: usize, logits: &[f32], width: usize) -> Vec<Beam> {
        let size = logits.len() / beams.len().max(1);
        let mut followed = Vec::new();
        for (parent, beam) in beams.iter().enumerate() {
            let logits = &logits[parent * size..][..size];
            let all = self.stretches(self.ids.ordered(), &beam.all, level);
            let own = match self.items {
                Cow::Borrowed(_) => Cow::Borrowed(&all),
                Cow::Owned(_) => Cow::Owned(self.stretches(&self.items, &beam.items, level)),
            };
            let shift = log_sum(all.iter().map(|&(code, _)| logits[usize::from(code)]));
            for (code, items) in own.iter().filter(|(_, items)| self.is_open(items)) {
                let place = all.partition_point(|(other, _)| other < code);
                followed.push(Beam {
                    items: items.clone(),
                    all: all[place].1.clone(),
                    score: beam.score + logits[usize::from(*code)] - shift,
                    parent,
                    code: *code,
                });
            }
        }
        let better = |a: &Beam, b: &Beam| b.score.total_cmp(&a.score).then(a.items.start.cmp(&b.items.start));
        if width < followed.len() {
            followed.select_nth_unstable_by(width, better);
            followed.truncate(width);
        }
        followed.sort_unstable_by(better);
        followed
    }

    /// The stretches of `order` within `range` of one code on a level, and that code.
    fn stretches(&self, order: &[u32], range: &Range<usize>, level: usize) -> Vec<(u16, Range<usize>)> {
        let code = |item: u32| self.ids.code(item)[level];
        let mut stretches = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let own = code(order[start]);
            let end = start + order[start..range.end].partition_point(|&item| code(item) <= own);
            stretches.push((own, start..end));
            start = end;
        }
        stretches
    }

    /// The items of beams that have come to the end, best first, ties by ascending index.
    pub(super) fn found(&self, beams: &[Beam]) -> Vec<Scored> {
        let mut found: Vec<Scored> =
            beams.iter().map(|beam| Scored { item: self.items[beam.items.start], score: beam.score }).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
        found
    }
}

/// log Σ exp x
fn log_sum(numbers: impl Iterator<Item = f32> + Clone) -> f32 {
    let most = numbers.clone().fold(f32::NEG_INFINITY, f32::max);
    most + numbers.map(|x| (x - most).exp()).sum::<f32>().ln()
}
