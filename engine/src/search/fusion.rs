//! One list of several: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009).

use std::collections::HashMap;
use std::hash::Hash;

/// What is added to ranks, as published: how little the first places count more than those after them.
pub const RANK_CONSTANT: f64 = 60.0;

/// A list to be fused: how much it counts, and its members with their scores, best first.
pub type Weighted<'a, T> = (f64, &'a [(T, f64)]);

/// Everything that is in any of the lists, best first: Σ weight / (60 + rank). What has the same score in a list has the same
/// rank there, so that the other lists decide among it: short texts of few words are alike by the hundreds. Of equal sums that
/// comes first which comes first in the earliest list.
pub fn fuse<T: Clone + Eq + Hash>(lists: &[Weighted<'_, T>]) -> Vec<(T, f64)> {
    let mut places: HashMap<&T, usize> = HashMap::new();
    let mut fused: Vec<(T, f64)> = Vec::new();
    for (weight, list) in lists {
        for (one, rank) in ranks(list) {
            let place = *places.entry(one).or_insert_with(|| {
                fused.push((one.clone(), 0.0));
                fused.len() - 1
            });
            fused[place].1 += weight / (RANK_CONSTANT + f64::from(rank));
        }
    }
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused
}

/// The members of a list, best first, with their ranks from 1; of equals that of the first.
pub fn ranks<T>(list: &[(T, f64)]) -> impl Iterator<Item = (&T, u32)> {
    let (mut rank, mut last) = (0, None);
    (1..).zip(list).map(move |(place, (one, score))| {
        if last != Some(*score) {
            (rank, last) = (place, Some(*score));
        }
        (one, rank)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list with falling scores.
    fn falling<T: Clone>(list: &[T]) -> Vec<(T, f64)> {
        list.iter().cloned().zip((0..).map(|place| -f64::from(place))).collect()
    }

    fn order<T: Clone>(fused: &[(T, f64)]) -> Vec<T> {
        fused.iter().map(|(one, _)| one.clone()).collect()
    }

    #[test]
    fn what_several_lists_have_comes_first() {
        let fused = fuse(&[(1.0, &falling(&["a", "b", "c"])), (1.0, &falling(&["d", "c"]))]);
        assert_eq!(order(&fused), ["c", "a", "d", "b"]);
        assert!((fused[0].1 - (1.0 / 63.0 + 1.0 / 62.0)).abs() < 1e-12);
    }

    #[test]
    fn weights_count_and_ties_keep_the_order_of_the_lists() {
        let fused = fuse(&[(1.0, &falling(&[1, 2])), (2.0, &falling(&[2, 3]))]);
        assert_eq!(order(&fused), [2, 3, 1]);
        assert!(fuse::<u32>(&[]).is_empty());
        assert_eq!(fuse(&[(0.0, &falling(&[5, 4]))]), [(5, 0.0), (4, 0.0)]);
    }

    #[test]
    fn among_equals_of_one_list_another_decides() {
        let alike = [("a", 2.0), ("b", 2.0), ("c", 2.0), ("d", 1.0)];
        let fused = fuse(&[(1.0, &alike), (1.0, &falling(&["c", "d", "b"]))]);
        assert_eq!(order(&fused), ["c", "b", "d", "a"]);
        // The one after three equals is fourth.
        assert!((fused[2].1 - (1.0 / 64.0 + 1.0 / 62.0)).abs() < 1e-12);
    }
}
