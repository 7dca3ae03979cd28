//! The best items against a ranking of their scores.

use super::Cuda;
use super::tests::{devices, tensor};
use crate::cpu::reference::{Random, ranking, relative_error};
use crate::{Filter, Scored};

#[test]
fn the_best_items_are_those_of_a_ranking_of_their_scores() {
    let mut random = Random::new();
    for (cuda, _) in devices() {
        for (rows, dim, queries) in [(300, 33, 40), (1, 5, 7), (140, 150, 33), (2100, 8, 7)] {
            check_ranking(&cuda, &mut random, rows, dim, queries);
        }
    }
}

fn check_ranking(cuda: &Cuda, random: &mut Random, rows: usize, dim: usize, count: usize) {
    let mut values = random.normals(rows * dim);
    // Ties, and items of no score.
    for row in 0..rows / 10 {
        let (from, to) = (random.below(rows), random.below(rows));
        values.copy_within(from * dim..(from + 1) * dim, to * dim);
        if row % 5 == 0 {
            values[random.below(rows) * dim] = f32::NAN;
        }
    }
    let items = tensor(values, &[rows, dim]);
    let lengths: Vec<usize> = [10, 0, 1, 128, 129, rows + 3, 300].into_iter().cycle().take(count).collect();
    let queries = random.normals(count * dim);
    let all: Vec<u32> = (0..rows as u32).collect();
    let some = |random: &mut Random| all.iter().copied().filter(|_| random.below(3) == 0).collect::<Vec<_>>();
    let excluded: Vec<Vec<u32>> = lengths.iter().map(|_| some(random)).collect();
    let mut candidates: Vec<Vec<u32>> = lengths.iter().map(|_| some(random)).collect();
    candidates[0].extend([rows as u32, u32::MAX]);
    for listed in [false, true] {
        let filters: Vec<Filter<'_>> = (0..count)
            .map(|q| Filter {
                exclude: if q % 2 == 0 { &excluded[q] } else { &[] },
                candidates: (listed && q % 3 == 0).then_some(&candidates[q][..]),
            })
            .collect();
        let lists = cuda.best(&queries, &items, &lengths, &filters).unwrap();
        for (q, list) in lists.iter().enumerate() {
            let scores = cuda.dots(&queries[q * dim..(q + 1) * dim], &items, &all).unwrap();
            let wanted = ranking(&scores, allowed(filters[q]), lengths[q]);
            let bits = |list: &[Scored]| list.iter().map(|s| (s.item, s.score.to_bits())).collect::<Vec<_>>();
            assert_eq!(bits(list), bits(&wanted), "{:?}, {rows} items, query {q}", cuda.precision());
        }
    }
}

fn allowed(filter: Filter<'_>) -> impl Fn(u32) -> bool {
    move |item| {
        let among = |list: &[u32]| list.binary_search(&item).is_ok();
        !among(filter.exclude) && filter.candidates.is_none_or(among)
    }
}

#[test]
fn the_best_items_are_those_of_double_precision_but_for_near_ties() {
    let mut random = Random::new();
    let (rows, dim, count, k) = (1000, 64, 35, 20);
    let (values, queries) = (random.normals(rows * dim), random.normals(count * dim));
    let items = tensor(values.clone(), &[rows, dim]);
    let half: Vec<u32> = (0..rows as u32).filter(|item| item % 2 == 0).collect();
    let filters: Vec<Filter<'_>> = (0..count)
        .map(|q| match q % 3 {
            0 => Filter { exclude: &half, candidates: None },
            1 => Filter { exclude: &half[..100], candidates: Some(&half) },
            _ => Filter::default(),
        })
        .collect();
    for (cuda, tolerance) in devices() {
        let lists = cuda.best(&queries, &items, &vec![k; count], &filters).unwrap();
        for (q, list) in lists.iter().enumerate() {
            let query = &queries[q * dim..(q + 1) * dim];
            let dot = |row: &[f32]| query.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let scores: Vec<f64> = values.chunks(dim).map(dot).collect();
            let allowed = allowed(filters[q]);
            let mut wanted: Vec<u32> = (0..rows as u32).filter(|&item| allowed(item)).collect();
            wanted.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
            wanted.truncate(k);
            assert_eq!(list.len(), k);
            let true_scores: Vec<f64> = list.iter().map(|s| scores[s.item as usize]).collect();
            let found: Vec<f32> = list.iter().map(|s| s.score).collect();
            let error = relative_error(&found, &true_scores);
            assert!(error < tolerance, "{:?} query {q}: {error}", cuda.precision());
            // At each place is the item that belongs there, or one that is as good as equal to it.
            for (place, (own, wanted)) in list.iter().zip(&wanted).enumerate() {
                let apart = (true_scores[place] - scores[*wanted as usize]).abs();
                let case = format!("{:?} query {q} place {place}: {own:?} for {wanted}", cuda.precision());
                assert!(own.item == *wanted || apart < tolerance * scores[*wanted as usize].abs(), "{case}");
                assert!(allowed(own.item), "{case}");
            }
        }
    }
}

#[test]
fn scores_match_double_precision_and_infinite_ones_are_in_order() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        check_scores(&cuda, &mut random, tolerance);
    }
}

fn check_scores(cuda: &Cuda, random: &mut Random, tolerance: f64) {
    let (values, query) = (random.normals(300 * 50), random.normals(50));
    let items = tensor(values.clone(), &[300, 50]);
    let rows: Vec<u32> = (0..300).rev().collect();
    let dot = |row: &u32| (0..50).map(|d| f64::from(query[d]) * f64::from(values[*row as usize * 50 + d])).sum();
    let wanted: Vec<f64> = rows.iter().map(dot).collect();
    assert!(relative_error(&cuda.dots(&query, &items, &rows).unwrap(), &wanted) < tolerance);
    assert!(cuda.dots(&query, &items, &[]).unwrap().is_empty());

    let items = tensor(vec![f32::INFINITY, f32::NEG_INFINITY, 1.0, f32::INFINITY, f32::NAN], &[5, 1]);
    let lists = cuda.best(&[2.0, f32::NAN], &items, &[9, 9], &[Filter::default(); 2]).unwrap();
    assert_eq!(lists[0].iter().map(|s| s.item).collect::<Vec<_>>(), [0, 3, 2, 1]);
    assert!(lists[1].is_empty());
    assert!(cuda.best(&[], &items, &[], &[]).unwrap().is_empty());
}
