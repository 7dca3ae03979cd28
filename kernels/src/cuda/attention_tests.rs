//! Attention against double precision.

use super::tests::{devices, tensor};
use super::*;
use crate::cpu::reference::{self, Random, relative_error, silu_f64};
use crate::cpu::tests::{histories_in_time, histories_with_infinite_times, offsets};
use crate::{PairBias, Rows, SiluAttention, TIME_BUCKETS, time_bucket};

const LENGTHS: [usize; 12] = [1, 0, 31, 32, 33, 2, 64, 65, 0, 130, 300, 5];

/// Long histories take the emulator too long, and a tool that watches every access of a device: `PGREC_CUDA_SHORT`.
fn long_ones() -> bool {
    std::env::var_os("PGREC_CUDA").is_some() && std::env::var_os("PGREC_CUDA_SHORT").is_none()
}

/// Rows of a matrix of `cols` columns.
fn picked<T: Copy>(x: &[T], cols: usize, rows: impl Iterator<Item = usize>) -> Vec<T> {
    rows.flat_map(|row| x[row * cols..(row + 1) * cols].to_vec()).collect()
}

/// Checks attention of the events asked for, and of the last ones alone and together, against that of all events.
fn check(
    cuda: &Cuda,
    case: &str,
    tolerance: f64,
    [q, k, v]: [&Matrix; 3],
    batch: &Sequences<'_>,
    wanted: &[f64],
    attend: impl Fn(&Matrix, &Matrix, &Matrix, &Sequences<'_>, Rows) -> Matrix,
) {
    let close = |out: &Matrix, wanted: &[f64], rows: &str| {
        let error = relative_error(&cuda.numbers(out), wanted);
        assert!(error < tolerance, "{case}, {rows}: {error}");
    };
    close(&attend(q, k, v, batch, Rows::All), wanted, "all");
    let [hq, hk, hv] = [q, k, v].map(|x| cuda.numbers(x));
    let full: Vec<&[usize]> = batch.offsets.windows(2).filter(|w| w[0] < w[1]).collect();
    let bounds: Vec<usize> = std::iter::once(0).chain(full.iter().map(|w| w[1])).collect();
    let last = || full.iter().map(|w| w[1] - 1);
    let asked = cuda.of(&picked(&hq, q.cols(), last()), q.cols());
    let of_full = Sequences { offsets: &bounds, ..*batch };
    close(&attend(&asked, k, v, &of_full, Rows::Last), &picked(wanted, v.cols(), last()), "last");

    // Of the longest history alone.
    let longest = full.iter().max_by_key(|w| w[1] - w[0]).unwrap();
    let (first, end) = (longest[0], longest[1]);
    let one = |x: &[f32], cols: usize| cuda.of(&picked(x, cols, first..end), cols);
    let (k, v) = (one(&hk, k.cols()), one(&hv, v.cols()));
    let [own_times, own_until] =
        [batch.times, batch.until].map(|times| if times.is_empty() { times } else { &times[first..end] });
    let offsets = [0, end - first];
    let alone = Sequences { offsets: &offsets, times: own_times, until: own_until, ..Sequences::default() };
    for tail in [1, 30, 65, end - first] {
        let rows = end - tail.min(end - first)..end;
        let asked = cuda.of(&picked(&hq, q.cols(), rows.clone()), q.cols());
        let wanted = picked(wanted, v.cols(), rows);
        close(&attend(&asked, &k, &v, &alone, Rows::Tail), &wanted, "tail");
    }
}

#[test]
fn softmax_attention_matches_double_precision() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        for (dim, heads, lengths) in [
            (64, 2, &LENGTHS[..]),
            (50, 2, &[33, 70]),
            (128, 1, &[66, 1]),
            (128, 2, &[5, 130, 520]),
            (128, 1, &[400]),
            (33, 1, &[40]),
            (160, 1, &[35]),
            (64, 1, &[8192]),
            (128, 1, &[8192]),
        ] {
            if lengths == [8192] && !long_ones() {
                continue;
            }
            let offsets = offsets(lengths);
            let events = *offsets.last().unwrap();
            let [q, k, v] = [0; 3].map(|_| cuda.of(&random.normals(events * dim), dim));
            let [hq, hk, hv] = [&q, &k, &v].map(|x| cuda.numbers(x));
            let mut wanted = Vec::new();
            for w in offsets.windows(2) {
                for i in w[0]..w[1] {
                    let history = w[0] * dim..w[1] * dim;
                    let row = &hq[i * dim..(i + 1) * dim];
                    let (k, v) = (&hk[history.clone()], &hv[history]);
                    wanted.extend(reference::attention_row(row, k, v, heads, i - w[0] + 1));
                }
            }
            let batch = Sequences { offsets: &offsets, ..Sequences::default() };
            let case = format!("{:?} {heads} heads of {}", cuda.precision, dim / heads);
            check(&cuda, &case, tolerance, [&q, &k, &v], &batch, &wanted, |q, k, v, batch, rows| {
                cuda.attend(q, k, v, heads, batch, rows)
            });
        }
    }
}

