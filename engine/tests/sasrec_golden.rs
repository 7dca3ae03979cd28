//! SASRec against a NumPy float64 implementation: see `golden/sasrec.py`, which writes the files read here.
#![allow(clippy::unwrap_used)]

#[path = "support/golden.rs"]
mod golden;

use golden::{Golden, close};
use pgrec_engine::{Control, Query};

fn golden() -> Golden {
    Golden::read(include_str!("golden/sasrec.json"))
}

fn bytes(file: &str) -> &'static [u8] {
    if file.contains("port") {
        include_bytes!("golden/sasrec_port.safetensors")
    } else {
        include_bytes!("golden/sasrec_bert.safetensors")
    }
}

#[test]
fn every_block_form_answers_like_float64() {
    golden().check(bytes, 1e-4);
}

#[test]
fn a_batch_answers_like_its_queries_one_by_one() {
    let golden = golden();
    for case in &golden.cases {
        let model = golden.open(case, bytes(&case.file));
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
                &case.file,
                &answer.iter().map(|s| s.score).collect::<Vec<_>>(),
                &alone.iter().map(|s| s.score).collect::<Vec<_>>(),
                1e-4,
            );
        }
    }
}
