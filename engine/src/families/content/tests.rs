//! What is served against the definition in double precision, and what is learnt by what it ranks.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::NAME;
use super::gradient_tests::{Dense, cosine, wide};
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, ItemId, Model, Query, families, testing};

/// Fits a model of the family as `with` asks for.
fn train(corpus: &Corpus, params: Value, with: impl FnOnce(&mut Training<'_>)) -> crate::Result<Fitted> {
    let control = Control::default();
    let mut training = Training::new(corpus, &params, &control);
    with(&mut training);
    super::fit(&training)
}

fn artifact(fitted: &Fitted) -> Arc<Artifact> {
    Arc::new(Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap())
}

fn list(model: &dyn Model, history: &[u32], k: usize, filter: Filter<'_>) -> Vec<u32> {
    let query = Query { history, k, filter, ..Query::default() };
    let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
    list.into_iter().map(|scored| scored.item).collect()
}

fn kind(model: &dyn Model, item: u32) -> i64 {
    match model.catalogue().id(item) {
        ItemId::Int(id) => id % 10,
        other => panic!("{other:?}"),
    }
}

/// The share of the first ten items for each of these that are of its kind, where chance gives a tenth.
fn alike(model: &dyn Model, items: impl Iterator<Item = u32>) -> f64 {
    let all: Vec<bool> = items
        .flat_map(|item| {
            let found = list(model, &[item], 10, Filter::default());
            found.into_iter().map(move |other| kind(model, other) == kind(model, item)).collect::<Vec<_>>()
        })
        .collect();
    all.iter().filter(|&&alike| alike).count() as f64 / all.len() as f64
}

/// A catalogue of 130 items of ten kinds, with ids of its own, whose vectors and attributes say as much of anything else as
/// of their kind; of users who mostly stay within a kind, and do not touch the last items.
fn noisy(seed: u64, first: i64, users: usize) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..130 {
        let key = ItemKey::Int(first + item);
        builder.item(key).unwrap();
        let mut vector: Vec<f32> = (0..10).map(|kind| f32::from(kind == item % 10)).collect();
        vector.extend((0..20).map(|_| 0.3 * random.truncated_normal()));
        builder.vector(key, &vector).unwrap();
        builder.attribute(key, &format!("kind {}", item % 10)).unwrap();
        builder.attribute(key, &format!("label {}", random.below(9))).unwrap();
    }
    for user in 0..users {
        builder.user().unwrap();
        for _ in 0..5 + random.below(4) {
            let kind = if random.below(4) == 0 { random.below(10) } else { user % 10 };
            let item = random.below(12) * 10 + kind;
            builder.event(ItemKey::Int(first + item as i64), None).unwrap();
        }
    }
    builder.finish().unwrap()
}

const QUICK: &str = r#"{ "dim": 16, "hidden": 32, "batch": 256, "epochs": 8, "learning_rate": 0.01, "negatives": 32 }"#;

