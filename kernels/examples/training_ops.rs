//! Times the operators of training on one core. `cargo run --release -p pgrec-kernels --example training_ops`
//!
//! Prints the best of many repetitions as lines `RESULT training_ops.<case>.<metric> <value> <unit>` for scripts.
//! Shapes are those of a slice of a batch, which one thread takes forth and back while it is in the cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pgrec_kernels::cpu::{Cpu, Isa, Matrix, keep_buffers};
use pgrec_kernels::{
    Activation, Backward, LayerNorm, Linear, Noise, Operators, Rows, Sequences, TableGradient, Tensor,
};

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

fn matrix(rows: usize, cols: usize, seed: u64) -> Matrix {
    Matrix::from_slice(&numbers(rows * cols, seed), cols)
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
    println!("RESULT training_ops.{case}.{metric} {value:.3} {unit}");
}

/// Reports a time, and what it makes of so many numbers read and written.
fn report_pass(case: &str, time: f64, numbers: usize) {
    report(case, "us", time, "us");
    report(case, "gb_per_s", 4e-3 * numbers as f64 / time, "GB/s");
}

fn linear(cpu: &Cpu, prefix: &str) {
    for (m, k, n) in [(256, 64, 64), (256, 64, 256), (256, 256, 64), (512, 64, 64), (256, 50, 50), (512, 256, 256)] {
        let layer = Linear { weight: tensor(numbers(k * n, 1), &[k, n]), bias: Some(tensor(numbers(n, 2), &[n])) };
        let (x, dy) = (matrix(m, k, 3), matrix(m, n, 4));
        let (mut dweight, mut dbias) = (cpu.zeros(k, n), cpu.zeros(1, n));
        let flops = (m * k * n) as f64;
        let case = format!("{prefix}linear_{m}x{k}x{n}");
        let time = shortest(|| cpu.linear(&x, &layer, Activation::Identity));
        report(&case, "forward_us", time, "us");
        report(&case, "forward_gflops", 2e-3 * flops / time, "GFLOP/s");
        let time = shortest(|| cpu.linear_backward(&x, &layer, &dy, &mut dweight, Some(&mut dbias)));
        report(&case, "backward_us", time, "us");
        report(&case, "backward_gflops", 4e-3 * flops / time, "GFLOP/s");
    }
}

fn attention(cpu: &Cpu, prefix: &str) {
    let cases: [(&[usize], usize, usize); 6] = [
        (&[0, 200], 64, 1),
        (&[0, 200], 64, 2),
        (&[0, 200], 50, 1),
        (&[0, 50, 100, 150, 200], 64, 1),
        (&[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100], 64, 1),
        (&[0, 2048], 64, 1),
    ];
    for (offsets, dim, heads) in cases {
        let events = offsets[offsets.len() - 1];
        let [q, k, v, dout] = [1, 2, 3, 4].map(|seed| matrix(events, dim, seed));
        let batch = Sequences { offsets, ..Sequences::default() };
        let keys = vec![5; batch.len()];
        let case = format!("{prefix}attention_{}x{}x{dim}_{heads}h", batch.len(), offsets[1]);
        report(&case, "serving_us", shortest(|| cpu.attention(&q, &k, &v, heads, &batch, Rows::All)), "us");
        for (name, noise) in [("", None), ("dropout_", Some(Noise { keys: &keys, site: 1, rate: 0.2 }))] {
            let forward = || cpu.attention_forward(&q, &k, &v, heads, &batch, noise);
            let there = shortest(forward);
            report(&case, &format!("{name}forward_us"), there, "us");
            let (out, lse) = forward();
            let back = shortest(|| cpu.attention_backward(&q, &k, &v, &out, &lse, &dout, heads, &batch, noise));
            report(&case, &format!("{name}backward_us"), back, "us");
            report(&case, &format!("{name}backward_per_forward"), back / there, "times");
        }
    }
}

