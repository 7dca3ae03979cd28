//! What is learnt from made-up logs whose answer is known.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::NAME;
use crate::catalogue::IdKind;
use crate::content::features::to_unit;
use crate::corpus::{CorpusBuilder, ItemKey, SearchRow};
use crate::families::{self, Training};
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, Model, Query, testing};

/// A log of searches whose queries are turned vectors of the items that they led to.
pub(super) struct Made {
    pub(super) items: usize,
    pub(super) searches: usize,
    pub(super) dim: usize,
    /// How much is added to the queries that has nothing to do with the item.
    pub(super) noise: f32,
    /// The share of searches that led to any item, which the reader left at once.
    pub(super) misled: f32,
    /// Whether queries are turned at all.
    pub(super) turned: bool,
    pub(super) seed: u64,
}

impl Made {
    pub(super) fn new(seed: u64) -> Self {
        Self { items: 300, searches: 1500, dim: 16, noise: 0.1, misled: 0.0, turned: true, seed }
    }

    /// The items' vectors.
    fn vectors(&self) -> Vec<Vec<f32>> {
        let mut random = SplitMix::new(self.seed);
        (0..self.items).map(|_| (0..self.dim).map(|_| random.truncated_normal()).collect()).collect()
    }

    /// What an item is looked for by: every two numbers change places, and one of them its sign; longer or shorter.
    fn query(&self, vector: &[f32], random: &mut SplitMix) -> Vec<f32> {
        let turned = |at: usize| match (self.turned, at % 2) {
            (true, 0) => -vector[at + 1],
            (true, _) => vector[at - 1],
            (false, _) => vector[at],
        };
        let length = 0.5 + random.uniform();
        (0..vector.len()).map(|at| length * (turned(at) + self.noise * random.truncated_normal())).collect()
    }
}

/// The corpus of such a log. Results that look most like the query were shown, and not opened.
pub(super) fn made(log: &Made) -> Corpus {
    let (vectors, mut random) = (log.vectors(), SplitMix::new(!log.seed));
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for (item, vector) in (0..).zip(&vectors) {
        builder.vector(ItemKey::Int(item), vector).unwrap();
    }
    for search in 0..log.searches {
        // Every second search is nobody's.
        if search == log.searches / 2 {
            builder.user().unwrap();
        }
        let item = random.below(log.items);
        let query = log.query(&vectors[item], &mut random);
        let misled = random.uniform() < log.misled;
        let opened = if misled { random.below(log.items) } else { item };
        let dwell = if misled { 0.2 } else { 20.0 + random.uniform() };
        let dot = |item: usize| -> f32 { vectors[item].iter().zip(&query).map(|(v, q)| v * q).sum() };
        let mut near: Vec<usize> = (0..log.items).filter(|&other| other != item).collect();
        near.sort_by(|&a, &b| dot(b).total_cmp(&dot(a)));
        near.truncate(4);
        let shown: Vec<ItemKey<'_>> = near.iter().chain([&opened]).map(|&item| ItemKey::Int(item as i64)).collect();
        let row = SearchRow {
            words: &[&format!("query{search}")],
            vector: Some(&query),
            item: Some(ItemKey::Int(opened as i64)),
            shown: &shown,
            dwell: Some(dwell),
        };
        builder.search(&row).unwrap();
    }
    builder.finish().unwrap()
}

struct Fitted {
    model: Box<dyn Model>,
    metrics: Value,
    epochs: usize,
}

fn fit(corpus: &Corpus, params: Value) -> Fitted {
    let control = Control::default();
    let fitted = super::fit(&Training::new(corpus, &params, &control)).unwrap();
    let artifact = Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap();
    let model = families::open(Arc::new(artifact)).unwrap();
    Fitted { model, metrics: Value::Object(fitted.metrics), epochs: fitted.curve.len() }
}

