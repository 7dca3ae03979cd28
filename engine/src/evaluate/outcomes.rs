//! How well a ranking model tells what comes of events.
//!
//! - `auc`: how likely an event whose answer is yes has a higher probability than one whose answer is no (ties count
//!   half), with DeLong's confidence interval (DeLong et al. 1988).
//! - `normalized_entropy` (He et al. 2014): the mean logarithmic loss over that of the share of yeses. Below 1 is better
//!   than knowing only the share.

use super::EvalRow;
use super::groups::{ALL, Groups};
use crate::Task;

/// Probabilities and answers, by group and by task.
pub(super) struct Judged<'a> {
    tasks: &'a [Task],
    groups: Vec<Vec<Answers>>,
}

/// Those of a task: as many probabilities of yeses as of noes, in no order.
#[derive(Clone, Default)]
struct Answers {
    yes: Vec<f64>,
    no: Vec<f64>,
}

impl<'a> Judged<'a> {
    pub(super) fn new(groups: &Groups, tasks: &'a [Task]) -> Self {
        Self { tasks, groups: vec![vec![Answers::default(); tasks.len()]; groups.names.len()] }
    }

    /// Adds an event to its groups: the tasks' probabilities, and what came of it.
    pub(super) fn add(&mut self, groups: impl Iterator<Item = usize>, probabilities: &[f32], outcome: u32) {
        for group in groups {
            for (task, (answers, &p)) in self.groups[group].iter_mut().zip(probabilities).enumerate() {
                let side = if outcome >> task & 1 == 1 { &mut answers.yes } else { &mut answers.no };
                side.push(f64::from(p));
            }
        }
    }

    /// The figures of each group, means over its tasks, and those of each task. None of tasks that have only yeses, or
    /// none.
    pub(super) fn rows(mut self, groups: &Groups) -> Vec<EvalRow> {
        let mut rows = Vec::new();
        for (grp, tasks) in groups.names.iter().zip(&mut self.groups) {
            let figures: Vec<Option<[Figure; 2]>> = tasks.iter_mut().map(Answers::figures).collect();
            let known: Vec<[Figure; 2]> = figures.iter().flatten().copied().collect();
            let users = tasks.first().map_or(0, |answers| answers.yes.len() + answers.no.len()) as u64;
            let mut push = |grp: &str, [auc, entropy]: [Figure; 2]| {
                for (metric, Figure { value, half }) in [("auc", auc), ("normalized_entropy", entropy)] {
                    let (low, high) = (half.map(|half| value - half), half.map(|half| value + half));
                    rows.push(EvalRow { grp: grp.to_owned(), metric, k: 0, value, low, high, users });
                }
            };
            if !known.is_empty() {
                push(grp, [0, 1].map(|metric| mean(known.iter().map(|figures| figures[metric]))));
            }
            if grp == ALL {
                for (task, figures) in self.tasks.iter().zip(&figures) {
                    figures.iter().for_each(|figures| push(&format!("task {}", task.name), *figures));
                }
            }
        }
        rows
    }
}

/// A figure and half of its 95 % confidence interval, where that is known.
#[derive(Debug, Clone, Copy)]
struct Figure {
    value: f64,
    half: Option<f64>,
}

/// The mean; the interval only of a single one, since tasks are not independent.
fn mean(figures: impl ExactSizeIterator<Item = Figure> + Clone) -> Figure {
    let count = figures.len();
    let value = figures.clone().map(|figure| figure.value).sum::<f64>() / count as f64;
    Figure { value, half: figures.clone().next().filter(|_| count == 1).and_then(|figure| figure.half) }
}

impl Answers {
    fn figures(&mut self) -> Option<[Figure; 2]> {
        if self.yes.is_empty() || self.no.is_empty() {
            return None;
        }
        self.yes.sort_unstable_by(f64::total_cmp);
        self.no.sort_unstable_by(f64::total_cmp);
        Some([self.auc(), Figure { value: self.normalized_entropy(), half: None }])
    }

    fn auc(&self) -> Figure {
        // Of each yes the share of noes below it, of each no the share of yeses above it.
        let (above, below) = (shares_below(&self.yes, &self.no), shares_below(&self.no, &self.yes));
        let variance = variance(&above) / above.len() as f64 + variance(&below) / below.len() as f64;
        let value = above.iter().sum::<f64>() / above.len() as f64;
        let known = above.len() > 1 && below.len() > 1;
        Figure { value, half: known.then(|| 1.96 * variance.sqrt()) }
    }

    fn normalized_entropy(&self) -> f64 {
        // A probability that is wrong for certain would make the mean infinite.
        let surprise = |p: f64| -p.max(1e-7).ln();
        let loss: f64 = self.yes.iter().map(|&p| surprise(p)).sum::<f64>()
            + self.no.iter().map(|&p| surprise(1.0 - p)).sum::<f64>();
        let (yes, all) = (self.yes.len() as f64, (self.yes.len() + self.no.len()) as f64);
        let share = yes / all;
        loss / all / (share * surprise(share) + (1.0 - share) * surprise(1.0 - share))
    }
}

/// Of each value the share of `others` that are below it, equal ones counting half. Both ascend.
fn shares_below(values: &[f64], others: &[f64]) -> Vec<f64> {
    let (mut below, mut up_to) = (0, 0);
    let share = |&value: &f64| {
        below += others[below..].iter().take_while(|&&other| other < value).count();
        up_to = up_to.max(below);
        up_to += others[up_to..].iter().take_while(|&&other| other <= value).count();
        (below + up_to) as f64 / 2.0 / others.len() as f64
    };
    values.iter().map(share).collect()
}

/// Of a sample; 0 of a single value.
fn variance(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len().saturating_sub(1).max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use crate::testing::fresh_seed;

    #[test]
    fn the_area_is_the_share_of_pairs_in_order() {
        let mut random = SplitMix::new(fresh_seed());
        for _ in 0..50 {
            let mut draw = |most: usize| -> Vec<f64> {
                (0..1 + random.below(most)).map(|_| random.below(9) as f64 / 10.0 + 0.05).collect()
            };
            let mut answers = Answers { yes: draw(20), no: draw(30) };
            let pairs = answers.yes.iter().flat_map(|yes| answers.no.iter().map(move |no| (yes, no)));
            let ordered: f64 = pairs
                .map(|(yes, no)| {
                    if yes > no {
                        1.0
                    } else if yes == no {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum();
            let wanted = ordered / (answers.yes.len() * answers.no.len()) as f64;
            let [auc, _] = answers.figures().unwrap();
            assert!((auc.value - wanted).abs() < 1e-12, "{} is not {wanted}", auc.value);
        }
    }

    #[test]
    fn entropy_and_interval_are_those_computed_by_hand() {
        let mut answers = Answers { yes: vec![0.8, 0.6], no: vec![0.2, 0.7] };
        let [auc, entropy] = answers.figures().unwrap();
        assert_eq!(auc.value, 0.75);
        // Shares of noes below each yes: .5 and 1; of yeses above each no: 1 and .5. Variances .125, over 2 each.
        assert!((auc.half.unwrap() - 1.96 * 0.125f64.sqrt()).abs() < 1e-12);
        let loss = -(0.8f64.ln() + 0.6f64.ln() + 0.8f64.ln() + 0.3f64.ln()) / 4.0;
        assert!((entropy.value - loss / 2f64.ln()).abs() < 1e-12);
        assert!(Answers { yes: vec![0.5], no: vec![] }.figures().is_none());
    }
}
