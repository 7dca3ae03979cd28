//! What the CUDA kernels take on the first device: one line of JSON a measurement, for `benches/cuda/report.py`.
//!
//! ```text
//! cargo xtask gpu bundle
//! ```

use std::error::Error;
use std::time::Instant;

use pgrec_kernels::cuda::{Cuda, Matrix, Precision, cuda_devices};
use pgrec_kernels::{
    Activation, Device, Filter, LayerNorm, Linear, Operators, PairBias, Rows, Sequences, SiluAttention, TIME_BUCKETS,
    Tensor, time_bucket,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Seconds that one measurement goes on.
const SECONDS: f64 = 0.5;
/// The median of so many.
const REPEATS: usize = 7;
/// The authors' padding: N of the divisor and of the biases is the longest history and this.
const PADDING: usize = 11;
/// Users of the largest batch.
const MOST_USERS: usize = 4096;
/// Layers of a model for short histories.
const LAYERS: usize = 2;
/// Rows of a warp, whose biases by time are computed together.
const ROWS_TOGETHER: usize = 16;
/// Of each row and tile four threads look at both ends.
const ENDS: f64 = 8.0;

/// Numbers that look normally distributed.
fn numbers(count: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..count).map(|_| (uniform() + uniform() + uniform() + uniform() - 2.0) * 3f32.sqrt() * scale).collect()
}

fn tensor(shape: &[usize], scale: f32) -> Result<Tensor> {
    Ok(Tensor::from_vec(numbers(shape.iter().product(), scale), shape.to_vec())?)
}

/// Seconds of one call of `work`, which is started many times before the device is waited for.
fn seconds(cuda: &Cuda, work: impl Fn() -> Matrix) -> Result<f64> {
    drop(work());
    cuda.wait()?;
    let start = Instant::now();
    drop(work());
    cuda.wait()?;
    let calls = (SECONDS / REPEATS as f64 / start.elapsed().as_secs_f64()).clamp(1.0, 10_000.0) as usize;
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let start = Instant::now();
        for _ in 0..calls {
            drop(work());
        }
        cuda.wait()?;
        times.push(start.elapsed().as_secs_f64() / calls as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}

/// Histories of one length, laid end to end.
struct Histories {
    items: Vec<u32>,
    positions: Vec<u32>,
    offsets: Vec<usize>,
    times: Vec<f64>,
    until: Vec<f64>,
    identity: u64,
}

impl Histories {
    fn new(count: usize, len: usize, items: usize) -> Self {
        let events = count * len;
        // A week between events on average, more and less.
        let gap = |event: usize| [10.0, 3_000.0, 86_400.0, 2e6][event * 7 % 4];
        let times: Vec<f64> = (0..events)
            .scan(0.0, |time, event| {
                *time = if event % len == 0 { 0.0 } else { *time + gap(event) };
                Some(*time)
            })
            .collect();
        let until = (0..events).map(|event| times[event] + if event % len + 1 == len { 1e5 } else { gap(event + 1) });
        Self {
            items: (0..events).map(|event| (event * 7919 % items) as u32).collect(),
            positions: (0..events).map(|event| (event % len) as u32).collect(),
            offsets: (0..=count).map(|history| history * len).collect(),
            until: until.collect(),
            times,
            identity: Sequences::new_identity(),
        }
    }

    /// Logarithms that attention with biases by time computes for each pair of an event and one before it, where it goes
    /// through `tile` keys at a time: for those of a tile only where more than one bucket begins within it, or a row
    /// ends.
    fn logarithms(&self, tile: usize) -> f64 {
        let (mut count, mut pairs) = (0.0, 0.0);
        for bounds in self.offsets.windows(2) {
            let (times, until) = (&self.times[bounds[0]..bounds[1]], &self.until[bounds[0]..bounds[1]]);
            for first in (0..times.len()).step_by(ROWS_TOGETHER) {
                let rows = first..times.len().min(first + ROWS_TOGETHER);
                pairs += rows.clone().map(|row| (row + 1) as f64).sum::<f64>();
                for start in (0..rows.end).step_by(tile) {
                    let keys = &times[start..times.len().min(start + tile)];
                    let bucket = |row: usize, time: &f64| time_bucket(until[row] - time);
                    let [oldest, latest] = [keys.first(), keys.last()].map(|time| time.unwrap_or(&0.0));
                    let seen = start + keys.len() <= rows.start + 1;
                    let many = |row: usize| bucket(row, oldest) > bucket(row, latest) + 1;
                    let each = if !seen || rows.clone().any(many) { keys.len() as f64 } else { 0.0 };
                    count += rows.len() as f64 * (ENDS + each);
                }
            }
        }
        count / pairs
    }

    fn batch(&self) -> Sequences<'_> {
        let Self { items, positions, offsets, times, until, identity } = self;
        Sequences { items, positions, offsets, times, until, identity: *identity }
    }
}

