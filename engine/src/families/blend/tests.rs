#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::model::{Config, artifact};
use super::{Blend, FAMILY};
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::evaluate::{Protocol, Spec, evaluate};
use crate::families::{self, Fitted, Model, Training};
use crate::random::SplitMix;
use crate::testing::{self, fresh_seed};
use crate::{Artifact, Control, Corpus, Error, ItemIds, Query, Result};

fn trained(family: &str, corpus: &Corpus, params: Value, members: &[Arc<Artifact>]) -> Result<Fitted> {
    let control = Control::default();
    let training = Training { leave_last: 2, members, ..Training::new(corpus, &params, &control) };
    (families::find(family).unwrap().fit.unwrap())(&training)
}

fn fitted(family: &str, corpus: &Corpus, params: Value) -> Arc<Artifact> {
    let fitted = trained(family, corpus, params, &[]).unwrap();
    Arc::new(Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap())
}

fn blend(corpus: &Corpus, params: Value, members: &[Arc<Artifact>]) -> Blend {
    let fitted = trained("blend", corpus, params, members).unwrap();
    Blend::open(&Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap()).unwrap()
}

/// Users who go on by two steps of three, and else to an item that everybody likes.
fn corpus(users: usize, items: i64, random: &mut SplitMix) -> Corpus {
    let histories: Vec<Vec<i64>> = (0..users)
        .map(|_| {
            let mut item = random.below(items as usize) as i64;
            let mut next = || {
                item = if random.below(3) > 0 { (item + 2) % items } else { random.below(random_bound(items)) as i64 };
                item
            };
            (0..8).map(|_| next()).collect()
        })
        .collect();
    testing::corpus(&histories.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn random_bound(items: i64) -> usize {
    (items / 6).max(1) as usize
}

fn list(model: &dyn Model, query: Query<'_>) -> Vec<(u32, f32)> {
    let found = model.recommend(&[query], &Control::default()).unwrap().remove(0);
    found.into_iter().map(|scored| (scored.item, scored.score)).collect()
}

#[test]
fn a_list_is_what_weighted_sums_of_all_scores_give() {
    let mut random = SplitMix::new(fresh_seed());
    let corpus = corpus(200, 40, &mut random);
    let members = [fitted("graph", &corpus, json!({})), fitted("popularity", &corpus, json!({ "half_life": null }))];
    let open: Vec<Box<dyn Model>> = members.iter().map(|m| families::open(Arc::clone(m)).unwrap()).collect();
    let model = blend(&corpus, json!({ "weights": [2.0, 0.25], "candidates": 100 }), &members);
    let items = model.catalogue().len() as u32;
    for user in 0..20 {
        let history = &corpus.history(user)[..4];
        let exclude = [3, 7];
        let query = Query {
            history,
            k: items as usize + 5,
            filter: Filter { exclude: &exclude, candidates: None },
            ..Query::default()
        };
        let allowed: Vec<u32> = (0..items).filter(|item| !exclude.contains(item)).collect();
        // Scores of the graph depend on how long its list is.
        let asked = Query { k: 100, ..query };
        let parts: Vec<Vec<f32>> = open.iter().map(|model| model.score(&asked, &allowed).unwrap()).collect();
        let found = list(&model, query);
        assert!(found.len() == allowed.len() && found.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)));
        for &(item, score) in &found {
            let at = allowed.binary_search(&item).unwrap();
            let wanted = 2.0 * parts[0][at] + 0.25 * parts[1][at];
            assert!((score - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{item}: {score} for {wanted}");
        }
        let scores = model.score(&query, &[5, 1]).unwrap();
        let of = |item: u32| found.iter().find(|f| f.0 == item).unwrap().1;
        assert_eq!(scores, [of(5), of(1)]);
        let some = Query { filter: Filter { exclude: &[], candidates: Some(&[2, 9]) }, ..query };
        assert_eq!(list(&model, some).len(), 2);
        let reasons = model.explain(&query, 5).unwrap();
        assert_eq!((&reasons["models"][0]["family"], &reasons["models"][1]["weight"]), (&json!("graph"), &json!(0.25)));
    }
}

#[test]
fn what_is_learnt_is_no_worse_than_the_best_of_its_models() {
    let mut random = SplitMix::new(fresh_seed());
    let corpus = corpus(1200, 60, &mut random);
    let small = json!({ "dim": 16, "blocks": 1, "heads": 1, "window": 8, "epochs": 12, "dropout": 0.1 });
    let members = [
        fitted("sasrec", &corpus, small),
        fitted("graph", &corpus, json!({})),
        fitted("popularity", &corpus, json!({ "half_life": null })),
    ];
    let fitted = trained("blend", &corpus, json!({}), &members).unwrap();
    let weights: Vec<f64> = serde_json::from_value(fitted.metrics["weights"].clone()).unwrap();
    assert!(weights.len() == 3 && weights.iter().all(|weight| *weight >= 0.0) && weights[0] + weights[1] > 0.0);
    let ndcg = |model: &dyn Model| {
        let spec = Spec { protocol: Protocol::Validation, ..Spec::default() };
        evaluate(model, &corpus, &spec, &Control::default()).unwrap().value("ndcg", 10).unwrap()
    };
    let model = Blend::open(&Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap()).unwrap();
    let best = members.iter().map(|m| ndcg(&*families::open(Arc::clone(m)).unwrap())).fold(0.0, f64::max);
    assert!(ndcg(&model) > best - 0.01, "{} against {best}", ndcg(&model));
}

#[test]
fn models_of_other_items_are_asked_of_those_they_know() {
    let own = testing::corpus(&[&[1, 2, 3, 4, 5], &[1, 2, 3, 9, 5], &[2, 3, 4, 5, 1], &[9, 1, 2, 3, 4]]);
    let other = testing::corpus(&[&[2, 3, 20, 4, 5], &[2, 3, 20, 21, 4], &[3, 20, 21, 2, 4]]);
    let popular = json!({ "half_life": null });
    let members = [fitted("graph", &other, json!({})), fitted("popularity", &own, popular)];
    let model = blend(&own, json!({ "weights": [1, 0.001] }), &members);
    let number = |id: i64| model.catalogue().index_of_int(id).unwrap();
    assert_eq!(model.catalogue().len(), 8, "1 to 5, 9, 20, 21");
    // What only one of them knows: 9 and 1 by popularity, 20 after 3 by the graph.
    let history = [number(9), number(3)];
    let found = list(&model, Query { history: &history, k: 8, ..Query::default() });
    assert_eq!(found.len(), 8);
    assert_eq!(found[0].0, number(20), "{found:?}");
    let scores = model
        .score(&Query { history: &history, k: 8, ..Query::default() }, &found.iter().map(|f| f.0).collect::<Vec<_>>())
        .unwrap();
    assert!(found.iter().zip(scores).all(|(found, score)| (found.1 - score).abs() < 1e-5));
    // Of a history that the graph does not know, popularity decides; of none, too.
    for history in [vec![number(9)], vec![]] {
        let found = list(&model, Query { history: &history, k: 3, ..Query::default() });
        assert_eq!(found.len(), 3, "{history:?}");
    }
    let reasons = model.explain(&Query { history: &history, k: 1, ..Query::default() }, number(20)).unwrap();
    assert_eq!(reasons["models"][1]["knows_item"], json!(false));
    let similar = model.similar(number(3), &Query { k: 2, ..Query::default() }).unwrap();
    assert!(similar.iter().any(|scored| scored.item == number(20)), "{similar:?}");
    assert!(matches!(model.encode(&Query { history: &history, ..Query::default() }), Err(Error::Unsupported { .. })));
}

#[test]
fn what_makes_no_blend_is_refused() {
    let corpus = corpus(60, 20, &mut SplitMix::new(1));
    let popular = fitted("popularity", &corpus, json!({ "half_life": null }));
    let graph = fitted("graph", &corpus, json!({}));
    let two = [Arc::clone(&graph), Arc::clone(&popular)];
    let inner = trained("blend", &corpus, json!({ "weights": [1, 1] }), &two).unwrap();
    let inner = Arc::new(Artifact::from_vec(inner.artifact.finish().unwrap()).unwrap());
    for (params, members) in [
        (json!({}), &two[..1]),
        (json!({ "weights": [1] }), &two[..]),
        (json!({ "weights": [1, -1] }), &two[..]),
        (json!({ "weights": [0, 0] }), &two[..]),
        (json!({ "candidates": 0 }), &two[..]),
        (json!({ "weights": [1, 1] }), &[graph, inner][..]),
    ] {
        let refused = trained("blend", &corpus, params.clone(), members);
        assert!(matches!(refused, Err(Error::Parameter(_))), "{params}");
    }
    let control = Control::default();
    let (params, given) = (json!({}), json!({ "weights": [1, 1] }));
    let fit = |training: Training<'_>| (FAMILY.fit.unwrap())(&training);
    let all = Training { members: &two, leave_last: 1, ..Training::new(&corpus, &params, &control) };
    assert!(matches!(fit(all), Err(Error::Parameter(_))), "what the models have learnt weighs nothing");
    assert!(fit(Training { members: &two, ..Training::new(&corpus, &given, &control) }).is_ok());
    let tight = Training { members: &two, memory: 100, ..Training::new(&corpus, &given, &control) };
    assert!(matches!(fit(tight), Err(Error::Memory(_))));
    control.cancel();
    let stopped = Training { members: &two, leave_last: 2, ..Training::new(&corpus, &params, &control) };
    assert!(matches!(fit(stopped), Err(Error::Cancelled)));
}

#[test]
fn a_damaged_blend_does_not_open() {
    let corpus = corpus(60, 20, &mut SplitMix::new(1));
    let two = [fitted("graph", &corpus, json!({})), fitted("popularity", &corpus, json!({ "half_life": null }))];
    let open = |weights: &[f64], ids: ItemIds, members: &[Arc<Artifact>]| {
        let config = Config { weights: weights.to_vec(), candidates: 10 };
        let artifact = artifact(&config, &ids, &vec![0.0; ids.len()], members).unwrap().finish().unwrap();
        Blend::open(&Artifact::from_vec(artifact).unwrap()).map(drop)
    };
    let ids = || two[0].catalogue().to_ids();
    assert!(open(&[1.0, 2.0], ids(), &two).is_ok());
    for (weights, ids, members) in [
        (&[1.0, 1.0][..], ids(), &two[..1]),
        (&[0.0, 0.0], ids(), &two),
        (&[f64::NAN, 1.0], ids(), &two),
        (&[1.0, -1.0], ids(), &two),
        (&[1.0, 1.0], ItemIds::from(vec![1i64, 2]), &two),
        (&[1.0, 1.0], ItemIds::default(), &two),
    ] {
        assert!(matches!(open(weights, ids, members), Err(Error::Malformed(_))), "{weights:?}");
    }
}

#[test]
fn many_questions_at_once_are_answered_as_each_alone_whatever_the_models_know() {
    let mut random = SplitMix::new(fresh_seed());
    let (own, other) = (testing::random_corpus(random.next(), 80, 60), testing::random_corpus(random.next(), 80, 45));
    let small = json!({ "dim": 8, "blocks": 1, "heads": 1, "window": 6, "epochs": 1 });
    let members = [fitted("hstu", &other, small), fitted("graph", &own, json!({}))];
    let model = blend(&own, json!({ "weights": [1, 1], "candidates": 8 }), &members);
    assert!(model.timed() && model.window() >= 6);
    let users: Vec<usize> = (0..own.users()).collect();
    let known = |item: &u32| model.catalogue().index_of(&own.items().get(*item as usize)).unwrap();
    let histories: Vec<Vec<u32>> = users.iter().map(|&user| own.history(user).iter().map(known).collect()).collect();
    let query = |user: usize| {
        let (history, times) = (histories[user].as_slice(), own.history_times(user));
        Query { history, times, at: 1e9, k: 5, ..Query::default() }
    };
    let queries: Vec<Query<'_>> = users.iter().map(|&user| query(user)).collect();
    let together = model.recommend(&queries, &Control::default()).unwrap();
    for (user, list_) in together.iter().enumerate() {
        let alone = list(&model, query(user));
        assert_eq!(list_.iter().map(|s| s.item).collect::<Vec<_>>(), alone.iter().map(|a| a.0).collect::<Vec<_>>());
        assert!(list_.iter().zip(alone).all(|(one, other)| (one.score - other.1).abs() < 1e-4));
    }
}

#[test]
fn items_may_be_texts() {
    let corpus = |names: &[&str]| {
        let mut builder = CorpusBuilder::new(IdKind::Text);
        for start in 0..names.len() {
            builder.user().unwrap();
            (0..4).for_each(|at| builder.event(ItemKey::Text(names[(start + at) % names.len()]), None).unwrap());
        }
        builder.finish().unwrap()
    };
    let (one, other) = (corpus(&["ale", "bun", "cod", "dal"]), corpus(&["bun", "cod", "egg", "fig"]));
    let members = [fitted("graph", &one, json!({})), fitted("graph", &other, json!({}))];
    let model = blend(&one, json!({ "weights": [1, 1] }), &members);
    let number = |name: &str| model.catalogue().index_of_text(name).unwrap();
    let found = list(&model, Query { history: &[number("bun"), number("cod")], k: 9, ..Query::default() });
    assert_eq!(found.len(), 6);
    // Behind the last item, which both know.
    let first: Vec<u32> = found[1..3].iter().map(|found| found.0).collect();
    assert!(first.contains(&number("dal")) && first.contains(&number("egg")), "{found:?}");
}
