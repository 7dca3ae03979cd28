//! Checkpoints and what an independent implementation in double precision answers by them.

use std::sync::Arc;

use pgrec_engine::{Artifact, Control, ItemId, Model, Query, checkpoint, families};
use serde::Deserialize;
use serde_json::Value;

/// What a script in `golden/` wrote beside its checkpoints.
#[derive(Deserialize)]
pub struct Golden {
    /// The item of each row of a checkpoint's table from its second on; None where it is nobody's.
    pub ids: Vec<Option<i64>>,
    window: usize,
    /// One a checkpoint and way to read it.
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub file: String,
    params: Value,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    rows: Vec<usize>,
    #[serde(default)]
    times: Vec<f64>,
    #[serde(default)]
    at: f64,
    vector: Vec<f32>,
    scores: Vec<f32>,
}

impl Golden {
    pub fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap()
    }

    /// The ids of a checkpoint's rows.
    pub fn rows(&self) -> Vec<Option<ItemId>> {
        self.ids.iter().map(|id| id.map(ItemId::Int)).collect()
    }

    /// The model of a checkpoint.
    pub fn open(&self, case: &Case, checkpoint: &[u8]) -> Box<dyn Model> {
        let built = checkpoint::import(checkpoint, &self.rows(), &case.params, &Control::default()).unwrap();
        families::open(Arc::new(Artifact::from_vec(built.finish().unwrap()).unwrap())).unwrap()
    }

    /// The model's items of rows, or None where one is nobody's.
    pub fn items(&self, model: &dyn Model, rows: &[usize]) -> Option<Vec<u32>> {
        rows.iter().map(|&row| model.catalogue().index_of_int(self.ids[row - 1]?)).collect()
    }

    /// Compares vectors, scores and lists of every case. `tolerance` is relative, or absolute for numbers below 1.
    pub fn check<'a>(&self, checkpoint: impl Fn(&str) -> &'a [u8], tolerance: f32) {
        for case in &self.cases {
            let model = self.open(case, checkpoint(&case.file));
            assert_eq!(model.window(), self.window);
            let known: Vec<usize> = (1..=self.ids.len()).filter(|&row| self.ids[row - 1].is_some()).collect();
            let items = self.items(&*model, &known).unwrap();
            for answer in &case.answers {
                // The weights of a row that is nobody's are gone, so histories with it cannot be asked about.
                let Some(history) = self.items(&*model, &answer.rows) else { continue };
                let query =
                    Query { history: &history, times: &answer.times, at: answer.at, k: 100, ..Query::default() };
                let name = format!("{} {} {:?} at {}", case.file, case.params, answer.rows, answer.at);
                close(&name, &model.encode(&query).unwrap(), &answer.vector, tolerance);
                let mut scores: Vec<f32> = known.iter().map(|&row| answer.scores[row - 1]).collect();
                close(&name, &model.score(&query, &items).unwrap(), &scores, tolerance);
                let ranked = model.recommend(&[query], &Control::default()).unwrap().remove(0);
                scores.sort_by(|a, b| b.total_cmp(a));
                close(&name, &ranked.iter().map(|s| s.score).collect::<Vec<_>>(), &scores, tolerance);
            }
        }
    }
}

/// Fails where numbers are further apart than `tolerance`, relative or, below 1, absolute.
pub fn close(name: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{name}: {ours:?} is not {theirs:?}");
    }
}
