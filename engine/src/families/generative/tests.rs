#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::train::Subject;
use super::{FAMILY, Generative};
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::families::{Model, Training, semantic_ids};
use crate::random::SplitMix;
use crate::testing::fresh_seed;
use crate::train::compare;
use crate::{Artifact, Control, Corpus, Error, Query};

const ITEMS: usize = 60;

const ORDERS: [&str; 3] = ["levels", "confidence", "together"];

/// Items of clusters, of which the last has no vector, described by a column and a row of which no two have the same, and
/// users who go from an item to the one after the next.
fn corpus(users: usize, seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..ITEMS {
        let key = ItemKey::Int(item as i64);
        builder.item(key).unwrap();
        builder.attributes(key, &json!({ "column": item % 6, "row": item / 6, "only": item })).unwrap();
        let vector: Vec<f32> =
            (0..6).map(|place| if place == item % 6 { 3.0 } else { 0.5 * random.truncated_normal() }).collect();
        if item + 1 < ITEMS {
            builder.vector(key, &vector).unwrap();
        }
    }
    for _ in 0..users {
        builder.user().unwrap();
        let mut item = random.below(ITEMS);
        for _ in 0..3 + random.below(6) {
            builder.event(ItemKey::Int(item as i64), None).unwrap();
            item = (item + 2) % ITEMS;
        }
    }
    builder.finish().unwrap()
}

fn base(corpus: &Corpus) -> Arc<dyn Model> {
    base_of(corpus, 1)
}

fn other_base(corpus: &Corpus) -> Arc<dyn Model> {
    base_of(corpus, 2)
}

fn base_of(corpus: &Corpus, seed: u64) -> Arc<dyn Model> {
    let control = Control::default();
    let params = json!({ "levels": 3, "codes": 8, "collisions": "map" });
    let training = Training { seed, ..Training::new(corpus, &params, &control) };
    let fitted = (semantic_ids::FAMILY.fit.unwrap())(&training).unwrap();
    let artifact = Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap();
    Arc::from((semantic_ids::FAMILY.open)(Arc::new(artifact)).unwrap())
}

fn fitted(corpus: &Corpus, params: &Value) -> Generative {
    let control = Control::default();
    let training = Training { leave_last: 2, base: Some(base(corpus)), ..Training::new(corpus, params, &control) };
    let fitted = (FAMILY.fit.unwrap())(&training).unwrap();
    Generative::open(&Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap()).unwrap()
}

fn small() -> Value {
    json!({ "dim": 32, "blocks": 1, "heads": 2, "window": 8, "depth": 1, "beam": 8, "epochs": 30, "dropout": 0.0, "patience": 0,
        "learning_rate": 3e-3 })
}

#[test]
fn gradients_are_finite_differences_of_the_loss() {
    let mut random = SplitMix::new(fresh_seed());
    let corpus = corpus(6, random.next());
    let (base, control) = (base(&corpus), Control::default());
    let cosines = json!({ "depth": 2, "temperature": 0.2 });
    let products = json!({ "depth": 0, "normalized": false });
    // A check knows no defaults.
    let fused = json!({ "depth": 1, "temperature": 0.2, "fusion": 1, "loss": "softmax" });
    let aligned = json!({ "depth": 1, "temperature": 0.2, "alignment": 1 });
    for (order, own) in ORDERS.iter().flat_map(|order| [&cosines, &products, &fused, &aligned].map(|own| (order, own)))
    {
        let mut params = json!({ "dim": 8, "blocks": 1, "heads": 2, "window": 5, "order": order });
        params.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let training = Training::new(&corpus, &params, &control);
        let mut subject = Subject::new(&params, base.semantic_ids().unwrap(), &training).unwrap();
        let learner = subject.learner(base.semantic_ids().unwrap()).unwrap();
        compare(&params.to_string(), &learner, &subject.options, &mut subject.parameters, &subject.corpus, &mut random);
    }
}

