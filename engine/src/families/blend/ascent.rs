//! Weights by which what was chosen ranks best among what there was: coordinate ascent on NDCG (Metzler & Croft 2007,
//! section 4.3), from every model alone and from all alike.

use rayon::prelude::*;

use crate::{Control, Result};

/// One choice.
pub(super) struct Choice {
    /// Of every model, what it says of every candidate.
    pub(super) scores: Vec<Vec<f32>>,
    /// Which candidate was chosen.
    pub(super) chosen: usize,
}

/// What a weight is multiplied with, one after the other; one that is 0 becomes this much of all others together.
const FACTORS: [f64; 14] = [0.0, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.2, 1.4, 2.0, 3.0, 5.0, 10.0];
/// Rounds through all weights, at most.
const ROUNDS: usize = 10;
/// Length at which lists are cut.
const K: usize = 10;
/// Choices that are summed at a time, in a fixed order: the same choices give the same bits.
const PART: usize = 256;

/// The weights of so many models, and the mean NDCG@10 that they reach over all `users`, of whom some have no choice.
pub(super) fn weights(choices: &[Choice], models: usize, users: usize, control: &Control) -> Result<(Vec<f64>, f64)> {
    let spreads: Vec<f64> = (0..models).map(|model| spread(choices, model)).collect();
    // Where weights are of scores that spread alike, they can be compared.
    let of_scores =
        |alike: &[f64]| -> Vec<f64> { alike.iter().zip(&spreads).map(|(weight, spread)| weight / spread).collect() };
    let reached = |alike: &[f64]| gain(choices, &of_scores(alike), control);
    let alone = |model: usize| (0..models).map(|other| f64::from(u8::from(other == model))).collect();
    let starts = (0..models).map(alone).chain([vec![1.0; models]]);
    let mut best: (Vec<f64>, f64) = (vec![0.0; models], 0.0);
    control.enter("weighing the models", models as u64 + 1);
    for start in starts {
        let found = ascended(start, &reached)?;
        control.advance(1)?;
        if found.1 > best.1 {
            best = found;
        }
    }
    let sum: f64 = best.0.iter().sum();
    let shares: Vec<f64> = best.0.iter().map(|weight| weight / sum.max(f64::MIN_POSITIVE)).collect();
    Ok((of_scores(&shares), best.1 / users.max(1) as f64))
}

/// Goes up from `weights`, one weight at a time, until nothing helps.
fn ascended(mut weights: Vec<f64>, reached: &impl Fn(&[f64]) -> Result<f64>) -> Result<(Vec<f64>, f64)> {
    let mut best = reached(&weights)?;
    for _ in 0..ROUNDS {
        let before = best;
        for model in 0..weights.len() {
            let own = weights[model];
            let unit = if own > 0.0 { own } else { weights.iter().sum() };
            let mut chosen = own;
            for factor in FACTORS {
                weights[model] = factor * unit;
                let gain = reached(&weights)?;
                if gain > best {
                    (best, chosen) = (gain, weights[model]);
                }
            }
            weights[model] = chosen;
        }
        if best <= before {
            break;
        }
    }
    Ok((weights, best))
}

/// The mean standard deviation of what a model says of the candidates of a choice.
fn spread(choices: &[Choice], model: usize) -> f64 {
    let of = |choice: &Choice| {
        let scores = &choice.scores[model];
        let n = scores.len() as f64;
        let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / n;
        (scores.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum::<f64>() / n).sqrt()
    };
    let mean = choices.iter().map(of).sum::<f64>() / choices.len().max(1) as f64;
    if mean > 0.0 { mean } else { 1.0 }
}

/// The sum of NDCG@10: 1/log₂(1 + rank) of what was chosen, where that is among the first ten. Of candidates that rank
/// alike, what was chosen comes last.
fn gain(choices: &[Choice], weights: &[f64], control: &Control) -> Result<f64> {
    let of = |Choice { scores, chosen }: &Choice| {
        let sum = |candidate: usize| -> f64 {
            weights.iter().zip(scores).map(|(weight, scores)| weight * f64::from(scores[candidate])).sum()
        };
        let own = sum(*chosen);
        let candidates = scores.first().map_or(0, Vec::len);
        let before = (0..candidates).filter(|candidate| candidate != chosen && sum(*candidate) >= own).take(K).count();
        if before < K { 1.0 / ((before + 2) as f64).log2() } else { 0.0 }
    };
    let part = |part: &[Choice]| {
        control.check()?;
        Ok(part.iter().map(of).sum())
    };
    let parts: Vec<f64> = choices.par_chunks(PART).map(part).collect::<Result<_>>()?;
    Ok(parts.into_iter().sum())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use crate::testing::fresh_seed;

    /// Choices of the best by these weights, which are told with some noise.
    fn drawn(weights: &[f64], count: usize, random: &mut SplitMix) -> Vec<Choice> {
        let choice = |_| {
            let scores: Vec<Vec<f32>> =
                weights.iter().map(|_| (0..60).map(|_| random.truncated_normal()).collect()).collect();
            let utility = |candidate: usize, random: &mut SplitMix| {
                let noise = 0.3 * f64::from(random.truncated_normal());
                weights.iter().zip(&scores).map(|(w, s)| w * f64::from(s[candidate])).sum::<f64>() + noise
            };
            let utilities: Vec<f64> = (0..60).map(|candidate| utility(candidate, random)).collect();
            let chosen = (0..60).max_by(|&a, &b| utilities[a].total_cmp(&utilities[b])).unwrap_or(0);
            Choice { scores, chosen }
        };
        (0..count).map(choice).collect()
    }

    #[test]
    fn weights_are_near_those_by_which_choices_were_made() {
        let mut random = SplitMix::new(fresh_seed());
        let choices = drawn(&[2.0, 1.0, 0.0], 1500, &mut random);
        let (found, ndcg) = weights(&choices, 3, 3000, &Control::default()).unwrap();
        let ratio = found[1] / found[0];
        assert!((0.35..0.75).contains(&ratio) && found[2] < 0.1 * found[0], "{found:?}");
        let half = gain(&choices, &[2.0, 1.0, 0.0], &Control::default()).unwrap() / 3000.0;
        assert!(ndcg > half - 0.005 && ndcg <= 0.5, "{ndcg} against {half}");
    }

    #[test]
    fn a_model_that_is_wrong_weighs_nothing_whatever_the_scale_of_its_scores() {
        let mut random = SplitMix::new(fresh_seed());
        let mut choices = drawn(&[1.0, -1.0], 800, &mut random);
        choices.iter_mut().for_each(|choice| choice.scores[1].iter_mut().for_each(|score| *score *= 1000.0));
        let control = Control::default();
        let (found, _) = weights(&choices, 2, 800, &control).unwrap();
        assert!(found[0] > 0.0 && found[1] == 0.0, "{found:?}");
        assert_eq!(weights(&[], 2, 0, &control).unwrap().1, 0.0);
        control.cancel();
        assert!(weights(&choices, 2, 800, &control).is_err());
    }
}
