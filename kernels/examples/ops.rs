//! Times every operator on one core. `cargo run --release -p pgrec-kernels --example ops`
//!
//! Prints the best of many repetitions, and lines `RESULT ops.<case>.<metric> <value> <unit>` for scripts.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pgrec_kernels::cpu::{Cpu, Isa, Matrix};
use pgrec_kernels::{Activation, Device, Filter, LayerNorm, Linear, Operators, Rows, Sequences, Tensor};

/// Numbers of about unit size, the same in every run.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (next() + next() + next() - 1.5) * 2.0).collect()
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape.to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

fn linear(inputs: usize, outputs: usize, seed: u64) -> Linear {
    let scale = 1.0 / (inputs as f32).sqrt();
    let weight = numbers(inputs * outputs, seed).into_iter().map(|w| w * scale).collect();
    Linear { weight: tensor(weight, &[inputs, outputs]), bias: Some(tensor(numbers(outputs, seed + 1), &[outputs])) }
}

/// The shortest of the repetitions that fit into a fifth of a second, in microseconds.
fn shortest<T>(mut f: impl FnMut() -> T) -> f64 {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    while begin.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        black_box(f());
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e6
}

fn report(case: &str, metric: &str, value: f64, unit: &str) {
    println!("RESULT ops.{case}.{metric} {value:.4} {unit}");
}

/// The layers of one block of the original SASRec.
struct Block {
    first: LayerNorm,
    q: Linear,
    kv: [Linear; 2],
    second: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(dim: usize, seed: u64) -> Self {
        let norm = |seed| LayerNorm {
            weight: Some(tensor(numbers(dim, seed), &[dim])),
            bias: Some(tensor(numbers(dim, seed + 1), &[dim])),
            eps: 1e-8,
        };
        let layer = |seed| linear(dim, dim, seed);
        Self {
            first: norm(seed),
            q: layer(seed + 2),
            kv: [layer(seed + 4), layer(seed + 6)],
            second: norm(seed + 8),
            up: layer(seed + 10),
            down: layer(seed + 12),
        }
    }

    fn forward(&self, cpu: &Cpu, x: &Matrix, batch: &Sequences<'_>, rows: Rows) -> Matrix {
        let (n, mut a) = match rows {
            Rows::All | Rows::Tail => {
                let n = cpu.layer_norm(x, &self.first);
                let q = cpu.linear(&n, &self.q, Activation::Identity);
                let [k, v] = [0, 1].map(|l| cpu.linear(x, &self.kv[l], Activation::Identity));
                let a = cpu.attention(&q, &k, &v, 1, batch, rows);
                (n, a)
            }
            Rows::Last => {
                let n = cpu.layer_norm(&cpu.last_rows(x, batch), &self.first);
                let q = cpu.linear(&n, &self.q, Activation::Identity);
                let a = cpu.last_attention(&q, x, &self.kv[0], &self.kv[1], 1, batch);
                (n, a)
            }
        };
        cpu.add(&mut a, &n);
        let n = cpu.layer_norm(&a, &self.second);
        let mut y = cpu.linear(&cpu.linear(&n, &self.up, Activation::Relu), &self.down, Activation::Identity);
        cpu.add(&mut y, &n);
        y
    }
}

fn products(cpu: &Cpu, prefix: &str) {
    for (m, k, n, activation) in [
        (200, 64, 64, Activation::Identity),
        (200, 64, 128, Activation::Identity),
        (200, 64, 256, Activation::Identity),
        (200, 256, 64, Activation::Identity),
        (200, 50, 50, Activation::Identity),
        (200, 64, 256, Activation::Relu),
        (200, 64, 256, Activation::Gelu),
        (200, 64, 256, Activation::Silu),
        (1, 64, 64, Activation::Identity),
        (2000, 256, 1024, Activation::Identity),
    ] {
        let x = Matrix::from_slice(&numbers(m * k, 3), k);
        let layer = linear(k, n, 5);
        let time = shortest(|| cpu.linear(&x, &layer, activation));
        let name = match activation {
            Activation::Identity => String::new(),
            other => format!("_{other:?}").to_lowercase(),
        };
        let case = format!("{prefix}gemm_{m}x{k}x{n}{name}");
        report(&case, "us", time, "us");
        report(&case, "gflops", 2e-3 * (m * k * n) as f64 / time, "GFLOP/s");
    }
}

