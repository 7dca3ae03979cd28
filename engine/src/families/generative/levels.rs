//! Codes told level after level: a walk down the trie of the codes there are.

use std::cmp::Ordering;
use std::ops::Range;

use pgrec_kernels::{Filter, Scored};

use super::search::{Beam, Generated, Told, Walk, log_sum};
use crate::artifact::Shared;
use crate::families::semantic_ids::SemanticIds;
use crate::{Artifact, ArtifactBuilder, Error, Result};

/// What the codes of the items begin with, level after level, in their order.
pub(super) struct Trie {
    levels: Vec<Level>,
}

/// Beginnings of codes that reach down to one level.
struct Level {
    /// Of each, the place in the items' order where its items start.
    first: Shared<u32>,
    /// Its last code.
    codes: Shared<u16>,
}

fn first_name(level: usize) -> String {
    format!("trie.{level}.first")
}

fn codes_name(level: usize) -> String {
    format!("trie.{level}.codes")
}

impl Trie {
    /// Adds the trie of these codes to an artifact.
    pub(super) fn store(ids: &SemanticIds, artifact: &mut ArtifactBuilder) {
        let order = ids.ordered();
        for level in 0..ids.quantizer().levels() {
            let (mut first, mut codes) = (Vec::new(), Vec::new());
            for (place, &item) in order.iter().enumerate() {
                let code = ids.code(item);
                if place == 0 || ids.code(order[place - 1])[..=level] != code[..=level] {
                    first.push(place as u32);
                    codes.push(code[level]);
                }
            }
            artifact.u32(&first_name(level), first).u16(&codes_name(level), codes);
        }
    }

    /// Opens that of codes that have so many words on each level.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it cannot be that of as many items.
    pub(super) fn open(artifact: &Artifact, sizes: &[usize], items: usize) -> Result<Self> {
        let level = |(level, &size): (usize, &usize)| {
            let (first, codes) = (artifact.u32s(&first_name(level))?, artifact.u16s(&codes_name(level))?);
            let starts = first.first().is_none_or(|&place| place == 0) && first.is_sorted_by(|a, b| a < b);
            let within = first.last().is_none_or(|&place| (place as usize) < items);
            if !starts || !within || codes.len() != first.len() || codes.iter().any(|&code| usize::from(code) >= size) {
                return Err(Error::Malformed(format!("generative: level {level} of the trie is none")));
            }
            Ok(Level { first, codes })
        };
        Ok(Self { levels: sizes.iter().enumerate().map(level).collect::<Result<_>>()? })
    }
}

/// Where a search may go.
pub(super) struct Descent<'a> {
    ids: &'a SemanticIds,
    levels: Vec<LevelView<'a>>,
    /// The first row of every level in the table of code words.
    starts: &'a [u32],
    /// The items that may be found, in the order of their codes, where those are not all.
    candidates: Option<Vec<u32>>,
    /// Places among those items, ascending, of which none may be found after all.
    closed: Vec<u32>,
}

/// A level's lists, as they lie in memory.
struct LevelView<'a> {
    first: &'a [u32],
    codes: &'a [u16],
}

/// The beginning of a code that some item has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prefix {
    /// Items that begin so and may be found, as places among those.
    items: Range<u32>,
    /// All items that begin so, as places in their order.
    all: Range<u32>,
    /// Its length.
    levels: u32,
    /// The last code's row.
    row: u32,
    score: f32,
    parent: u32,
}

impl Beam for Prefix {
    fn asks(&self) -> bool {
        self.all.len() > 1
    }

    fn parent(&self) -> usize {
        self.parent as usize
    }

    fn chosen(&self) -> (u32, u32) {
        (self.levels.saturating_sub(1), self.row)
    }

    fn score(&self) -> f32 {
        self.score
    }
}