#[test]
fn what_follows_is_learnt_and_an_item_without_a_code_is_never_generated() {
    let corpus = corpus(600, 3);
    for order in ORDERS {
        let mut params = small();
        params["order"] = json!(order);
        let model = fitted(&corpus, &params);
        assert_eq!(model.catalogue().len(), ITEMS - 1);
        let mut right = 0;
        for item in 0..40u32 {
            let history = [item, item + 2, item + 4];
            let query = Query { history: &history, k: 3, ..Query::default() };
            let found = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            assert_eq!(found.len(), 3);
            right += usize::from(found.iter().any(|found| found.item == item + 6));
        }
        assert!(right >= 36, "{order}: {right} of 40");
    }
}

#[test]
fn what_items_are_described_by_leads_to_them_alone_and_after_a_history() {
    let corpus = corpus(300, 3);
    let mut params = small();
    params["alignment"] = json!(1);
    params["epochs"] = json!(60);
    let model = fitted(&corpus, &params);
    let word = |name: &str, value: u32| model.word(&format!("{name}={value}"));
    assert!(model.knows_words() && word("only", 7).is_none(), "a word of one item says nothing");
    let find = |history: &[u32], words: &[u32]| -> Vec<u32> {
        let query = Query { history, words, k: 3, ..Query::default() };
        let found = model.generate(&query, None, &Control::default()).unwrap().unwrap();
        found.into_iter().map(|found| found.found.item).collect()
    };
    let (mut described, mut columns, mut next) = (0, 0, 0);
    for item in 4..44 {
        let [column, row] = [word("column", item % 6).unwrap(), word("row", item / 6).unwrap()];
        described += usize::from(find(&[], &[column, row]).contains(&item));
        columns += find(&[], &[column]).iter().filter(|found| *found % 6 == item % 6).count();
        next += usize::from(find(&[item - 4, item - 2], &[column, row]).contains(&item));
    }
    assert!(described >= 30 && columns >= 100 && next >= 36, "{described} of 40, {columns} of 120, {next} of 40");
    // A window that words fill leaves no room for the history, and a word beyond the vocabulary is refused.
    let many: Vec<u32> = (0..20).map(|at| at % 10).collect();
    assert_eq!(find(&[1, 3], &many), find(&[], &many));
    let beyond = Query { words: &[999], k: 3, ..Query::default() };
    assert!(model.generate(&beyond, None, &Control::default()).is_err());
}

