//! What all families with a geometry promise: scores are what two vectors make, and an item that comes later is where it
//! would be, had the training known its content and nobody touched it.
#![allow(clippy::unwrap_used)]

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::Geometry;
use crate::{Control, Corpus, Error, ItemContent, Model, Query, testing};

const FAMILIES: [&str; 4] = ["sasrec", "hstu", "bpr", "cml"];

fn small(family: &str, more: Value) -> Value {
    let mut params = match family {
        "sasrec" | "hstu" => json!({ "dim": 8, "heads": 1, "epochs": 2 }),
        _ => json!({ "dim": 8, "epochs": 2 }),
    };
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() < 1e-4 * (1.0 + a.abs())
}

#[test]
fn scores_are_what_the_vectors_of_user_and_item_make() {
    let seed = testing::fresh_seed();
    let corpus = testing::random_corpus(seed, 60, 50);
    for family in FAMILIES {
        let model = testing::fit(family, &corpus, small(family, json!({})));
        let geometry = model.geometry().unwrap();
        for history in [&[3u32][..], &[1, 9, 4, 20, 31]] {
            let exclude = [3, 7];
            let filter = Filter { exclude: &exclude, candidates: None };
            let query = Query { history, k: 6, filter, at: 1e9, ..Query::default() };
            let times: Vec<f64> = (0..history.len()).map(|day| day as f64 * 86_400.0).collect();
            let query = Query { times: &times, ..query };
            let user = model.encode(&query).unwrap();
            let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            for scored in &list {
                let by_vectors = geometry.score(&user, model.item_vector(scored.item).unwrap());
                assert!(close(by_vectors, scored.score), "{family} {by_vectors} {scored:?}");
            }
            let again = model.recommend_by(&user, &query).unwrap().unwrap();
            let items = |list: &[crate::Scored]| list.iter().map(|s| s.item).collect::<Vec<_>>();
            assert_eq!(items(&again), items(&list), "{family}");
            // More than there is gives all that may be returned.
            let all = model.recommend_by(&user, &Query { k: 1000, ..query }).unwrap().unwrap();
            assert_eq!(all.len(), 48, "{family}");
            let short = model.recommend_by(&user[1..], &query);
            assert!(matches!(short, Err(Error::Parameter(_))), "{family}");
        }
    }
}

#[test]
fn steering_goes_from_the_user_to_what_is_meant() {
    let (user, meant) = ([3.0, 4.0], [0.0, 2.0]);
    for geometry in [Geometry::Distance, Geometry::Product] {
        assert_eq!(geometry.steered(&user, &meant, 0.0), user);
    }
    assert_eq!(Geometry::Distance.steered(&user, &meant, 1.0), meant);
    assert_eq!(Geometry::Product.steered(&user, &meant, 1.0), [0.0, 5.0]);
    assert_eq!(Geometry::Distance.steered(&user, &meant, 0.5), [1.5, 3.0]);
    // What means nothing leaves the direction as it is.
    assert_eq!(Geometry::Product.steered(&user, &[0.0, 0.0], 0.5), [1.5, 2.0]);
}

/// What a corpus knows of an item.
fn content(corpus: &Corpus, item: usize) -> (Option<Vec<f32>>, Vec<String>) {
    let dim = corpus.vector_dim();
    let vector = (dim > 0).then(|| corpus.vectors()[item * dim..][..dim].to_vec());
    let words = corpus.attributes_of(item).iter().map(|&word| corpus.vocabulary()[word as usize].clone());
    (vector, words.collect())
}

fn place(model: &dyn Model, (vector, words): &(Option<Vec<f32>>, Vec<String>)) -> Option<Vec<f32>> {
    model.place(&ItemContent { vector: vector.as_deref(), attributes: words }).unwrap()
}

#[test]
fn an_item_that_comes_later_is_where_an_untouched_one_of_the_training_is() {
    let seed = testing::fresh_seed();
    let corpus = testing::random_corpus(seed, 60, 50);
    let counts = corpus.counts();
    let of = |item: usize| content(&corpus, item);
    let is_blank = |item: usize| of(item).0.is_none_or(|v| v.iter().all(|&x| x == 0.0)) && of(item).1.is_empty();
    for family in ["sasrec", "hstu", "cml", "content"] {
        for features in ["embedding", "attributes", "both"] {
            let model = testing::fit(family, &corpus, small(family, json!({ "features": features })));
            assert!(model.places());
            let mut compared = 0;
            for item in (0..50).filter(|&item| counts[item] == 0 && !is_blank(item)) {
                let Some(placed) = place(&*model, &of(item)) else { continue };
                let stored = model.item_vector(item as u32).unwrap();
                let alike = placed.iter().zip(stored).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(alike, "{family} {features} {placed:?} {stored:?}");
                compared += 1;
            }
            assert!(compared > 0, "{family} {features}");
            // Nothing that is known, in one way and another.
            assert_eq!(place(&*model, &(None, vec!["never heard of".into()])), None);
            let zeros = (Some(vec![0.0; 4]), Vec::new());
            assert_eq!(place(&*model, &zeros), None);
        }
        let model = testing::fit(family, &corpus, small(family, json!({ "features": "embedding" })));
        for wrong in [&[1.0][..], &[1.0, f32::NAN, 0.0, 0.0]] {
            let wrong = ItemContent { vector: Some(wrong), attributes: &[] };
            assert!(matches!(model.place(&wrong), Err(Error::Data(_))), "{family}");
        }
        // Which looks at nothing else.
        if family == "content" {
            continue;
        }
        let without = testing::fit(family, &corpus, small(family, json!({})));
        assert!(!without.places() && place(&*without, &of(0)).is_none(), "{family}");
    }
}
