#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use pgrec_kernels::{Filter, Scored};
use serde_json::Value;

use super::*;
use crate::random::SplitMix;
use crate::{Query, testing};

fn items(list: &[Scored]) -> Vec<u32> {
    list.iter().map(|scored| scored.item).collect()
}

fn ask(model: &dyn Model, query: &Query<'_>) -> Vec<Scored> {
    model.recommend(&[*query], &Control::default()).unwrap().remove(0)
}

/// Rings 1 and 2 by the definition, in f64, without a limit: `(item, score)`, best first.
fn rings_by_definition(corpus: &Corpus, anchor: u32) -> [Vec<(u32, f64)>; 2] {
    let mut next: BTreeMap<u32, BTreeMap<u32, f64>> = BTreeMap::new();
    for user in 0..corpus.users() {
        for pair in corpus.history(user).windows(2) {
            *next.entry(pair[0]).or_default().entry(pair[1]).or_default() += 1.0;
        }
    }
    let n = corpus.items().len();
    let tokens = |item: u32| {
        let range = corpus.attribute_offsets()[item as usize]..corpus.attribute_offsets()[item as usize + 1];
        corpus.attributes()[range].iter().copied().collect::<BTreeSet<u32>>()
    };
    let idf = |token: u32| {
        let df = corpus.attributes().iter().filter(|&&t| t == token).count();
        ((n as f64 + 1.0) / (1.0 + df as f64)).ln().max(0.0)
    };
    let norm = |item: u32| tokens(item).iter().map(|&t| idf(t).powi(2)).sum::<f64>().sqrt();
    let cosine = |a: u32, b: u32| {
        let both = tokens(a).intersection(&tokens(b)).map(|&t| idf(t).powi(2)).sum::<f64>();
        if both > 0.0 { both / (norm(a) * norm(b)) } else { 0.0 }
    };
    let none = BTreeMap::new();
    let row = next.get(&anchor).unwrap_or(&none);
    let most = row.values().fold(0f64, |m, c| m.max(c.ln_1p()));
    let one = row.iter().map(|(&item, c)| (item, cosine(anchor, item) + 0.5 * c.ln_1p() / most)).collect();
    let ends: BTreeSet<u32> = row.keys().flat_map(|m| next.get(m).unwrap_or(&none).keys().copied()).collect();
    let far = ends.into_iter().filter(|end| *end != anchor && !row.contains_key(end));
    let two = far.map(|item| (item, cosine(anchor, item))).collect();
    [one, two].map(|mut ring: Vec<(u32, f64)>| {
        ring.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ring
    })
}

#[test]
fn rings_are_those_of_the_definition() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 60, 40);
    let control = Control::default();
    let edges = Edges::count(&corpus, &control).unwrap();
    let features = Features::attributes(&corpus).unwrap();
    let (one, two) = rings::build(edges.view(), features.view(), 6, &|_| true, &control).unwrap();
    for anchor in 0..corpus.items().len() {
        for (lists, expected) in [&one, &two].into_iter().zip(rings_by_definition(&corpus, anchor as u32)) {
            let range = lists.offsets[anchor] as usize..lists.offsets[anchor + 1] as usize;
            assert_eq!(range.len(), expected.len().min(6));
            // Scores closer than the rounding may change places: the order is checked by the rounded ones.
            let order = |at: usize| (std::cmp::Reverse((lists.scores[at] / rings::STEP) as i64), lists.items[at]);
            assert!(range.clone().is_sorted_by_key(order), "anchor {anchor}");
            for (place, at) in range.enumerate() {
                let own = expected.iter().find(|(item, _)| *item == lists.items[at]).unwrap().1;
                for score in [own, expected[place].1] {
                    assert!((f64::from(lists.scores[at]) - score).abs() < 1e-5, "anchor {anchor}");
                }
            }
        }
    }
    let walked: usize = (0..corpus.users()).map(|user| corpus.history(user).len().saturating_sub(1)).sum();
    assert_eq!(edges.counts.iter().map(|&c| c as usize).sum::<usize>(), walked);
}

