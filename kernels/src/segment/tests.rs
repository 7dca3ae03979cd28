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
    let bytes = Segment::build(vectors, dim, &SegmentOptions::default(), &|_| true).unwrap();
    Segment::view(Arc::new(bytes)).unwrap()
}

fn recall(segment: &Segment, vectors: &[f32], queries: &[f32], k: usize, allowed: impl Fn(u32) -> bool + Copy) -> f64 {
    let dim = segment.dim();
    let items = Tensor::from_vec(vectors.to_vec(), vec![segment.len(), dim]).unwrap();
    let candidates: Vec<u32> = (0..segment.len() as u32).filter(|&item| allowed(item)).collect();
    let filter = [Filter { exclude: &[], candidates: Some(&candidates) }];
    let (mut hits, mut wanted) = (0, 0);
    for query in queries.chunks(dim) {
        let exact = &Cpu::new().top_k(query, &items, &[k], &filter).unwrap()[0];
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
    let queries = around(&mut random, &centres, 1000, 32);
    let segment = open(&vectors, 32);
    assert_eq!((segment.len(), segment.dim()), (5000, 32));
    // The defaults' .99 is measured on 100,000 vectors (`examples/segment.rs`); so many queries scatter by .001.
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
    let exact = Cpu::new().scores(&query, &Tensor::from_vec(vectors, vec![300, 17]).unwrap(), &rows).unwrap();
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
    let bytes = Segment::build(&vectors, 17, &SegmentOptions::default(), &|_| true).unwrap();
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
    let build = |vectors: &[f32], dim| Segment::build(vectors, dim, &options, &|_| true);
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
    let stop = |_| asked.fetch_add(1, Ordering::Relaxed) <= 5;
    let stopped = Segment::build(&vectors, 8, &SegmentOptions::default(), &stop);
    assert!(matches!(stopped, Err(KernelError::Cancelled)));
}

#[test]
fn truncated_and_foreign_bytes_are_refused() {
    let mut random = Random::new();
    let vectors = clustered(&mut random, 200, 8);
    let bytes = Segment::build(&vectors, 8, &SegmentOptions::default(), &|_| true).unwrap();
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

const FORMATS: [(Metric, Scalar); 11] = [
    (Metric::L2, Scalar::F32),
    (Metric::L2, Scalar::F16),
    (Metric::L2, Scalar::BF16),
    (Metric::InnerProduct, Scalar::F32),
    (Metric::InnerProduct, Scalar::F16),
    (Metric::InnerProduct, Scalar::BF16),
    (Metric::Cosine, Scalar::F32),
    (Metric::Cosine, Scalar::F16),
    (Metric::Cosine, Scalar::BF16),
    (Metric::Cosine, Scalar::I8),
    (Metric::Hamming, Scalar::Bit),
];

/// The operator's value in double precision.
fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    match metric {
        Metric::L2 => pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
        Metric::InnerProduct => -pairs().map(|(a, b)| a * b).sum::<f64>(),
        Metric::Cosine => 1.0 - pairs().map(|(a, b)| a * b).sum::<f64>(),
        Metric::Hamming => pairs().filter(|(a, b)| a != b).count() as f64,
    }
}

/// `count` vectors as the format takes them, stored, and what rounding lost of each.
struct Vectors {
    format: Format,
    numbers: Vec<Vec<f32>>,
    stored: Vec<Vec<u8>>,
    errors: Vec<f32>,
}

impl Vectors {
    fn new(random: &mut Random, format: Format, count: usize) -> Self {
        let centres = random.normals(CENTRES * format.dim());
        Self::around(random, &centres, format, count)
    }

    fn around(random: &mut Random, centres: &[f32], format: Format, count: usize) -> Self {
        let mut vectors = Self { format, numbers: Vec::new(), stored: Vec::new(), errors: Vec::new() };
        for vector in around(random, centres, count, format.dim()).chunks(format.dim()) {
            let (mut numbers, mut stored) = (vector.to_vec(), Vec::new());
            if format.scalar() == Scalar::Bit {
                numbers.iter_mut().for_each(|x| *x = f32::from(*x > 0.0));
                stored.resize(format.vector_bytes(), 0);
                for (i, _) in numbers.iter().enumerate().filter(|(_, x)| **x > 0.0) {
                    stored[i / 8] |= 0x80 >> (i % 8);
                }
                vectors.errors.push(0.0);
            } else {
                if format.metric() == Metric::Cosine {
                    assert!(normalise(&mut numbers));
                }
                vectors.errors.push(format.store(&numbers, &mut stored));
            }
            vectors.numbers.push(numbers);
            vectors.stored.push(stored);
        }
        vectors
    }

    fn query(&self, row: usize) -> Query {
        match self.format.scalar() {
            Scalar::Bit => self.format.query_stored(&self.format, &self.stored[row]),
            _ => self.format.query(&self.numbers[row]),
        }
    }

    fn segment(&self) -> Segment {
        let options = SegmentOptions { connectivity: 16, expansion_add: 64, expansion_search: 64 };
        let builder = SegmentBuilder::new(self.format, &options, 10, 1).unwrap();
        for (row, stored) in self.stored.iter().enumerate() {
            builder.add(1000 + row as u64, stored, self.errors[row]).unwrap();
        }
        assert_eq!(builder.len(), self.stored.len());
        Segment::view(Arc::new(builder.finish().unwrap())).unwrap()
    }
}

#[test]
fn distances_are_those_of_the_stored_vectors_in_every_format_and_dimension() {
    let mut random = Random::new();
    for (metric, scalar) in FORMATS {
        for dim in [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129] {
            let vectors = Vectors::new(&mut random, Format::new(metric, scalar, dim).unwrap(), 6);
            let format = vectors.format;
            let rows: Vec<&[u8]> = vectors.stored.iter().map(Vec::as_slice).collect();
            let (query, mut distances) = (vectors.query(0), vec![0.0; rows.len()]);
            query.distances(&rows, &mut distances);
            let mut strided = Vec::new();
            query.distances_strided(&vectors.stored.concat(), format.vector_bytes(), 0, &mut strided);
            assert_eq!(strided, distances);
            for (row, &distance) in distances.iter().enumerate() {
                let kept = format.numbers(rows[row]);
                let wanted = exact(metric, &vectors.numbers[0], &kept);
                let found = format.sql_distance(distance);
                assert!((found - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()), "{format:?}: {found}, not {wanted}");
                let lost: f64 =
                    kept.iter().zip(&vectors.numbers[row]).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
                assert!(lost <= f64::from(vectors.errors[row]), "{format:?} lost {lost}, said {}", vectors.errors[row]);
                if metric == Metric::Cosine {
                    assert!(vectors.errors[row] <= format.rounding(), "{format:?}");
                }
            }
        }
    }
}

#[test]
fn a_bound_is_below_the_exact_distance_and_near_it() {
    let mut random = Random::new();
    for (metric, scalar) in FORMATS {
        let vectors = Vectors::new(&mut random, Format::new(metric, scalar, 48).unwrap(), 300);
        let (format, segment) = (vectors.format, vectors.segment());
        let query = vectors.query(7);
        let mut found = Vec::new();
        segment.scan(&query, 0..segment.len() as u32, &mut found);
        for f in found {
            let exact = exact(metric, &vectors.numbers[7], &vectors.numbers[segment.key(f.slot) as usize - 1000]);
            let bound = format.bound(&query, f.distance, segment.error(), || segment.longest());
            assert!(bound <= exact, "{format:?}: {bound} is above {exact}");
            let length = if metric == Metric::L2 { 1.0 } else { query.length() };
            let apart = 2.1 * segment.error() * length + 1e-3 * (1.0 + query.length() * segment.longest());
            assert!(exact - bound <= f64::from(apart), "{format:?}: {bound} is far below {exact}");
        }
    }
}

#[test]
fn a_walk_finds_most_of_the_nearest_in_every_format() {
    let mut random = Random::new();
    for (metric, scalar) in FORMATS {
        let vectors = Vectors::new(&mut random, Format::new(metric, scalar, 32).unwrap(), 2000);
        let segment = vectors.segment();
        let (mut hits, mut wanted) = (0, 0);
        for row in (0..2000).step_by(50) {
            let query = vectors.query(row);
            let found = Walk::new(&segment, 100, false).next(&segment, &query, &|_| true);
            assert!(found.windows(2).all(|w| w[0].distance <= w[1].distance), "ascending");
            let mut all = Vec::new();
            segment.scan(&query, 0..2000, &mut all);
            all.sort_by(|a, b| a.distance.total_cmp(&b.distance));
            hits += found.iter().take(10).filter(|f| f.distance <= all[9].distance).count();
            wanted += 10;
        }
        let recall = f64::from(hits as u32) / f64::from(wanted);
        assert!(recall >= 0.97, "{metric:?} of {scalar:?}: recall {recall}");
    }
}

#[test]
fn a_walk_that_goes_on_gives_every_live_vector_once() {
    let mut random = Random::new();
    let vectors = Vectors::new(&mut random, Format::new(Metric::L2, Scalar::F32, 16).unwrap(), 1500);
    let segment = vectors.segment();
    for (expansion, every) in [(1, 1), (10, 1), (40, 3), (64, 50), (5000, 2)] {
        for withhold in [false, true] {
            let live = |slot: u32| segment.key(slot).is_multiple_of(every);
            let (mut walk, query) = (Walk::new(&segment, expansion, withhold), vectors.query(3));
            let mut keys = Vec::new();
            loop {
                let batch = walk.next(&segment, &query, &live);
                assert!(batch.windows(2).all(|w| w[0].distance <= w[1].distance));
                assert!(!keys.is_empty() || batch.len() <= expansion);
                if batch.is_empty() {
                    break;
                }
                keys.extend(batch.iter().map(|f| segment.key(f.slot)));
            }
            let given = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), given, "one was given twice");
            let all = (1000..2500u64).filter(|key| key.is_multiple_of(every)).count();
            assert!(given * 100 >= all * 99 && given <= all, "{given} of {all} at {expansion}");
            assert!(walk.next(&segment, &query, &live).is_empty());
        }
    }
}

