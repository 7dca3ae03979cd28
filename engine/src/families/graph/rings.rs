//! The rings around every item: what followed it, and what followed that, best first.

use pgrec_kernels::Scored;
use rayon::prelude::*;

use super::edges::EdgesView;
use crate::content::features::FeaturesView;
use crate::{Control, Result};

/// One list an item, as CSR, best first, ties by ascending index.
#[derive(Debug)]
pub(super) struct Lists {
    /// Start of each item's list, and the end of the last.
    pub(super) offsets: Vec<u64>,
    /// Items of the lists.
    pub(super) items: Vec<u32>,
    /// Their scores, multiples of [`STEP`] in [−1, 1.5].
    pub(super) scores: Vec<f32>,
}

/// Scores are rounded to multiples of this. What is equal in exact arithmetic is then a tie, whatever the order
/// of summation, and a score with its stage in front still fits an f32 ([`super::stages`]).
pub(super) const STEP: f32 = 1.0 / (1 << 18) as f32;

/// Working memory of one thread.
struct Scratch {
    /// The anchor (plus one) at which an item was last met.
    met: Vec<u32>,
    /// Probability of the two-step walks that end at an item, valid where `met` is the anchor.
    walks: Vec<f32>,
    two: Vec<u32>,
    scored: Vec<Scored>,
}

/// Rings 1 and 2 of every item that is `wanted`, at most `keep` of each; the others get empty ones.
///
/// Ring 1 are the targets of the item's edges, scored cos + ½·log1p(count)/max over the row of log1p(count).
/// Ring 2 are the targets of their edges that are neither in ring 1 nor the item, scored by the cosine. Where
/// there are no features every cosine is 0, and the paper's ring 2 has no order: it is then ordered by the
/// probability of a walk of two steps.
pub(super) fn build(
    edges: EdgesView<'_>,
    features: FeaturesView<'_>,
    keep: usize,
    wanted: &(dyn Fn(u32) -> bool + Sync),
    control: &Control,
) -> Result<(Lists, Lists)> {
    const SLICE: usize = 64;
    let n = edges.offsets.len() - 1;
    control.begin(n as u64);
    let starts: Vec<usize> = (0..n).step_by(SLICE).collect();
    let scratch = || Scratch { met: vec![0; n], walks: vec![0.0; n], two: Vec::new(), scored: Vec::new() };
    let slices: Vec<(Lists, Lists)> = starts
        .par_iter()
        .map_init(scratch, |scratch, &start| {
            let (mut one, mut two) = (Lists::new(), Lists::new());
            for anchor in start..n.min(start + SLICE) {
                scratch.scored.clear();
                if wanted(anchor as u32) {
                    scratch.ring_one(edges, features, anchor as u32);
                }
                one.push(&mut scratch.scored, keep);
                scratch.scored.clear();
                if wanted(anchor as u32) {
                    scratch.ring_two(edges, features, anchor as u32);
                }
                two.push(&mut scratch.scored, keep);
                control.advance(1)?;
            }
            Ok((one, two))
        })
        .collect::<Result<_>>()?;
    let (mut one, mut two) = (Lists::new(), Lists::new());
    for (next_one, next_two) in slices {
        one.append(next_one);
        two.append(next_two);
    }
    Ok((one, two))
}

impl Scratch {
    fn ring_one(&mut self, edges: EdgesView<'_>, features: FeaturesView<'_>, anchor: u32) {
        let (targets, counts) = (edges.targets(anchor), edges.counts(anchor));
        let most = counts.iter().max().map_or(1.0, |&most| f64::from(most).ln_1p());
        self.scored.clear();
        self.scored.extend(targets.iter().zip(counts).map(|(&item, &count)| {
            let share = f64::from(count).ln_1p() / most;
            Scored { item, score: rounded(features.cosine(anchor, item) + 0.5 * share as f32) }
        }));
    }

    fn ring_two(&mut self, edges: EdgesView<'_>, features: FeaturesView<'_>, anchor: u32) {
        let mark = anchor + 1;
        let total = |item: u32| edges.counts(item).iter().map(|&c| f64::from(c)).sum::<f64>();
        let step = |count: u32, total: f64| (f64::from(count) / total) as f32;
        self.two.clear();
        for (&middle, &first) in edges.targets(anchor).iter().zip(edges.counts(anchor)) {
            let first = if features.is_none() { step(first, total(anchor)) } else { 0.0 };
            let middle_total = if features.is_none() { total(middle) } else { 1.0 };
            for (&end, &second) in edges.targets(middle).iter().zip(edges.counts(middle)) {
                let end_at = end as usize;
                if self.met[end_at] != mark {
                    self.met[end_at] = mark;
                    self.walks[end_at] = 0.0;
                    self.two.push(end);
                }
                self.walks[end_at] += first * step(second, middle_total);
            }
        }
        let near = edges.targets(anchor);
        self.scored.clear();
        for &item in self.two.iter().filter(|&&item| item != anchor && near.binary_search(&item).is_err()) {
            let score = if features.is_none() { self.walks[item as usize] } else { features.cosine(anchor, item) };
            self.scored.push(Scored { item, score: rounded(score) });
        }
    }
}

impl Lists {
    fn new() -> Self {
        Self { offsets: vec![0], items: Vec::new(), scores: Vec::new() }
    }

    /// Adds the best `keep` of `scored` as one list.
    fn push(&mut self, scored: &mut Vec<Scored>, keep: usize) {
        best(scored, keep);
        self.items.extend(scored.iter().map(|s| s.item));
        self.scores.extend(scored.iter().map(|s| s.score));
        self.offsets.push(self.items.len() as u64);
    }

    fn append(&mut self, other: Self) {
        let start = self.items.len() as u64;
        self.offsets.extend(other.offsets[1..].iter().map(|offset| start + offset));
        self.items.extend(other.items);
        self.scores.extend(other.scores);
    }
}

fn rounded(score: f32) -> f32 {
    // −0 would sort after 0 and break the tie by index.
    (score / STEP).round() * STEP + 0.0
}

/// Keeps the best `k`, best first, ties by ascending index.
pub(crate) fn best(scored: &mut Vec<Scored>, k: usize) {
    let order = |a: &Scored, b: &Scored| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item));
    if k == 0 {
        scored.clear();
    } else if k < scored.len() {
        scored.select_nth_unstable_by(k - 1, order);
        scored.truncate(k);
    }
    scored.sort_unstable_by(order);
}
