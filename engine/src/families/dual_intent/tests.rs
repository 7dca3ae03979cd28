#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::NAME;
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey, SearchRow};
use crate::families::{self, Training};
use crate::random::SplitMix;
use crate::{Artifact, Asked, Control, Corpus, Error, Model, Query, testing};

/// What the items of a kind are looked for by, and a word that many look for.
const KINDS: [&str; 5] = ["charger", "headphone", "holster", "keyboard", "mount"];
const COMMON: &str = "phone";

/// Items 5 n + kind, n below 8, of which users of a taste mostly want those with an n of their own; a search came before a
/// share of the events. Users wander from kind to kind: what they want next is told by what they type alone. Item 40 is
/// touched by nobody.
pub(super) fn shop(seed: u64, users: usize, share: f32) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(IdKind::Int);
    builder.search(&found(&[KINDS[2]], 2)).unwrap();
    (0..41).for_each(|item| {
        builder.item(ItemKey::Int(item)).unwrap();
        let vector = [1.0, (item % 5) as f32, (item / 5) as f32];
        builder.vector(ItemKey::Int(item), &vector).unwrap();
    });
    for user in 0..users {
        builder.user().unwrap();
        for _ in 0..4 + random.below(4) {
            let kind = random.below(5);
            let n = if random.below(5) == 0 { random.below(8) } else { user % 4 * 2 + random.below(2) };
            let item = (5 * n + kind) as i64;
            if random.uniform() < share {
                builder.search(&found(&[KINDS[kind], COMMON][..1 + random.below(2)], item)).unwrap();
            }
            builder.event(ItemKey::Int(item), None).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn found<'a>(words: &'a [&'a str], item: i64) -> SearchRow<'a> {
    SearchRow { words, item: Some(ItemKey::Int(item)), ..SearchRow::default() }
}

fn quick(more: Value) -> Value {
    let mut params = json!({ "dim": 16, "batch": 256, "epochs": 10, "learning_rate": 0.01, "patience": 0 });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

fn items(model: &dyn Model, query: &Query<'_>) -> Vec<u32> {
    model.recommend(&[*query], &Control::default()).unwrap().remove(0).iter().map(|scored| scored.item).collect()
}

#[test]
fn a_search_is_answered_by_its_kind_and_a_known_user_by_their_taste() {
    let model = testing::fit(NAME, &shop(testing::fresh_seed(), 400, 0.9), quick(json!({ "epochs": 20 })));
    assert!(model.answers_queries() && model.searches() == 3);
    let (mut kinds, mut tastes) = (0, 0);
    for kind in 0..5u32 {
        let word = model.word(KINDS[kind as usize]).unwrap();
        let words = [word];
        let unknown = Query { words: &words, k: 5, ..Query::default() };
        let found = items(&*model, &unknown);
        kinds += found.iter().filter(|&&item| item % 5 == kind).count();
        for taste in 0..4u32 {
            let history = [taste * 10, taste * 10 + 6, taste * 10 + 2];
            let first = items(&*model, &Query { history: &history, k: 1, ..unknown });
            tastes += usize::from(first[0] / 10 == taste && first[0] % 5 == kind);
        }
    }
    assert!(kinds >= 18, "{kinds} of 25, by chance 5");
    assert!(tastes >= 12, "{tastes} of 20, by chance 1");
}

#[test]
fn what_was_just_looked_for_moves_the_list_and_wears_off() {
    let model = testing::fit(NAME, &shop(testing::fresh_seed(), 200, 0.9), quick(json!({})));
    let word = [model.word(KINDS[1]).unwrap()];
    let history = [10, 16, 12, 18, 14];
    let at = |after: u32| {
        let after = [after];
        let searches = Asked { words: &word, ends: &[1], after: &after };
        model.score(&Query { history: &history, searches, ..Query::default() }, &[1, 6, 23]).unwrap()
    };
    let without = model.score(&Query { history: &history, ..Query::default() }, &[1, 6, 23]).unwrap();
    let moved = |scores: Vec<f32>| -> f32 { scores.iter().zip(&without).map(|(a, b)| (a - b).abs()).sum() };
    let (now, then) = (moved(at(5)), moved(at(0)));
    assert!(now > 1.5 * then && then > 0.0, "{now} at once, {then} after five events");
    // A search alone is an answer, nothing at all is none.
    let searches = Asked { words: &word, ends: &[1], after: &[0] };
    assert_eq!(items(&*model, &Query { searches, k: 5, ..Query::default() }).len(), 5);
    assert!(items(&*model, &Query { k: 5, ..Query::default() }).is_empty());
    assert!(matches!(model.score(&Query::default(), &[1]), Err(Error::Data(_))));
    assert!(matches!(model.encode(&Query { searches, ..Query::default() }), Err(Error::Data(_))));
}

#[test]
fn lists_are_the_best_scores_under_every_filter() {
    let model =
        testing::fit(NAME, &shop(testing::fresh_seed(), 200, 0.6), quick(json!({ "epochs": 2, "candidates": 12 })));
    // Of the item that nobody has touched it knows nothing.
    let everything: Vec<u32> = (0..40).collect();
    assert_eq!(model.catalogue().len(), 40);
    let words = [model.word(COMMON).unwrap()];
    let asked: [(&[u32], &[u32]); 4] = [(&[3, 9, 4], &[]), (&[3, 9, 4], &words), (&[], &words), (&[], &[])];
    let asked = asked.map(|(history, words)| Query { history, words, ..Query::default() });
    testing::check_lists(&*model, &asked);
    // Of the nearest candidates those are ranked as they are among all.
    for query in &asked[..3] {
        let scores = model.score(query, &everything).unwrap();
        let near = Query { exact_limit: 10, k: 4, ..*query };
        let near = model.recommend(&[near], &Control::default()).unwrap().remove(0);
        assert!(near.len() == 4 && near.is_sorted_by(|a, b| a.score >= b.score));
        assert!(near.iter().all(|scored| scored.score == scores[scored.item as usize]));
    }
    for query in [
        Query { history: &[41], k: 3, ..Query::default() },
        Query { words: &[99], k: 3, ..Query::default() },
        Query { history: &[1], k: 3, filter: Filter { exclude: &[], candidates: Some(&[41]) }, ..Query::default() },
    ] {
        assert!(matches!(model.recommend(&[query], &Control::default()), Err(Error::Parameter(_))));
    }
}

#[test]
fn words_are_known_by_number_and_demand_names_the_likely_ones() {
    let model = testing::fit(NAME, &shop(testing::fresh_seed(), 400, 1.0), quick(json!({ "epochs": 20 })));
    let number = |word: &str| model.word(word);
    assert_eq!(model.word_text(number("mount").unwrap()).as_deref(), Some("mount"));
    assert_eq!((number("mouth"), model.nearest_word("mouht")), (None, number("mount")));
    let mut right = 0;
    for item in 0..40 {
        let query = Query { history: &[10, 16, 12], k: 2, ..Query::default() };
        let wanted = model.demand(&query, item).unwrap().unwrap();
        assert!(wanted.len() == 2 && wanted[0].1 >= wanted[1].1 && (0.0..=1.0).contains(&wanted[0].1));
        right += usize::from(wanted.iter().any(|(word, _)| Some(*word) == number(KINDS[item as usize % 5])));
    }
    assert!(right >= 36, "{right} of 40");
    let why = model.explain(&Query { history: &[10, 16, 12], ..Query::default() }, 16).unwrap();
    assert_eq!(
        (&why["task"], &why["events_used"], &why["alike"][0]["item"]),
        (&json!("recommendation"), &json!(3), &json!(16))
    );
    assert_eq!(why["wanted"][0]["word"], json!(KINDS[1]));
    let similar = model.similar(7, &Query { k: 4, ..Query::default() }).unwrap();
    assert!(similar.len() == 4 && similar.iter().all(|scored| scored.item != 7));
}

#[test]
fn the_same_is_learnt_by_any_number_of_threads_and_another_by_another_seed() {
    let corpus = shop(testing::fresh_seed(), 300, 0.5);
    let params = quick(json!({ "epochs": 2, "features": "embedding" }));
    let one = testing::fit_by_threads(NAME, &corpus, &params, 1);
    assert!(one == testing::fit_by_threads(NAME, &corpus, &params, 3), "threads change what is learnt");
    let control = Control::default();
    let other = super::fit(&Training { seed: 1, ..Training::new(&corpus, &params, &control) }).unwrap();
    assert!(one != other.artifact.finish().unwrap());
    // What nobody has touched is where its content places it.
    let model = families::open(Arc::new(Artifact::from_vec(one).unwrap())).unwrap();
    assert!(model.item_vector(40).unwrap().iter().any(|&x| x != 0.0));
}

#[test]
fn what_is_kept_back_is_told_by_no_search() {
    // The last two events of everybody, and what led there, may change nothing.
    let seed = testing::fresh_seed();
    let shortened = |typed: &'static [&'static str]| {
        let mut builder = CorpusBuilder::new(IdKind::Int);
        let mut random = SplitMix::new(seed);
        (0..10).for_each(|item| builder.item(ItemKey::Int(item)).unwrap());
        // One that is never cut off knows the words, so that lexicons are the same.
        builder.search(&found(&["one", "other"], 1)).unwrap();
        for _ in 0..20 {
            builder.user().unwrap();
            for event in 0..5 {
                let item = random.below(10) as i64;
                let words = if event < 3 { &["one"] } else { typed };
                builder.search(&found(words, item)).unwrap();
                builder.event(ItemKey::Int(item), None).unwrap();
            }
        }
        let corpus = builder.finish().unwrap();
        let params = quick(json!({ "epochs": 1, "dim": 4 }));
        let control = Control::default();
        let fitted = super::fit(&Training { leave_last: 2, ..Training::new(&corpus, &params, &control) }).unwrap();
        let artifact = Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap();
        artifact.tensor("own").unwrap().as_slice().to_vec()
    };
    assert_eq!(shortened(&["one"]), shortened(&["other"]));
}

/// Where every item's text has a word of its own, by which it is looked for.
#[test]
fn what_texts_find_better_is_left_to_them() {
    let mut random = SplitMix::new(testing::fresh_seed());
    let words: Vec<String> = (0..200).map(|item| format!("word{item}")).collect();
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for (item, word) in (0..).zip(&words) {
        builder.item(ItemKey::Int(item)).unwrap();
        builder.words(ItemKey::Int(item), [word.as_str()]).unwrap();
    }
    for _ in 0..100 {
        builder.user().unwrap();
        for _ in 0..4 {
            let item = random.below(200);
            builder.search(&found(&[&words[item]], item as i64)).unwrap();
            builder.event(ItemKey::Int(item as i64), None).unwrap();
        }
    }
    let (corpus, params) = (builder.finish().unwrap(), quick(json!({ "epochs": 1, "dim": 4 })));
    let control = Control::default();
    let fitted = super::fit(&Training { leave_last: 2, ..Training::new(&corpus, &params, &control) }).unwrap();
    let mrr = &fitted.metrics["search_mrr"];
    let of = |way: &str| mrr[way].as_f64().unwrap();
    assert!(of("0") > 0.99 && of("model") < 0.9 && of("16") < 0.99, "{mrr}");
    assert_eq!(fitted.metrics["search_weight"], json!(0.0));
    let model = families::open(Arc::new(Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap())).unwrap();
    assert!(model.search_weight().abs() < 1e-9);
    let params = quick(json!({ "epochs": 1, "dim": 4, "search_weight": 3 }));
    assert!((testing::fit(NAME, &corpus, params).search_weight() - 3.0).abs() < 1e-9);
    // Nobody knows where nothing is to be found.
    let plain = testing::fit(NAME, &shop(1, 20, 0.5), quick(json!({ "epochs": 1 })));
    assert!((plain.search_weight() - 1.0).abs() < 1e-9, "there are no texts");
}

#[test]
fn without_searches_it_recommends_and_knows_no_words() {
    let model =
        testing::fit(NAME, &shop(testing::fresh_seed(), 100, 0.5), quick(json!({ "searches": false, "epochs": 2 })));
    assert!(!model.answers_queries() && model.searches() == 0 && model.word(KINDS[0]).is_none());
    let query = Query { history: &[3, 8], k: 5, ..Query::default() };
    assert_eq!((items(&*model, &query).len(), model.demand(&query, 1).unwrap()), (5, None));
    assert!(model.explain(&query, 4).unwrap()["score"].is_f64());
}

#[test]
fn what_cannot_be_learnt_is_refused_in_words() {
    let corpus = shop(1, 20, 0.5);
    let control = Control::default();
    let fit = |corpus: &Corpus, params: Value| testing::try_fit(NAME, corpus, &params, &control);
    for (params, part) in [
        (json!({ "dim": 0 }), "dim is a whole number from 1"),
        (json!({ "dim": 6 }), "dim is a multiple of 4"),
        (json!({ "negatives": 0 }), "negatives is a whole number from 1"),
        (json!({ "decay": 1.5 }), "decay is a number from 0 to 1"),
        (json!({ "user_dropout": 1 }), "user_dropout is a number from 0 to 0.9"),
        (json!({ "learning_rate": 0 }), "learning_rate is a number above 0"),
        (json!({ "intent_weight": -1 }), "intent_weight is a number from 0"),
        (json!({ "recent": 5000 }), "recent is a whole number from 0 to 1024"),
        (json!({ "search_weight": -1 }), "search_weight is a number from 0"),
        (json!({ "scorer": "cosine" }), "unknown variant"),
        (json!({ "depth": 2 }), "unknown field"),
    ] {
        assert!(matches!(fit(&corpus, params.clone()), Err(Error::Parameter(why)) if why.contains(part)), "{params}");
    }
    let silent = testing::kinds(1);
    assert!(matches!(fit(&silent, json!({})), Err(Error::Data(why)) if why.contains("bind the relation of searches")));
    assert!(fit(&silent, quick(json!({ "searches": false, "epochs": 1 }))).is_ok());
    assert!(matches!(fit(&corpus, json!({ "features": "attributes" })), Err(Error::Data(_))));
    let params = json!({ "dim": 1000 });
    let training = Training { memory: 1000, ..Training::new(&corpus, &params, &control) };
    let refused = super::fit(&training).map(|_| "fitted");
    assert!(matches!(&refused, Err(Error::Memory(why)) if why.contains("the bound is 1 MB")), "{refused:?}");
    control.cancel();
    assert!(matches!(fit(&corpus, json!({})), Err(Error::Cancelled)));
}
