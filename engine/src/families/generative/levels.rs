//! Codes told level after level: a walk down the trie of the codes there are.

use std::borrow::Cow;
use std::ops::Range;

use pgrec_kernels::{Filter, Scored};

use super::search::{Beam, Generated, Logits, Walk, log_sum};
use crate::families::semantic_ids::SemanticIds;

/// Where a search may go: items in the order of their codes.
pub(super) struct Trie<'a> {
    ids: &'a SemanticIds,
    /// Items in the order of their codes.
    items: Cow<'a, [u32]>,
    /// Places among them, ascending, of those that may not be found.
    closed: Vec<usize>,
}

/// The beginning of a code that some item has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prefix {
    /// Items that begin so, as places in the trie's list.
    items: Range<usize>,
    /// The same of all items, as places in their order.
    all: Range<usize>,
    /// Its length.
    levels: u32,
    /// The last code's row.
    row: u32,
    score: f32,
    parent: usize,
}

impl Beam for Prefix {
    fn asks(&self) -> bool {
        self.all.len() > 1
    }

    fn parent(&self) -> usize {
        self.parent
    }

    fn chosen(&self) -> (u32, u32) {
        (self.levels.saturating_sub(1), self.row)
    }

    fn score(&self) -> f32 {
        self.score
    }
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

    /// What follows one prefix, of which `logit` are told; which of those that ask it is.
    fn after(&self, prefix: &Prefix, logit: impl Fn(u32) -> f32 + Copy, parent: usize, first: u32) -> Vec<Prefix> {
        let level = prefix.levels as usize;
        let all = self.stretches(self.ids.ordered(), &prefix.all, level);
        let own = match self.items {
            Cow::Borrowed(_) => Cow::Borrowed(&all),
            Cow::Owned(_) => Cow::Owned(self.stretches(&self.items, &prefix.items, level)),
        };
        let row = |code: u16| first + u32::from(code);
        let shift = log_sum(all.iter().map(|&(code, _)| logit(row(code))));
        let next = own.iter().filter(|(_, items)| self.is_open(items)).map(|(code, items)| Prefix {
            items: items.clone(),
            all: all[all.partition_point(|(other, _)| other < code)].1.clone(),
            levels: prefix.levels + 1,
            row: row(*code),
            score: prefix.score + logit(row(*code)) - shift,
            parent,
        });
        next.collect()
    }
}

impl Walk for Trie<'_> {
    type Beam = Prefix;

    fn roots(&self) -> Vec<Prefix> {
        let (items, all) = (0..self.items.len(), 0..self.ids.ordered().len());
        let root = Prefix { items, all, levels: 0, row: 0, score: 0.0, parent: 0 };
        if self.is_open(&root.items) { vec![root] } else { Vec::new() }
    }

    /// Ties are in the order of codes. Prefixes that ask are all of one length.
    fn follow(&self, beams: Vec<Prefix>, logits: &Logits<'_>, width: usize) -> Vec<Prefix> {
        let (asking, mut followed): (Vec<Prefix>, Vec<Prefix>) = beams.into_iter().partition(Beam::asks);
        for (parent, prefix) in asking.iter().enumerate() {
            followed.extend(self.after(prefix, logits.of(parent), parent, logits.first));
        }
        let better = |a: &Prefix, b: &Prefix| b.score.total_cmp(&a.score).then(a.items.start.cmp(&b.items.start));
        if width < followed.len() {
            followed.select_nth_unstable_by(width, better);
            followed.truncate(width);
        }
        followed.sort_unstable_by(better);
        followed
    }

    fn found(&self, beams: &[Prefix]) -> Vec<Generated> {
        let found = |prefix: &Prefix| Generated {
            found: Scored { item: self.items[prefix.items.start], score: prefix.score },
            agreement: None,
            kept: true,
        };
        let mut found: Vec<Generated> = beams.iter().map(found).collect();
        found.sort_by(|Generated { found: a, .. }, Generated { found: b, .. }| {
            b.score.total_cmp(&a.score).then(a.item.cmp(&b.item))
        });
        found
    }
}
