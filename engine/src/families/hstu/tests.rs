//! Training on data with a rule of time that can be learnt, and what a model of times needs.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::evaluate::{Protocol, Spec, evaluate};
use crate::families::{Fitted, Training, sequential};
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, Model, Query, Result, checkpoint, families, testing};

/// Users who walk through `items` items, one step after ten seconds and two after ten days.
fn walks(users: usize, items: i64, seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for _ in 0..users {
        builder.user().unwrap();
        let (mut at, mut time) = (random.below(items as usize) as i64, 1e9);
        for _ in 0..4 + random.below(6) {
            builder.event(ItemKey::Int(100 + at), Some(time)).unwrap();
            let soon = random.below(2) == 0;
            at = (at + if soon { 1 } else { 2 }) % items;
            time += if soon { 10.0 } else { 864_000.0 };
        }
    }
    builder.finish().unwrap()
}

fn train(corpus: &Corpus, more: Value) -> Result<Fitted> {
    let mut params = json!({
        "dim": 16, "blocks": 1, "window": 8, "batch": 32, "learning_rate": 0.01, "dropout": 0.0, "epochs": 30,
        "warmup": 5, "patience": 0, "average": 0.0, "schedule": "constant", "weight_decay": 0.0
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let control = Control::default();
    let training = Training { leave_last: 2, seed: 7, ..Training::new(corpus, &params, &control) };
    sequential::fit::<super::Params>(&training)
}

fn open(bytes: Vec<u8>) -> Box<dyn Model> {
    families::open(Arc::new(Artifact::from_vec(bytes).unwrap())).unwrap()
}

#[test]
fn a_rule_of_time_is_learnt_where_times_are_looked_at() {
    let corpus = walks(400, 30, testing::fresh_seed());
    let hits = |params: Value| {
        let model = open(train(&corpus, params).unwrap().artifact.finish().unwrap());
        let spec = Spec { protocol: Protocol::Test, ks: &[1], exclude_seen: false, ..Spec::default() };
        evaluate(&*model, &corpus, &spec, &Control::default()).unwrap().value("hr", 1).unwrap()
    };
    let (timed, blind) = (hits(json!({})), hits(json!({ "times": false })));
    assert!(timed > 0.65 && timed > blind + 0.1, "with times {timed}, without {blind}");
}

#[test]
fn a_model_of_times_needs_them_and_one_without_does_not() {
    let without = testing::corpus(&[&[1, 2, 3, 1, 2], &[2, 3, 1, 2], &[3, 1, 2, 3]]);
    let refused = train(&without, json!({ "times": true })).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, Error::Parameter(why) if why.contains("set times to false")), "{refused}");
    let model = open(train(&without, json!({})).unwrap().artifact.finish().unwrap());
    let query = Query { history: &[0], k: 5, ..Query::default() };
    assert_eq!(model.recommend(&[query], &Control::default()).unwrap()[0].len(), 3);
}

#[test]
fn an_export_is_the_same_model() {
    let corpus = walks(50, 20, testing::fresh_seed());
    let bytes = train(&corpus, json!({ "epochs": 1, "heads": 2 })).unwrap().artifact.finish().unwrap();
    let exported = checkpoint::export(&Artifact::from_vec(bytes.clone()).unwrap()).unwrap();
    let imported = checkpoint::import(&exported, &[], &Value::Null, &Control::default()).unwrap();
    let (ours, theirs) = (open(bytes), open(imported.finish().unwrap()));
    let times = [1.0, 2.0, 3e5];
    let query = Query { history: &[3, 1, 4], times: &times, at: 4e5, k: 20, ..Query::default() };
    let ask = |model: &dyn Model| model.recommend(&[query], &Control::default()).unwrap();
    assert_eq!(ask(&*ours), ask(&*theirs));
}

#[test]
fn what_is_remembered_of_a_history_changes_nothing() {
    let corpus = walks(50, 20, testing::fresh_seed());
    for times in [true, false] {
        let params = json!({ "epochs": 1, "window": 700, "blocks": 2, "heads": 2, "times": times });
        let model = open(train(&corpus, params).unwrap().artifact.finish().unwrap());
        let mut random = SplitMix::new(testing::fresh_seed());
        let mut items: Vec<u32> = (0..705).map(|_| random.below(20) as u32).collect();
        let mut seconds: Vec<f64> = (0..705).map(|_| random.below(10_000_000) as f64).collect();
        seconds.sort_by(f64::total_cmp);
        let same = |items: &[u32], seconds: &[f64], at: f64, remember: usize| {
            let query = Query { history: items, times: seconds, at, remember, ..Query::default() };
            let (kept, anew) = (model.encode(&query).unwrap(), model.encode(&Query { remember: 0, ..query }).unwrap());
            let apart = kept.iter().zip(&anew).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "{apart} apart after {} events at {at}", items.len());
        };
        for remember in [64 << 20, 1] {
            // Short ones, one by one, several at once, the same again, later, a full window and beyond.
            for len in [510, 511, 512, 513, 514, 520, 521, 600, 600, 698, 699, 700, 701, 705] {
                for later in [0.0, 1.0, 1e7] {
                    same(&items[..len], &seconds[..len], seconds[len - 1] + later, remember);
                }
            }
        }
        let most = 64 << 20;
        items[300] = (items[300] + 1) % 20;
        same(&items[..690], &seconds[..690], 2e7, most);
        seconds[689] += 5.0;
        same(&items[..690], &seconds[..690], 2e7, most);
        same(&items[..688], &seconds[..688], 2e7, most);
    }
}