fn passes(cpu: &Cpu, prefix: &str) {
    for (rows, cols) in [(256, 64), (256, 256), (256, 50)] {
        let (x, dy) = (matrix(rows, cols, 1), matrix(rows, cols, 2));
        // Numbers that are changed in place, again and again, and stay normal.
        let mut zeros = cpu.zeros(rows, cols);
        let name = |operator: &str| format!("{prefix}{operator}_{rows}x{cols}");
        let count = rows * cols;
        let norm = LayerNorm {
            weight: Some(tensor(numbers(cols, 3), &[cols])),
            bias: Some(tensor(numbers(cols, 4), &[cols])),
            eps: 1e-8,
        };
        let (mut dweight, mut dbias) = (cpu.zeros(1, cols), cpu.zeros(1, cols));
        report_pass(&name("layer_norm"), shortest(|| cpu.layer_norm(&x, &norm)), 2 * count);
        let time = shortest(|| cpu.layer_norm_backward(&x, &norm, &dy, Some(&mut dweight), Some(&mut dbias)));
        report_pass(&name("layer_norm_backward"), time, 3 * count);
        for activation in [Activation::Relu, Activation::Gelu, Activation::Silu] {
            let activate = name(&format!("{activation:?}").to_lowercase());
            report_pass(&activate, shortest(|| cpu.activate(&x, activation)), 2 * count);
            let time = shortest(|| cpu.activate_backward(&x, activation, &mut zeros));
            report_pass(&format!("{activate}_backward"), time, 3 * count);
        }
        let offsets = [0, rows / 2, rows];
        let batch = Sequences { offsets: &offsets, ..Sequences::default() };
        let noise = Noise { keys: &[1, 2], site: 0, rate: 0.2 };
        report_pass(&name("drop_out"), shortest(|| cpu.drop_out(&mut zeros, &batch, noise)), 2 * count);
        report_pass(&name("l2_normalize"), shortest(|| cpu.l2_normalize(&x)), 2 * count);
        report_pass(&name("l2_normalize_backward"), shortest(|| cpu.l2_normalize_backward(&x, &dy)), 3 * count);
        report_pass(&name("add"), shortest(|| cpu.add(&mut zeros, &x)), 3 * count);
        embedding(cpu, &name("embed_backward"), &dy);
    }
}

fn embedding(cpu: &Cpu, case: &str, dy: &Matrix) {
    let (rows, cols, catalogue) = (dy.rows(), dy.cols(), 3416);
    let items: Vec<u32> = (0..rows as u32).map(|i| i * 1237 % catalogue).collect();
    let positions: Vec<u32> = (0..rows as u32).map(|i| i % 200).collect();
    let batch = Sequences { items: &items, positions: &positions, offsets: &[0, rows], ..Sequences::default() };
    let mut dpositions = cpu.zeros(200, cols);
    let mut dense = TableGradient::dense(catalogue as usize, cols);
    let time = shortest(|| cpu.embed_backward(dy, 8.0, &batch, &mut dense, &mut dpositions));
    report_pass(&format!("{case}_dense"), time, 5 * rows * cols);
    let mut sparse = TableGradient::sparse(catalogue as usize, cols);
    let time = shortest(|| {
        sparse.clear();
        cpu.embed_backward(dy, 8.0, &batch, &mut sparse, &mut dpositions);
    });
    report_pass(&format!("{case}_sparse"), time, 5 * rows * cols);
}

/// A block of the original SASRec: its weights, and the derivatives by them.
struct Block {
    norms: [LayerNorm; 2],
    dnorms: [[Matrix; 2]; 2],
    /// Queries, keys, values, and the two layers of the feed-forward network.
    layers: [Linear; 5],
    dlayers: [[Matrix; 2]; 5],
}

/// What a block keeps on its way forth.
struct Kept {
    x: Matrix,
    normal: Matrix,
    qkv: [Matrix; 3],
    out: Matrix,
    lse: Matrix,
    sum: Matrix,
    again: Matrix,
    wide: Matrix,
    active: Matrix,
}