fn quick(more: Value) -> Value {
    let mut params: Value = serde_json::from_str(QUICK).unwrap();
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

#[test]
fn users_and_items_are_where_the_convolution_puts_them() {
    // The last of 64 items are touched by nobody.
    let corpus = testing::random_corpus(testing::fresh_seed(), 60, 64);
    let learnt = corpus.without_last(2);
    for (layers, window) in [(2, 100), (3, 5), (0, 100)] {
        let params = json!({ "dim": 6, "hidden": 9, "layers": layers, "window": window, "epochs": 2, "batch": 64 });
        let fitted = artifact(&train(&corpus, params, |training| training.leave_last = 2).unwrap());
        let own = wide(fitted.tensor("own").unwrap().as_slice(), 6);
        let model = families::open(fitted).unwrap();
        let dense = Dense::new(&learnt, window);
        let (all, (users, items)) = (dense.layers(&own, layers), dense.places(&own, layers));
        let close = |found: &[f32], right: &[f64], what: &str| {
            let found: Vec<f64> = found.iter().copied().map(f64::from).collect();
            let length = found.iter().map(|x| x * x).sum::<f64>().sqrt();
            let nothing = right.iter().all(|&x| x == 0.0);
            assert!((length - 1.0).abs() < 1e-5 || nothing && length == 0.0, "{what}: length {length}");
            assert!(nothing || cosine(&found, right) > 1.0 - 1e-9, "{what}: {found:?}, not along {right:?}");
        };
        for (item, right) in items.iter().enumerate() {
            close(model.item_vector(item as u32).unwrap(), right, &format!("item {item}"));
        }
        let encode = |history: &[u32]| model.encode(&Query { history, ..Query::default() });
        for (user, right) in users.iter().enumerate() {
            let history = learnt.history(user);
            match encode(history) {
                Ok(found) => close(&found, right, &format!("user {user}")),
                Err(Error::Data(_)) => assert!(right.iter().all(|&x| x == 0.0), "user {user} is {right:?}"),
                Err(other) => panic!("{other}"),
            }
        }
        // Whoever was not there: one item, one again, one that nobody has touched, and more than the window.
        let untouched = 62;
        assert_eq!(dense.degree_of(untouched), 0.0);
        for history in [&[3][..], &[3, 8, 3, 3], &[untouched], &[untouched, 4, 5], &[1, 2, 3, 4, 5, 6, 7, 8]] {
            let events = &history[history.len().saturating_sub(window)..];
            let right = dense.attached(&all, events);
            close(&encode(history).unwrap(), &right, &format!("{history:?}"));
        }
    }
}

#[test]
fn the_same_is_learnt_by_any_number_of_threads_and_another_by_another_seed() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 300, 700);
    for features in ["embedding", "both"] {
        let params = json!({ "dim": 7, "hidden": 12, "batch": 600, "epochs": 2, "features": features });
        let one = testing::fit_by_threads(NAME, &corpus, &params, 1);
        assert!(
            one == testing::fit_by_threads(NAME, &corpus, &params, 2),
            "threads change what is learnt of {features}"
        );
        assert!(
            one == testing::fit_by_threads(NAME, &corpus, &params, 5),
            "threads change what is learnt of {features}"
        );
        let other = train(&corpus, params, |training| training.seed = 1).unwrap().artifact.finish().unwrap();
        assert!(one != other);
    }
}

#[test]
fn lists_are_the_items_of_the_largest_cosines_and_scores_are_those() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 60, 40);
    let fitted = train(&corpus, json!({ "dim": 6, "epochs": 2, "window": 8 }), |_| ()).unwrap();
    let (model, again) = (families::open(artifact(&fitted)).unwrap(), families::open(artifact(&fitted)).unwrap());
    testing::check_lists(&*model, &testing::HISTORIES.map(|history| Query { history, ..Query::default() }));
    testing::check_scores(&*model, &testing::HISTORIES, testing::dot);
    for history in testing::HISTORIES {
        assert_eq!(list(&*model, history, 5, Filter::default()), list(&*again, history, 5, Filter::default()));
    }
    // Items that the model does not have, and whoever has touched what nothing is known of.
    for history in [&[40][..], &[1, 40]] {
        let query = Query { history, k: 3, ..Query::default() };
        assert!(matches!(model.recommend(&[query], &Control::default()), Err(Error::Parameter(_))));
        assert!(matches!(model.encode(&query), Err(Error::Parameter(_))));
    }
    let alone = train(&testing::described(3, false), json!({ "epochs": 1, "layers": 0 }), |_| ()).unwrap();
    assert!(families::open(artifact(&alone)).unwrap().encode(&Query { history: &[1], ..Query::default() }).is_ok());
    let nothing = (0..40).find(|&item| model.item_vector(item).unwrap().iter().all(|&x| x == 0.0));
    if let Some(item) = nothing {
        assert!(list(&*model, &[item], 5, Filter::default()).is_empty());
        assert!(model.similar(item, &Query { k: 3, ..Query::default() }).unwrap().is_empty());
    }
}

