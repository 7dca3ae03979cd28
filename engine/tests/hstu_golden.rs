//! HSTU against a NumPy float64 implementation: see `golden/hstu.py`, which writes the files read here.
#![allow(clippy::unwrap_used)]

#[path = "support/golden.rs"]
mod golden;

use golden::Golden;
use pgrec_engine::{Control, Query, checkpoint};
use serde_json::{Value, json};

fn golden() -> Golden {
    Golden::read(include_str!("golden/hstu.json"))
}

fn bytes(file: &str) -> &'static [u8] {
    match file {
        "hstu_one_head.safetensors" => include_bytes!("golden/hstu_one_head.safetensors"),
        "hstu_two_heads.safetensors" => include_bytes!("golden/hstu_two_heads.safetensors"),
        "hstu_positions_only.safetensors" => include_bytes!("golden/hstu_positions_only.safetensors"),
        other => panic!("{other} is not one of the golden files"),
    }
}

#[test]
fn checkpoints_of_the_authors_code_answer_like_float64() {
    golden().check(bytes, 2e-5);
}

#[test]
fn with_times_the_answer_depends_on_when_it_is_asked_and_on_nothing_else() {
    let golden = golden();
    let times: Vec<f64> = (0..5).map(|day| f64::from(day) * 86_400.0).collect();
    for case in &golden.cases {
        let model = golden.open(case, bytes(&case.file));
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
        let answer = golden.open(case, bytes(&case.file)).recommend(&[query], &Control::default());
        assert_eq!(answer.is_ok(), case.file.contains("positions_only"), "{}", case.file);
    }
}

#[test]
fn what_does_not_fit_a_checkpoint_is_said() {
    let rows = golden().rows();
    let import = |params: Value| {
        checkpoint::import(bytes("hstu_two_heads.safetensors"), &rows, &params, &Control::default())
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(import(json!({ "heads": 3 })).unwrap_err().contains("3 heads do not divide"));
    assert!(import(json!({ "heads": 2, "window": 18 })).unwrap_err().contains("padded is below window"));
    assert!(import(json!({ "heads": 2, "window": 17 })).is_ok());
}