impl Block {
    fn new(cpu: &Cpu, dim: usize, inner: usize) -> Self {
        let vector = |cols, seed| Some(tensor(numbers(cols, seed), &[cols]));
        let norm = |seed| LayerNorm { weight: vector(dim, seed), bias: vector(dim, seed + 1), eps: 1e-8 };
        let shapes = [(dim, dim), (dim, dim), (dim, dim), (dim, inner), (inner, dim)];
        let weight = |k: usize, n: usize| numbers(k * n, 7).into_iter().map(|w| w / (k as f32).sqrt()).collect();
        Self {
            norms: [norm(1), norm(3)],
            dnorms: [0; 2].map(|_| [0; 2].map(|_| cpu.zeros(1, dim))),
            layers: shapes.map(|(k, n)| Linear { weight: tensor(weight(k, n), &[k, n]), bias: vector(n, 9) }),
            dlayers: shapes.map(|(k, n)| [cpu.zeros(k, n), cpu.zeros(1, n)]),
        }
    }

    fn forward(&self, cpu: &Cpu, x: Matrix, batch: &Sequences<'_>, keys: &[u64]) -> (Matrix, Kept) {
        let linear = |x, layer: usize| cpu.linear(x, &self.layers[layer], Activation::Identity);
        let noise = |site| Noise { keys, site, rate: 0.2 };
        let normal = cpu.layer_norm(&x, &self.norms[0]);
        let qkv = [linear(&normal, 0), linear(&x, 1), linear(&x, 2)];
        let (out, lse) = cpu.attention_forward(&qkv[0], &qkv[1], &qkv[2], 1, batch, Some(noise(0)));
        let mut sum = Matrix::from_slice(out.as_slice(), out.cols());
        cpu.add(&mut sum, &normal);
        let again = cpu.layer_norm(&sum, &self.norms[1]);
        let wide = linear(&again, 3);
        let mut active = cpu.activate(&wide, Activation::Relu);
        cpu.drop_out(&mut active, batch, noise(1));
        let mut y = linear(&active, 4);
        cpu.drop_out(&mut y, batch, noise(2));
        cpu.add(&mut y, &again);
        (y, Kept { x, normal, qkv, out, lse, sum, again, wide, active })
    }

    fn linear_backward(&mut self, cpu: &Cpu, x: &Matrix, layer: usize, dy: &Matrix) -> Matrix {
        let [dweight, dbias] = &mut self.dlayers[layer];
        cpu.linear_backward(x, &self.layers[layer], dy, dweight, Some(dbias))
    }

    fn norm_backward(&mut self, cpu: &Cpu, x: &Matrix, norm: usize, dy: &Matrix) -> Matrix {
        let [dweight, dbias] = &mut self.dnorms[norm];
        cpu.layer_norm_backward(x, &self.norms[norm], dy, Some(dweight), Some(dbias))
    }

    fn backward(&mut self, cpu: &Cpu, kept: &Kept, dy: Matrix, batch: &Sequences<'_>, keys: &[u64]) -> Matrix {
        let noise = |site| Noise { keys, site, rate: 0.2 };
        let mut dagain = Matrix::from_slice(dy.as_slice(), dy.cols());
        let mut dy = dy;
        cpu.drop_out(&mut dy, batch, noise(2));
        let mut dwide = self.linear_backward(cpu, &kept.active, 4, &dy);
        cpu.drop_out(&mut dwide, batch, noise(1));
        cpu.activate_backward(&kept.wide, Activation::Relu, &mut dwide);
        cpu.add(&mut dagain, &self.linear_backward(cpu, &kept.again, 3, &dwide));
        let mut dsum = self.norm_backward(cpu, &kept.sum, 1, &dagain);
        let [q, k, v] = &kept.qkv;
        let [dq, dk, dv] = cpu.attention_backward(q, k, v, &kept.out, &kept.lse, &dsum, 1, batch, Some(noise(0)));
        cpu.add(&mut dsum, &self.linear_backward(cpu, &kept.normal, 0, &dq));
        let mut dx = self.norm_backward(cpu, &kept.x, 0, &dsum);
        for (layer, dy) in [(1, dk), (2, dv)] {
            cpu.add(&mut dx, &self.linear_backward(cpu, &kept.x, layer, &dy));
        }
        dx
    }
}