#[test]
fn words_are_refused_where_there_are_none_and_stay_what_they_are_where_a_training_goes_on() {
    let corpus = corpus(60, 4);
    let control = Control::default();
    let fit = |corpus: &Corpus, params: Value, start: Option<Arc<Artifact>>| {
        let training =
            Training { leave_last: 2, base: Some(base(corpus)), start, ..Training::new(corpus, &params, &control) };
        (FAMILY.fit.unwrap())(&training)
            .map(|fitted| Arc::new(Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap()))
    };
    let own = |more: Value| {
        let mut params = small();
        params["epochs"] = json!(1);
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..9 {
        builder.vector(ItemKey::Int(item), &[item as f32, 1.0]).unwrap();
    }
    let bare = builder.finish().unwrap();
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..9 {
        builder.vector(ItemKey::Int(item), &[item as f32, 1.0]).unwrap();
        builder.attribute(ItemKey::Int(item), &format!("only {item}")).unwrap();
    }
    let apart = builder.finish().unwrap();
    for (corpus, more) in [
        (&bare, json!({ "alignment": 0.5 })),
        (&apart, json!({ "alignment": 0.5 })),
        (&corpus, json!({ "alignment": 1, "words": 0 })),
        (&corpus, json!({ "alignment": 2 })),
        (&corpus, json!({ "alignment": 1, "fusion": 1 })),
    ] {
        assert!(matches!(fit(corpus, own(more), None), Err(Error::Data(_) | Error::Parameter(_))));
    }
    let silent = fit(&corpus, own(json!({})), None).unwrap();
    assert!(matches!(fit(&corpus, own(json!({ "alignment": 1 })), Some(silent)), Err(Error::Parameter(_))));
    let first = fit(&corpus, own(json!({ "alignment": 1, "words": 5 })), None).unwrap();
    assert!(matches!(fit(&corpus, own(json!({ "fusion": 1 })), Some(Arc::clone(&first))), Err(Error::Parameter(_))));
    let open = |artifact: &Artifact| Generative::open(artifact).unwrap();
    let words = |model: &Generative| {
        (0..10).filter(|row| model.word(&format!("row={row}")).is_some()).count()
            + (0..6).filter(|column| model.word(&format!("column={column}")).is_some()).count()
    };
    assert_eq!(words(&open(&first)), 5);
    let next = fit(&corpus, own(json!({ "alignment": 1 })), Some(first)).unwrap();
    assert_eq!(words(&open(&next)), 5);
}

#[test]
fn a_beam_as_wide_as_the_catalogue_ranks_as_scores_do() {
    let mut random = SplitMix::new(fresh_seed());
    let corpus = corpus(60, random.next());
    for (order, fusion) in ORDERS.iter().flat_map(|order| [(order, 0.0), (order, 0.7)]) {
        let params = json!({ "dim": 16, "blocks": 1, "heads": 2, "window": 8, "epochs": 2, "beam": 100,
            "order": order, "fusion": fusion });
        ranks_as_it_scores(&fitted(&corpus, &params), *order != "together", &mut random);
    }
}

fn ranks_as_it_scores(model: &Generative, by_levels: bool, random: &mut SplitMix) {
    let items = model.catalogue().len();
    let control = Control::default();
    for len in [1, 3, 8, 20] {
        let history: Vec<u32> = (0..len).map(|_| random.below(items) as u32).collect();
        let query = Query { history: &history, k: items, ..Query::default() };
        let all: Vec<u32> = (0..items as u32).collect();
        let scores = model.score(&query, &all).unwrap();
        let mut expected = all.clone();
        expected.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
        let found = model.recommend(&[query], &control).unwrap().remove(0);
        assert_eq!(found.iter().map(|found| found.item).collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|found| (found.score - scores[found.item as usize]).abs() < 1e-5));
        let told = model.generate(&query, None, &control).unwrap().unwrap();
        let told: HashMap<u32, f32> = told.iter().map(|told| (told.found.item, told.found.score)).collect();
        let sum: f32 = told.values().map(|score| score.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        // Together as alone.
        let narrow = Query { k: 5, ..query };
        let alone = model.recommend(&[narrow], &control).unwrap();
        assert_eq!(alone[0].iter().map(|found| found.item).collect::<Vec<_>>(), expected[..5]);
        let together = model.recommend(&[narrow, query, narrow], &control).unwrap();
        assert_eq!((&together[0], &together[2]), (&alone[0], &alone[0]));
        // However few beams there are, there is an item for each that is wanted.
        for k in [1, 3, 10, 30] {
            let found = model.generate(&Query { k, ..query }, Some(1), &control).unwrap().unwrap();
            assert_eq!(found.len(), k);
        }
        // Only what the filter lets pass.
        let (exclude, candidates) = ([0, 5, 7], [3, 5, 11, 20]);
        let filter = Filter { exclude: &exclude, candidates: Some(&candidates) };
        let found = model.recommend(&[Query { filter, ..query }], &control).unwrap().remove(0);
        let found: HashSet<u32> = found.iter().map(|found| found.item).collect();
        assert_eq!(found, HashSet::from([3, 11, 20]));
        let filter = Filter { exclude: &exclude, candidates: None };
        let found = model.recommend(&[Query { filter, ..query }], &control).unwrap().remove(0);
        assert_eq!(found.len(), items - 3);
        let explained = model.explain(&query, 4).unwrap();
        let product: f64 =
            explained["levels"].as_array().unwrap().iter().map(|l| l["probability"].as_f64().unwrap()).product();
        // Shares of codes that are told at once are not those among items.
        assert!(product > 0.0 && (!by_levels || (product.ln() - f64::from(told[&4])).abs() < 1e-4));
    }
    let nothing = Query { k: 3, ..Query::default() };
    assert_eq!(model.recommend(&[nothing], &control).unwrap(), [Vec::new()]);
    assert!(matches!(
        model.recommend(&[Query { history: &[9999], k: 1, ..Query::default() }], &control),
        Err(Error::Parameter(_))
    ));
}

#[test]
fn what_beams_find_whose_codes_disagree_only_fills_up_a_list() {
    let corpus = corpus(200, fresh_seed());
    let mut params = small();
    (params["epochs"], params["order"], params["consistency"]) = (json!(10), json!("confidence"), json!(0.997));
    let model = fitted(&corpus, &params);
    let (mut kept, mut dropped) = (0, 0);
    for item in 0..40u32 {
        let history = [item, item + 2, item + 4];
        let query = Query { history: &history, k: ITEMS - 1, ..Query::default() };
        let found = model.generate(&query, Some(20), &Control::default()).unwrap().unwrap();
        assert_eq!(found.len(), ITEMS - 1);
        let few = model.generate(&Query { k: 5, ..query }, Some(50), &Control::default()).unwrap().unwrap();
        assert!(few.iter().all(|one| one.kept) || found.iter().filter(|one| one.kept).count() < 5);
        assert!(found.iter().all(|one| one.kept == (one.agreement.unwrap() >= 0.997)));
        assert!(found.iter().all(|one| (0.0..=1.0).contains(&one.agreement.unwrap())));
        assert!(found.is_sorted_by_key(|one| !one.kept));
        assert!(
            found
                .chunk_by(|a, b| a.kept == b.kept)
                .all(|part| part.is_sorted_by(|a, b| a.found.score >= b.found.score))
        );
        kept += found.iter().filter(|one| one.kept).count();
        dropped += found.iter().filter(|one| !one.kept).count();
    }
    assert!(kept > 0 && dropped > 0, "{kept} kept, {dropped} not");
    params["order"] = json!("levels");
    let query = Query { history: &[1, 3], k: 5, ..Query::default() };
    let found = fitted(&corpus, &params).generate(&query, None, &Control::default()).unwrap().unwrap();
    assert!(found.iter().all(|one| one.kept && one.agreement.is_none()));
}

#[test]
fn a_training_goes_on_where_a_model_of_the_same_codes_is() {
    let (corpus, control) = (corpus(60, 7), Control::default());
    let base = base(&corpus);
    let fit = |params: &Value, start: Option<Arc<Artifact>>, base: &Arc<dyn Model>| {
        let training =
            Training { leave_last: 2, base: Some(Arc::clone(base)), start, ..Training::new(&corpus, params, &control) };
        let fitted = (FAMILY.fit.unwrap())(&training)?;
        Artifact::from_vec(fitted.artifact.finish()?).map(Arc::new)
    };
    let sizes = json!({ "dim": 16, "blocks": 1, "heads": 2, "window": 8, "epochs": 3 });
    let start = fit(&sizes, None, &base).unwrap();
    let mut still = sizes.clone();
    still["learning_rate"] = json!(1e-9);
    let same = fit(&still, Some(Arc::clone(&start)), &base).unwrap();
    for name in ["code_vectors", "chosen_vectors", "blocks.0.query.weight"] {
        let (same, start) = (same.tensor(name).unwrap(), start.tensor(name).unwrap());
        let apart = same.as_slice().iter().zip(start.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-6, "{name}: {apart}");
    }
    let mut wider = sizes.clone();
    wider["dim"] = json!(32);
    for refused in [fit(&wider, Some(Arc::clone(&start)), &base), fit(&sizes, Some(start), &other_base(&corpus))] {
        assert!(refused.err().unwrap().to_string().contains("that model's sizes and codes"));
    }
}

#[test]
fn a_training_needs_codes() {
    let (corpus, control, none) = (corpus(10, 5), Control::default(), json!({}));
    let refused = |training: &Training<'_>| (FAMILY.fit.unwrap())(training).err().unwrap().to_string();
    assert!(refused(&Training::new(&corpus, &none, &control)).contains("name a model that has semantic IDs"));
    let params = json!({ "heads": 3 });
    let training = Training { base: Some(base(&corpus)), ..Training::new(&corpus, &params, &control) };
    assert!(refused(&training).contains("3 heads do not divide dim"));
    let params = json!({ "loss": "bce" });
    let training = Training { base: Some(base(&corpus)), ..Training::new(&corpus, &params, &control) };
    assert!(refused(&training).contains("leave loss out"));
}
