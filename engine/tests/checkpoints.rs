//! The published figures of real checkpoints, where the data is present (`PGREC_DATA`, or `../shared/data`).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrec_engine::{Artifact, Control, ItemId, Model, Query, checkpoint, families};
use pgrec_kernels::Filter;
use serde_json::{Value, json};

fn data() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("PGREC_DATA").map_or_else(default, PathBuf::from);
    folder.join("checkpoints").is_dir().then_some(folder)
}

/// The lines of a gzipped table, without the first, split at tabs.
fn table(path: &Path) -> Vec<Vec<i64>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().skip(1).map(|line| line.split('\t').take(3).map(|field| field.parse().unwrap()).collect()).collect()
}

fn import(data: &Path, name: &str, rows: &[Option<ItemId>], params: Value) -> Box<dyn Model> {
    let file = std::fs::read(data.join(format!("checkpoints/icsrec-{name}.safetensors"))).unwrap();
    let built = checkpoint::import(&file, rows, &params, &Control::default()).unwrap();
    families::open(Arc::new(Artifact::from_vec(built.finish().unwrap()).unwrap())).unwrap()
}

/// Every user's items, oldest first.
fn histories(data: &Path, name: &str, model: &dyn Model) -> Vec<Vec<u32>> {
    let mut users: BTreeMap<i64, Vec<(i64, u32)>> = BTreeMap::new();
    for row in table(&data.join(name).join("interactions.tsv.gz")) {
        let item = model.catalogue().index_of_int(row[1]).unwrap();
        users.entry(row[0]).or_default().push((row[2], item));
    }
    users
        .into_values()
        .map(|mut events| {
            events.sort_unstable();
            events.into_iter().map(|(_, item)| item).collect()
        })
        .collect()
}

/// Leave-one-out, full ranking, items of the history excluded: HR@10 and NDCG@10.
fn evaluate(data: &Path, name: &str, model: &dyn Model) -> (f64, f64) {
    let mut histories = histories(data, name, model);
    let targets: Vec<u32> = histories.iter_mut().map(|history| history.pop().unwrap()).collect();
    let seen: Vec<Vec<u32>> = histories
        .iter()
        .zip(&targets)
        .map(|(history, target)| {
            let mut seen: Vec<u32> = history.iter().copied().filter(|item| item != target).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        })
        .collect();
    let queries: Vec<Query<'_>> = histories
        .iter()
        .zip(&seen)
        .map(|(history, exclude)| Query {
            history,
            k: 10,
            filter: Filter { exclude, candidates: None },
            ..Query::default()
        })
        .collect();
    let lists = model.recommend(&queries, &Control::default()).unwrap();
    let (mut hr, mut ndcg) = (0.0, 0.0);
    for (list, target) in lists.iter().zip(&targets) {
        if let Some(rank) = list.iter().position(|s| s.item == *target) {
            hr += 1.0;
            ndcg += 1.0 / ((rank + 2) as f64).log2();
        }
    }
    (hr / targets.len() as f64, ndcg / targets.len() as f64)
}

#[test]
fn imported_checkpoints_reproduce_their_figures() {
    let Some(data) = data() else {
        println!("skipped: no data (set PGREC_DATA)");
        return;
    };
    let beauty: Vec<_> = (1..=12_101).map(|id| Some(ItemId::Int(id))).collect();
    let mut ml = table(&data.join("ml-1m/sasrec_ids.tsv.gz"));
    ml.sort_unstable();
    let ml: Vec<_> = ml.into_iter().map(|row| Some(ItemId::Int(row[1]))).collect();
    for (name, rows, hr, ndcg) in [("beauty", beauty, 0.0960, 0.0579), ("ml-1m", ml, 0.3368, 0.2007)] {
        let model = import(&data, name, &rows, json!({}));
        let (our_hr, our_ndcg) = evaluate(&data, name, &*model);
        println!("{name}: HR@10 {our_hr:.4} NDCG@10 {our_ndcg:.4}");
        assert!((our_hr - hr).abs() < 5e-4 && (our_ndcg - ndcg).abs() < 5e-4, "{name}: {our_hr} / {our_ndcg}");
    }
}

#[test]
fn a_trained_models_segment_finds_what_scoring_everything_finds() {
    let Some(data) = data() else {
        println!("skipped: no data (set PGREC_DATA)");
        return;
    };
    let rows: Vec<_> = (1..=12_101).map(|id| Some(ItemId::Int(id))).collect();
    let model = import(&data, "beauty", &rows, json!({"segment_above": 0}));
    let histories = histories(&data, "beauty", &*model);
    let ask = |exact_limit: usize| {
        let query = |history| Query { history, k: 10, exact_limit, ..Query::default() };
        let queries: Vec<Query<'_>> = histories.iter().take(2000).map(|history| query(&history[..])).collect();
        model.recommend(&queries, &Control::default()).unwrap()
    };
    let (exact, near) = (ask(usize::MAX), ask(0));
    let found: usize = exact.iter().zip(&near).map(|(e, n)| e.iter().filter(|s| n.contains(s)).count()).sum();
    println!("recall {:.4}", found as f64 / 20_000.0);
    assert!(found >= 19_800, "{found} of 20000");
}
