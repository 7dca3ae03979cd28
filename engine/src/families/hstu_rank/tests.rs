//! Outcomes that can be learnt, and candidates scored together as one at a time.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Device, Rows, Sequences};
use serde_json::{Value, json};

use super::config::Config;
use super::model::MICROBATCH;
use super::train::Params;
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::evaluate::{Protocol, Spec, evaluate};
use crate::families::sequential::{self, Architecture};
use crate::families::{Fitted, Training};
use crate::query::ascending;
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, Model, Query, Result, checkpoint, families, testing};

/// Users who like what is of their kind, of two kinds, and buy what they like after something that they did not.
fn shoppers(users: usize, seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for _ in 0..users {
        builder.user().unwrap();
        let (kind, mut liked, mut time) = (random.below(2), true, 1e9);
        for _ in 0..8 + random.below(8) {
            let item = random.below(20);
            let likes = item % 2 == kind;
            let buys = likes && !liked;
            time += random.below(10_000) as f64;
            builder.event(ItemKey::Int(item as i64), Some(time)).unwrap();
            builder.outcome(u32::from(likes) + 2 * u32::from(buys)).unwrap();
            liked = likes;
        }
    }
    builder.finish().unwrap()
}

fn train(corpus: &Corpus, more: Value) -> Result<Fitted> {
    let mut params = json!({
        "tasks": [{ "name": "like", "weight_from": 4 }, { "name": "buy", "actions": ["buy"], "value": 0.5 }],
        "dim": 16, "blocks": 2, "window": 16, "batch": 32, "learning_rate": 0.01, "dropout": 0.0, "epochs": 20,
        "warmup": 5, "patience": 0, "average": 0.0, "schedule": "constant", "weight_decay": 0.0
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let control = Control::default();
    let training = Training { leave_last: 2, seed: 7, ..Training::new(corpus, &params, &control) };
    sequential::fit::<Params>(&training)
}

fn open(bytes: Vec<u8>) -> Box<dyn Model> {
    families::open(Arc::new(Artifact::from_vec(bytes).unwrap())).unwrap()
}

#[test]
fn what_users_do_with_items_is_learnt_from_what_they_did() {
    let corpus = shoppers(400, testing::fresh_seed());
    // That the kind matters is seen suddenly, with one seed in a hundred only after 20 epochs.
    let fitted = train(&corpus, json!({ "epochs": 60 })).unwrap();
    assert!(fitted.curve.iter().all(|point| point["auc"].as_f64().is_some()), "{:?}", fitted.curve);
    let model = open(fitted.artifact.finish().unwrap());
    let report =
        evaluate(&*model, &corpus, &Spec { protocol: Protocol::Test, ..Spec::default() }, &Control::default()).unwrap();
    for task in ["like", "buy"] {
        let value = |metric: &str| {
            report.rows.iter().find(|row| row.metric == metric && row.grp == format!("task {task}")).unwrap().value
        };
        assert!(value("auc") > 0.9, "{task}: {}", value("auc"));
        assert!(value("normalized_entropy") < 0.7, "{task}: {}", value("normalized_entropy"));
    }
}

#[test]
fn candidates_together_are_candidates_one_at_a_time() {
    let corpus = shoppers(60, testing::fresh_seed());
    for times in [true, false] {
        let more = json!({ "epochs": 1, "window": 400, "times": times, "heads": 2 });
        let bytes = train(&corpus, more).unwrap().artifact.finish().unwrap();
        let artifact = Arc::new(Artifact::from_vec(bytes).unwrap());
        let model = families::open(Arc::clone(&artifact)).unwrap();
        let mut random = SplitMix::new(testing::fresh_seed());
        for events in [1, 2, 31, 299, 300, 399, 400, 405] {
            let history: Vec<u32> = (0..events).map(|_| random.below(20) as u32).collect();
            let outcomes: Vec<u32> = (0..events).map(|_| random.below(4) as u32).collect();
            let mut seconds: Vec<f64> = (0..events).map(|_| random.below(1_000_000) as f64).collect();
            seconds.sort_by(f64::total_cmp);
            let candidates: Vec<u32> = (0..20).collect();
            for (at, remember) in [(2e6, 0), (2e6, 16 << 20), (3e6, 16 << 20), (0.0, 0)] {
                let query =
                    Query { history: &history, times: &seconds, outcomes: &outcomes, at, remember, ..Query::default() };
                let together = model.probabilities(&query, &candidates).unwrap();
                for (&candidate, together) in candidates.iter().zip(together.chunks(2)) {
                    let alone = model.probabilities(&Query { remember: 0, ..query }, &[candidate]).unwrap();
                    let anew = anew(&artifact, &query, candidate);
                    for ((a, b), c) in together.iter().zip(&alone).zip(&anew) {
                        assert!((a - b).abs() < 1e-5 && (a - c).abs() < 1e-5, "{events} events: {a}, {b}, {c}");
                    }
                }
                let scores = model.score(&query, &candidates).unwrap();
                let best = model.recommend(&[Query { k: 20, ..query }], &Control::default()).unwrap().remove(0);
                assert_eq!(best.len(), 20);
                assert!(best.iter().all(|scored| (scored.score - scores[scored.item as usize]).abs() < 1e-5));
                assert!(best.is_sorted_by(|a, b| a.score >= b.score));
            }
        }
    }
}

#[test]
fn candidates_of_several_microbatches_are_candidates_one_at_a_time() {
    let model =
        open(train(&shoppers(60, testing::fresh_seed()), json!({ "epochs": 1 })).unwrap().artifact.finish().unwrap());
    let (times, outcomes) = ([1.0, 2.0, 3e5], [0, 1, 3]);
    let query = Query { history: &[3, 1, 4], times: &times, outcomes: &outcomes, at: 4e5, ..Query::default() };
    let candidates: Vec<u32> = (0..2 * MICROBATCH as u32 + 1).map(|place| place * 7 % 20).collect();
    let alone: Vec<Vec<f32>> = (0..20).map(|candidate| model.probabilities(&query, &[candidate]).unwrap()).collect();
    let together = model.probabilities(&query, &candidates).unwrap();
    assert_eq!(together.len(), 2 * candidates.len());
    for (&candidate, together) in candidates.iter().zip(together.chunks(2)) {
        for (a, b) in together.iter().zip(&alone[candidate as usize]) {
            assert!((a - b).abs() < 1e-5, "candidate {candidate}: {a} together, {b} alone");
        }
    }
}

/// Probabilities by one forward pass over the history and the candidate.
fn anew(artifact: &Artifact, query: &Query<'_>, candidate: u32) -> Vec<f32> {
    let (config, weights) = sequential::open::<Config>(artifact).unwrap();
    let first = query.history.len().saturating_sub(config.window());
    let mut items = Vec::new();
    let mut times = Vec::new();
    for (place, time) in ascending(&query.times[first..]).enumerate() {
        items.extend([query.history[first + place], 20 + query.outcomes[first + place]]);
        times.extend([time; 2]);
    }
    items.push(candidate);
    times.push(query.at.max(*times.last().unwrap()));
    let until: Vec<f64> = times[1..].iter().chain(times.last()).copied().collect();
    let positions: Vec<u32> = config.position_rows(items.len()).collect();
    let (times, until) = if config.timed() { (times, until) } else { (Vec::new(), Vec::new()) };
    let offsets = [0, items.len()];
    let batch = Sequences {
        items: &items,
        positions: &positions,
        offsets: &offsets,
        times: &times,
        until: &until,
        ..Sequences::default()
    };
    let device = Cpu::new();
    let logits = config.encode(&weights, &device, &batch, Rows::Last);
    device.download(&logits).unwrap().iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
}

#[test]
fn an_export_is_the_same_model() {
    let bytes = train(&shoppers(30, 1), json!({ "epochs": 1 })).unwrap().artifact.finish().unwrap();
    let exported = checkpoint::export(&Artifact::from_vec(bytes.clone()).unwrap()).unwrap();
    let imported = checkpoint::import(&exported, &[], &Value::Null, &Control::default()).unwrap();
    let (ours, theirs) = (open(bytes), open(imported.finish().unwrap()));
    let (times, outcomes) = ([1.0, 2.0, 3e5], [0, 1, 3]);
    let query = Query { history: &[3, 1, 4], times: &times, outcomes: &outcomes, at: 4e5, k: 20, ..Query::default() };
    let ask = |model: &dyn Model| model.recommend(&[query], &Control::default()).unwrap();
    assert_eq!(ask(&*ours), ask(&*theirs));
    assert_eq!(ours.tasks(), theirs.tasks());
}

#[test]
fn what_came_of_events_has_to_be_known() {
    let unknown = testing::corpus(&[&[1, 2, 3, 1, 2], &[2, 3, 1, 2], &[3, 1, 2, 3]]);
    let refused = train(&unknown, json!({ "times": false })).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, Error::Data(why) if why.contains("what comes of events")), "{refused}");
    let corpus = shoppers(20, 1);
    for (more, why) in [
        (json!({ "tasks": [] }), "1 to 8 tasks"),
        (json!({ "tasks": [{ "name": "like" }] }), "no condition"),
        (json!({ "loss": "softmax" }), "leave loss out"),
        (json!({ "window": 0 }), "window 0 is not between 1"),
        (json!({ "tasks": [{ "name": "like", "weight_from": 1 }] }), "outcome"),
    ] {
        let refused = train(&corpus, more).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let model = open(train(&corpus, json!({ "epochs": 1 })).unwrap().artifact.finish().unwrap());
    let query = Query { history: &[1, 2], times: &[1.0, 2.0], at: 3.0, k: 5, ..Query::default() };
    assert!(model.score(&query, &[1]).is_err());
    assert!(model.encode(&query).is_err());
    assert!(model.recommend(&[Query { history: &[], ..query }], &Control::default()).unwrap()[0].is_empty());
}