#[test]
fn lists_keep_every_promise_of_a_model() {
    let seed = testing::fresh_seed();
    let corpus = testing::random_corpus(seed, 150, 60);
    let n = corpus.items().len();
    let mut random = SplitMix::new(seed);
    let some = |random: &mut SplitMix, share: usize| (0..n as u32).filter(|_| random.below(10) < share).collect();
    for params in [
        json!({ "variant": "tgh1" }),
        json!({ "similarity": "vector" }),
        json!({ "similarity": "none", "keep": 3 }),
        json!({ "budgets": [0, 1, 1, 0], "keep": 1000 }),
    ] {
        let model = testing::fit(NAME, &corpus, params.clone());
        for round in 0..200 {
            let history: Vec<u32> = (0..random.below(6)).map(|_| random.below(n) as u32).collect();
            let exclude: Vec<u32> = some(&mut random, round % 8);
            let candidates: Vec<u32> = some(&mut random, 3);
            let filter = Filter { exclude: &exclude, candidates: (round % 3 == 0).then_some(&candidates) };
            let k = [0, 1, 3, 10, 25, n, n + 5][round % 7];
            let query = Query { history: &history, k, filter, ..Query::default() };
            let list = ask(model.as_ref(), &query);
            let context = format!("{params} {query:?} {list:?}");

            let found: BTreeSet<u32> = list.iter().map(|s| s.item).collect();
            let allowed = |item: &u32| {
                exclude.binary_search(item).is_err()
                    && filter.candidates.is_none_or(|all| all.binary_search(item).is_ok())
            };
            assert_eq!(found.len(), list.len(), "{context}");
            assert!(found.iter().all(allowed), "{context}");
            assert!(list.is_sorted_by(|a, b| (b.score, a.item) <= (a.score, b.item)), "{context}");
            if !list.is_empty() {
                assert_eq!(list.len(), k.min((0..n as u32).filter(allowed).count()), "{context}");
            }
            let scores = model.score(&query, &items(&list)).unwrap();
            assert_eq!(scores, list.iter().map(|s| s.score).collect::<Vec<_>>(), "{context}");
        }
    }
}

#[test]
fn a_history_that_says_nothing_gets_no_list() {
    let corpus = testing::corpus(&[&[1, 2], &[3]]);
    let model = testing::fit(NAME, &corpus, json!({}));
    for history in [&[][..], &[2], &[1, 2, 2]] {
        let known = history.contains(&0);
        let list = ask(model.as_ref(), &Query { history, k: 5, ..Query::default() });
        assert_eq!(list.is_empty(), !known);
    }
    // 1 is followed by 2; 3 comes from popularity.
    let list = ask(model.as_ref(), &Query { history: &[0], k: 5, ..Query::default() });
    assert_eq!(items(&list), [1, 0, 2]);
    assert!(list[0].score > 1.0 && list[1].score < 1.0);
}

#[test]
fn similar_items_are_followers_then_look_alikes_and_never_the_item() {
    let mut builder = crate::corpus::CorpusBuilder::new(crate::catalogue::IdKind::Int);
    let key = crate::corpus::ItemKey::Int;
    builder.user().unwrap();
    for item in [10, 10, 20, 30] {
        builder.event(key(item), None).unwrap();
    }
    for (item, token) in [(10, "a"), (40, "a"), (50, "b"), (20, "b")] {
        builder.attribute(key(item), token).unwrap();
    }
    let model = testing::fit(NAME, &builder.finish().unwrap(), json!({}));
    let similar = |k, filter| model.similar(0, &Query { k, filter, ..Query::default() }).unwrap();
    let all = similar(9, Filter::default());
    assert_eq!(items(&all), [1, 2, 3]);
    assert!(all.is_sorted_by(|a, b| a.score > b.score));
    assert_eq!(items(&similar(2, Filter::default())), [1, 2]);
    let filter = Filter { exclude: &[1], candidates: Some(&[0, 1, 3, 4]) };
    assert_eq!(items(&similar(9, filter)), [3]);
    assert!(similar(0, Filter::default()).is_empty());
}

