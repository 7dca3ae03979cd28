//! Metrics of ranked lists, one list at a time and averaged over many.
//!
//! Relevance is binary. With one relevant item a list, as in leave-one-out, recall is the hit rate and average
//! precision the reciprocal rank. Definitions: Järvelin & Kekäläinen 2002 (nDCG), Herlocker et al. 2004
//! (precision, recall, F1), Voorhees 1999 (MRR); AP is cut off at k and divided by min(relevant, k).

use std::collections::HashSet;
use std::hash::Hash;

/// A metric of one ranked list, larger is better, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Whether the first k hold a relevant item.
    Hr,
    /// Discounted gain 1/log2(rank + 1) of the relevant items, over that of the best possible list.
    Ndcg,
    /// Share of the relevant items among the first k.
    Recall,
    /// Share of the first k that is relevant; a list shorter than k is divided by k all the same.
    Precision,
    /// Harmonic mean of precision and recall.
    F1,
    /// Average precision: mean over the relevant items of the precision at their rank.
    Map,
    /// One over the rank of the first relevant item.
    Mrr,
}

impl Metric {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] = [Self::Hr, Self::Ndcg, Self::Recall, Self::Precision, Self::F1, Self::Map, Self::Mrr];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hr => "hr",
            Self::Ndcg => "ndcg",
            Self::Recall => "recall",
            Self::Precision => "precision",
            Self::F1 => "f1",
            Self::Map => "map",
            Self::Mrr => "mrr",
        }
    }

    /// The metric of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The metric at `k`, from the places (0 is first, ascending) at which relevant items stand in the list, and
    /// the number of relevant items there are. 0 where nothing is relevant or `k` is 0.
    pub fn of(self, hits: &[usize], relevant: usize, k: usize) -> f64 {
        let hits = &hits[..hits.partition_point(|&place| place < k)];
        if hits.is_empty() || relevant == 0 {
            return 0.0;
        }
        let found = hits.len() as f64;
        let best = relevant.min(k);
        match self {
            Self::Hr => 1.0,
            Self::Ndcg => hits.iter().map(|&place| discount(place)).sum::<f64>() / (0..best).map(discount).sum::<f64>(),
            Self::Recall => found / relevant as f64,
            Self::Precision => found / k as f64,
            // 2PR/(P + R) with P = found/k and R = found/relevant.
            Self::F1 => 2.0 * found / (k + relevant) as f64,
            Self::Map => {
                let precisions = hits.iter().enumerate().map(|(n, &place)| (n + 1) as f64 / (place + 1) as f64);
                precisions.sum::<f64>() / best as f64
            }
            Self::Mrr => 1.0 / (hits[0] + 1) as f64,
        }
    }
}

/// What a hit at `place` (0 is first) is worth in nDCG and EPC: 1/log2(place + 2).
pub fn discount(place: usize) -> f64 {
    1.0 / (place as f64 + 2.0).log2()
}

/// Places of the relevant items among the first `k` recommended ones, ascending, and the number of distinct
/// relevant items. An item recommended twice counts where it stands first.
pub fn hits<T: Eq + Hash>(recommended: &[T], relevant: &[T], k: usize) -> (Vec<usize>, usize) {
    let mut open: HashSet<&T> = relevant.iter().collect();
    let relevant = open.len();
    let places = recommended.iter().take(k).enumerate();
    (places.filter(|(_, item)| open.remove(item)).map(|(place, _)| place).collect(), relevant)
}

/// A mean under way, with what its confidence interval needs. Merging and pushing agree up to rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    users: u64,
    mean: f64,
    /// Sum of squared deviations from the mean (Welford 1962; merged as in Chan et al. 1979).
    squares: f64,
}

impl Mean {
    /// Adds one user's value.
    pub fn push(&mut self, value: f64) {
        self.users += 1;
        let off = value - self.mean;
        self.mean += off / self.users as f64;
        self.squares += off * (value - self.mean);
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        if other.users == 0 {
            return;
        }
        let (a, b) = (self.users as f64, other.users as f64);
        let off = other.mean - self.mean;
        self.users += other.users;
        self.mean += off * b / (a + b);
        self.squares += other.squares + off * off * a * b / (a + b);
    }

    /// The mean and its 95 % confidence interval, mean ± 1.96·s/√n, by normal approximation; no interval for
    /// fewer than two values, and `None` for none at all.
    pub fn estimate(&self) -> Option<Estimate> {
        let users = self.users;
        let half = (users > 1).then(|| 1.96 * (self.squares / (users - 1) as f64 / users as f64).sqrt());
        let (low, high) = (half.map(|half| self.mean - half), half.map(|half| self.mean + half));
        (users > 0).then_some(Estimate { value: self.mean, low, high, users })
    }
}

/// A mean over users.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Lower end of its 95 % confidence interval.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// How many values it is the mean of.
    pub users: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn values_are_those_computed_by_hand() {
        // a and d of the three relevant a, d, z stand at ranks 1 and 4; the second a is a repeat.
        let (places, relevant) = hits(&["a", "b", "a", "d", "e"], &["z", "a", "d", "a"], 5);
        assert_eq!((places.as_slice(), relevant), (&[0, 3][..], 3));
        let of = |metric: Metric| metric.of(&places, relevant, 5);
        near(of(Metric::Hr), 1.0);
        near(of(Metric::Recall), 2.0 / 3.0);
        near(of(Metric::Precision), 2.0 / 5.0);
        near(of(Metric::F1), 0.5);
        near(of(Metric::Map), (1.0 + 2.0 / 4.0) / 3.0);
        near(of(Metric::Mrr), 1.0);
        near(of(Metric::Ndcg), (1.0 + 1.0 / 5f64.log2()) / (1.0 + 1.0 / 3f64.log2() + 0.5));
        near(Metric::Ndcg.of(&places, relevant, 1), 1.0);
        near(Metric::Recall.of(&places, relevant, 3), 1.0 / 3.0);
    }

    #[test]
    fn nothing_relevant_nothing_recommended_and_k_zero_are_no_division_by_zero() {
        for metric in Metric::ALL {
            assert_eq!(Metric::find(metric.name()), Some(metric));
            for (hits, relevant, k) in [(&[][..], 0, 0), (&[], 3, 5), (&[0], 0, 5), (&[0], 1, 0)] {
                assert_eq!(metric.of(hits, relevant, k), 0.0);
            }
            near(metric.of(&[0], 1, 1), 1.0);
        }
        let mut mean = Mean::default();
        assert_eq!(mean.estimate(), None);
        let (places, relevant) = hits::<i64>(&[], &[1], 10);
        mean.push(Metric::Ndcg.of(&places, relevant, 10));
        assert_eq!(mean.estimate(), Some(Estimate { value: 0.0, low: None, high: None, users: 1 }));
    }

    #[test]
    fn parts_merged_give_the_interval_of_the_whole() {
        let values: Vec<f64> = (0..101).map(|i| f64::from(i * i % 37) / 37.0).collect();
        let mean = values.iter().sum::<f64>() / 101.0;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 100.0).sqrt();
        let mut whole = Mean::default();
        for part in [&values[..0], &values[..40], &values[40..41], &values[41..]] {
            let mut mean = Mean::default();
            part.iter().for_each(|&v| mean.push(v));
            whole.merge(&mean);
        }
        let estimate = whole.estimate().unwrap();
        near(estimate.value, mean);
        near(estimate.high.unwrap() - mean, 1.96 * deviation / 101f64.sqrt());
        near(mean - estimate.low.unwrap(), estimate.high.unwrap() - mean);
        assert_eq!(estimate.users, 101);
    }
}
