//! Codes told in the order of confidence (REG4Rec): each beam goes on with the level that is surest, so that its items are
//! a set, and those of other beams are others.
//!
//! What is told before a code lets expect something of each item; what is told after it may contradict. A beam whose
//! expectations differ too much, by the Jensen-Shannon divergence over its own items, is not kept (consistency).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::f32::consts::LN_2;
use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;

use pgrec_kernels::{Filter, Scored};

use super::search::{Beam, Generated, Told, Walk, log_sum};
use crate::families::semantic_ids::SemanticIds;

/// All items by their codes on one level, whatever the others are; made when first asked for.
pub(super) struct Index {
    levels: Vec<OnceLock<Level>>,
}

struct Level {
    /// Rows of the codes that some item has, ascending.
    rows: Vec<u32>,
    /// The items of each, ascending.
    items: Vec<Range<usize>>,
    order: Vec<u32>,
}

impl Index {
    pub(super) fn new(levels: usize) -> Self {
        Self { levels: (0..levels).map(|_| OnceLock::new()).collect() }
    }

    fn level(&self, level: usize, items: usize, row: impl Fn(u32) -> u32) -> &Level {
        self.levels[level].get_or_init(|| {
            let mut order: Vec<u32> = (0..items as u32).collect();
            order.sort_by_key(|&item| row(item));
            let mut made = Level { rows: Vec::new(), items: Vec::new(), order: Vec::new() };
            for group in order.chunk_by(|&a, &b| row(a) == row(b)) {
                let start = made.items.last().map_or(0, |before: &Range<usize>| before.end);
                made.rows.push(row(group[0]));
                made.items.push(start..start + group.len());
            }
            Level { order, ..made }
        })
    }
}

/// Items, and what may be found of them.
pub(super) struct Sets<'a> {
    ids: &'a SemanticIds,
    index: &'a Index,
    /// The first row of every level.
    starts: &'a [u32],
    filter: Filter<'a>,
    /// Beams that agree less are not kept.
    consistency: f32,
}

/// Items that have some codes in common.
#[derive(Debug, Clone)]
pub(super) struct Set {
    /// All items that have them, ascending; none where that is every item.
    items: Option<Arc<[u32]>>,
    /// Levels that have not been told.
    left: Vec<usize>,
    chosen: (u32, u32),
    score: f32,
    parent: usize,
    /// The items' shares as the step before had it.
    expected: Vec<f32>,
    /// Of each step that was compared with the one before.
    divergences: Vec<f32>,
}

impl Set {
    fn first(&self) -> u32 {
        self.items.as_ref().map_or(0, |items| items[0])
    }

    /// 1 less the mean divergence.
    fn agreement(&self) -> f32 {
        1.0 - self.divergences.iter().sum::<f32>() / self.divergences.len().max(1) as f32
    }
}

impl Beam for Set {
    fn asks(&self) -> bool {
        self.items.as_ref().is_none_or(|items| items.len() > 1)
    }

    fn parent(&self) -> usize {
        self.parent
    }

    fn chosen(&self) -> (u32, u32) {
        self.chosen
    }

    fn score(&self) -> f32 {
        self.score
    }
}

/// Codes of a level that items of a set have.
struct Question {
    level: usize,
    /// log Σ exp of their logits.
    shift: f32,
    /// The largest share of one.
    confidence: f32,
}

impl<'a> Sets<'a> {
    /// Of the items that a filter lets pass.
    pub(super) fn new(
        ids: &'a SemanticIds,
        index: &'a Index,
        starts: &'a [u32],
        filter: Filter<'a>,
        consistency: f32,
    ) -> Self {
        Self { ids, index, starts, filter, consistency }
    }