fn attention(cpu: &Cpu, prefix: &str) {
    for (n, dim, heads) in [(50, 64, 2), (200, 64, 1), (200, 64, 2), (200, 50, 1), (2048, 64, 1), (8192, 64, 1)] {
        let [q, k, v] = [1, 2, 3].map(|seed| Matrix::from_slice(&numbers(n * dim, seed), dim));
        let batch = Sequences { offsets: &[0, n], ..Sequences::default() };
        let time = shortest(|| cpu.attention(&q, &k, &v, heads, &batch, Rows::All));
        report(&format!("{prefix}attention_{n}x{dim}_{heads}h"), "us", time, "us");
        let q = cpu.last_rows(&q, &batch);
        let time = shortest(|| cpu.attention(&q, &k, &v, heads, &batch, Rows::Last));
        report(&format!("{prefix}attention_last_{n}x{dim}_{heads}h"), "us", time, "us");
    }
}

fn lists(cpu: &Cpu, prefix: &str) {
    for (rows, users) in [(3416, 1), (3416, 128), (100_000, 1), (100_000, 128)] {
        let dim = 64;
        let items = tensor(numbers(rows * dim, 1), &[rows, dim]);
        let queries = numbers(users * dim, 2);
        let (k, filters) = (vec![10; users], vec![Filter::default(); users]);
        let time = shortest(|| cpu.top_k(&queries, &items, &k, &filters)) / users as f64;
        let case = format!("{prefix}top10_{rows}x{dim}_{users}u");
        report(&case, "us_per_user", time, "us");
        report(&case, "gflops", 2e-3 * (rows * dim) as f64 / time, "GFLOP/s");
    }
    let items = tensor(numbers(100_000 * 64, 1), &[100_000, 64]);
    let query = numbers(64, 2);
    let candidates: Vec<u32> = (0..100_000).step_by(100).collect();
    let time = shortest(|| cpu.scores(&query, &items, &candidates));
    report(&format!("{prefix}scores_1000x64"), "us", time, "us");
    let filter = [Filter { exclude: &[], candidates: Some(&candidates) }];
    let time = shortest(|| cpu.top_k(&query, &items, &[10], &filter));
    report(&format!("{prefix}top10_candidates_1000x64"), "us", time, "us");
}

fn encoder(cpu: &Cpu, prefix: &str) {
    let (dim, catalogue) = (64, 3416);
    let items = tensor(numbers(catalogue * dim, 1), &[catalogue, dim]);
    let blocks = [Block::new(dim, 100), Block::new(dim, 200)];
    for n in [50, 200] {
        let positions_table = tensor(numbers(n * dim, 2), &[n, dim]);
        let ids: Vec<u32> = (0..n as u32).map(|i| i * 17 % catalogue as u32).collect();
        let positions: Vec<u32> = (0..n as u32).collect();
        let batch = Sequences { items: &ids, positions: &positions, offsets: &[0, n], ..Sequences::default() };
        let forward = || {
            let x = cpu.embed(&items, &positions_table, 8.0, &batch);
            let x = blocks[0].forward(cpu, &x, &batch, Rows::All);
            let x = blocks[1].forward(cpu, &x, &batch, Rows::Last);
            cpu.layer_norm(&x, &blocks[0].first)
        };
        report(&format!("{prefix}sasrec_{n}x{dim}_2blocks"), "us", shortest(forward), "us");
        let list = || cpu.top_k(forward().as_slice(), &items, &[10], &[Filter::default()]);
        report(&format!("{prefix}sasrec_{n}x{dim}_2blocks_top10_of_{catalogue}"), "us", shortest(list), "us");
    }
}

fn main() {
    for isa in Isa::ALL {
        let Some(cpu) = Cpu::with_isa(isa) else { continue };
        let best = isa == Isa::detect();
        println!("{isa:?}");
        let prefix = if best { String::new() } else { format!("{isa:?}.").to_lowercase() };
        products(&cpu, &prefix);
        attention(&cpu, &prefix);
        encoder(&cpu, &prefix);
        if best {
            let x = Matrix::from_slice(&numbers(200 * 64, 1), 64);
            let norm = Block::new(64, 1).first;
            report("layer_norm_200x64", "us", shortest(|| cpu.layer_norm(&x, &norm)), "us");
            let mut sum = Matrix::from_slice(&numbers(200 * 64, 2), 64);
            report("add_200x64", "us", shortest(|| cpu.add(&mut sum, &x)), "us");
            lists(&cpu, &prefix);
        }
    }
}
