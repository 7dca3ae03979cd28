use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cpu::Cpu;
use crate::cpu::reference::Random;
use crate::{Device, Filter, Tensor};

const CENTRES: usize = 40;

/// Vectors around centres, of lengths that differ by several times.
fn around(random: &mut Random, centres: &[f32], count: usize, dim: usize) -> Vec<f32> {
    let mut vectors = Vec::new();
    for _ in 0..count {
        let centre = random.below(CENTRES) * dim;
        let length = 0.5 + random.below(100) as f32 / 50.0;
        vectors.extend((0..dim).map(|d| length * (centres[centre + d] + 0.4 * random.normal())));
    }
    vectors
}

fn clustered(random: &mut Random, count: usize, dim: usize) -> Vec<f32> {
    let centres = random.normals(CENTRES * dim);
    around(random, &centres, count, dim)
}

fn open(vectors: &[f32], dim: usize) -> Segment {
    let bytes = Segment::build(vectors, dim, &SegmentOptions::default(), &|| false).unwrap();
    Segment::view(Arc::new(bytes)).unwrap()
}

fn recall(segment: &Segment, vectors: &[f32], queries: &[f32], k: usize, allowed: impl Fn(u32) -> bool + Copy) -> f64 {
    let dim = segment.dim();
    let items = Tensor::from_vec(vectors.to_vec(), vec![segment.len(), dim]).unwrap();
    let candidates: Vec<u32> = (0..segment.len() as u32).filter(|&item| allowed(item)).collect();
    let filter = [Filter { exclude: &[], candidates: Some(&candidates) }];
    let (mut hits, mut wanted) = (0, 0);
    for query in queries.chunks(dim) {
        let exact = &Cpu::new().top_k(query, &items, &[k], &filter)[0];
        let found = segment.search_filtered(query, k, allowed);
        assert!(found.windows(2).all(|w| w[0].score >= w[1].score), "best first");
        assert!(found.iter().all(|s| allowed(s.item)), "an item that the filter forbids");
        hits += exact.iter().filter(|e| found.iter().any(|f| f.item == e.item)).count();
        wanted += exact.len();
    }
    hits as f64 / wanted as f64
}

#[test]
fn most_of_the_largest_inner_products_are_found_at_the_defaults() {
    let mut random = Random::new();
    let centres = random.normals(CENTRES * 32);
    let vectors = around(&mut random, &centres, 5000, 32);
    let queries = around(&mut random, &centres, 200, 32);
    let segment = open(&vectors, 32);
    assert_eq!((segment.len(), segment.dim()), (5000, 32));
    // The defaults' .99 is measured on 100,000 vectors (`examples/segment.rs`); a few hundred queries scatter.
    for k in [10, 100] {
        let recall = recall(&segment, &vectors, &queries, k, |_| true);
        assert!(recall >= 0.98, "recall at {k} is {recall}");
    }
    let filtered = recall(&segment, &vectors, &queries, 10, |item| item % 3 == 0);
    assert!(filtered >= 0.98, "recall of a third is {filtered}");
}

#[test]
fn scores_of_a_search_have_the_bits_of_exact_scores() {
    let mut random = Random::new();
    let vectors = clustered(&mut random, 300, 17);
    let query = random.normals(17);
    let found = open(&vectors, 17).search(&query, 5);
    let rows: Vec<u32> = found.iter().map(|s| s.item).collect();
    let exact = Cpu::new().scores(&query, &Tensor::from_vec(vectors, vec![300, 17]).unwrap(), &rows);
    assert_eq!(found.iter().map(|s| s.score).collect::<Vec<_>>(), exact);
}

#[test]
fn more_threads_than_cores_search_one_view_with_the_same_answers() {
    let mut random = Random::new();
    let vectors = clustered(&mut random, 2000, 24);
    let queries = clustered(&mut random, 50, 24);
    let segment = open(&vectors, 24);
    let answers: Vec<_> = queries.chunks(24).map(|query| segment.search(query, 10)).collect();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for (query, answer) in queries.chunks(24).zip(&answers) {
                    assert_eq!(&segment.search(query, 10), answer);
                }
            });
        }
    });
}

