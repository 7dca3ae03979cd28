//! From a distance to a probability: σ(a − b·d), fitted and judged on pairs that nothing was learnt from.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Rows of a reliability table.
const ROWS: usize = 10;
/// Newton's steps, at most; they converge in some ten.
const STEPS: usize = 100;
/// Pairs that came true, below which nothing is fitted and nothing judged.
const LEAST: usize = 10;

/// σ(a − b·d)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// a
    pub a: f64,
    /// b
    pub b: f64,
}

/// A user and an item, how far they are apart, whether it came true, and how many pairs this one stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// d
    pub distance: f64,
    /// Whether the user's next interaction was with the item.
    pub happened: bool,
    /// Pairs it stands for, where others were drawn.
    pub weight: f64,
}

impl Logistic {
    /// The probability at this distance.
    pub fn probability(&self, distance: f64) -> f64 {
        1.0 / (1.0 + (self.b * distance - self.a).exp())
    }

    /// The most likely one for pairs (Newton's method, with a step halved until it gains); none for too few that came true.
    pub fn fit(pairs: &[Pair]) -> Option<Self> {
        let happened = pairs.iter().filter(|pair| pair.happened).count();
        let all: f64 = pairs.iter().map(|pair| pair.weight).sum();
        let true_ones: f64 = pairs.iter().filter(|pair| pair.happened).map(|pair| pair.weight).sum();
        if happened < LEAST || true_ones >= all {
            return None;
        }
        // At first all pairs are as likely as they are on average.
        let mut best = Self { a: (true_ones / (all - true_ones)).ln(), b: 0.0 };
        let mut loss = best.loss(pairs);
        best.newton(pairs)?;
        for _ in 0..STEPS {
            // Where distances part the pairs wholly, there is no end to it but that of the numbers.
            let Some((da, db)) = best.newton(pairs) else { break };
            let mut by = 1.0;
            let next = loop {
                let next = Self { a: best.a + by * da, b: best.b + by * db };
                let next_loss = next.loss(pairs);
                if next_loss <= loss {
                    break Some((next, next_loss));
                }
                by /= 2.0;
                if by < 1e-6 {
                    break None;
                }
            };
            let Some((next, next_loss)) = next else { break };
            let gain = loss - next_loss;
            (best, loss) = (next, next_loss);
            if gain <= 1e-12 * loss.abs() {
                break;
            }
        }
        Some(best)
    }

    /// Minus the logarithm of the pairs' likelihood.
    fn loss(&self, pairs: &[Pair]) -> f64 {
        let of = |pair: &Pair| {
            let z = self.a - self.b * pair.distance;
            // ln(1 + eᶻ), without overflow.
            let softplus = z.max(0.0) + (-z.abs()).exp().ln_1p();
            pair.weight * (softplus - if pair.happened { z } else { 0.0 })
        };
        pairs.iter().map(of).sum()
    }