#[test]
fn what_is_alike_is_similar_and_explains() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 60, 40);
    let model = testing::fit(NAME, &corpus, json!({ "dim": 6, "epochs": 2, "window": 3 }));
    let query = Query { k: 4, ..Query::default() };
    let similar = model.similar(7, &query).unwrap();
    assert!(similar.len() == 4 && similar.iter().all(|scored| scored.item != 7));
    assert!(matches!(model.similar(40, &query), Err(Error::Parameter(_))));
    let asked = Query { history: &[9, 1, 2, 7], ..Query::default() };
    let why = model.explain(&asked, 7).unwrap();
    assert_eq!((&why["alike"][0]["item"], &why["alike"][0]["events_ago"]), (&json!(7), &json!(0)));
    assert!((why["alike"][0]["cosine"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert_eq!((&why["events_used"], why["alike"].as_array().unwrap().len()), (&json!(3), 3));
    let score = f64::from(model.score(&asked, &[7]).unwrap()[0]);
    assert!((why["score"].as_f64().unwrap() - score).abs() < 1e-6);
    assert!(matches!(model.explain(&Query::default(), 7), Err(Error::Data(_))));
    assert!(matches!(model.explain(&asked, 40), Err(Error::Parameter(_))));
}

#[test]
fn kinds_are_told_from_each_other_and_by_any_content() {
    let seed = testing::fresh_seed();
    let corpus = noisy(seed, 0, 600);
    let mut all = 0;
    for more in [json!({}), json!({ "hidden": 0 }), json!({ "features": "attributes" }), json!({ "features": "both" })]
    {
        let model = testing::fit(NAME, &corpus, quick(more.clone()));
        let popular = testing::fit("popularity", &corpus, json!({}));
        let (found, popular) = (alike(&*model, 0..120), alike(&*popular, 0..120));
        assert!(found > 0.35 && popular < 0.2, "{more}: {found}, popularity {popular}");
        // Of the ten that nobody has touched one is of the kind.
        let untouched: Vec<u32> = (120..130).collect();
        let only = Filter { exclude: &[], candidates: Some(&untouched) };
        let right = (0..120).filter(|&item| list(&*model, &[item], 1, only)[0] % 10 == item % 10).count();
        all += right;
        let cold = (0..120).flat_map(|item| list(&*model, &[item], 13, Filter::default())).filter(|&item| item >= 120);
        assert!(cold.count() > 20, "{more}: what nobody has touched is hardly ever recommended");
    }
    assert!(all > 90, "{all} of 480, by chance 48");
}

#[test]
fn another_catalogue_is_served_by_what_was_learnt_of_one() {
    let seed = testing::fresh_seed();
    let start = artifact(&train(&noisy(seed, 0, 600), quick(json!({})), |_| ()).unwrap());
    // Nobody's kind can be told by three users.
    let other = noisy(!seed, 5000, 3);
    let continued =
        |corpus: &Corpus, params: Value| train(corpus, params, |training| training.start = Some(Arc::clone(&start)));
    let fitted = continued(&other, json!({ "epochs": 0 })).unwrap();
    assert!(fitted.curve.is_empty());
    let served = artifact(&fitted);
    for name in ["content.vectors.weight", "content.out.bias"] {
        assert_eq!(served.tensor(name).unwrap().as_slice(), start.tensor(name).unwrap().as_slice());
    }
    let found = alike(&*families::open(served).unwrap(), 0..130);
    assert!(found > 0.3, "{found}, by chance .1");
    // The same catalogue has its items where they were; what goes on does not begin anew.
    let same = noisy(seed, 0, 600);
    let again = artifact(&continued(&same, json!({ "epochs": 0, "layers": 1 })).unwrap());
    assert_eq!(again.tensor("own").unwrap().as_slice(), start.tensor("own").unwrap().as_slice());
    let loss = |fitted: Fitted| fitted.curve[0]["loss"].as_f64().unwrap();
    let more = json!({ "epochs": 1, "batch": 256, "negatives": 32, "learning_rate": 0.001 });
    let from_nothing =
        json!({ "epochs": 1, "batch": 256, "negatives": 32, "learning_rate": 0.001, "dim": 16, "hidden": 32 });
    let (on, anew) = (loss(continued(&same, more).unwrap()), loss(train(&same, from_nothing, |_| ()).unwrap()));
    assert!(on < anew - 0.1, "{on} after {anew}");
}

#[test]
fn what_cannot_be_continued_is_refused_in_words() {
    let corpus = noisy(1, 0, 60);
    let start = artifact(&train(&corpus, quick(json!({ "epochs": 1 })), |_| ()).unwrap());
    let by_words =
        train(&testing::described(1, true), json!({ "epochs": 1, "features": "attributes" }), |_| ()).unwrap();
    let by_words = artifact(&by_words);
    let popular = testing::try_fit("popularity", &corpus, &json!({}), &Control::default()).unwrap();
    let popular = Arc::new(Artifact::from_vec(popular).unwrap());
    for (corpus, start, params, part) in [
        (&corpus, &popular, json!({}), "init is a model of family \"popularity\""),
        (&corpus, &by_words, json!({}), "init is a model that looks at attributes"),
        (&corpus, &start, json!({ "features": "both" }), "continued by vectors alone"),
        (&corpus, &start, json!({ "dim": 8 }), "that model's dim and hidden"),
        (&corpus, &start, json!({ "hidden": 0 }), "that model's dim and hidden"),
        (&testing::described(1, false), &start, json!({}), "vectors of 30 numbers, the items have vectors of 10"),
    ] {
        let refused = train(corpus, params.clone(), |training| training.start = Some(Arc::clone(start)));
        let refused = refused.map(|_| "fitted");
        assert!(matches!(&refused, Err(Error::Parameter(why)) if why.contains(part)), "{params}: {refused:?}");
    }
}

#[test]
fn what_cannot_be_learnt_is_refused_in_words() {
    let corpus = noisy(1, 0, 60);
    let control = Control::default();
    let fit = |corpus: &Corpus, params: Value| testing::try_fit(NAME, corpus, &params, &control);
    for (params, part) in [
        (json!({ "dim": 0 }), "dim is a whole number from 1"),
        (json!({ "window": 0 }), "window is a whole number from 1"),
        (json!({ "hidden": 1 << 30 }), "hidden is a whole number from 0"),
        (json!({ "epochs": 0 }), "only where a model is continued"),
        (json!({ "layers": 9 }), "layers is a whole number from 0 to 8"),
        (json!({ "temperature": 0 }), "temperature is a number above 0"),
        (json!({ "weight_decay": -1 }), "weight_decay is a number from 0"),
        (json!({ "features": "none" }), "unknown variant"),
        (json!({ "depth": 2 }), "unknown field"),
    ] {
        assert!(matches!(fit(&corpus, params.clone()), Err(Error::Parameter(why)) if why.contains(part)), "{params}");
    }
    for features in ["embedding", "attributes", "both"] {
        assert!(matches!(fit(&testing::kinds(1), json!({ "features": features })), Err(Error::Data(_))));
    }
    assert!(matches!(fit(&noisy(1, 0, 0), json!({})), Err(Error::Data(_))));
    let params = json!({ "dim": 1000 });
    let training = Training { memory: 1000, ..Training::new(&corpus, &params, &control) };
    let refused = super::fit(&training).map(|_| "fitted");
    assert!(matches!(&refused, Err(Error::Memory(why)) if why.contains("the bound is 1 MB")), "{refused:?}");
    control.cancel();
    assert!(matches!(fit(&corpus, json!({})), Err(Error::Cancelled)));
}
