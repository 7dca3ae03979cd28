//! Gradients of the whole network: against finite differences in double precision, and against PyTorch's.
#![allow(clippy::unwrap_used)]

use pgrec_kernels::Tensor;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};

use super::train::{Network, Own, fresh};
use super::*;
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey};
use crate::families::{Training, hstu, hstu_rank, params, sasrec};
use crate::random::SplitMix;
use crate::testing::fresh_seed;
use crate::train::{Check, Options, Parameters, compare, tolerance};
use crate::{Control, Corpus};

/// What a training that is given `params` would train.
struct Subject<A> {
    architecture: A,
    options: Options,
    parameters: Parameters,
}

impl<A: Architecture> Subject<A> {
    fn new<P: Own<Architecture = A>>(params: &Value, corpus: &Corpus) -> Self {
        let (own, options): (P, _) = params::read_trained(A::FAMILY, params, &Options::default()).unwrap();
        let (architecture, parameters) = fresh(&own, corpus, &options, 1).unwrap();
        Self { architecture, options, parameters }
    }

    fn network<'a>(&self, corpus: &'a Corpus, control: &'a Control) -> Network<'a, A> {
        let training = Training::new(corpus, &Value::Null, control);
        Network::new(self.architecture.clone(), &self.parameters, &training).unwrap()
    }
}

/// A catalogue of items 0 to `items` and histories of them; events happen at their places to the power of five.
fn corpus(items: usize, histories: &[Vec<usize>]) -> Corpus {
    let mut builder = CorpusBuilder::new(IdKind::Int);
    (0..items).for_each(|item| builder.item(ItemKey::Int(item as i64)).unwrap());
    for history in histories {
        builder.user().unwrap();
        for (place, &item) in history.iter().enumerate() {
            builder.event(ItemKey::Int(item as i64), Some((place as f64).powi(5))).unwrap();
            builder.outcome((item + place) as u32 % 4).unwrap();
        }
    }
    builder.finish().unwrap()
}

/// Every form of SASRec with every loss.
fn sasrec_cases() -> Vec<Value> {
    let forms = [
        json!({ "form": "original" }),
        json!({ "form": "pre_ln", "heads": 1 }),
        json!({ "form": "pre_ln", "activation": "silu" }),
        json!({ "form": "post_ln" }),
        json!({ "form": "hstu_baseline" }),
    ];
    let cosines = json!({ "normalized": true, "temperature": 0.05 });
    let products = json!({ "normalized": false });
    let sampled = json!({ "loss": "sampled_softmax", "negatives": 5 });
    let each = json!({ "shared_negatives": false });
    let shared = json!({ "shared_negatives": true });
    let losses = [
        vec![json!({ "loss": "softmax" }), products.clone()],
        vec![json!({ "loss": "softmax" }), cosines.clone()],
        vec![sampled.clone(), each.clone(), products.clone()],
        vec![sampled.clone(), each.clone(), cosines.clone()],
        vec![sampled.clone(), shared.clone(), json!({ "correction": false }), cosines.clone()],
        vec![sampled.clone(), shared.clone(), json!({ "correction": true }), cosines.clone()],
        vec![sampled, shared.clone(), json!({ "negative_source": "in_batch", "correction": true }), products.clone()],
        vec![json!({ "loss": "bce", "negatives": 1 }), each, products.clone()],
        vec![json!({ "loss": "gbce", "negatives": 4, "calibration": 0.75 }), shared, products],
    ];
    let sizes = json!({ "dim": 8, "blocks": 2, "heads": 2, "ffn": 8, "window": 5 });
    let case = |form: &Value, loss: &[Value]| -> Value {
        let parts = [&sizes, form].into_iter().chain(loss);
        parts.flat_map(|part| part.as_object().unwrap().clone()).collect()
    };
    forms.iter().flat_map(|form| losses.iter().map(move |loss| (form, loss))).map(|(f, l)| case(f, l)).collect()
}

