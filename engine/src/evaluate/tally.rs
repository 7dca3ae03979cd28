//! What is summed up over the lists of a group, and the figures that come of it.
//!
//! Beside the metrics of single lists ([`crate::metrics`]), those of the ChatGPT-as-recommender study (Di Palma
//! et al. 2023) and of the survey of evaluation, as Elliot (Anelli et al. 2021) defines them:
//! - `epc`, expected popularity complement (Vargas & Castells 2011): Σ disc·rel·(1 − p(seen))/Σ disc, p(seen) the
//!   share of users who touched the item. Mean over users.
//! - `arp`, average recommendation popularity (Yin et al. 2012): mean number of users who touched a listed item.
//! - `aclt`, average coverage of long-tail items (Abdollahpouri et al. 2019): number of long-tail items in a list.
//! - `coverage`: share of the catalogue that is in any list.
//! - `gini`: Σ (2j − n − 1)·x_j/((n − 1)·Σ x) over all n items, x_j ascending the number of lists an item is in;
//!   0 when all are shown alike, 1 when one item is all that is shown.
//! - `popreo` (Zhu et al. 2020): standard deviation over mean of the hit rates of targets in the short head and in
//!   the long tail; 0 is fair. No row where it is undefined: no hits, or no targets in one of the two.
//!
//! The short head are the most popular items that together have 80 % of the interactions, the long tail all others.

use pgrec_kernels::Scored;

use super::EvalRow;
use super::groups::{ALL, Groups};
use super::split::Space;
use crate::metrics::{Mean, Metric, discount};

const HEAD_OF_INTERACTIONS: f64 = 0.8;

/// Sums of all groups at all cut-offs.
pub(super) struct Tally<'a> {
    space: &'a Space,
    ks: &'a [usize],
    tail: Vec<bool>,
    /// Σ of the first discounts, at every length of list.
    discounts: Vec<f64>,
    /// By group, then by k.
    sums: Vec<Vec<Sums>>,
}

#[derive(Clone)]
struct Sums {
    metrics: [Mean; Metric::ALL.len()],
    epc: Mean,
    arp: Mean,
    aclt: Mean,
    /// In how many lists each item was.
    shown: Vec<u32>,
    /// Targets and hits in the head and in the tail.
    targets: [u64; 2],
    hits: [u64; 2],
}

impl<'a> Tally<'a> {
    pub(super) fn new(groups: &Groups, space: &'a Space, ks: &'a [usize]) -> Self {
        let mut tail = vec![true; space.len()];
        let all: u64 = space.touched_by.iter().map(|&n| u64::from(n)).sum();
        let mut left = all as f64 * HEAD_OF_INTERACTIONS;
        for item in space.by_popularity() {
            if left <= 0.0 {
                break;
            }
            tail[item as usize] = false;
            left -= f64::from(space.touched_by[item as usize]);
        }
        let empty = Sums {
            metrics: Default::default(),
            epc: Mean::default(),
            arp: Mean::default(),
            aclt: Mean::default(),
            shown: vec![0; space.len()],
            targets: [0; 2],
            hits: [0; 2],
        };
        Self { space, ks, tail, discounts: vec![0.0], sums: vec![vec![empty; ks.len()]; groups.names.len()] }
    }

    /// Adds a user's list to the groups the user is in.
    pub(super) fn add(&mut self, groups: impl Iterator<Item = usize> + Clone, list: &[Scored], target: u32) {
        while self.discounts.len() <= list.len() {
            let place = self.discounts.len() - 1;
            self.discounts.push(self.discounts[place] + discount(place));
        }
        let hit: Vec<usize> = list.iter().position(|scored| scored.item == target).into_iter().collect();
        let target_part = usize::from(self.tail[target as usize]);
        let novelty = 1.0 - f64::from(self.space.touched_by[target as usize]) / self.space.users as f64;
        for (number, &k) in self.ks.iter().enumerate() {
            let list = &list[..list.len().min(k)];
            let is_hit = hit.first().is_some_and(|&place| place < k);
            let gain = hit.first().filter(|_| is_hit).map_or(0.0, |&place| discount(place) * novelty);
            let popularity: f64 = list.iter().map(|s| f64::from(self.space.touched_by[s.item as usize])).sum();
            let in_tail = list.iter().filter(|s| self.tail[s.item as usize]).count();
            for group in groups.clone() {
                let sums = &mut self.sums[group][number];
                for (mean, metric) in sums.metrics.iter_mut().zip(Metric::ALL) {
                    mean.push(metric.of(&hit, 1, k));
                }
                // An empty list shows nothing: it is neither novel nor popular.
                sums.epc.push(if list.is_empty() { 0.0 } else { gain / self.discounts[list.len()] });
                sums.arp.push(if list.is_empty() { 0.0 } else { popularity / list.len() as f64 });
                sums.aclt.push(in_tail as f64);
                list.iter().for_each(|s| sums.shown[s.item as usize] += 1);
                sums.targets[target_part] += 1;
                sums.hits[target_part] += u64::from(is_hit);
            }
        }
    }