/// Makes the times of histories, and what comes after each event.
type Times = fn(&mut Random, &[usize]) -> (Vec<f64>, Vec<f64>);

/// Checks pointwise attention of `heads` of as many columns of queries and of values.
fn check_pointwise(
    (cuda, tolerance): &(Cuda, f64),
    random: &mut Random,
    (heads, dim, value_dim): (usize, usize, usize),
    times: Option<Times>,
    lengths: &[usize],
) {
    let known = lengths.iter().max().unwrap() + 11;
    let offsets = offsets(lengths);
    let events = *offsets.last().unwrap();
    let [q, k] = [0; 2].map(|_| cuda.of(&random.normals(events * heads * dim), heads * dim));
    let v = cuda.of(&random.normals(events * heads * value_dim), heads * value_dim);
    let (positions, buckets) = (random.normals(2 * known - 1), random.normals(TIME_BUCKETS));
    let timed = times.is_some();
    let (times, until) = times.map(|times| times(random, &offsets)).unwrap_or_default();
    let batch = Sequences { offsets: &offsets, times: &times, until: &until, ..Sequences::default() };
    let [hq, hk, hv] = [&q, &k, &v].map(|x| cuda.numbers(x));
    let by_time = timed.then_some(&buckets[..]);
    let wanted = reference::silu_attention([&hq, &hk, &hv], heads, (&positions, by_time), known as f64, &batch);
    let bias = PairBias {
        positions: tensor(positions, &[2 * known - 1]),
        times: timed.then(|| tensor(buckets, &[TIME_BUCKETS])),
    };
    let attention = SiluAttention { heads, bias, divisor: known as f32 };
    let case = format!("{:?} {heads} heads of {dim} and {value_dim}", cuda.precision);
    check(cuda, &case, *tolerance, [&q, &k, &v], &batch, &wanted, |q, k, v, batch, rows| {
        cuda.silu_attend(q, k, v, &attention, batch, rows)
    });
}

#[test]
fn pointwise_attention_matches_double_precision() {
    let mut random = Random::new();
    for device in devices() {
        for (shape, timed, lengths) in [
            ((2, 32, 32), true, &LENGTHS[..]),
            ((1, 25, 25), true, &[33, 70]),
            ((2, 16, 40), false, &[70, 3]),
            ((1, 128, 128), true, &[67, 400]),
            ((2, 64, 64), true, &[129, 0, 1, 520]),
            ((1, 64, 64), false, &[64, 130]),
            ((1, 64, 64), true, &[8192, 3]),
            ((1, 128, 128), true, &[8192, 3]),
        ] {
            if lengths[0] < 8192 || long_ones() {
                check_pointwise(&device, &mut random, shape, timed.then_some(histories_in_time), lengths);
            }
        }
    }
}