#[test]
fn bytes_at_any_alignment_can_be_viewed_and_outlive_the_caller() {
    struct Shifted(Vec<u8>, usize);
    impl AsRef<[u8]> for Shifted {
        fn as_ref(&self) -> &[u8] {
            &self.0[self.1..]
        }
    }
    let mut random = Random::new();
    let vectors = clustered(&mut random, 500, 17);
    let query = random.normals(17);
    let bytes = Segment::build(&vectors, 17, &SegmentOptions::default(), &|| false).unwrap();
    let answer = Segment::view(Arc::new(bytes.clone())).unwrap().search(&query, 10);
    for shift in [1, 2, 3, 5] {
        let mut shifted = vec![0xff; shift];
        shifted.extend_from_slice(&bytes);
        let segment = {
            let shared: Bytes = Arc::new(Shifted(shifted, shift));
            Segment::view(shared.clone()).unwrap()
        };
        assert_eq!(segment.search(&query, 10), answer, "shift {shift}");
    }
}

#[test]
fn small_and_empty_catalogues_and_large_k_are_answered() {
    let empty = open(&[], 8);
    assert!(empty.is_empty() && empty.search(&[1.0; 8], 10).is_empty());
    assert_eq!(empty.private_bytes(), 0);
    let one = open(&[1.0, 2.0], 2);
    assert_eq!(one.search(&[1.0, 1.0], usize::MAX / 4).len(), 1);
    assert!(one.search(&[1.0, 1.0], 0).is_empty());
    for bad in [f32::NAN, f32::INFINITY, 3e38] {
        assert!(one.search(&[bad, 1.0], 1).is_empty(), "{bad}");
    }
    assert!(one.search_filtered(&[1.0, 1.0], 1, |_| false).is_empty());
    let same = open(&[0.5; 64], 2);
    assert_eq!(same.search(&[1.0, 1.0], 100).len(), 32);
    let zeros = open(&[0.0; 64], 2);
    assert_eq!(zeros.search(&[1.0, 1.0], 3).len(), 3);
}

#[test]
fn numbers_that_are_not_finite_and_broken_shapes_are_refused() {
    let options = SegmentOptions::default();
    let build = |vectors: &[f32], dim| Segment::build(vectors, dim, &options, &|| false);
    assert!(matches!(build(&[1.0, 2.0, 3.0, f32::NAN], 2), Err(KernelError::NotFinite { row: 1 })));
    assert!(matches!(build(&[f32::INFINITY, 2.0], 2), Err(KernelError::NotFinite { row: 0 })));
    assert!(matches!(build(&[1.0, 2.0, 3.0], 2), Err(KernelError::Shape { .. })));
    assert!(matches!(build(&[1.0], 0), Err(KernelError::Shape { .. })));
    assert!(matches!(build(&[3e38, 3e38], 2), Err(KernelError::Segment(_))));
}

#[test]
fn a_build_stops_when_asked() {
    let mut random = Random::new();
    let vectors = clustered(&mut random, 2000, 8);
    let asked = AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) > 5;
    let stopped = Segment::build(&vectors, 8, &SegmentOptions::default(), &stop);
    assert!(matches!(stopped, Err(KernelError::Cancelled)));
}

#[test]
fn truncated_and_foreign_bytes_are_refused() {
    let mut random = Random::new();
    let vectors = clustered(&mut random, 200, 8);
    let bytes = Segment::build(&vectors, 8, &SegmentOptions::default(), &|| false).unwrap();
    for len in (0..HEADER + 200).chain([bytes.len() / 2, bytes.len() - 1]) {
        assert!(Segment::view(Arc::new(bytes[..len].to_vec())).is_err(), "{len} of {} bytes", bytes.len());
    }
    for (at, what) in [(0, "magic"), (8, "version"), (12, "dim"), (16, "len"), (27, "longest")] {
        let mut wrong = bytes.clone();
        wrong[at] = 0xff;
        wrong[at + 1 - usize::from(at == 27)] = 0xff;
        if what == "longest" {
            wrong[26] = 0xff;
        }
        assert!(Segment::view(Arc::new(wrong)).is_err(), "{what}");
    }
}

#[test]
fn a_panicking_filter_panics_in_the_caller() {
    let segment = open(&[1.0; 100], 2);
    let caught = catch_unwind(AssertUnwindSafe(|| segment.search_filtered(&[1.0, 1.0], 3, |_| panic!("filter"))));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"filter"));
    assert_eq!(segment.search(&[1.0, 1.0], 3).len(), 3);
}
