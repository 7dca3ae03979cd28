//! One list of several: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009).

use std::collections::HashMap;
use std::hash::Hash;

/// What is added to ranks, as published: how little the first places count more than those after them.
pub const RANK_CONSTANT: f64 = 60.0;

/// Everything that is in any of the lists, best first: Σ weight / (60 + rank). `lists`: weights and lists, best first. Of
/// equal scores that comes first which comes first in the earliest list.
pub fn fuse<T: Clone + Eq + Hash>(lists: &[(f64, &[T])]) -> Vec<(T, f64)> {
    let mut places: HashMap<&T, usize> = HashMap::new();
    let mut fused: Vec<(T, f64)> = Vec::new();
    for (weight, list) in lists {
        for (rank, one) in (1..).zip(*list) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_lists_have_comes_first() {
        let fused = fuse(&[(1.0, &["a", "b", "c"]), (1.0, &["d", "c"])]);
        assert_eq!(fused.iter().map(|(one, _)| *one).collect::<Vec<_>>(), ["c", "a", "d", "b"]);
        assert!((fused[0].1 - (1.0 / 63.0 + 1.0 / 62.0)).abs() < 1e-12);
    }

    #[test]
    fn weights_count_and_ties_keep_the_order_of_the_lists() {
        let fused = fuse(&[(1.0, &[1, 2]), (2.0, &[2, 3])]);
        assert_eq!(fused.iter().map(|(one, _)| *one).collect::<Vec<_>>(), [2, 3, 1]);
        assert!(fuse::<u32>(&[]).is_empty());
        assert_eq!(fuse(&[(0.0, &[5, 4])]), [(5, 0.0), (4, 0.0)]);
    }
}
