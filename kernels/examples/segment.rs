//! Recall and speed of nearest-neighbour segments, by their options.
//! `cargo run --release -p pgrec-kernels --example segment [vectors [connectivity expansion_add expansion_search]]`
//!
//! Vectors lie around centres and differ in length by several times, which is what makes inner products harder
//! to search than distances. Queries lie around the same centres, or anywhere. Lines
//! `RESULT segment.<case>.<metric> <value> <unit>` are for scripts.

use std::sync::Arc;
use std::time::Instant;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Device, Filter, Segment, SegmentOptions, Tensor};

const DIM: usize = 64;
const CENTRES: usize = 200;
const QUERIES: usize = 200;

/// About normally distributed numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.uniform()).sum::<f32>() * 1.732 - 3.464
    }

    fn around(&mut self, centres: &[f32], count: usize, lengths: f32) -> Vec<f32> {
        let mut vectors = Vec::with_capacity(count * DIM);
        for _ in 0..count {
            let centre = (self.uniform() * CENTRES as f32) as usize % CENTRES * DIM;
            let length = 1.0 + lengths * self.uniform();
            vectors.extend((0..DIM).map(|d| length * (centres[centre + d] + 0.5 * self.normal())));
        }
        vectors
    }
}

fn measure(name: &str, vectors: &[f32], query_sets: &[(&str, &[f32])], options: &SegmentOptions) {
    let report = |metric: &str, value: f64, unit: &str| println!("RESULT segment.{name}.{metric} {value:.4} {unit}");
    let start = Instant::now();
    let bytes = Segment::build(vectors, DIM, options, &|_| true).unwrap_or_else(|error| panic!("{error}"));
    report("build_s", start.elapsed().as_secs_f64(), "s");
    report("bytes_per_vector", bytes.len() as f64 / (vectors.len() / DIM) as f64, "B");
    let start = Instant::now();
    let segment = Segment::view(Arc::new(bytes)).unwrap_or_else(|error| panic!("{error}"));
    report("view_ms", start.elapsed().as_secs_f64() * 1e3, "ms");
    let items = Tensor::from_vec(vectors.to_vec(), vec![segment.len(), DIM]).unwrap_or_else(|error| panic!("{error}"));
    for (set, queries) in query_sets {
        for k in [10, 100] {
            let exact = Cpu::new()
                .top_k(queries, &items, &[k; QUERIES], &[Filter::default(); QUERIES])
                .expect("the CPU does not fail");
            let start = Instant::now();
            let found: Vec<_> = queries.chunks(DIM).map(|query| segment.search(query, k)).collect();
            let time = start.elapsed().as_secs_f64() * 1e6 / QUERIES as f64;
            let hits = |q: usize| exact[q].iter().filter(|e| found[q].iter().any(|f| f.item == e.item)).count();
            let recalls: Vec<f64> = (0..QUERIES).map(|q| hits(q) as f64 / k as f64).collect();
            report(&format!("{set}.recall_at_{k}"), recalls.iter().sum::<f64>() / QUERIES as f64, "");
            report(&format!("{set}.least_recall_at_{k}"), recalls.iter().copied().fold(1.0, f64::min), "");
            report(&format!("{set}.search_{k}_us"), time, "us");
        }
    }
}

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let count = arguments.first().copied().unwrap_or(100_000);
    let options = match arguments[..] {
        [_, connectivity, expansion_add, expansion_search] => {
            SegmentOptions { connectivity, expansion_add, expansion_search }
        }
        _ => SegmentOptions::default(),
    };
    println!("{options:?}");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let centres: Vec<f32> = (0..CENTRES * DIM).map(|_| numbers.normal()).collect();
    let near = numbers.around(&centres, QUERIES, 0.0);
    let anywhere: Vec<f32> = (0..QUERIES * DIM).map(|_| numbers.normal()).collect();
    for (name, lengths) in [("equal", 0.0), ("lengths", 3.0)] {
        let vectors = numbers.around(&centres, count, lengths);
        let case = format!("{name}_{count}x{DIM}");
        measure(&case, &vectors, &[("near", &near), ("anywhere", &anywhere)], &options);
    }
}