#[test]
fn pointwise_attention_of_events_without_a_time_matches_double_precision() {
    let mut random = Random::new();
    for device in devices() {
        for (shape, lengths) in [((1, 25, 25), &[40, 33, 5, 70, 1, 2][..]), ((1, 64, 64), &[140, 129, 66, 131])] {
            check_pointwise(&device, &mut random, shape, Some(histories_with_infinite_times), lengths);
        }
    }
}

#[test]
fn pointwise_attention_without_biases_matches_double_precision() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        for (heads, dim, lengths) in [(2, 25, &[33, 1, 70][..]), (1, 64, &[130, 64])] {
            let offsets = offsets(lengths);
            let (events, cols) = (*offsets.last().unwrap(), heads * dim);
            let [q, k, v] = [0; 3].map(|_| cuda.of(&random.normals(events * cols), cols));
            let [hq, hk, hv] = [&q, &k, &v].map(|x| cuda.numbers(x));
            let batch = Sequences { offsets: &offsets, ..Sequences::default() };
            let wanted = reference::silu_attention([&hq, &hk, &hv], heads, (&[0.0; 2 * 130 - 1], None), 100.0, &batch);
            let out = cuda.unbiased_attention([&q, &k, &v], heads, 100.0, &batch);
            let error = relative_error(&cuda.numbers(&out), &wanted);
            assert!(error < tolerance, "{:?} {heads} heads of {dim}: {error}", cuda.precision);
        }
    }
}

#[test]
fn candidates_see_a_history_and_themselves() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        for (heads, dim, len, candidates, times) in [
            (2, 32, 130, 70, Some(histories_in_time as Times)),
            (1, 25, 1, 3, None),
            (1, 25, 40, 3, Some(histories_with_infinite_times)),
        ] {
            let timed = times.is_some();
            let cols = heads * dim;
            let [k, v] = [0; 2].map(|_| cuda.of(&random.normals(len * cols), cols));
            let [q, own_k, own_v] = [0; 3].map(|_| cuda.of(&random.normals(candidates * cols), cols));
            let (positions, buckets) = (random.normals(2 * 140 - 1), random.normals(TIME_BUCKETS));
            let offsets = [0, len];
            let (times, until) = times.map(|times| times(&mut random, &offsets)).unwrap_or_default();
            let batch = Sequences { offsets: &offsets, times: &times, until: &until, ..Sequences::default() };
            let [hq, hk, hv, hok, hov] = [&q, &k, &v, &own_k, &own_v].map(|x| cuda.numbers(x));
            let mut wanted = vec![0.0; candidates * cols];
            for (candidate, head) in (0..candidates).flat_map(|c| (0..heads).map(move |head| (c, head))) {
                for j in 0..=len {
                    let (k, v, row) = if j < len { (&hk, &hv, j) } else { (&hok, &hov, candidate) };
                    let at = |row: usize, c: usize| row * cols + head * dim + c;
                    let dot = |c: usize| f64::from(hq[at(candidate, c)]) * f64::from(k[at(row, c)]);
                    // A candidate happens when it is asked for.
                    let bucket = times.get(j).map_or(0, |time| time_bucket(until[len - 1] - time));
                    let by_time = if timed { buckets[bucket] } else { 0.0 };
                    let bias = f64::from(positions[139 + j - len]) + f64::from(by_time);
                    let weight = silu_f64((0..dim).map(dot).sum::<f64>() + bias) / 140.0;
                    for c in 0..dim {
                        wanted[at(candidate, c)] += weight * f64::from(v[at(row, c)]);
                    }
                }
            }
            let bias = PairBias {
                positions: tensor(positions, &[279]),
                times: timed.then(|| tensor(buckets, &[TIME_BUCKETS])),
            };
            let attention = SiluAttention { heads, bias, divisor: 140.0 };
            let out = cuda.silu_of_candidates(&q, [&own_k, &own_v], [&k, &v], &attention, &batch);
            let error = relative_error(&cuda.numbers(&out), &wanted);
            assert!(error < tolerance, "{:?} {heads} heads of {dim}: {error}", cuda.precision);
        }
    }
}
