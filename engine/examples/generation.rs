//! Generating lists on the first CUDA device and on this machine's cores: users a second of one model of semantic IDs.
//!
//! ```text
//! cargo xtask gpu bundle
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::families::{self, Training};
use pgrec_engine::{Artifact, Control, Corpus, Model, Query};
use pgrec_kernels::Filter;
use pgrec_kernels::cuda::{Cuda, Precision};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ITEMS: usize = 12_000;
const USERS: usize = 8_000;
/// Numbers of an item's vector.
const DIM: usize = 64;
/// Items are like others of their kind.
const KINDS: usize = 300;
/// Events of every history that is asked about.
const EVENTS: usize = 50;
/// Users that are asked about together.
const BATCHES: [usize; 4] = [1, 64, 512, 4096];
/// The median of so many.
const REPEATS: usize = 5;

/// Numbers that look drawn, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn vector(&mut self, around: &[f32], spread: f32) -> Vec<f32> {
        around.iter().map(|x| x + spread * (self.below(2001) as f32 / 1000.0 - 1.0)).collect()
    }
}

/// Users whose items are mostly of one kind.
fn corpus(numbers: &mut Numbers) -> Result<Corpus> {
    let kinds: Vec<Vec<f32>> = (0..KINDS).map(|_| numbers.vector(&[0.0; DIM], 1.0)).collect();
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for item in 0..ITEMS {
        let key = ItemKey::Int(item as i64);
        builder.item(key)?;
        builder.vector(key, &numbers.vector(&kinds[item % KINDS], 0.5))?;
    }
    for _ in 0..USERS {
        builder.user()?;
        let kind = numbers.below(KINDS);
        for _ in 0..5 + numbers.below(10) {
            builder.event(ItemKey::Int((numbers.below(ITEMS / KINDS) * KINDS + kind) as i64), None)?;
        }
    }
    Ok(builder.finish()?)
}

fn model(family: &str, corpus: &Corpus, params: &Value, base: Option<Arc<dyn Model>>) -> Result<Box<dyn Model>> {
    let control = Control::default();
    let fit = families::find(family).and_then(|family| family.fit).ok_or("no such family")?;
    let fitted = fit(&Training { leave_last: 0, seed: 1, base, ..Training::new(corpus, params, &control) })?;
    Ok(families::open(Arc::new(Artifact::from_vec(fitted.artifact.finish()?)?))?)
}

/// Median seconds of a call.
fn seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}

fn main() -> Result<()> {
    let mut numbers = Numbers(1);
    let corpus = corpus(&mut numbers)?;
    let codes = Arc::from(model("semantic_ids", &corpus, &json!({}), None)?);
    let writer = model("generative", &corpus, &json!({ "epochs": 1 }), Some(codes))?;
    let devices = [Precision::Bf16, Precision::F32].map(|precision| {
        let cache = std::env::temp_dir().join("pgrec_cuda");
        Cuda::open(0, precision, &cache).map(|cuda| (precision, cuda))
    });
    let devices = devices.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let control = Control::default();
    for beam in [50, 256] {
        for users in BATCHES {
            let histories: Vec<Vec<u32>> =
                (0..users).map(|_| (0..EVENTS).map(|_| numbers.below(ITEMS) as u32).collect()).collect();
            // As many beams are kept as items are wanted, at least.
            let query = |history| Query { history, k: beam, filter: Filter::default(), ..Query::default() };
            let queries: Vec<Query<'_>> = histories.iter().map(|history| query(history.as_slice())).collect();
            let report = |place: &str, seconds: f64| {
                println!(
                    "generation, beam {beam:>3}, {users:>4} users of {EVENTS} events, {place:<11}: {:>9.2} ms, {:>9.0} users/s",
                    seconds * 1e3,
                    users as f64 / seconds
                );
            };
            for (precision, cuda) in &devices {
                let work = || writer.recommend_on(cuda, &queries, &control).map(drop).map_err(Into::into);
                report(&format!("CUDA {precision:?}"), seconds(work)?);
            }
            let work = || writer.recommend(&queries, &control).map(drop).map_err(Into::into);
            report("CPU", seconds(work)?);
        }
    }
    Ok(())
}
