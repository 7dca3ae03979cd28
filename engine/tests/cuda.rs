//! Models on a CUDA device (the emulator, or the device that PGREC_CUDA names) answer as on the CPU.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::families::{self, Training};
use pgrec_engine::{Artifact, Control, Corpus, Model, Query, Scored};
use pgrec_kernels::Filter;
use pgrec_kernels::cuda::{Cuda, Precision};
use serde_json::{Value, json};

const ITEMS: u64 = 60;

/// Numbers from a seed that a failing test prints.
struct Random(u64);

impl Random {
    fn fresh() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn corpus(random: &mut Random) -> Corpus {
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..ITEMS {
        let key = ItemKey::Int(item as i64);
        builder.item(key).unwrap();
        let vector: Vec<f32> = (0..6).map(|_| random.below(1000) as f32 / 500.0 - 1.0).collect();
        builder.vector(key, &vector).unwrap();
    }
    for _ in 0..80 {
        builder.user().unwrap();
        let mut time = 1e9;
        for _ in 0..6 + random.below(20) {
            time += random.below(1_000_000) as f64;
            builder.event(ItemKey::Int(random.below(ITEMS) as i64), Some(time)).unwrap();
            builder.outcome(random.below(2) as u32).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn model(family: &str, corpus: &Corpus, params: &Value) -> Box<dyn Model> {
    let control = Control::default();
    let base = (family == "generative").then(|| Arc::from(model("semantic_ids", corpus, &json!({ "codes": 8 }))));
    let training = Training { leave_last: 2, seed: 7, base, ..Training::new(corpus, params, &control) };
    let fitted = (families::find(family).unwrap().fit.unwrap())(&training).unwrap();
    families::open(Arc::new(Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap())).unwrap()
}

/// What a user did.
struct History {
    items: Vec<u32>,
    times: Vec<f64>,
    outcomes: Vec<u32>,
}

fn histories(random: &mut Random, lengths: &[u64]) -> Vec<History> {
    let history = |&len: &u64| {
        let mut times: Vec<f64> = (0..len).map(|_| random.below(100_000_000) as f64).collect();
        times.sort_by(f64::total_cmp);
        History {
            items: (0..len).map(|_| random.below(ITEMS) as u32).collect(),
            times,
            outcomes: (0..len).map(|_| random.below(2) as u32).collect(),
        }
    };
    lengths.iter().map(history).collect()
}

/// The same items in the same order, but for those whose scores are as good as equal: rounding is a share of how long the
/// vectors are, which the largest score of all lists tells; those of a few candidates may all be next to nothing.
fn check(case: &str, cpu: &[Vec<Scored>], cuda: &[Vec<Scored>], tolerance: f32) {
    let largest = cpu.iter().flatten().map(|s| s.score.abs()).fold(0.0, f32::max);
    for (query, (cpu, cuda)) in cpu.iter().zip(cuda).enumerate() {
        assert_eq!(cpu.len(), cuda.len(), "{case}, query {query}");
        for (a, b) in cpu.iter().zip(cuda) {
            let apart = (a.score - b.score).abs();
            assert!(apart <= tolerance * largest, "{case}, query {query}: {a:?} on the CPU, {b:?} on the device");
        }
        for listed in cuda {
            let own = cpu.iter().find(|s| s.item == listed.item);
            let last = cpu.last().map_or(f32::NEG_INFINITY, |s| s.score);
            let own = own.map_or(last, |s| s.score);
            let apart = (own - listed.score).abs();
            assert!(apart <= tolerance * largest, "{case}, query {query}: {listed:?} has {own} on the CPU");
        }
    }
}

#[test]
fn models_answer_on_a_device_as_on_the_cpu() {
    let mut random = Random::fresh();
    let corpus = corpus(&mut random);
    let small = |more: Value| {
        let mut params = json!({ "dim": 24, "blocks": 2, "heads": 2, "window": 40, "epochs": 2, "batch": 32 });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let models = [
        ("sasrec", small(json!({}))),
        ("sasrec", small(json!({ "heads": 1, "dim": 25 }))),
        ("hstu", small(json!({}))),
        ("hstu", small(json!({ "times": false, "dim": 33, "heads": 1 }))),
        // As many beams as there are items: none is lost by rounding.
        ("generative", small(json!({ "beam": ITEMS, "depth": 1 }))),
        ("hstu_rank", small(json!({ "tasks": [{ "name": "like", "weight_from": 4 }] }))),
    ];
    let mut histories = histories(&mut random, &[5, 0, 1, 40, 41, 90, 33, 2, 17, 12, 20, 7]);
    // Events without a time come first, and a time may be infinite.
    histories[9].times[..5].fill(f64::NEG_INFINITY);
    histories[10].times[..3].fill(f64::NEG_INFINITY);
    histories[10].times[16..].fill(f64::INFINITY);
    histories[11].times.fill(f64::NEG_INFINITY);
    let (excluded, candidates) = ([0, 3, 17, 59], [2, 3, 5, 40, 41]);
    let queries: Vec<Query<'_>> = histories
        .iter()
        .enumerate()
        .map(|(place, history)| Query {
            history: &history.items,
            times: &history.times,
            outcomes: &history.outcomes,
            at: 1e8,
            k: [10, 3, 100, 0, 60][place % 5],
            filter: Filter {
                exclude: if place % 3 == 0 { &excluded } else { &[] },
                candidates: (place % 4 == 3).then_some(&candidates),
            },
            ..Query::default()
        })
        .collect();
    let control = Control::default();
    for (family, params) in &models {
        let model = model(family, &corpus, params);
        let cpu = model.recommend(&queries, &control).unwrap();
        for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 5e-2)] {
            let cuda = model.recommend_on(&Cuda::for_tests(precision), &queries, &control).unwrap();
            check(&format!("{family} {params} {precision:?}"), &cpu, &cuda, tolerance);
        }
    }
    assert_eq!(models.len(), 6);
}
