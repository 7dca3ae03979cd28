//! One list of several: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009).

use std::collections::HashMap;
use std::hash::Hash;

/// What is added to ranks, as published: how little the first places count more than those after them.
const RANK_CONSTANT: f64 = 60.0;

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

/// One list of what text, vectors and a model have found, each best first, where the model counts `weight` times. What the model
/// does not know (it came after the training, or nobody had touched it) has the place in the model's list of what is as good a
/// find by text and vectors and is known. The scores of the only list that there is stay: they say more than ranks.
pub fn fuse_with_model<T: Clone + Eq + Hash>([text, vectors, model]: [&[(T, f64)]; 3], weight: f64) -> Vec<(T, f64)> {
    let lists: [Weighted<'_, T>; 3] = [(1.0, text), (1.0, vectors), (weight, model)];
    let lists: Vec<Weighted<'_, T>> = lists.into_iter().filter(|(_, list)| !list.is_empty()).collect();
    let mut fused = match lists.as_slice() {
        [(_, only)] => return only.to_vec(),
        lists => fuse(lists),
    };
    if !model.is_empty() {
        let known: HashMap<&T, u32> = ranks(model).collect();
        let unasked = fuse(&[(1.0, text), (1.0, vectors)]);
        let mut of_known: Vec<u32> = unasked.iter().filter_map(|(one, _)| known.get(one).copied()).collect();
        of_known.sort_unstable();
        let place = |rank: u32| {
            let as_good = (rank as usize - 1) * of_known.len() / unasked.len();
            of_known.get(as_good).copied().unwrap_or(rank)
        };
        let places: HashMap<&T, u32> = ranks(&unasked).map(|(one, rank)| (one, place(rank))).collect();
        for (one, score) in fused.iter_mut().filter(|(one, _)| !known.contains_key(one)) {
            *score += places.get(one).map_or(0.0, |&place| weight / (RANK_CONSTANT + f64::from(place)));
        }
        fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    }
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
#[allow(clippy::unwrap_used)]
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
    fn a_model_has_no_say_in_what_it_does_not_know() {
        let (text, vectors) = (falling(&["new", "a", "b"]), falling(&["a", "new"]));
        let fused = fuse_with_model([&text, &vectors, &falling(&["b", "a", "c"])], 8.0);
        // The new one is as good a find as any, and so it is as if the model had it first, too.
        assert_eq!(order(&fused), ["new", "a", "b", "c"]);
        let place = |one| fused.iter().find(|(other, _)| *other == one).unwrap().1;
        assert!((place("new") - (1.0 / 61.0 + 1.0 / 62.0 + 8.0 / 61.0)).abs() < 1e-12);
        assert!((place("b") - (1.0 / 63.0 + 8.0 / 61.0)).abs() < 1e-12);
        // Beside what the model thinks of by itself it is no better than what is found with it and known.
        let fused = fuse_with_model([&[("new", 1.0), ("a", 1.0)], &[], &falling(&["c", "d", "e", "a"])], 8.0);
        let place = |one| fused.iter().find(|(other, _)| *other == one).unwrap().1;
        assert!((place("new") - place("a")).abs() < 1e-12 && (place("a") - (1.0 / 61.0 + 8.0 / 64.0)).abs() < 1e-12);
        assert_eq!(fuse_with_model([&text, &[], &[]], 8.0), text);
        assert_eq!(fuse_with_model([&[], &[], &vectors], 8.0), vectors);
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
