#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{FAMILY, SemanticIds};
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::families::{self, Model, Training};
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, ItemId, Query, Result};

const DIM: usize = 6;

/// Items 10, 20, … of which every fifth has no vector, and one user who touched the first.
fn corpus(items: i64, seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let mut builder = CorpusBuilder::new(crate::catalogue::IdKind::Int);
    for item in 1..=items {
        let key = ItemKey::Int(10 * item);
        builder.item(key).unwrap();
        let vector: Vec<f32> = (0..DIM).map(|_| random.truncated_normal()).collect();
        if item % 5 != 0 {
            builder.vector(key, &vector).unwrap();
        }
    }
    builder.user().unwrap();
    builder.event(ItemKey::Int(10), None).unwrap();
    builder.finish().unwrap()
}

fn fitted(corpus: &Corpus, params: &Value) -> Result<(Value, Arc<Artifact>)> {
    let control = Control::default();
    let fitted = (FAMILY.fit.unwrap())(&Training::new(corpus, params, &control))?;
    let metrics = fitted.metrics["codes"].clone();
    Ok((metrics, Arc::new(Artifact::from_vec(fitted.artifact.finish()?)?)))
}

fn opened(corpus: &Corpus, params: &Value) -> SemanticIds {
    SemanticIds::open(&fitted(corpus, params).unwrap().1).unwrap()
}

#[test]
fn items_with_a_vector_have_a_code_of_their_own_and_are_found_under_its_prefixes() {
    let corpus = corpus(200, 1);
    for params in [
        json!({ "levels": 3, "codes": 8 }),
        json!({ "levels": 2, "codes": 8, "collisions": "number" }),
        json!({ "levels": 3, "codes": 8, "quantizer": "product" }),
        json!({ "levels": 3, "codes": 8, "collisions": "map" }),
        json!({ "levels": 2, "codes": 8, "quantizer": "product", "collisions": "number" }),
        json!({ "levels": 3, "codes": 8, "quantizer": "rq_vae", "network": { "hidden": [8], "latent": 4, "epochs": 20 } }),
        json!({ "levels": 3, "codes": 8, "quantizer": "mixture", "network": { "hidden": [8], "latent": 4, "epochs": 20 } }),
    ] {
        let (metrics, artifact) = fitted(&corpus, &params).unwrap();
        let model = SemanticIds::open(&artifact).unwrap();
        assert_eq!((model.catalogue().len(), &metrics["items"]), (160, &json!(160)));
        assert_eq!(metrics["collisions"], json!(0), "{params}");
        assert_eq!(model.catalogue().index_of(&ItemId::Int(50)), None);
        let codes: HashSet<&[u16]> = (0..160).map(|item| model.code(item)).collect();
        assert_eq!(codes.len(), 160, "{params}");
        for item in 0..160u32 {
            let code = model.code(item);
            for len in 0..=code.len() {
                let mut found = model.ordered()[model.under(&code[..len])].to_vec();
                assert!(found.is_sorted_by_key(|&item| model.code(item)));
                found.sort_unstable();
                let expected: Vec<u32> = (0..160).filter(|&i| model.code(i).starts_with(&code[..len])).collect();
                assert_eq!(found, expected);
            }
        }
        assert_eq!(model.under(&[u16::MAX]), 160..160);
    }
}

#[test]
fn a_new_vector_gets_the_nearest_code_that_is_free() {
    let corpus = corpus(100, 2);
    for quantizer in ["residual", "product"] {
        let model = opened(&corpus, &json!({ "levels": 3, "codes": 8, "quantizer": quantizer }));
        let nothing = |_: &[u16]| Ok::<_, Error>(HashSet::new());
        let vector = &corpus.vectors()[..DIM];
        let code = model.free_code(vector, nothing).unwrap();
        let known: HashSet<&[u16]> = (0..80).map(|item| model.code(item)).collect();
        assert!(!known.contains(code.as_slice()));
        let taken =
            |prefix: &[u16]| Ok::<_, Error>(if prefix == &code[..2] { [code[2]].into() } else { HashSet::new() });
        assert_ne!(model.free_code(vector, taken).unwrap(), code);
        assert!(matches!(model.free_code(&vector[1..], nothing), Err(Error::Parameter(_))));
        assert!(matches!(model.free_code(&[f32::NAN; DIM], nothing), Err(Error::Parameter(_))));
        let all = |_: &[u16]| Ok::<_, Error>((0..8).collect());
        assert!(matches!(model.free_code(vector, all), Err(Error::Data(_))));
    }
}

