//! Data sets in the format of the data folder, for tests that have one.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{Corpus, CorpusBuilder, ItemKey};
use pgrec_engine::families::Training;
use pgrec_engine::{Artifact, Control, Model, families};
use serde_json::Value;

/// The folder of a data set under `PGREC_DATA` or the `shared/data` beside the repository; says so when there
/// is none.
pub fn folder(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("PGREC_DATA").map_or_else(beside, PathBuf::from).join(name);
    if path.join("interactions.tsv.gz").exists() {
        return Some(path);
    }
    println!("skipped: no data set {name} (set PGREC_DATA)");
    None
}

fn rows(path: &Path, mut each: impl FnMut(&[&str])) {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for line in BufReader::new(GzDecoder::new(file)).lines().skip(1) {
        let line = line.unwrap();
        each(&line.split('\t').collect::<Vec<_>>());
    }
}

/// All interactions in the order of their third column, and the last column of the items as attributes.
/// `timed` says that the third column is a time.
pub fn corpus(folder: &Path, timed: bool) -> Corpus {
    let mut events: Vec<(i64, i64, i64)> = Vec::new();
    rows(&folder.join("interactions.tsv.gz"), |row| {
        events.push((row[0].parse().unwrap(), row[2].parse().unwrap(), row[1].parse().unwrap()));
    });
    events.sort_by_key(|&(user, place, _)| (user, place));
    let mut builder = CorpusBuilder::new(IdKind::Int);
    let mut last = None;
    for (user, place, item) in events {
        if last.replace(user) != Some(user) {
            builder.user().unwrap();
        }
        builder.event(ItemKey::Int(item), timed.then_some(place as f64)).unwrap();
    }
    rows(&folder.join("items.tsv.gz"), |row| {
        let item = ItemKey::Int(row[0].parse().unwrap());
        builder.item(item).unwrap();
        for token in row[row.len() - 1].split('|').filter(|token| !token.is_empty()) {
            builder.attribute(item, token).unwrap();
        }
    });
    builder.finish().unwrap()
}

/// Fits, writes, and opens what was written, as the database does.
pub fn fit(family: &str, corpus: &Corpus, params: &Value) -> Box<dyn Model> {
    let fit = families::find(family).unwrap().fit.unwrap();
    let control = Control::default();
    let bytes = fit(&Training::new(corpus, params, &control)).unwrap().artifact.finish().unwrap();
    families::open(Arc::new(Artifact::from_vec(bytes).unwrap())).unwrap()
}