impl<'a> Descent<'a> {
    /// To the items that a filter lets pass.
    pub(super) fn new(ids: &'a SemanticIds, trie: &'a Trie, starts: &'a [u32], filter: &Filter<'_>) -> Self {
        let levels = trie.levels.iter().map(|level| LevelView { first: &level.first, codes: &level.codes }).collect();
        let candidates = filter.candidates.map(|candidates| {
            let mut candidates = candidates.to_vec();
            candidates.sort_by_key(|&item| ids.code(item));
            candidates
        });
        let mut descent = Self { ids, levels, starts, candidates, closed: Vec::new() };
        let items = descent.items();
        let place = |item: &u32| {
            let code = ids.code(*item);
            let place = items.partition_point(|&other| ids.code(other) < code);
            (items.get(place) == Some(item)).then_some(place as u32)
        };
        let mut closed: Vec<u32> = filter.exclude.iter().filter_map(place).collect();
        closed.sort_unstable();
        descent.closed = closed;
        descent
    }

    /// Items in the order of their codes.
    fn items(&self) -> &[u32] {
        self.candidates.as_deref().unwrap_or(self.ids.ordered())
    }

    /// Those of `closed` that lie in a stretch.
    fn closed<'c>(closed: &'c [u32], places: &Range<u32>) -> &'c [u32] {
        let first = closed.partition_point(|&place| place < places.start);
        let after = first + closed[first..].partition_point(|&place| place < places.end);
        &closed[first..after]
    }

    /// Those of a prefix's candidates that go on with a code on a level; `from` is where such may begin.
    fn stretch(&self, candidates: &[u32], end: u32, from: u32, level: usize, code: u16) -> Range<u32> {
        let left = &candidates[from as usize..end as usize];
        let own = |item: u32| self.ids.code(item)[level];
        let start = left.partition_point(|&item| own(item) < code);
        let after = start + left[start..].partition_point(|&item| own(item) == code);
        from + start as u32..from + after as u32
    }
}

impl Walk for Descent<'_> {
    type Beam = Prefix;

    fn roots(&self) -> Vec<Prefix> {
        let (items, all) = (0..self.items().len() as u32, 0..self.ids.ordered().len() as u32);
        let root = Prefix { items, all, levels: 0, row: 0, score: 0.0, parent: 0 };
        if self.closed.len() < root.items.len() { vec![root] } else { Vec::new() }
    }

    fn follow(&self, prefix: &Prefix, told: Told<impl Fn(u32) -> f32 + Copy>, take: &mut impl FnMut(Prefix)) {
        let Told { logit, parent, needed } = told;
        let level = prefix.levels as usize;
        let LevelView { first, codes } = self.levels[level];
        let from = first.partition_point(|&place| place < prefix.all.start);
        let to = from + first[from..].partition_point(|&place| place < prefix.all.end);
        let (first, codes) = (&first[from..to], &codes[from..to]);
        let row = |code: u16| self.starts[level] + u32::from(code);
        let logits: Vec<f32> = codes.iter().map(|&code| logit(row(code))).collect();
        let shift = prefix.score - log_sum(&logits);
        let ends = first.iter().skip(1).copied().chain([prefix.all.end]);
        let closed = Self::closed(&self.closed, &prefix.items);
        let mut start = prefix.items.start;
        for (((&first, end), &code), logit) in first.iter().zip(ends).zip(codes).zip(logits) {
            let score = logit + shift;
            if score < needed {
                continue;
            }
            let all = first..end;
            let items = match &self.candidates {
                None => all.clone(),
                Some(candidates) => self.stretch(candidates, prefix.items.end, start, level, code),
            };
            start = items.end;
            if Self::closed(closed, &items).len() < items.len() {
                let parent = parent as u32;
                take(Prefix { items, all, levels: prefix.levels + 1, row: row(code), score, parent });
            }
        }
    }

    fn keeps(&self, _: &Prefix) -> bool {
        true
    }

    /// In the order of codes.
    fn tie(&self, one: &Prefix, other: &Prefix) -> Ordering {
        one.all.start.cmp(&other.all.start)
    }

    fn found(&self, prefix: &Prefix) -> Generated {
        let found = Scored { item: self.items()[prefix.items.start as usize], score: prefix.score };
        Generated { found, agreement: None, kept: true }
    }
}
