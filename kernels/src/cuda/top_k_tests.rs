//! The best items against a ranking of their scores.

use super::tests::{devices, tensor};
use crate::cpu::reference::{Random, ranking, relative_error};
use crate::{Filter, Scored};

#[test]
fn the_best_items_are_those_of_a_ranking_of_their_scores() {
    let mut random = Random::new();
    let (cuda, _) = devices().remove(0);
    for (rows, dim) in [(300, 33), (1, 5), (2100, 8)] {
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
        let lengths = [10, 0, 1, 128, 129, rows + 3, 300];
        let queries = random.normals(lengths.len() * dim);
        let all: Vec<u32> = (0..rows as u32).collect();
        let some = |random: &mut Random| all.iter().copied().filter(|_| random.below(3) == 0).collect::<Vec<_>>();
        let excluded: Vec<Vec<u32>> = lengths.iter().map(|_| some(&mut random)).collect();
        let mut candidates: Vec<Vec<u32>> = lengths.iter().map(|_| some(&mut random)).collect();
        candidates[0].extend([rows as u32, u32::MAX]);
        for listed in [false, true] {
            let filters: Vec<Filter<'_>> = (0..lengths.len())
                .map(|q| Filter {
                    exclude: if q % 2 == 0 { &excluded[q] } else { &[] },
                    candidates: (listed && q % 3 == 0).then_some(&candidates[q][..]),
                })
                .collect();
            let lists = cuda.best(&queries, &items, &lengths, &filters).unwrap();
            for (q, list) in lists.iter().enumerate() {
                let scores = cuda.dots(&queries[q * dim..(q + 1) * dim], &items, &all).unwrap();
                let Filter { exclude, candidates } = filters[q];
                let allowed = |item: u32| {
                    exclude.binary_search(&item).is_err() && candidates.is_none_or(|c| c.binary_search(&item).is_ok())
                };
                let wanted = ranking(&scores, allowed, lengths[q]);
                let bits = |list: &[Scored]| list.iter().map(|s| (s.item, s.score.to_bits())).collect::<Vec<_>>();
                assert_eq!(bits(list), bits(&wanted), "{rows} items, query {q}");
            }
        }
    }
}

#[test]
fn scores_match_double_precision_and_infinite_ones_are_in_order() {
    let mut random = Random::new();
    let (cuda, tolerance) = devices().remove(0);
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
