//! HSTU against a NumPy float64 implementation: see `golden/hstu.py`, which writes the files read here.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_engine::{Artifact, Control, ItemId, Model, Query, checkpoint, families};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    ids: Vec<Option<i64>>,
    window: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: String,
    params: Value,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    rows: Vec<usize>,
    times: Vec<f64>,
    at: f64,
    vector: Vec<f32>,
    scores: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/hstu.json")).unwrap()
}

fn bytes(file: &str) -> &'static [u8] {
    match file {
        "hstu_one_head.safetensors" => include_bytes!("golden/hstu_one_head.safetensors"),
        "hstu_two_heads.safetensors" => include_bytes!("golden/hstu_two_heads.safetensors"),
        "hstu_positions_only.safetensors" => include_bytes!("golden/hstu_positions_only.safetensors"),
        other => panic!("{other} is not one of the golden files"),
    }
}

impl Golden {
    fn open(&self, case: &Case) -> Box<dyn Model> {
        let rows: Vec<Option<ItemId>> = self.ids.iter().map(|id| id.map(ItemId::Int)).collect();
        let built = checkpoint::import(bytes(&case.file), &rows, &case.params, &Control::default()).unwrap();
        families::open(Arc::new(Artifact::from_vec(built.finish().unwrap()).unwrap())).unwrap()
    }

    /// The model's items of rows, or None where one is nobody's.
    fn items(&self, model: &dyn Model, rows: &[usize]) -> Option<Vec<u32>> {
        rows.iter().map(|&row| model.catalogue().index_of_int(self.ids[row - 1]?)).collect()
    }
}

fn close(name: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= 2e-5, "{name}: {ours:?} is not {theirs:?}");
    }
}

#[test]
fn checkpoints_of_the_authors_code_answer_like_float64() {
    let golden = golden();
    for case in &golden.cases {
        let model = golden.open(case);
        assert_eq!(model.window(), golden.window);
        for answer in &case.answers {
            let Some(history) = golden.items(&*model, &answer.rows) else { continue };
            let query = Query { history: &history, times: &answer.times, at: answer.at, k: 100, ..Query::default() };
            let name = format!("{} {:?} at {}", case.file, answer.rows, answer.at);
            close(&name, &model.encode(&query).unwrap(), &answer.vector);
            let known: Vec<usize> = (1..=golden.ids.len()).filter(|&row| golden.ids[row - 1].is_some()).collect();
            let items = golden.items(&*model, &known).unwrap();
            let scores: Vec<f32> = known.iter().map(|&row| answer.scores[row - 1]).collect();
            close(&name, &model.score(&query, &items).unwrap(), &scores);
        }
    }
}

#[test]
fn with_times_the_answer_depends_on_when_it_is_asked_and_on_nothing_else() {
    let golden = golden();
    let times: Vec<f64> = (0..5).map(|day| f64::from(day) * 86_400.0).collect();
    for case in &golden.cases {
        let model = golden.open(case);
        let history = golden.items(&*model, &[1, 2, 3, 5, 6]).unwrap();
        let ask = |at: f64| {
            let query = Query { history: &history, times: &times, at, k: 12, ..Query::default() };
            model.recommend(&[query], &Control::default()).unwrap().remove(0)
        };
        let (first, later) = (ask(345_601.0), ask(40.0 * 86_400.0));
        assert_eq!(first, ask(345_601.0), "{}", case.file);
        assert_eq!(first == later, case.file.contains("positions_only"), "{}", case.file);
    }
}

#[test]
fn a_history_without_times_is_refused_where_the_model_looks_at_them() {
    let golden = golden();
    for case in &golden.cases {
        let query = Query { history: &[1, 2], k: 3, ..Query::default() };
        let answer = golden.open(case).recommend(&[query], &Control::default());
        assert_eq!(answer.is_ok(), case.file.contains("positions_only"), "{}", case.file);
    }
}

#[test]
fn what_does_not_fit_a_checkpoint_is_said() {
    let golden = golden();
    let rows: Vec<Option<ItemId>> = golden.ids.iter().map(|id| id.map(ItemId::Int)).collect();
    let import = |params: Value| {
        checkpoint::import(bytes("hstu_two_heads.safetensors"), &rows, &params, &Control::default())
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(import(json!({ "heads": 3 })).unwrap_err().contains("3 heads do not divide"));
    assert!(import(json!({ "heads": 2, "window": 18 })).unwrap_err().contains("padded is below window"));
    assert!(import(json!({ "heads": 2, "window": 17 })).is_ok());
}