    /// Newton's step in a and b; none where all pairs are at one distance.
    fn newton(&self, pairs: &[Pair]) -> Option<(f64, f64)> {
        let (mut g, mut h) = ([0.0; 2], [0.0; 3]);
        for &Pair { distance, happened, weight } in pairs {
            let p = self.probability(distance);
            let (off, curve) = (weight * (p - f64::from(u8::from(happened))), weight * p * (1.0 - p));
            g = [g[0] + off, g[1] - off * distance];
            h = [h[0] + curve, h[1] - curve * distance, h[2] + curve * distance * distance];
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        let enough = determinant > 1e-12 * h[0] * h[2];
        enough.then(|| ((h[1] * g[1] - h[2] * g[0]) / determinant, (h[1] * g[0] - h[0] * g[1]) / determinant))
    }

    /// How well it tells what pairs came true that it was not fitted on: Brier score, that of the same probability for all,
    /// and a reliability table, whose rows expect equally many of them to. None where too few did.
    pub fn judge(&self, pairs: &[Pair]) -> Option<Value> {
        if pairs.iter().filter(|pair| pair.happened).count() < LEAST {
            return None;
        }
        let all: f64 = pairs.iter().map(|pair| pair.weight).sum();
        let truth = |pair: &Pair| f64::from(u8::from(pair.happened));
        let mean = |of: &dyn Fn(&Pair) -> f64| pairs.iter().map(|pair| pair.weight * of(pair)).sum::<f64>() / all;
        let rate = mean(&truth);
        let brier = mean(&|pair| (self.probability(pair.distance) - truth(pair)).powi(2));
        Some(json!({
            "a": self.a,
            "b": self.b,
            "brier": brier,
            "brier_of_rate": rate * (1.0 - rate),
            "rate": rate,
            "expected_rate": mean(&|pair| self.probability(pair.distance)),
            "pairs": all.round(),
            "reliability": self.reliability(pairs),
        }))
    }

    fn reliability(&self, pairs: &[Pair]) -> Vec<Value> {
        let mut sorted: Vec<(f64, &Pair)> = pairs.iter().map(|pair| (self.probability(pair.distance), pair)).collect();
        sorted.sort_by(|x, y| x.0.total_cmp(&y.0));
        let expected: f64 = sorted.iter().map(|(p, pair)| p * pair.weight).sum();
        let mut rows = Vec::with_capacity(ROWS);
        let (mut begin, mut sum) = (0, 0.0);
        for (place, (p, pair)) in sorted.iter().enumerate() {
            sum += p * pair.weight;
            let full = sum >= expected * (rows.len() + 1) as f64 / ROWS as f64;
            if full || place + 1 == sorted.len() {
                rows.push(row(&sorted[begin..=place]));
                begin = place + 1;
            }
        }
        rows
    }
}

fn row(pairs: &[(f64, &Pair)]) -> Value {
    let weight: f64 = pairs.iter().map(|(_, pair)| pair.weight).sum();
    let predicted = pairs.iter().map(|(p, pair)| p * pair.weight).sum::<f64>() / weight;
    let happened: f64 = pairs.iter().filter(|(_, pair)| pair.happened).map(|(_, pair)| pair.weight).sum();
    json!({
        "from": pairs[0].0,
        "to": pairs[pairs.len() - 1].0,
        "pairs": weight.round(),
        "predicted": predicted,
        "observed": happened / weight,
        "happened": happened.round(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use crate::testing;

    fn drawn(seed: u64, n: usize, truth: Logistic) -> Vec<Pair> {
        let mut random = SplitMix::new(seed);
        let pair = |_| {
            let distance = 2.0 * f64::from(random.uniform());
            let happened = f64::from(random.uniform()) < truth.probability(distance);
            Pair { distance, happened, weight: 1.0 }
        };
        (0..n).map(pair).collect()
    }

    #[test]
    fn finds_what_pairs_were_drawn_by_and_says_how_well() {
        let seed = testing::fresh_seed();
        let truth = Logistic { a: 1.5, b: 3.0 };
        let found = Logistic::fit(&drawn(seed, 60_000, truth)).unwrap();
        assert!((found.a - truth.a).abs() < 0.15 && (found.b - truth.b).abs() < 0.2, "{found:?}");
        let judged = found.judge(&drawn(!seed, 60_000, truth)).unwrap();
        assert!(judged["brier"].as_f64() < judged["brier_of_rate"].as_f64());
        let rows = judged["reliability"].as_array().unwrap();
        assert_eq!(rows.len(), ROWS);
        for row in rows {
            let of = |name: &str| row[name].as_f64().unwrap();
            // Five standard deviations of a mean of so many.
            let most = 5.0 * (of("predicted") * (1.0 - of("predicted")) / of("pairs")).sqrt() + 0.02;
            assert!((of("predicted") - of("observed")).abs() < most, "{row}");
        }
    }

    #[test]
    fn pairs_that_stand_for_many_count_as_many() {
        let seed = testing::fresh_seed();
        let pairs = drawn(seed, 500, Logistic { a: 0.5, b: 2.0 });
        let mut random = SplitMix::new(!seed);
        let (mut weighted, mut repeated) = (Vec::new(), Vec::new());
        for pair in pairs {
            let times = 1 + random.below(4);
            weighted.push(Pair { weight: times as f64, ..pair });
            repeated.extend(std::iter::repeat_n(pair, times));
        }
        let (one, other) = (Logistic::fit(&weighted).unwrap(), Logistic::fit(&repeated).unwrap());
        assert!((one.a - other.a).abs() < 1e-6 && (one.b - other.b).abs() < 1e-6, "{one:?} {other:?}");
        // The derivative of the likelihood is zero there.
        for (a, b) in [(1e-4, 0.0), (-1e-4, 0.0), (0.0, 1e-4), (0.0, -1e-4)] {
            let near = Logistic { a: one.a + a, b: one.b + b };
            assert!(near.loss(&weighted) >= one.loss(&weighted));
        }
    }

    #[test]
    fn too_little_is_not_fitted() {
        let pair = |distance, happened| Pair { distance, happened, weight: 1.0 };
        assert_eq!(Logistic::fit(&[]), None);
        assert_eq!(Logistic::fit(&vec![pair(1.0, true); 50]), None);
        assert_eq!(Logistic::fit(&vec![pair(1.0, false); 50]), None);
        let one_distance: Vec<Pair> = (0..100).map(|n| pair(1.0, n % 2 == 0)).collect();
        assert_eq!(Logistic::fit(&one_distance), None);
        // Distances that part them wholly: bounded steps, and a number in the end.
        let parted: Vec<Pair> = (0..100).map(|n| pair(f64::from(n), n < 30)).collect();
        let found = Logistic::fit(&parted).unwrap();
        assert!(found.a.is_finite() && found.b.is_finite() && found.probability(0.0) > 0.9);
        assert!(found.judge(&parted[..5]).is_none());
    }
}