#[test]
fn a_walk_that_withholds_what_it_is_not_sure_of_gives_less_out_of_order() {
    let mut random = Random::new();
    let vectors = Vectors::new(&mut random, Format::new(Metric::L2, Scalar::F32, 16).unwrap(), 3000);
    let segment = vectors.segment();
    let late = |withhold: bool| -> usize {
        let one = |place: usize| {
            let (mut walk, query) = (Walk::new(&segment, 8, withhold), vectors.query(place));
            let batches = std::iter::repeat_with(|| walk.next(&segment, &query, &|_| true));
            let found: Vec<f32> = batches.flatten().take(60).map(|f| f.distance).collect();
            found.windows(2).filter(|w| w[1] < w[0]).count()
        };
        (0..100).map(one).sum()
    };
    let (kept, given) = (late(true), late(false));
    assert!(kept < given, "{kept} late ones where the farther half was withheld, {given} where it was not");
}

#[test]
fn nearly_every_vector_can_be_reached_though_many_threads_built_the_graph() {
    let mut random = Random::new();
    let format = Format::new(Metric::L2, Scalar::F32, 16).unwrap();
    let vectors = Vectors::new(&mut random, format, 8000);
    let options = SegmentOptions { connectivity: 8, expansion_add: 32, expansion_search: 32 };
    let mut missed = 0;
    for _ in 0..3 {
        let builder = SegmentBuilder::new(format, &options, 10, 6).unwrap();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    while let Some(stored) = vectors.stored.get(next.fetch_add(1, Ordering::Relaxed)) {
                        builder.add(0, stored, 0.0).unwrap();
                    }
                });
            }
        });
        let segment = Segment::view(Arc::new(builder.finish().unwrap())).unwrap();
        let (mut walk, query) = (Walk::new(&segment, 500, false), vectors.query(0));
        missed += 8000;
        loop {
            let batch = walk.next(&segment, &query, &|_| true);
            if batch.is_empty() {
                break;
            }
            missed -= batch.len();
        }
    }
    // Some two hundred without the repair.
    assert!(missed == 0, "{missed} of 24,000");
}

