//! How a list is filled from the rings, stage by stage.

use pgrec_kernels::Scored;
use serde::{Deserialize, Serialize};

/// Which form of the heuristic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Variant {
    /// Rings of the last item.
    Tgh1,
    /// Rings of the last item, then of the one before it.
    Tgh2,
}

/// Which item of the history a ring lies around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// The latest.
    Last,
    /// The one before it.
    Previous,
}

/// Which ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    /// What followed the anchor.
    One,
    /// What followed that.
    Two,
}

/// One step of filling a list: items of one ring, best first, repeats skipped, up to `most` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) anchor: Anchor,
    pub(super) ring: Ring,
    pub(super) most: usize,
}

use Anchor::{Last, Previous};
use Ring::{One, Two};

impl Variant {
    /// Budgets of the first stages as shares; they are the paper's numbers for ten items.
    pub(super) fn default_budgets(self) -> Vec<u32> {
        match self {
            Self::Tgh1 => vec![7, 3],
            Self::Tgh2 => vec![5, 1, 3, 1],
        }
    }

    /// How many events of a history matter.
    pub(super) fn window(self) -> usize {
        match self {
            Self::Tgh1 => 1,
            Self::Tgh2 => 2,
        }
    }

    fn budgeted(self) -> &'static [(Anchor, Ring)] {
        match self {
            Self::Tgh1 => &[(Last, One), (Last, Two)],
            Self::Tgh2 => &[(Last, One), (Last, Two), (Previous, One), (Previous, Two)],
        }
    }

    /// Where what is left of a list comes from, before popularity.
    fn rest(self) -> &'static [(Anchor, Ring)] {
        match self {
            Self::Tgh1 => &[(Last, One), (Last, Two)],
            Self::Tgh2 => &[(Last, One), (Previous, One), (Last, Two), (Previous, Two)],
        }
    }

    /// The stages of a list of `k`: one for each budget, then the rest of every ring.
    ///
    /// Budgets are shares of `k`, cut where their running sums round to: 5, 1, 3, 1 give 5/1/3/1 of ten,
    /// 10/2/6/2 of twenty, 3/0/2/0 of five.
    pub(super) fn stages(self, budgets: &[u32], k: usize) -> Vec<Stage> {
        let total: u128 = budgets.iter().map(|&b| u128::from(b)).sum::<u128>().max(1);
        let (mut sum, mut filled) = (0u128, 0usize);
        let mut stages = Vec::with_capacity(self.budgeted().len() + self.rest().len());
        for (&(anchor, ring), &budget) in self.budgeted().iter().zip(budgets) {
            sum += u128::from(budget);
            let end = ((2 * sum * k as u128 + total) / (2 * total)) as usize;
            stages.push(Stage { anchor, ring, most: end - filled });
            filled = end;
        }
        stages.extend(self.rest().iter().map(|&(anchor, ring)| Stage { anchor, ring, most: usize::MAX }));
        stages
    }
}

/// The list score of an item that stage `stage` of `stages` took from a ring where it has `score`:
/// (`stages` − `stage`) + (`score` + 1)/4.
///
/// Ring scores lie in [−1, 1.5], so the second part lies in [0, 1) and a later stage never outranks an earlier
/// one; what no stage takes is scored below 1, by popularity. The second part is a multiple of 2⁻²⁰ and there are
/// at most 8 stages: the sum is exact in an f32, and distinct ring scores stay distinct.
pub(super) fn list_score(stages: usize, stage: usize, score: f32) -> f32 {
    (stages - stage) as f32 + ((score + 1.0) / 4.0).clamp(0.0, 0.999)
}

/// Walks the stages and takes what `allowed` lets through, up to `limit` items. `ring` gives a stage's list, best
/// first, which is empty where the history has no such anchor. Returns each item with the score of
/// [`list_score`]: not increasing.
pub(super) fn fill<'a>(
    stages: &[Stage],
    limit: usize,
    ring: impl Fn(Anchor, Ring) -> (&'a [u32], &'a [f32]),
    allowed: impl Fn(u32) -> bool,
) -> Vec<Scored> {
    let mut list: Vec<Scored> = Vec::with_capacity(limit.min(64));
    for (number, stage) in stages.iter().enumerate() {
        let end = limit.min(list.len().saturating_add(stage.most));
        let (items, scores) = ring(stage.anchor, stage.ring);
        for (&item, &score) in items.iter().zip(scores) {
            if list.len() >= end {
                break;
            }
            // A list holds a few hundred items at most: a scan is cheaper than a set.
            if allowed(item) && !list.iter().any(|scored| scored.item == item) {
                list.push(Scored { item, score: list_score(stages.len(), number, score) });
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(variant: Variant, k: usize) -> Vec<usize> {
        let all = variant.default_budgets();
        variant.stages(&all, k)[..all.len()].iter().map(|stage| stage.most).collect()
    }

    #[test]
    fn budgets_are_the_papers_at_ten_and_always_add_up_to_k() {
        assert_eq!(budgets(Variant::Tgh1, 10), [7, 3]);
        assert_eq!(budgets(Variant::Tgh2, 10), [5, 1, 3, 1]);
        assert_eq!(budgets(Variant::Tgh2, 20), [10, 2, 6, 2]);
        assert_eq!(budgets(Variant::Tgh2, 5), [3, 0, 2, 0]);
        assert_eq!(budgets(Variant::Tgh2, 1), [1, 0, 0, 0]);
        for k in 0..200 {
            assert_eq!(budgets(Variant::Tgh1, k).iter().sum::<usize>(), k);
            assert_eq!(budgets(Variant::Tgh2, k).iter().sum::<usize>(), k);
        }
    }

    #[test]
    fn repeats_do_not_use_up_a_budget() {
        let stages = Variant::Tgh2.stages(&[5, 1, 3, 1], 10);
        let (last, previous): ([u32; 6], [u32; 6]) = ([1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9]);
        let scores = [0.5f32, 0.4, 0.3, 0.2, 0.1, 0.0];
        let ring = |anchor, ring| match (anchor, ring) {
            (Last, One) => (&last[..], &scores[..]),
            (Previous, One) => (&previous[..], &scores[..]),
            _ => (&[][..], &[][..]),
        };
        let list = fill(&stages, 10, ring, |item| item != 2);
        let items: Vec<u32> = list.iter().map(|scored| scored.item).collect();
        assert_eq!(items, [1, 3, 4, 5, 6, 7, 8, 9]);
        assert!(list.is_sorted_by(|a, b| a.score > b.score));
    }

    #[test]
    fn neighbouring_ring_scores_stay_apart_in_the_first_stage() {
        let step = super::super::rings::STEP;
        for score in [-1.0, -step, 0.0, 0.25, 1.5 - step] {
            assert!(list_score(8, 0, score) < list_score(8, 0, score + step));
            assert!(list_score(8, 1, 1.5) < list_score(8, 0, score));
        }
    }
}