/// One HSTU layer as the family computes it.
struct Layer {
    projections: [Linear; 4],
    output: Linear,
    attention: SiluAttention,
    norm: LayerNorm,
}

impl Layer {
    fn new(dim: usize, heads: usize, longest: usize, timed: bool) -> Result<Self> {
        let known = longest + PADDING;
        let linear = || -> Result<Linear> {
            Ok(Linear { weight: tensor(&[dim, dim], (dim as f32).sqrt().recip())?, bias: None })
        };
        let bias = PairBias {
            positions: tensor(&[2 * known - 1], 0.1)?,
            times: timed.then(|| tensor(&[TIME_BUCKETS], 0.1)).transpose()?,
        };
        Ok(Self {
            projections: [linear()?, linear()?, linear()?, linear()?],
            output: Linear { bias: Some(tensor(&[dim], 0.1)?), ..linear()? },
            attention: SiluAttention { heads, bias, divisor: known as f32 },
            norm: LayerNorm { weight: None, bias: None, eps: 1e-6 },
        })
    }

    fn forward(&self, cuda: &Cuda, x: &Matrix, batch: &Sequences<'_>) -> Matrix {
        let [u, v, q, k] = cuda.norm_linear(x, &self.norm, self.projections.each_ref(), Activation::Silu);
        let a = cuda.silu_attention(&q, &k, &v, &self.attention, batch, Rows::All);
        cuda.gated_linear(&u, &a, &self.norm, &self.output, x, batch)
    }
}

fn report(name: &str, precision: Precision, more: &str, seconds: f64) {
    println!("{{\"name\": \"{name}\", \"precision\": \"{precision:?}\", {more}, \"seconds\": {seconds:e}}}");
}

/// Attention and a whole layer over long histories, on a device whose kernels go through `tile` keys at a time.
fn long(cuda: &Cuda, len: usize, tile: usize) -> Result<()> {
    let (histories, items) = (4, 1000);
    let data = Histories::new(histories, len, items);
    let batch = data.batch();
    let logarithms = data.logarithms(tile);
    for (dim, heads) in [(512, 4), (512, 8)] {
        let [item_table, positions] = [tensor(&[items, dim], 1.0)?, tensor(&[len, dim], 0.1)?];
        let x = cuda.embed(&item_table, &positions, 1.0, &batch);
        for timed in [false, true] {
            let layer = Layer::new(dim, heads, len, timed)?;
            let [_, v, q, k] = cuda.norm_linear(&x, &layer.norm, layer.projections.each_ref(), Activation::Silu);
            let of = |biases: &str, logarithms: f64| {
                format!(
                    "\"histories\": {histories}, \"len\": {len}, \"dim\": {dim}, \"heads\": {heads}, \
                     \"biases\": \"{biases}\", \"logarithms\": {logarithms}"
                )
            };
            let shape = if timed { of("positions and times", logarithms) } else { of("positions", 0.0) };
            let attend = || cuda.silu_attention(&q, &k, &v, &layer.attention, &batch, Rows::All);
            report("hstu attention", cuda.precision(), &shape, seconds(cuda, attend)?);
            report("hstu layer", cuda.precision(), &shape, seconds(cuda, || layer.forward(cuda, &x, &batch))?);
            if timed && heads == 4 {
                parts(cuda, &layer, [&item_table, &positions], &data)?;
            }
            if !timed {
                let shape = of("none", 0.0);
                let divisor = layer.attention.divisor;
                let attend = || cuda.unbiased_attention([&q, &k, &v], heads, divisor, &batch);
                report("hstu attention", cuda.precision(), &shape, seconds(cuda, attend)?);
                let attend = || cuda.attention(&q, &k, &v, heads, &batch, Rows::All);
                report("softmax attention", cuda.precision(), &shape, seconds(cuda, attend)?);
            }
        }
    }
    Ok(())
}