#[test]
fn stored_vectors_and_keys_come_back_bit_by_bit() {
    let mut random = Random::new();
    for (metric, scalar) in FORMATS {
        let vectors = Vectors::new(&mut random, Format::new(metric, scalar, 19).unwrap(), 50);
        let segment = vectors.segment();
        assert_eq!(segment.format(), vectors.format);
        let mut keys: Vec<u64> = (0..50).map(|slot| segment.key(slot)).collect();
        for slot in 0..50 {
            assert_eq!(segment.vector(slot), vectors.stored[segment.key(slot) as usize - 1000]);
        }
        keys.sort_unstable();
        assert_eq!(keys, (1000..1050).collect::<Vec<_>>());
        assert!(segment.vector(50).is_empty() && segment.key(u32::MAX) == 0);
    }
}

#[test]
fn damaged_bytes_do_not_panic() {
    let mut random = Random::new();
    let vectors = Vectors::new(&mut random, Format::new(Metric::L2, Scalar::F16, 8).unwrap(), 200);
    let builder = SegmentBuilder::new(vectors.format, &SegmentOptions::default(), 200, 1).unwrap();
    for (row, stored) in vectors.stored.iter().enumerate() {
        builder.add(row as u64, stored, 0.0).unwrap();
    }
    let bytes = builder.finish().unwrap();
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random.below(20) {
            let at = random.below(damaged.len());
            damaged[at] = random.below(256) as u8;
        }
        if let Ok(segment) = Segment::view(Arc::new(damaged)) {
            let query = segment.format().query(&vec![0.5; segment.format().dim()]);
            let mut walk = Walk::new(&segment, 20, false);
            while !walk.next(&segment, &query, &|slot| segment.key(slot) != 7).is_empty() {}
        }
    }
}