#[test]
fn the_most_similar_items_are_those_whose_codes_stand_for_the_nearest_vectors() {
    let model = opened(&corpus(100, 3), &json!({ "levels": 2, "codes": 16 }));
    let similar = model.similar(7, &Query { k: 5, ..Query::default() }).unwrap();
    assert_eq!(similar.len(), 5);
    assert!(similar.is_sorted_by(|a, b| a.score >= b.score) && similar.iter().all(|s| s.item != 7));
    let own = model.quantizer().decode(model.code(7));
    let nearest = (0..80u32)
        .filter(|&item| item != 7)
        .min_by(|&a, &b| {
            model.quantizer().error(&own, model.code(a)).total_cmp(&model.quantizer().error(&own, model.code(b)))
        })
        .unwrap();
    assert_eq!(similar[0].item, nearest);
}

#[test]
fn the_vectors_of_another_model_can_be_coded() {
    let corpus = corpus(60, 4);
    let control = Control::default();
    let none = json!({});
    let base: Arc<dyn Model> =
        Arc::new(Fixed { catalogue: opened(&corpus, &json!({ "codes": 4 })).catalogue().clone() });
    let training = Training { base: Some(base), ..Training::new(&corpus, &none, &control) };
    let fitted = (FAMILY.fit.unwrap())(&training).unwrap();
    let model = SemanticIds::open(&Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap()).unwrap();
    assert_eq!((model.catalogue().len(), model.input()), (48, 2));
}

#[test]
fn what_cannot_be_coded_is_refused_in_words() {
    let control = Control::default();
    let with = corpus(20, 5);
    let mut builder = CorpusBuilder::new(crate::catalogue::IdKind::Int);
    builder.item(ItemKey::Int(1)).unwrap();
    let without = builder.finish().unwrap();
    let refused = |corpus: &Corpus, params: Value| {
        (FAMILY.fit.unwrap())(&Training::new(corpus, &params, &control)).err().unwrap().to_string()
    };
    assert!(refused(&without, json!({})).contains("embedding column"));
    assert!(refused(&with, json!({ "levels": 0 })).contains("levels is 0"));
    assert!(refused(&with, json!({ "codes": 1 })).contains("codes is 1"));
    assert!(refused(&with, json!({ "levels": 1, "codes": 4 })).contains("raise levels or codes"));
    assert!(refused(&with, json!({ "quantizer": "product", "levels": 9 })).contains("no 9 parts"));
    assert!(refused(&with, json!({ "quantiser": "x" })).contains("quantizer"));
    let model = opened(&with, &json!({}));
    assert!(matches!(model.recommend(&[], &control), Err(Error::Unsupported { .. })));
    assert!(families::find("semantic_ids").is_some_and(|family| !family.ranks));
}

/// Knows a vector of two numbers of every item.
struct Fixed {
    catalogue: crate::Catalogue,
}

impl Model for Fixed {
    fn catalogue(&self) -> &crate::Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        0
    }

    fn item_vector(&self, item: u32) -> Option<&[f32]> {
        static VECTORS: [[f32; 2]; 3] = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
        Some(&VECTORS[item as usize % 3])
    }

    fn recommend(&self, _: &[Query<'_>], _: &Control) -> Result<Vec<Vec<pgrec_kernels::Scored>>> {
        Ok(Vec::new())
    }

    fn score(&self, _: &Query<'_>, _: &[u32]) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn similar(&self, _: u32, _: &Query<'_>) -> Result<Vec<pgrec_kernels::Scored>> {
        Ok(Vec::new())
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn explain(&self, _: &Query<'_>, _: u32) -> Result<Value> {
        Ok(Value::Null)
    }
}

#[test]
fn given_codes_are_kept_but_where_two_items_have_one() {
    let mut builder = CorpusBuilder::new(crate::catalogue::IdKind::Int);
    let given = [[3.0, 1.0], [3.0, 2.0], [1.0, 2.0], [3.0, 1.0]];
    for (item, vector) in (0..).zip(given) {
        builder.item(ItemKey::Int(item)).unwrap();
        builder.vector(ItemKey::Int(item), &vector).unwrap();
    }
    builder.user().unwrap();
    builder.event(ItemKey::Int(0), None).unwrap();
    let (metrics, artifact) = fitted(&builder.finish().unwrap(), &json!({ "quantizer": "given" })).unwrap();
    let model = SemanticIds::open(&artifact).unwrap();
    assert_eq!([&metrics["greedy_collisions"], &metrics["collisions"]], [&json!(2), &json!(0)]);
    let codes: HashSet<&[u16]> = (0..4).map(|item| model.code(item)).collect();
    assert_eq!((codes.len(), model.code(1), model.code(2)), (4, &[3, 2][..], &[1, 2][..]));
    assert!([model.code(0), model.code(3)].contains(&&[3, 1][..]), "one of the two keeps its code");
}
