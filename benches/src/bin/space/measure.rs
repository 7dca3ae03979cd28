//! Figures of lists.

use anyhow::Result;
use pgrec_engine::families::Model;
use pgrec_engine::{Control, ItemId, Query};
use pgrec_kernels::Filter;

/// Questions asked at a time.
const SLICE: usize = 1024;

/// What one user is asked for.
pub struct Case<'a> {
    /// What they have touched, oldest first.
    pub history: &'a [i64],
    /// What they will touch.
    pub targets: &'a [i64],
}

/// Lists of `k` items for every case, as ids, best first. `among`: nothing else may be recommended, dense and ascending.
pub fn lists(model: &dyn Model, cases: &[Case<'_>], k: usize, among: Option<&[u32]>) -> Result<Vec<Vec<i64>>> {
    let catalogue = model.catalogue();
    let dense = |ids: &[i64]| -> Vec<u32> { ids.iter().filter_map(|&id| catalogue.index_of_int(id)).collect() };
    let mut all = Vec::with_capacity(cases.len());
    for cases in cases.chunks(SLICE) {
        let histories: Vec<Vec<u32>> = cases.iter().map(|case| dense(case.history)).collect();
        let seen: Vec<Vec<u32>> = histories.iter().map(|history| ascending(history.clone())).collect();
        let ask = |(history, seen)| {
            let (history, exclude): (&Vec<u32>, &Vec<u32>) = (history, seen);
            Query {
                history,
                k,
                filter: Filter { exclude, candidates: among },
                exact_limit: usize::MAX,
                ..Query::default()
            }
        };
        let queries: Vec<Query<'_>> = histories.iter().zip(&seen).map(ask).collect();
        for list in model.recommend(&queries, &Control::default())? {
            all.push(list.iter().filter_map(|scored| id(&catalogue.id(scored.item))).collect());
        }
    }
    Ok(all)
}

fn ascending(mut items: Vec<u32>) -> Vec<u32> {
    items.sort_unstable();
    items.dedup();
    items
}

fn id(id: &ItemId) -> Option<i64> {
    if let ItemId::Int(id) = id { Some(*id) } else { None }
}

/// The share of each case's targets that are among the first `k` of its list.
pub fn recall(lists: &[Vec<i64>], cases: &[Case<'_>], k: usize) -> Vec<f64> {
    let of = |(list, case): (&Vec<i64>, &Case<'_>)| {
        let found = list.iter().take(k).filter(|item| case.targets.contains(item)).count();
        found as f64 / case.targets.len() as f64
    };
    lists.iter().zip(cases).map(of).collect()
}

/// Normalised discounted cumulative gain of the first `k`.
pub fn ndcg(lists: &[Vec<i64>], cases: &[Case<'_>], k: usize) -> Vec<f64> {
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let of = |(list, case): (&Vec<i64>, &Case<'_>)| {
        let found = list.iter().take(k).enumerate().filter(|(_, item)| case.targets.contains(item));
        let ideal: f64 = (0..case.targets.len().min(k)).map(gain).sum();
        found.map(|(place, _)| gain(place)).sum::<f64>() / ideal
    };
    lists.iter().zip(cases).map(of).collect()
}

/// The mean, with half of its 95 % confidence interval, over users and seeds.
pub fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

/// `.1234 ± .0012`
pub fn shown(values: &[f64]) -> String {
    let (mean, half) = mean(values);
    format!("{mean:.4} ± {half:.4}")
}
