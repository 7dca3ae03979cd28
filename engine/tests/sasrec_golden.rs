//! SASRec against a NumPy float64 implementation: see `golden/sasrec.py`, which writes the files read here.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_engine::{Artifact, Control, ItemId, Model, Query, checkpoint, families};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    ids: Vec<Option<i64>>,
    window: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    params: Value,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    rows: Vec<usize>,
    vector: Vec<f32>,
    scores: Vec<f32>,
}

const PORT: &[u8] = include_bytes!("golden/sasrec_port.safetensors");
const BERT: &[u8] = include_bytes!("golden/sasrec_bert.safetensors");

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/sasrec.json")).unwrap()
}

impl Golden {
    fn rows(&self) -> Vec<Option<ItemId>> {
        self.ids.iter().map(|id| id.map(ItemId::Int)).collect()
    }
}

fn open(case: &Case, rows: &[Option<ItemId>]) -> Box<dyn Model> {
    let bytes = if case.file.contains("port") { PORT } else { BERT };
    let built = checkpoint::import(bytes, rows, &case.params, &Control::default()).unwrap();
    families::open(Arc::new(Artifact::from_vec(built.finish().unwrap()).unwrap())).unwrap()
}

fn close(name: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{name}: {ours:?} is not {theirs:?}");
    }
}

#[test]
fn every_block_form_answers_like_float64() {
    let golden = golden();
    let rows = golden.rows();
    for case in &golden.cases {
        let model = open(case, &rows);
        assert_eq!(model.window(), golden.window);
        let index = |row: usize| model.catalogue().index_of_int(golden.ids[row - 1]?);
        for answer in &case.answers {
            // A row without an id has no index here; its weights are gone, so its histories cannot be asked.
            let Some(history) = answer.rows.iter().map(|&row| index(row)).collect::<Option<Vec<u32>>>() else {
                continue;
            };
            let query = Query { history: &history, k: 100, ..Query::default() };
            let name = format!("{} {:?}", case.name, answer.rows);
            close(&name, &model.encode(&query).unwrap(), &answer.vector);

            let known: Vec<usize> = (1..=golden.ids.len()).filter(|&row| golden.ids[row - 1].is_some()).collect();
            let items: Vec<u32> = known.iter().map(|&row| index(row).unwrap()).collect();
            let scores: Vec<f32> = known.iter().map(|&row| answer.scores[row - 1]).collect();
            close(&name, &model.score(&query, &items).unwrap(), &scores);

            let ranked = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            assert_eq!(ranked.len(), items.len(), "{name}: k beyond the catalogue returns every item once");
            let mut best: Vec<f32> = scores;
            best.sort_by(|a, b| b.total_cmp(a));
            close(&name, &ranked.iter().map(|s| s.score).collect::<Vec<_>>(), &best);
        }
    }
}

#[test]
fn a_batch_answers_like_its_queries_one_by_one() {
    let golden = golden();
    let rows = golden.rows();
    for case in &golden.cases {
        let model = open(case, &rows);
        let n = model.catalogue().len() as u32;
        let histories: Vec<Vec<u32>> =
            (0..40).map(|h: u32| (0..h % 11).map(|e| (h * 7 + e * 5) % n).collect()).collect();
        let queries: Vec<Query<'_>> =
            histories.iter().enumerate().map(|(i, h)| Query { history: h, k: i % 5, ..Query::default() }).collect();
        let together = model.recommend(&queries, &Control::default()).unwrap();
        assert_eq!(together.len(), queries.len());
        for (query, answer) in queries.iter().zip(&together) {
            let alone = model.recommend(std::slice::from_ref(query), &Control::default()).unwrap().remove(0);
            assert_eq!(answer.len(), if query.history.is_empty() { 0 } else { query.k });
            assert_eq!(
                answer.iter().map(|s| s.item).collect::<Vec<_>>(),
                alone.iter().map(|s| s.item).collect::<Vec<_>>()
            );
            close(
                &case.name,
                &answer.iter().map(|s| s.score).collect::<Vec<_>>(),
                &alone.iter().map(|s| s.score).collect::<Vec<_>>(),
            );
        }
    }
}