/// The mean reciprocal rank, among all items, of what new queries are made of.
fn reciprocal_rank(model: &dyn Model, log: &Made) -> f64 {
    let (vectors, mut random) = (log.vectors(), SplitMix::new(log.seed ^ 0x5eed));
    let unit: Vec<Vec<f32>> = vectors
        .iter()
        .map(|vector| {
            let mut unit = vector.clone();
            to_unit(&mut unit);
            unit
        })
        .collect();
    let of = |item: usize| {
        let query = model.project(&log.query(&vectors[item], &mut random)).unwrap().unwrap();
        let score = |item: usize| -> f32 { unit[item].iter().zip(&query).map(|(v, q)| v * q).sum() };
        1.0 / (1 + (0..log.items).filter(|&other| score(other) > score(item)).count()) as f64
    };
    (0..log.items).map(of).sum::<f64>() / log.items as f64
}

#[test]
fn a_turn_is_found_and_holds_for_new_queries() {
    let log = Made::new(testing::fresh_seed());
    let corpus = made(&log);
    for rank in [0, 12] {
        let params = json!({ "rank": rank, "learning_rate": 0.01, "epochs": 60 });
        let Fitted { model, metrics, .. } = fit(&corpus, params);
        let figure = |name: &str| metrics["validation"][name].as_f64().unwrap();
        let (mrr, before, after) = (figure("mrr"), figure("unprojected_mrr"), reciprocal_rank(&*model, &log));
        println!("rank {rank}: {before} -> {mrr}, new queries {after}");
        assert!(before < 0.1 && mrr > 0.5 && after > 0.5, "rank {rank}: {before} -> {mrr}, new queries {after}");
        assert_eq!(metrics["learnt"], json!(true));
    }
}

#[test]
fn who_left_at_once_counts_little() {
    let log = Made { misled: 0.85, noise: 0.3, ..Made::new(testing::fresh_seed()) };
    let corpus = made(&log);
    let after = |dwell: bool| {
        let params = json!({ "dwell": dwell, "learning_rate": 0.01, "epochs": 15, "patience": 0 });
        reciprocal_rank(&*fit(&corpus, params).model, &log)
    };
    let (with, without) = (after(true), after(false));
    println!("by dwell {with}, without {without}");
    assert!(with > without + 0.05, "by dwell {with}, without {without}");
}

#[test]
fn what_is_no_better_than_nothing_is_not_kept() {
    let corpus = made(&Made { turned: false, noise: 0.0, ..Made::new(testing::fresh_seed()) });
    let Fitted { model, metrics, epochs } = fit(&corpus, json!({ "patience": 2 }));
    assert_eq!((&metrics["learnt"], &metrics["validation"]["mrr"], epochs), (&json!(false), &json!(1.0), 2));
    let query: Vec<f32> = (0..16).map(|at| if at == 3 { 4.0 } else { 0.0 }).collect();
    let unit: Vec<f32> = query.iter().map(|x| x / 4.0).collect();
    assert_eq!(model.project(&query).unwrap(), Some(unit));
    assert_eq!(model.project(&[0.0; 16]).unwrap(), Some(vec![0.0; 16]));
    assert!(matches!(model.project(&[1.0; 15]), Err(Error::Parameter(why)) if why.contains("15")));
    assert!(matches!(model.project(&[f32::NAN; 16]), Err(Error::Parameter(_))));
}

#[test]
fn threads_change_no_bit_and_a_training_is_stopped() {
    let corpus = made(&Made { searches: 200, ..Made::new(testing::fresh_seed()) });
    let params = json!({ "epochs": 3, "rank": 2, "learning_rate": 0.01 });
    let bytes = |threads: usize| testing::fit_by_threads(NAME, &corpus, &params, threads);
    assert!(bytes(1) == bytes(3));
    let control = Control::default();
    let small = Training { memory: 1000, ..Training::new(&corpus, &params, &control) };
    assert!(matches!(super::fit(&small), Err(Error::Memory(_))));
    control.cancel();
    assert!(matches!(testing::try_fit(NAME, &corpus, &params, &control), Err(Error::Cancelled)));
}