/// HSTU with and without times, and with every loss over cosines.
fn hstu_cases() -> Vec<Value> {
    let forms = [
        json!({ "heads": 1, "times": true }),
        json!({ "heads": 2, "query_dim": 3, "value_dim": 5, "times": true }),
        json!({ "heads": 2, "times": false }),
    ];
    let losses = [
        json!({ "loss": "softmax" }),
        json!({ "loss": "sampled_softmax", "negatives": 5, "shared_negatives": false }),
        json!({ "loss": "sampled_softmax", "negatives": 5, "shared_negatives": true, "correction": true }),
    ];
    let sizes = json!({ "dim": 8, "blocks": 2, "window": 5, "temperature": 0.05 });
    let case = |form: &Value, loss: &Value| -> Value {
        [&sizes, form, loss].into_iter().flat_map(|part| part.as_object().unwrap().clone()).collect()
    };
    forms.iter().flat_map(|form| losses.iter().map(move |loss| (form, loss))).map(|(f, l)| case(f, l)).collect()
}

/// HSTU as a ranking model of two tasks.
fn hstu_rank_cases() -> Vec<Value> {
    let tasks = json!([{ "name": "like", "weight_from": 4 }, { "name": "buy", "actions": ["buy"] }]);
    let case = |times: bool| json!({ "dim": 8, "blocks": 2, "heads": 2, "hidden": 6, "window": 4, "times": times, "tasks": tasks });
    vec![case(true), case(false)]
}

#[test]
fn gradients_of_every_form_and_loss_are_finite_differences_of_the_loss() {
    compare_with_differences::<sasrec::Params>(&sasrec_cases());
    compare_with_differences::<hstu::Params>(&hstu_cases());
    compare_with_differences::<hstu_rank::Params>(&hstu_rank_cases());
}

fn compare_with_differences<P: Own>(cases: &[Value]) {
    const ITEMS: usize = 13;
    let mut random = SplitMix::new(fresh_seed());
    let control = Control::default();
    for params in cases {
        let histories: Vec<Vec<usize>> =
            (0..7).map(|_| (0..2 + random.below(6)).map(|_| random.below(ITEMS - 1)).collect()).collect();
        let corpus = corpus(ITEMS, &histories);
        let mut subject = Subject::new::<P>(params, &corpus);
        let network = subject.network(&corpus, &control);
        compare(&params.to_string(), &network, &subject.options, &mut subject.parameters, &corpus, &mut random);
    }
}

#[derive(Deserialize)]
struct Golden {
    items: usize,
    histories: Vec<Vec<usize>>,
    step_key: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    params: Value,
    loss: f64,
    /// The order of the weights in the gradient.
    weights: Vec<String>,
}

/// Written by `tests/golden/training.py`.
const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/training.safetensors");

fn numbers(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap().data().chunks_exact(4);
    bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn gradients_of_every_form_and_loss_are_those_of_pytorch() {
    let (_, header) = SafeTensors::read_metadata(GOLDEN).unwrap();
    let golden: Golden = serde_json::from_str(&header.metadata().as_ref().unwrap()["golden"]).unwrap();
    let tensors = SafeTensors::deserialize(GOLDEN).unwrap();
    let (corpus, control) = (corpus(golden.items, &golden.histories), Control::default());
    for (number, case) in golden.cases.iter().enumerate() {
        let params = &case.params;
        let mut subject = Subject::new::<sasrec::Params>(params, &corpus);
        assert_eq!(subject.parameters.iter().count(), case.weights.len(), "{params}");
        for name in &case.weights {
            let weight = subject.parameters.find(name).unwrap();
            let values = numbers(&tensors, &format!("weights.{name}"));
            let shape = subject.parameters.tensor(weight).shape().to_vec();
            *subject.parameters.tensor_mut(weight) = Tensor::from_vec(values, shape).unwrap();
        }
        let network = subject.network(&corpus, &control);
        let check = Check::new(&network, &subject.options, &corpus, usize::MAX, golden.step_key).unwrap();
        let (loss, gradients) = check.gradient(&subject.parameters, 1).unwrap();
        assert!((loss - case.loss).abs() < 1e-5 * case.loss, "{params}: {loss} is not {}", case.loss);
        let theirs = numbers(&tensors, &format!("gradient.{number}"));
        let mut theirs = theirs.iter();
        for name in &case.weights {
            let own = &gradients[subject.parameters.iter().position(|(known, _)| known == name).unwrap()];
            let allowed = tolerance(own, &gradients);
            for (at, &ours) in own.iter().enumerate() {
                let theirs = *theirs.next().unwrap();
                assert!(f64::from((ours - theirs).abs()) <= allowed, "{params}, {name}[{at}]: {ours} is not {theirs}");
            }
        }
        assert_eq!(theirs.next(), None, "{params}");
    }
}
