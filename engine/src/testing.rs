//! Small corpora for the tests of this crate.
#![allow(clippy::unwrap_used)]

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::Value;

use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::families::Training;
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, Model, Query, families};

/// A seed that no other run had, printed so that a failure can be repeated with `PGREC_SEED`.
pub(crate) fn fresh_seed() -> u64 {
    let given = std::env::var("PGREC_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("PGREC_SEED={seed}");
    seed
}

/// A corpus of histories of integer ids, without times or attributes.
pub(crate) fn corpus(histories: &[&[i64]]) -> Corpus {
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for history in histories {
        builder.user().unwrap();
        history.iter().for_each(|&item| builder.event(ItemKey::Int(item), None).unwrap());
    }
    builder.finish().unwrap()
}

/// Users who mostly stay within one of five tastes, an attribute, with two more attributes and a vector an item
/// (some have neither), times a day apart, histories of 0 to 30 events, and items that nobody touched.
pub(crate) fn random_corpus(seed: u64, users: usize, items: usize) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..items {
        let key = ItemKey::Int(item as i64 * 3 - 7);
        builder.item(key).unwrap();
        if item % 11 != 10 {
            builder.attribute(key, &format!("taste {}", item % 5)).unwrap();
            builder.attribute(key, &format!("brand {}", random.below(6))).unwrap();
            builder.attribute(key, &format!("label {}", random.below(20))).unwrap();
            let vector: Vec<f32> = (0..4).map(|_| random.below(1000) as f32 / 500.0 - 1.0).collect();
            builder.vector(key, &vector).unwrap();
        }
    }
    for _ in 0..users {
        builder.user().unwrap();
        let taste = random.below(5);
        for day in 0..random.below(31) {
            // The cube of a uniform number: a few items are touched most. The last tenth is never touched.
            let share = random.below(1000) as f64 / 1000.0;
            let item = (share.powi(3) * items as f64 * 0.9) as usize;
            let item = if random.below(10) < 8 { item / 5 * 5 + taste } else { item };
            builder.event(ItemKey::Int(item.min(items - 1) as i64 * 3 - 7), Some(day as f64 * 86_400.0)).unwrap();
        }
    }
    builder.finish().unwrap()
}

/// Users who stay within one of ten kinds of items, of twelve each: items are numbered 10 n + kind.
pub(crate) fn kinds(seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let histories: Vec<Vec<i64>> = (0..600)
        .map(|user| (0..5 + random.below(4)).map(|_| (random.below(12) * 10 + user % 10) as i64).collect())
        .collect();
    corpus(&histories.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// [`kinds`], each item with a vector that its kind has much to do with, or its kind as an attribute; of each kind one item
/// is touched by nobody.
pub(crate) fn described(seed: u64, attributes: bool) -> Corpus {
    described_by(seed, attributes, 600)
}

/// The same with so many users.
pub(crate) fn described_by(seed: u64, attributes: bool, users: usize) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..130 {
        let key = ItemKey::Int(item);
        builder.item(key).unwrap();
        if attributes {
            builder.attribute(key, &format!("kind {}", item % 10)).unwrap();
            builder.attribute(key, &format!("label {}", random.below(9))).unwrap();
        } else {
            let vector: Vec<f32> =
                (0..10).map(|kind| f32::from(kind == item % 10) + 0.1 * random.truncated_normal()).collect();
            builder.vector(key, &vector).unwrap();
        }
    }
    for user in 0..users {
        builder.user().unwrap();
        for _ in 0..5 + random.below(4) {
            builder.event(ItemKey::Int((random.below(12) * 10 + user % 10) as i64), None).unwrap();
        }
    }
    builder.finish().unwrap()
}

/// The bytes of a model fitted on all of a corpus.
pub(crate) fn try_fit(family: &str, corpus: &Corpus, params: &Value, control: &Control) -> crate::Result<Vec<u8>> {
    let fit = families::find(family).unwrap().fit.unwrap();
    fit(&Training::new(corpus, params, control))?.artifact.finish()
}

/// Fits, writes, and opens what was written, as the database does.
pub(crate) fn fit(family: &str, corpus: &Corpus, params: Value) -> Box<dyn Model> {
    let bytes = try_fit(family, corpus, &params, &Control::default()).unwrap();
    families::open(Arc::new(Artifact::from_vec(bytes).unwrap())).unwrap()
}

/// The same, by so many threads.
pub(crate) fn fit_by_threads(family: &str, corpus: &Corpus, params: &Value, threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| try_fit(family, corpus, params, &Control::default())).unwrap()
}

