//! Times the losses and the optimisers on one core, and the loss of a whole batch on all.
//!
//! `cargo run --release -p pgrec-kernels --example losses [FILTER]`
//!
//! Prints the best of many repetitions as lines `RESULT losses.<case>.<metric> <value> <unit>` for scripts; with an
//! argument only the cases whose name contains it. Derivatives count as much as the scores, twice: a loss over
//! n items of d numbers counts 6·n·d operations a row, however often it computes the scores.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgrec_kernels::cpu::{Cpu, Isa, Matrix, keep_buffers};
use pgrec_kernels::{AdaGrad, AdamW, Losses, Negatives, Optimizers, TableGradient, Tensor};

/// 64-bit numbers, the same in every run.
fn states(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 24
    })
}

/// Numbers of up to `size` either way.
fn numbers(count: usize, seed: u64, size: f32) -> Vec<f32> {
    states(seed).take(count).map(|x| ((x % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0) * size).collect()
}

fn ids(count: usize, below: usize, seed: u64) -> Vec<u32> {
    states(seed).take(count).map(|x| (x % below as u64) as u32).collect()
}

/// The shortest of the repetitions that fit into a second, in milliseconds.
fn shortest<T>(mut f: impl FnMut() -> T) -> f64 {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    while begin.elapsed() < Duration::from_secs(1) {
        let start = Instant::now();
        black_box(f());
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e3
}

struct Bench {
    cpu: Cpu,
    prefix: &'static str,
    filter: String,
}

impl Bench {
    /// Times `f`, which does `flops` operations.
    fn time<T>(&self, case: &str, flops: f64, f: impl FnMut() -> T) {
        let case = format!("{}{case}", self.prefix);
        if case.contains(&self.filter) {
            let time = shortest(f);
            println!("RESULT losses.{case}.ms {time:.4} ms");
            println!("RESULT losses.{case}.gflops {:.1} GFLOP/s", flops / time / 1e6);
        }
    }

    fn losses(&self, rows: usize, dim: usize, items: usize) {
        let hidden = Matrix::from_slice(&numbers(rows * dim, 1, 1.0), dim);
        let table = Tensor::from_vec(numbers(items * dim, 2, 0.3), vec![items, dim]);
        let Ok(table) = table else { return };
        let targets = ids(rows, items, 3);
        let mut ditems = TableGradient::dense(items, dim);
        let flops = |items: usize| 6.0 * (rows * items * dim) as f64;
        let shape = format!("{rows}x{dim}_of_{items}");
        let softmax = || self.cpu.softmax(&hidden, &table, &targets, 1.0, 0.01, &mut ditems);
        self.time(&format!("softmax_{shape}"), flops(items), softmax);
        for (kind, mut ditems) in [("dense", ditems), ("sparse", TableGradient::sparse(items, dim))] {
            for count in [128, 1024] {
                let shared = ids(count, items, 4);
                let correction = numbers(count, 5, 1.0);
                let each = ids(count * rows, items, 6);
                let negatives = [
                    ("shared", Negatives::Shared { items: &shared, correction: Some(&correction) }),
                    ("each", Negatives::EachRow { items: &each, count }),
                ];
                for (name, negatives) in negatives {
                    self.time(&format!("sampled_{name}_{count}_{kind}_{shape}"), flops(count + 1), || {
                        self.cpu.sampled_softmax(&hidden, &table, &targets, negatives, 1.0, 0.01, &mut ditems)
                    });
                    ditems.clear();
                }
            }
            for count in [1, 256] {
                let each = ids(count * rows, items, 7);
                let negatives = Negatives::EachRow { items: &each, count };
                self.time(&format!("binary_each_{count}_{kind}_{shape}"), flops(count + 1), || {
                    self.cpu.binary(&hidden, &table, &targets, negatives, 0.7, 0.01, &mut ditems)
                });
                ditems.clear();
            }
            let shared = ids(256, items, 8);
            let negatives = Negatives::Shared { items: &shared, correction: None };
            self.time(&format!("binary_shared_256_{kind}_{shape}"), flops(257), || {
                self.cpu.binary(&hidden, &table, &targets, negatives, 0.7, 0.01, &mut ditems)
            });
        }
    }

    /// The whole softmax for a batch of 25,600 events in slices of 256, on all cores.
    fn step(&self, items: usize) {
        const SLICES: usize = 100;
        let (rows, dim) = (256, 64);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let hidden = Matrix::from_slice(&numbers(rows * dim, 1, 1.0), dim);
        let Ok(table) = Tensor::from_vec(numbers(items * dim, 2, 0.3), vec![items, dim]) else { return };
        let targets = ids(rows, items, 3);
        let mut tables = vec![TableGradient::dense(items, dim); threads];
        let flops = 6.0 * (SLICES * rows * items * dim) as f64;
        self.time(&format!("step_on_{threads}_cores_{}x{dim}_of_{items}", SLICES * rows), flops, || {
            let next = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for ditems in &mut tables {
                    scope.spawn(|| {
                        keep_buffers(64 << 20);
                        while next.fetch_add(1, Ordering::Relaxed) < SLICES {
                            self.cpu.softmax(&hidden, &table, &targets, 1.0, 0.01, ditems);
                        }
                    });
                }
            });
        });
    }

    fn optimizers(&self, count: usize) {
        let gradient = numbers(count, 1, 0.1);
        let [mut weights, mut m, mut v] = [numbers(count, 2, 1.0), vec![0.0; count], vec![0.0; count]];
        let adamw = AdamW { rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.01, step: 7 };
        let operations = |each: usize| (each * count) as f64;
        self.time(&format!("adamw_{count}"), operations(16), || {
            self.cpu.adamw(&adamw, &mut weights, &gradient, 0.5, &mut m, &mut v);
        });
        self.time(&format!("adamw_by_rows_of_64_{count}"), operations(16), || {
            let rows = weights.chunks_mut(64).zip(gradient.chunks(64)).zip(m.chunks_mut(64).zip(v.chunks_mut(64)));
            rows.for_each(|((weights, gradient), (m, v))| self.cpu.adamw(&adamw, weights, gradient, 0.5, m, v));
        });
        let adagrad = AdaGrad { rate: 1e-3, eps: 1e-8 };
        self.time(&format!("adagrad_{count}"), operations(8), || {
            self.cpu.adagrad(&adagrad, &mut weights, &gradient, 0.5, &mut v);
        });
        self.time(&format!("sum_squares_{count}"), operations(2), || self.cpu.sum_squares(&gradient));
        self.time(&format!("accumulate_{count}"), operations(1), || self.cpu.accumulate(&mut m, &gradient));
        self.time(&format!("unit_rows_{count}"), operations(3), || self.cpu.unit_rows(&gradient, 64, &mut m));
        self.time(&format!("unit_rows_backward_{count}"), operations(7), || {
            self.cpu.unit_rows_backward(&gradient, 64, &mut m);
        });
        let mut tables = [0; 2].map(|_| TableGradient::dense(count / 64, 64));
        self.time(&format!("sum_of_2_tables_{count}"), operations(1), || {
            TableGradient::sum(&mut tables, 128).into_iter().for_each(|part| part.run(&self.cpu));
        });
    }
}

fn main() {
    keep_buffers(64 << 20);
    let filter = std::env::args().nth(1).unwrap_or_default();
    for isa in Isa::ALL {
        let Some(cpu) = Cpu::with_isa(isa) else { continue };
        let prefix = match isa {
            Isa::Avx512 => "avx512_",
            Isa::Avx2 => "avx2_",
            Isa::Neon => "neon_",
            Isa::Portable => "portable_",
        };
        let bench = Bench { cpu, prefix, filter: filter.clone() };
        for items in [3_706, 12_101, 100_000] {
            bench.losses(256, 64, items);
        }
        bench.step(3_706);
        bench.losses(512, 64, 3_706);
        bench.losses(256, 50, 3_706);
        bench.optimizers(1_000_000);
    }
}