#[test]
fn formats_that_mean_nothing_are_refused() {
    for (metric, scalar) in [
        (Metric::Hamming, Scalar::F32),
        (Metric::L2, Scalar::Bit),
        (Metric::L2, Scalar::I8),
        (Metric::InnerProduct, Scalar::I8),
    ] {
        assert!(Format::new(metric, scalar, 8).is_err(), "{metric:?} of {scalar:?}");
    }
    assert!(Format::new(Metric::L2, Scalar::F32, 0).is_err());
    let format = Format::new(Metric::L2, Scalar::F32, 3).unwrap();
    let builder = SegmentBuilder::new(format, &SegmentOptions::default(), 1, 1).unwrap();
    assert!(builder.add(0, &[0; 8], 0.0).is_err());
    let long: Vec<u8> = [3e38f32; 3].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert!(builder.add(0, &long, 0.0).is_err());
    assert!(!normalise(&mut [0.0, 0.0]) && !normalise(&mut [f32::NAN, 1.0]));
}

#[test]
fn what_is_near_is_woven_together_and_nothing_is_left_out() {
    let mut random = Random::new();
    let format = Format::new(Metric::L2, Scalar::F32, 4).unwrap();
    for rows in [0, 1, 10, 500] {
        let mut stored = Vec::new();
        for row in 0..rows {
            let centre = if row % 2 == 0 { 100.0 } else { -100.0 };
            let vector: Vec<f32> = random.normals(4).iter().map(|x| centre + x).collect();
            format.store(&vector, &mut stored);
        }
        let order = near_together(&format, &stored);
        let changes = order.windows(2).filter(|w| w[0] % 2 != w[1] % 2).count();
        // Around 64 vectors of both kinds in turn.
        assert!(changes <= 64.min(rows), "{changes} changes in {rows}");
        let mut all = order;
        all.sort_unstable();
        assert!(all.into_iter().eq(0..rows));
    }
}