/// Of nobody, of somebody with one item, the same one twice, with more than a window of 8 takes, and the outermost of 40.
pub(crate) const HISTORIES: [&[u32]; 5] = [&[], &[3], &[3, 3, 9], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], &[0, 39]];

/// Asks a model of 40 items or more under every sort of filter: a list holds the best of what the filter leaves, with the scores
/// that these items have alone, and is the same alone and among others. Who says nothing gets no list, and no scores.
pub(crate) fn check_lists(model: &dyn Model, asked: &[Query<'_>]) {
    let everything: Vec<u32> = (0..model.catalogue().len() as u32).collect();
    let (all, some): (&[u32], &[u32]) = (&everything, &[2, 4, 8, 30]);
    let filter = |exclude, candidates| Filter { exclude, candidates };
    let filters = [
        (5, filter(&[], None)),
        (1000, filter(&[1, 3], None)),
        (3, filter(&[4], Some(some))),
        (1000, filter(&[2, 5], Some(all))),
        (0, filter(&[], None)),
    ];
    let mut answered = Vec::new();
    for query in asked {
        for (k, filter) in filters {
            let query = Query { k, filter, ..*query };
            let Filter { exclude, candidates } = filter;
            let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            match model.score(&query, all) {
                Ok(scores) => {
                    let open = candidates.unwrap_or(all).iter().filter(|item| !exclude.contains(item));
                    let mut best: Vec<f32> = open.map(|&item| scores[item as usize]).collect();
                    best.sort_by(|a, b| b.total_cmp(a));
                    best.truncate(k);
                    assert_eq!(list.iter().map(|scored| scored.score).collect::<Vec<_>>(), best);
                    assert!(list.iter().all(|scored| scored.score == scores[scored.item as usize]));
                    let mut items: Vec<u32> = list.iter().map(|scored| scored.item).collect();
                    items.sort_unstable();
                    assert!(items.windows(2).all(|pair| pair[0] < pair[1]), "an item stands twice in a list");
                    let open =
                        |item: &u32| !exclude.contains(item) && candidates.is_none_or(|some| some.contains(item));
                    assert!(items.iter().all(open));
                }
                Err(error) => assert!(matches!(error, Error::Data(_)) && list.is_empty(), "{error}: {list:?}"),
            }
            answered.push((query, list));
        }
    }
    let many: Vec<Query<'_>> = answered.iter().cycle().take(200).map(|(query, _)| *query).collect();
    let lists = model.recommend(&many, &Control::default()).unwrap();
    assert!(lists.iter().zip(answered.iter().cycle()).all(|(list, (_, alone))| list == alone));
}

/// Checks that scores are this of the vectors of user and item, and that nobody has no vector.
pub(crate) fn check_scores(model: &dyn Model, histories: &[&[u32]], of: impl Fn(&[f32], &[f32]) -> f32) {
    let everything: Vec<u32> = (0..model.catalogue().len() as u32).collect();
    for history in histories {
        let query = Query { history, ..Query::default() };
        if history.is_empty() {
            assert!(matches!(model.encode(&query), Err(Error::Data(_))));
            continue;
        }
        let (user, scores) = (model.encode(&query).unwrap(), model.score(&query, &everything).unwrap());
        for (score, &item) in scores.iter().zip(&everything) {
            let right = of(&user, model.item_vector(item).unwrap());
            assert!((score - right).abs() < 1e-5, "item {item}: {score}, not {right}");
        }
    }
}

/// The product of two vectors.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