/// What the operators of one layer take each.
fn parts(cuda: &Cuda, layer: &Layer, [item_table, positions]: [&Tensor; 2], data: &Histories) -> Result<()> {
    let batch = data.batch();
    let shape = format!("\"histories\": {}, \"len\": {}", batch.len(), data.offsets[1]);
    let part = |name: &str, work: &dyn Fn() -> Matrix| -> Result<()> {
        report(&format!("part {name}"), cuda.precision(), &shape, seconds(cuda, work)?);
        Ok(())
    };
    let x = cuda.embed(item_table, positions, 8.0, &batch);
    let project = || cuda.norm_linear(&x, &layer.norm, layer.projections.each_ref(), Activation::Silu);
    let [u, v, q, k] = project();
    let attend = || cuda.silu_attention(&q, &k, &v, &layer.attention, &batch, Rows::All);
    let a = attend();
    part("embed", &|| cuda.embed(item_table, positions, 8.0, &batch))?;
    part("norm_linear", &|| {
        let [.., last] = project();
        last
    })?;
    part("attention", &attend)?;
    part("gated_linear", &|| cuda.gated_linear(&u, &a, &layer.norm, &layer.output, &x, &batch))
}

/// Whole answers for batches of users with short histories: two layers, then the best ten of 10,000 items.
fn short(cuda: &Cuda, [encoded, answered]: [&str; 2]) -> Result<()> {
    let (dim, heads, items) = (64, 2, 10_000);
    for len in [50, 200] {
        let (item_table, positions) = (tensor(&[items, dim], 1.0)?, tensor(&[len, dim], 0.1)?);
        let layers: Vec<Layer> = (0..LAYERS).map(|_| Layer::new(dim, heads, len, true)).collect::<Result<_>>()?;
        for users in [1, 16, 256, MOST_USERS] {
            let data = Histories::new(users, len, items);
            let batch = data.batch();
            let encode = || {
                let x = cuda.embed(&item_table, &positions, 8.0, &batch);
                let x = layers.iter().fold(x, |x, layer| layer.forward(cuda, &x, &batch));
                cuda.l2_normalize(&cuda.last_rows(&x, &batch))
            };
            let shape = |launches: u64| {
                format!(
                    "\"users\": {users}, \"len\": {len}, \"dim\": {dim}, \"layers\": {LAYERS}, \"items\": {items}, \
                     \"launches\": {launches}"
                )
            };
            if users == MOST_USERS && cuda.precision() == Precision::Bf16 && encoded == "encode" {
                parts(cuda, &layers[0], [&item_table, &positions], &data)?;
            }
            let before = cuda.launches();
            drop(encode());
            let launches = cuda.launches() - before;
            report(encoded, cuda.precision(), &shape(launches), seconds(cuda, encode)?);
            let (k, filters) = (vec![10; users], vec![Filter::default(); users]);
            let answer = || -> Result<()> {
                let vectors = encode();
                let vectors = cuda.download(&vectors)?;
                cuda.top_k(&vectors, &item_table, &k, &filters)?;
                Ok(())
            };
            // The first answer compiles what is compiled for it.
            let before = cuda.launches();
            answer()?;
            let launches = cuda.launches() - before;
            let mut times = Vec::new();
            for _ in 0..REPEATS {
                let start = Instant::now();
                answer()?;
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            report(answered, cuda.precision(), &shape(launches), times[REPEATS / 2]);
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let cache = std::env::temp_dir().join("pgrec_cuda");
    // Hopper's kernel goes through twice as many keys at a time, and is for bf16.
    let hopper = cuda_devices()?.first().is_some_and(|device| device.capability == 90);
    for precision in [Precision::Bf16, Precision::F32] {
        let cuda = Cuda::open(0, precision, &cache)?;
        match precision {
            Precision::Bf16 => long(&cuda, 8192, if hopper { 128 } else { 64 })?,
            Precision::F32 => long(&cuda, 2048, 64)?,
        }
        short(&cuda, ["encode", "answer"])?;
        let cuda = Cuda::open_without_graphs(0, precision, &cache)?;
        short(&cuda, ["encode without graphs", "answer without graphs"])?;
    }
    Ok(())
}