    /// All figures, groups and cut-offs in order.
    pub(super) fn rows(&self, groups: &Groups) -> Vec<EvalRow> {
        let mut rows = Vec::new();
        for (grp, by_k) in groups.names.iter().zip(&self.sums) {
            for (&k, sums) in self.ks.iter().zip(by_k) {
                sums.rows(grp, k, &mut rows);
            }
        }
        rows
    }
}

impl Sums {
    fn rows(&self, grp: &str, k: usize, rows: &mut Vec<EvalRow>) {
        let named = self.metrics.iter().zip(Metric::ALL).map(|(mean, metric)| (metric.name(), mean));
        for (metric, mean) in named.chain([("epc", &self.epc), ("arp", &self.arp), ("aclt", &self.aclt)]) {
            if let Some(e) = mean.estimate() {
                let (low, high) = (e.low, e.high);
                rows.push(EvalRow { grp: grp.into(), metric, k, value: e.value, low, high, users: e.users });
            }
        }
        let users = self.targets.iter().sum();
        let mut whole = |metric, value: Option<f64>| {
            rows.extend(value.map(|value| EvalRow { grp: grp.into(), metric, k, value, low: None, high: None, users }));
        };
        whole("coverage", Some(coverage(&self.shown)));
        whole("gini", gini(&self.shown));
        // Fairness between head and tail targets is a statement about everybody.
        if grp == ALL {
            whole("popreo", popreo(self.hits, self.targets));
        }
    }
}

/// Share of the items that were shown at all.
fn coverage(shown: &[u32]) -> f64 {
    shown.iter().filter(|&&n| n > 0).count() as f64 / shown.len().max(1) as f64
}

/// How unevenly items were shown; `None` when nothing was, or there is but one item.
fn gini(shown: &[u32]) -> Option<f64> {
    let mut shown = shown.to_vec();
    shown.sort_unstable();
    let n = shown.len() as f64;
    let all: f64 = shown.iter().map(|&x| f64::from(x)).sum();
    let weighted: f64 = shown.iter().enumerate().map(|(j, &x)| (2.0 * (j as f64 + 1.0) - n - 1.0) * f64::from(x)).sum();
    (all > 0.0 && n > 1.0).then(|| weighted / ((n - 1.0) * all))
}

/// Spread of the hit rates of head and tail targets over their mean.
fn popreo(hits: [u64; 2], targets: [u64; 2]) -> Option<f64> {
    let [head, tail] = [0, 1].map(|part| hits[part] as f64 / targets[part] as f64);
    let mean = (head + tail) / 2.0;
    // The standard deviation of two numbers is half their distance.
    (mean > 0.0 && mean.is_finite()).then(|| (head - tail).abs() / 2.0 / mean)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn list_level_metrics_are_those_computed_by_hand() {
        assert_eq!(coverage(&[0, 3, 0, 1]), 0.5);
        assert_eq!(gini(&[2, 2, 2]), Some(0.0));
        assert_eq!(gini(&[0, 0, 7]), Some(1.0));
        // x = 0, 1, 3: (−2·0 + 0·1 + 2·3)/(2·4)
        assert_eq!(gini(&[3, 0, 1]), Some(0.75));
        assert_eq!((gini(&[0, 0]), gini(&[5]), gini(&[])), (None, None, None));
        // Hit rates 1/2 and 1/4: deviation 1/8 over mean 3/8.
        assert!((popreo([2, 1], [4, 4]).unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((popreo([0, 0], [4, 4]), popreo([1, 0], [4, 0])), (None, None));
    }
}
