//! Training on data with a rule that can be learnt.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::evaluate::{Protocol, Spec, evaluate};
use crate::families::{Fitted, Training, sequential};
use crate::random::SplitMix;
use crate::train::Kept;
use crate::{Artifact, Control, Corpus, Error, Model, Query, Result, families, testing};

/// Users who walk through `items` items in steps of 1 or of 2, each user in one kind: the last two events tell which.
fn walks(users: usize, items: i64, seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for user in 0..users {
        builder.user().unwrap();
        let (mut at, step) = (random.below(items as usize) as i64, 1 + user as i64 % 2);
        for _ in 0..3 + random.below(12) {
            builder.event(ItemKey::Int(100 + at), None).unwrap();
            at = (at + step) % items;
        }
    }
    builder.finish().unwrap()
}

fn params(more: Value) -> Value {
    let mut all = json!({
        "dim": 16, "blocks": 1, "window": 8, "batch": 32, "learning_rate": 0.01, "dropout": 0.0, "epochs": 12,
        "warmup": 5, "patience": 0, "average": 0.0, "schedule": "constant", "weight_decay": 0.0
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn try_train(corpus: &Corpus, params: &Value, change: impl FnOnce(&mut Training<'_>)) -> Result<Fitted> {
    let control = Control::default();
    let mut training = Training { leave_last: 2, seed: 7, ..Training::new(corpus, params, &control) };
    change(&mut training);
    sequential::fit::<super::Params>(&training)
}

fn try_train_and_keep(corpus: &Corpus, params: &Value, file: &Path, control: &Control) -> Result<Fitted> {
    let kept = Some(Kept { file, every: Duration::ZERO });
    let training = Training { leave_last: 2, seed: 7, kept, ..Training::new(corpus, params, control) };
    sequential::fit::<super::Params>(&training)
}

fn train(corpus: &Corpus, more: Value) -> (Fitted, Vec<u8>) {
    let fitted = try_train(corpus, &params(more), |_| ()).unwrap();
    let bytes = fitted.artifact.finish().unwrap();
    (fitted, bytes)
}

fn open(bytes: Vec<u8>) -> Box<dyn Model> {
    families::open(Arc::new(Artifact::from_vec(bytes).unwrap())).unwrap()
}

fn hit_rate(model: &dyn Model, corpus: &Corpus) -> f64 {
    let spec = Spec { protocol: Protocol::Test, ks: &[1], exclude_seen: false, ..Spec::default() };
    evaluate(model, corpus, &spec, &Control::default()).unwrap().value("hr", 1).unwrap()
}

#[test]
fn every_form_and_every_loss_learns_the_rule() {
    let corpus = walks(400, 30, testing::fresh_seed());
    let cases = [
        json!({ "form": "original", "loss": "bce", "negatives": 8, "epochs": 100 }),
        json!({ "form": "original", "loss": "softmax" }),
        json!({ "form": "pre_ln" }),
        json!({ "form": "post_ln", "activation": "relu" }),
        json!({ "form": "hstu_baseline", "loss": "sampled_softmax", "negatives": 16, "shared_negatives": false }),
        json!({ "loss": "softmax", "normalized": true }),
        json!({ "loss": "gbce", "negatives": 8, "calibration": 0.75, "epochs": 100 }),
        json!({ "loss": "sampled_softmax", "negatives": 16, "negative_source": "in_batch" }),
        json!({ "optimizer": "adagrad", "learning_rate": 0.1 }),
        json!({ "average": 0.9, "schedule": "linear", "clip": 1.0, "weight_decay": 0.01, "windows": "latest" }),
    ];
    for case in cases {
        let mut longer = case.clone();
        longer.as_object_mut().unwrap().entry("epochs").or_insert(json!(40));
        let (_, bytes) = train(&corpus, longer);
        let hits = hit_rate(&*open(bytes), &corpus);
        assert!(hits > 0.75, "{case}: {hits}");
    }
}

#[test]
fn the_same_seed_and_threads_give_the_same_bits() {
    let corpus = walks(200, 30, testing::fresh_seed());
    for more in [json!({ "dropout": 0.3 }), json!({ "loss": "sampled_softmax", "negatives": 8, "dropout": 0.3 })] {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bytes = || pool.install(|| train(&corpus, more.clone()).1);
            assert!(bytes() == bytes(), "{threads} threads, {more}");
        }
    }
    let with = |seed: u64| {
        let params = params(json!({ "epochs": 1 }));
        try_train(&corpus, &params, |training| training.seed = seed).unwrap().artifact.finish().unwrap()
    };
    assert!(with(1) != with(2), "another seed gives another model");
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_weights() {
    let corpus = walks(200, 30, testing::fresh_seed());
    let folder = std::env::temp_dir().join(format!("pgrec_unfinished_{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let optimizers =
        [json!({ "average": 0.9, "dropout": 0.3 }), json!({ "optimizer": "adagrad", "learning_rate": 0.1 })];
    for (place, more) in optimizers.into_iter().enumerate() {
        let mut all = params(more.clone());
        all["epochs"] = json!(40);
        let file = folder.join(place.to_string());
        let keep = |corpus: &Corpus, control: &Control| try_train_and_keep(corpus, &all, &file, control);
        let again = || keep(&corpus, &Control::default()).unwrap();
        let whole = try_train(&corpus, &all, |_| ()).unwrap();
        let control = Control::default();
        let stopped = std::thread::scope(|scope| {
            scope.spawn(|| {
                while control.training().is_none_or(|training| training.epoch < 3) {
                    std::thread::yield_now();
                }
                control.cancel();
            });
            keep(&corpus, &control)
        });
        assert!(matches!(stopped, Err(Error::Cancelled)), "{more}: it was not stopped");
        let rest = again();
        let before = rest.metrics["went_on_after_epoch"].as_u64().unwrap();
        assert!((2..40).contains(&before), "{more}: went on after epoch {before}");
        assert_eq!(rest.curve.len(), 40);
        for (own, other) in rest.curve.iter().zip(&whole.curve) {
            let apart = own["loss"].as_f64().unwrap() - other["loss"].as_f64().unwrap();
            assert!(apart.abs() < 1e-12, "{more}: {own}, {other}");
        }
        assert!(rest.artifact.finish().unwrap() == whole.artifact.finish().unwrap(), "{more}: other weights");
        // One that is over has nothing left to learn.
        assert_eq!(again().metrics["went_on_after_epoch"], 40);
        // What another training has kept, or nobody, is of no use.
        let others = keep(&walks(50, 29, testing::fresh_seed()), &Control::default()).unwrap();
        assert!(!others.metrics.contains_key("went_on_after_epoch"));
        std::fs::write(&file, b"no such file").unwrap();
        assert!(!again().metrics.contains_key("went_on_after_epoch"));
    }
    // A training whose file cannot be written ends well, and says so.
    let (short, nowhere) = (params(json!({ "epochs": 1 })), folder.join("none/file"));
    let fitted = try_train_and_keep(&corpus, &short, &nowhere, &Control::default()).unwrap();
    assert!(fitted.metrics["not_kept"].is_string());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn early_stopping_keeps_the_best_weights_and_the_curve_tells() {
    let corpus = walks(200, 30, testing::fresh_seed());
    let (fitted, bytes) = train(&corpus, json!({ "epochs": 60, "patience": 3, "learning_rate": 0.05 }));
    let of = |point: &Value| point["ndcg@10"].as_f64().unwrap();
    let best = fitted.curve.iter().map(of).fold(0.0, f64::max);
    assert!(fitted.curve.len() < 60, "stopped after {} epochs", fitted.curve.len());
    let spec = Spec { protocol: Protocol::Validation, ..Spec::default() };
    let report = evaluate(&*open(bytes), &corpus, &spec, &Control::default()).unwrap();
    assert_eq!(report.value("ndcg", 10).unwrap(), best);
    assert!(fitted.curve.iter().enumerate().all(|(n, point)| point["epoch"] == json!(n + 1)));
    assert!(fitted.curve.is_sorted_by(|a, b| a["seconds"].as_f64() <= b["seconds"].as_f64()));
    assert!(fitted.curve.iter().all(|point| point["loss"].as_f64().unwrap() > 0.0));
}

#[test]
fn events_that_are_left_out_change_nothing() {
    let corpus = walks(100, 30, testing::fresh_seed());
    let params = params(json!({ "epochs": 2, "validate_every": 100, "validation_users": 1 }));
    let weights = |corpus: &Corpus, leave_last| {
        let fitted = try_train(corpus, &params, |training| training.leave_last = leave_last).unwrap();
        Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap().tensor("items").unwrap().as_slice().to_vec()
    };
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..corpus.items().len() {
        builder.item((&corpus.items().get(item)).into()).unwrap();
    }
    for user in 0..corpus.users() {
        builder.user().unwrap();
        let history = corpus.history(user);
        let kept = history.len().saturating_sub(3);
        for (at, &item) in history.iter().enumerate() {
            // The last three are replaced by others.
            let item = if at < kept { item } else { (item + 7) % 30 };
            builder.event((&corpus.items().get(item as usize)).into(), None).unwrap();
        }
    }
    let other = builder.finish().unwrap();
    assert!(weights(&corpus, 3) == weights(&other, 3));
    assert!(weights(&corpus, 2) != weights(&other, 2));
}

#[test]
fn a_model_that_is_continued_keeps_its_items_and_takes_new_ones() {
    let seed = testing::fresh_seed();
    let (_, bytes) = train(&walks(400, 30, seed), json!({}));
    let start = Arc::new(Artifact::from_vec(bytes).unwrap());
    // Five more items, of which everybody now makes use.
    let corpus = walks(400, 35, seed + 1);
    let continued = |params: &Value| {
        let from = Some(Arc::clone(&start));
        try_train(&corpus, params, |training| training.start = from)
    };
    let params = json!({ "epochs": 2, "batch": 32, "learning_rate": 0.01, "warmup": 1, "dropout": 0.0 });
    let model = open(continued(&params).unwrap().artifact.finish().unwrap());
    assert_eq!(model.catalogue().len(), 35);
    let hits = hit_rate(&*model, &corpus);
    let (_, scratch) = train(&corpus, json!({ "epochs": 2 }));
    let scratch = hit_rate(&*open(scratch), &corpus);
    assert!(hits > 0.8 && hits > scratch, "{hits}, from scratch {scratch}");
    for wrong in [json!({ "dim": 32 }), json!({ "form": "original" }), json!({ "window": 9 })] {
        assert!(matches!(continued(&wrong), Err(Error::Parameter(_))), "{wrong}");
    }
    let graph = testing::try_fit("graph", &corpus, &json!({}), &Control::default()).unwrap();
    let graph = Some(Arc::new(Artifact::from_vec(graph).unwrap()));
    let from_graph = try_train(&corpus, &params, |training| training.start = graph);
    assert!(matches!(from_graph, Err(Error::Parameter(why)) if why.contains("graph")));
}

#[test]
fn what_cannot_be_trained_is_refused_with_the_reason() {
    let corpus = walks(50, 20, 1);
    let refused = |more: Value| match try_train(&corpus, &params(more.clone()), |_| ()) {
        Err(Error::Parameter(why)) => why,
        other => panic!("{more}: {:?}", other.map(|_| ())),
    };
    let why = refused(json!({ "dimension": 8 }));
    assert!(why.contains("`dim`") && why.contains("learning_rate"), "{why}");
    for wrong in [
        json!({ "dropout": 1.0 }),
        json!({ "anneal_dropout": 1.5 }),
        json!({ "epochs": 0 }),
        json!({ "learning_rate": -1 }),
        json!({ "loss": "hinge" }),
        json!({ "loss": "bce", "normalized": true }),
        json!({ "negative_source": "in_batch", "shared_negatives": false, "loss": "sampled_softmax" }),
        json!({ "heads": 3 }),
    ] {
        let error = try_train(&corpus, &params(wrong.clone()), |_| ()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Parameter(_) | Error::Malformed(_)), "{wrong}: {error}");
    }
    let nothing = |corpus: &Corpus| try_train(corpus, &params(json!({})), |training| training.leave_last = 0);
    for histories in [&[][..], &[&[][..]], &[&[1][..], &[2]]] {
        assert!(matches!(nothing(&testing::corpus(histories)), Err(Error::Data(_))));
    }
    let small = try_train(&corpus, &params(json!({})), |training| training.memory = 1000);
    assert!(matches!(small, Err(Error::Memory(why)) if why.contains("out of training memory")));
    let control = Control::default();
    control.cancel();
    let params = params(json!({}));
    assert!(matches!(
        sequential::fit::<super::Params>(&Training::new(&corpus, &params, &control)),
        Err(Error::Cancelled)
    ));
}

#[test]
fn histories_of_two_events_are_enough_to_train_and_to_be_served() {
    let corpus = testing::corpus(&[&[1, 2], &[2, 3], &[3, 1], &[1, 2]]);
    let params = params(json!({}));
    let fitted = try_train(&corpus, &params, |training| training.leave_last = 0).unwrap();
    let model = open(fitted.artifact.finish().unwrap());
    let query = Query { history: &[0], k: 5, ..Query::default() };
    assert_eq!(model.recommend(&[query], &Control::default()).unwrap()[0].len(), 3);
}

#[test]
fn what_nobody_has_touched_is_recommended_by_its_content_and_only_by_that() {
    let seed = testing::fresh_seed();
    let untouched: Vec<u32> = (120..130).collect();
    for (features, loss) in [("embedding", "softmax"), ("attributes", "sampled_softmax"), ("none", "softmax")] {
        let corpus = testing::described(seed, features == "attributes");
        let (_, bytes) = train(&corpus, json!({ "features": features, "loss": loss, "negatives": 16 }));
        let model = open(bytes);
        let right = |item: u32| {
            let filter = Filter { exclude: &[], candidates: Some(&untouched) };
            let query = Query { history: &[item], k: 1, filter, ..Query::default() };
            model.recommend(&[query], &Control::default()).unwrap()[0][0].item % 10 == item % 10
        };
        let found = (0..120).filter(|&item| right(item)).count();
        match features {
            "none" => assert!(found < 60, "{features}: {found} of 120"),
            _ => assert!(found > 96, "{features}: {found} of 120"),
        }
    }
}

#[test]
fn content_that_is_not_there_or_comes_too_late_is_refused() {
    let corpus = walks(50, 12, 1);
    let with = |features: &str| params(json!({ "features": features, "epochs": 1 }));
    for features in ["embedding", "attributes", "both"] {
        assert!(matches!(try_train(&corpus, &with(features), |_| ()), Err(Error::Data(_))));
    }
    let start = Arc::new(Artifact::from_vec(train(&corpus, json!({ "epochs": 1 })).1).unwrap());
    let more = json!({ "features": "embedding", "epochs": 1 });
    let refused = try_train(&testing::described(1, false), &more, |training| training.start = Some(start));
    assert!(matches!(refused, Err(Error::Parameter(why)) if why.contains("init")));
    let negative = params(json!({ "content_dropout": 1 }));
    assert!(
        matches!(try_train(&corpus, &negative, |_| ()), Err(Error::Parameter(why)) if why.contains("content_dropout"))
    );
}