    /// All items by their codes on a level.
    fn all(&self, level: usize) -> &'a Level {
        self.index.level(level, self.ids.ordered().len(), |item| self.row(item, level))
    }

    /// The codes that items of a set have on a level, and those items.
    fn groups(&self, set: &Set, level: usize) -> Vec<(u32, Arc<[u32]>)> {
        let Some(items) = &set.items else {
            let all = self.all(level);
            return all.rows.iter().zip(&all.items).map(|(&row, of)| (row, all.order[of.clone()].into())).collect();
        };
        let mut items: Vec<(u32, u32)> = items.iter().map(|&item| (self.row(item, level), item)).collect();
        items.sort_unstable();
        let groups = items.chunk_by(|a, b| a.0 == b.0);
        groups.map(|group| (group[0].0, group.iter().map(|&(_, item)| item).collect())).collect()
    }

    fn row(&self, item: u32, level: usize) -> u32 {
        self.starts[level] + u32::from(self.ids.code(item)[level])
    }

    fn is_open(&self, item: u32) -> bool {
        self.filter.exclude.binary_search(&item).is_err()
            && self.filter.candidates.is_none_or(|candidates| candidates.binary_search(&item).is_ok())
    }

    /// The codes that items of a set have on a level.
    fn rows(&self, set: &Set, level: usize) -> Cow<'a, [u32]> {
        let Some(items) = &set.items else { return Cow::Borrowed(&self.all(level).rows) };
        let mut rows: Vec<u32> = items.iter().map(|&item| self.row(item, level)).collect();
        rows.sort_unstable();
        rows.dedup();
        Cow::Owned(rows)
    }

    /// The level that a set is surest of. Levels on which all its items are alike are no question.
    fn question(&self, set: &Set, logit: impl Fn(u32) -> f32) -> Option<Question> {
        let question = |&level: &usize| {
            let rows = self.rows(set, level);
            let logits: Vec<f32> = rows.iter().map(|&row| logit(row)).collect();
            let (shift, most) = (log_sum(&logits), logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            (rows.len() > 1).then_some(Question { level, shift, confidence: (most - shift).exp() })
        };
        // Of levels as sure the first.
        let surest = |a: Question, b: Question| if b.confidence > a.confidence { b } else { a };
        set.left.iter().filter_map(question).reduce(surest)
    }

    /// The items' shares, if all levels that are left were told at once.
    fn shares(&self, items: &[u32], left: &[usize], logit: impl Fn(u32) -> f32) -> Vec<f32> {
        let sum = |&item: &u32| left.iter().map(|&level| logit(self.row(item, level))).sum::<f32>();
        let sums: Vec<f32> = items.iter().map(sum).collect();
        let shift = log_sum(&sums);
        sums.into_iter().map(|sum| (sum - shift).exp()).collect()
    }
}

impl Walk for Sets<'_> {
    type Beam = Set;

    fn roots(&self) -> Vec<Set> {
        let is_open = self.ids.ordered().iter().any(|&item| self.is_open(item));
        let root = Set {
            items: None,
            left: (0..self.starts.len()).collect(),
            chosen: (0, 0),
            score: 0.0,
            parent: 0,
            expected: Vec::new(),
            divergences: Vec::new(),
        };
        if is_open { vec![root] } else { Vec::new() }
    }

    fn follow(&self, set: &Set, told: Told<impl Fn(u32) -> f32 + Copy>, take: &mut impl FnMut(Set)) {
        let Told { logit, parent, needed } = told;
        let mut divergences = set.divergences.clone();
        if let Some(items) = &set.items {
            divergences.push(divergence(&set.expected, &self.shares(items, &set.left, logit)));
        }
        // Items that ask have a level on which they differ.
        let Some(Question { level, shift, .. }) = self.question(set, logit) else { return };
        let left: Vec<usize> = set.left.iter().copied().filter(|&other| other != level).collect();
        for (row, items) in self.groups(set, level) {
            let score = set.score + logit(row) - shift;
            if score < needed || !items.iter().any(|&item| self.is_open(item)) {
                continue;
            }
            let expected = if items.len() > 1 { self.shares(&items, &left, logit) } else { Vec::new() };
            take(Set {
                items: Some(items),
                left: left.clone(),
                chosen: (level as u32, row),
                score,
                parent,
                expected,
                divergences: divergences.clone(),
            });
        }
    }

    fn keeps(&self, set: &Set) -> bool {
        set.agreement() >= self.consistency
    }

    /// In the order of their first items.
    fn tie(&self, one: &Set, other: &Set) -> Ordering {
        one.first().cmp(&other.first())
    }

    fn found(&self, set: &Set) -> Generated {
        let found = Scored { item: set.first(), score: set.score };
        Generated { found, agreement: Some(set.agreement()), kept: self.keeps(set) }
    }
}

/// The Jensen-Shannon divergence of two distributions, from 0 to 1.
fn divergence(p: &[f32], q: &[f32]) -> f32 {
    let part = |x: f32, middle: f32| if x > 0.0 { x * (x / middle).ln() } else { 0.0 };
    let sum: f32 = p.iter().zip(q).map(|(&p, &q)| part(p, (p + q) / 2.0) + part(q, (p + q) / 2.0)).sum();
    (sum / (2.0 * LN_2)).clamp(0.0, 1.0)
}