#[test]
fn it_ranks_nothing_and_says_so() {
    let Fitted { model, .. } = fit(&made(&Made { searches: 60, ..Made::new(1) }), json!({ "epochs": 1 }));
    let query = Query { history: &[0], k: 3, ..Query::default() };
    assert!(matches!(model.recommend(&[query], &Control::default()), Err(Error::Unsupported { .. })));
    assert!(matches!(model.score(&query, &[1]), Err(Error::Unsupported { .. })));
    assert!(matches!(model.similar(1, &query), Err(Error::Unsupported { .. })));
    assert!(matches!(model.encode(&query), Err(Error::Unsupported { .. })));
    assert_eq!(model.explain(&query, 1).unwrap()["dim"], 16);
}

#[test]
fn what_is_missing_is_named() {
    let built = |item: Option<&[f32]>, query: Option<&[f32]>, searches: usize, opened: bool| {
        let mut builder = CorpusBuilder::new(IdKind::Int);
        builder.user().unwrap();
        builder.event(ItemKey::Int(1), None).unwrap();
        item.into_iter().for_each(|vector| builder.vector(ItemKey::Int(1), vector).unwrap());
        for search in 0..searches {
            let item = opened.then_some(ItemKey::Int(1));
            let words = [&*format!("q{search}")];
            builder.search(&SearchRow { words: &words, vector: query, item, ..SearchRow::default() }).unwrap();
        }
        builder.finish().unwrap()
    };
    let why = |corpus: &Corpus| match testing::try_fit(NAME, corpus, &Value::Null, &Control::default()) {
        Err(Error::Data(why)) => why,
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    };
    let (two, three) = (&[1.0, 0.0][..], &[1.0, 0.0, 0.0][..]);
    assert!(why(&built(Some(two), None, 0, true)).contains("bind searches"));
    assert!(why(&built(Some(two), None, 2, true)).contains("no query has a vector"));
    assert!(why(&built(None, Some(two), 2, true)).contains("embedding column"));
    assert!(why(&built(Some(two), Some(three), 2, true)).contains("3 dimensions"));
    assert!(why(&built(Some(two), Some(two), 5, false)).contains("led to an item"));
    assert!(why(&built(Some(two), Some(two), 1, true)).contains("fewer than two"));
    assert!(testing::try_fit(NAME, &built(Some(two), Some(two), 2, true), &Value::Null, &Control::default()).is_ok());
    let unknown = testing::try_fit(NAME, &built(None, None, 0, true), &json!({ "ranks": 3 }), &Control::default());
    assert!(matches!(unknown, Err(Error::Parameter(why)) if why.contains("rank")));
}

#[test]
fn searches_of_what_is_held_out_are_validated_by_and_not_learnt_from() {
    let (vectors, mut random) = (Made::new(5).vectors(), SplitMix::new(5));
    let mut builder = CorpusBuilder::new(IdKind::Int);
    (0..).zip(&vectors).for_each(|(item, vector)| builder.vector(ItemKey::Int(item), vector).unwrap());
    for user in 0..30 {
        builder.user().unwrap();
        for step in 0..4 {
            let item = ItemKey::Int(random.below(300) as i64);
            let (word, vector) = (format!("q{user}.{step}"), [0.5; 16]);
            let row = SearchRow { words: &[&word], vector: Some(&vector), item: Some(item), ..SearchRow::default() };
            builder.search(&row).unwrap();
            builder.event(item, None).unwrap();
        }
    }
    let (corpus, none, control) = (builder.finish().unwrap(), json!({}), Control::default());
    let log = |leave_last: usize| {
        let training = Training { leave_last, ..Training::new(&corpus, &none, &control) };
        super::log::Log::of(&training, &super::Params::default()).unwrap()
    };
    let count = |leave_last: usize| (log(leave_last).learnt.len(), log(leave_last).validation.len());
    assert_eq!(count(0), (108, 12));
    assert_eq!(count(1), (81, 9));
    let (learnt, validation) = count(2);
    assert!((55..=60).contains(&learnt) && (28..=30).contains(&validation), "{learnt} and {validation}");
}