#[test]
fn an_explanation_names_anchor_ring_and_count() {
    let corpus = testing::corpus(&[&[1, 2, 3], &[1, 2], &[4, 3]]);
    let model = testing::fit(NAME, &corpus, json!({}));
    let query = Query { history: &[3, 0], k: 10, ..Query::default() };
    let why = model.explain(&query, 2).unwrap();
    let anchors = &why["anchors"];
    assert_eq!(
        (&anchors[0]["item"], &anchors[0]["ring"], &anchors[0]["edge_count"]),
        (&json!(0), &json!(2), &json!(0))
    );
    assert_eq!(
        (&anchors[1]["item"], &anchors[1]["ring"], &anchors[1]["edge_count"]),
        (&json!(3), &json!(1), &json!(1))
    );
    assert_eq!(anchors[1]["cosine"], Value::Null);
    assert_eq!(why["popularity"], json!({ "count": 2.0, "rank": 3 }));
    let list = ask(model.as_ref(), &query);
    let listed = list.iter().find(|scored| scored.item == 2).unwrap();
    assert_eq!(why["score"].as_f64().unwrap() as f32, listed.score);
}

#[test]
fn the_same_corpus_gives_the_same_bytes_on_any_number_of_threads() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 300, 200);
    let bytes = |threads: usize| testing::fit_by_threads(NAME, &corpus, &json!({}), threads);
    assert!(bytes(1) == bytes(3));
}

#[test]
fn wrong_parameters_are_named() {
    let corpus = testing::corpus(&[&[1, 2]]);
    let refused = |params: Value| match testing::try_fit(NAME, &corpus, &params, &Control::default()) {
        Err(Error::Parameter(why)) | Err(Error::Data(why)) => why,
        other => panic!("{params}: {other:?}"),
    };
    let unknown = refused(json!({ "varant": "tgh1" }));
    assert!(["varant", "variant", "similarity", "budgets", "keep"].iter().all(|word| unknown.contains(word)));
    for params in [
        json!({ "variant": "tgh3" }),
        json!({ "budgets": [1, 2] }),
        json!({ "budgets": [0, 0, 0, 0] }),
        json!({ "budgets": [-1, 0, 0, 2] }),
        json!({ "keep": 0 }),
        json!({ "similarity": "attributes" }),
        json!({ "similarity": "vector" }),
        json!([]),
    ] {
        refused(params);
    }
    let empty = testing::try_fit(NAME, &testing::corpus(&[&[]]), &json!({}), &Control::default());
    assert!(matches!(empty, Err(Error::Data(_))));
    let control = Control::default();
    control.cancel();
    assert!(matches!(testing::try_fit(NAME, &corpus, &Value::Null, &control), Err(Error::Cancelled)));
}

#[test]
fn a_damaged_artifact_is_refused() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 40, 30);
    let items = corpus.items().clone();
    let counts = vec![1.0; items.len()];
    let n = items.len();
    let config = json!({ "variant": "tgh2", "similarity": "none", "budgets": [5, 1, 3, 1], "keep": 60, "edges": 1 });
    let build = |offsets: Vec<u64>, target: u32, score: f32, config: &Value| {
        let mut artifact = ArtifactBuilder::new(NAME, config, &items, &counts);
        artifact.u64("edges.offsets", offsets.clone()).u32("edges.items", vec![target]).u32("edges.counts", vec![1]);
        for name in ["ring1", "ring2"] {
            artifact.u64(&format!("{name}.offsets"), offsets.clone()).u32(&format!("{name}.items"), vec![target]).f32(
                &format!("{name}.scores"),
                &[1],
                vec![score],
            );
        }
        open(Arc::new(Artifact::from_vec(artifact.finish().unwrap()).unwrap())).map(drop)
    };
    let mut good = vec![1u64; n + 1];
    good[0] = 0;
    assert!(build(good.clone(), 0, 0.5, &config).is_ok());
    let mut down = good.clone();
    down[1] = 9;
    let mut short_budget = config.clone();
    short_budget["budgets"] = json!([1]);
    for result in [
        build(down, 0, 0.5, &config),
        build(good[1..].to_vec(), 0, 0.5, &config),
        build(good.clone(), n as u32, 0.5, &config),
        build(good.clone(), 0, f32::NAN, &config),
        build(good, 0, 0.5, &short_budget),
    ] {
        assert!(matches!(result, Err(Error::Malformed(_))), "{result:?}");
    }
}