/// An encoder's way forth and back over a slice of a batch, without a loss.
fn encoder(cpu: &Cpu, prefix: &str) {
    let dim = 64;
    let items = tensor(numbers(3416 * dim, 1), &[3416, dim]);
    let table = tensor(numbers(200 * dim, 2), &[200, dim]);
    let last = LayerNorm { weight: None, bias: None, eps: 1e-8 };
    for (lengths, inner) in [(vec![200], 64), (vec![200, 200], 64), (vec![200], 256), (vec![50; 5], 64)] {
        let mut blocks = [0; 2].map(|_| Block::new(cpu, dim, inner));
        let events: usize = lengths.iter().sum();
        let offsets: Vec<usize> = (0..=lengths.len()).map(|history| lengths[..history].iter().sum()).collect();
        let ids: Vec<u32> = (0..events as u32).map(|i| i * 1237 % 3416).collect();
        let positions: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        let batch = Sequences { items: &ids, positions: &positions, offsets: &offsets, ..Sequences::default() };
        let keys: Vec<u64> = (0..lengths.len() as u64).collect();
        let noise = Noise { keys: &keys, site: 0, rate: 0.2 };
        let dy = matrix(events, dim, 3);
        let (mut ditems, mut dpositions) = (TableGradient::sparse(3416, dim), cpu.zeros(200, dim));
        let mut forth = Duration::MAX;
        let time = shortest(|| {
            let start = Instant::now();
            let mut x = cpu.embed(&items, &table, 8.0, &batch);
            cpu.drop_out(&mut x, &batch, noise);
            let (x, first) = blocks[0].forward(cpu, x, &batch, &keys);
            let (x, second) = blocks[1].forward(cpu, x, &batch, &keys);
            black_box(cpu.layer_norm(&x, &last));
            forth = forth.min(start.elapsed());
            let dx = cpu.layer_norm_backward(&x, &last, &dy, None, None);
            let dx = blocks[1].backward(cpu, &second, dx, &batch, &keys);
            let mut dx = blocks[0].backward(cpu, &first, dx, &batch, &keys);
            cpu.drop_out(&mut dx, &batch, noise);
            ditems.clear();
            cpu.embed_backward(&dx, 8.0, &batch, &mut ditems, &mut dpositions);
        });
        let case = format!("{prefix}encoder_{}x{}x{dim}_ffn{inner}", lengths.len(), lengths[0]);
        report(&case, "forward_us", forth.as_secs_f64() * 1e6, "us");
        report(&case, "forward_and_backward_us", time, "us");
        report(&case, "us_per_event", time / events as f64, "us");
    }
}

fn main() {
    keep_buffers(64 << 20);
    for isa in Isa::ALL {
        let Some(cpu) = Cpu::with_isa(isa) else { continue };
        println!("{isa:?}");
        let best = isa == Isa::detect();
        let prefix = if best { String::new() } else { format!("{isa:?}.").to_lowercase() };
        linear(&cpu, &prefix);
        attention(&cpu, &prefix);
        encoder(&cpu, &prefix);
        if best {
            passes(&cpu, &prefix);
            // What the reuse of buffers is worth.
            for (name, bytes) in [("none", 0), ("4mb", 4 << 20), ("64mb", 64 << 20)] {
                keep_buffers(bytes);
                encoder(&cpu, &format!("keep_{name}."));
            }
        }
    }
}
