//! Every operator, with every instruction set of this processor, against double precision.

use super::reference::{self, Random, relative_error};
use super::*;

const TOLERANCE: f64 = 1e-5;

pub(super) fn cpus() -> Vec<Cpu> {
    Isa::ALL.into_iter().filter_map(Cpu::with_isa).collect()
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape.to_vec()).unwrap()
}

pub(crate) fn offsets(lengths: &[usize]) -> Vec<usize> {
    let mut offsets = vec![0];
    for length in lengths {
        offsets.push(offsets.last().unwrap() + length);
    }
    offsets
}

pub(super) fn sequences(offsets: &[usize]) -> Sequences<'_> {
    Sequences { offsets, ..Sequences::default() }
}

/// Times of events, with ties, and what comes after each; questions are asked later than all events or before some.
pub(crate) fn histories_in_time(random: &mut Random, offsets: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let (mut times, mut until) = (Vec::new(), Vec::new());
    for bounds in offsets.windows(2) {
        let spread = [10, 10_000, 100_000_000][random.below(3)];
        let mut own: Vec<f64> = (bounds[0]..bounds[1]).map(|_| random.below(spread) as f64).collect();
        own.sort_by(f64::total_cmp);
        until.extend(own.iter().skip(1));
        until.extend((!own.is_empty()).then(|| random.below(2 * spread) as f64));
        times.extend(own);
    }
    (times, until)
}

/// The same, where histories begin with events that have no time, end with infinite ones, or are of nothing else.
pub(crate) fn histories_with_infinite_times(random: &mut Random, offsets: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let (mut times, mut until) = histories_in_time(random, offsets);
    for (history, bounds) in offsets.windows(2).enumerate().filter(|(_, w)| w[0] < w[1]) {
        let (start, end, len) = (bounds[0], bounds[1], bounds[1] - bounds[0]);
        match history % 4 {
            0 => times[start..start + len.div_ceil(3)].fill(f64::NEG_INFINITY),
            1 => times[end - len.div_ceil(4)..end].fill(f64::INFINITY),
            2 => times[start..end].fill(f64::NEG_INFINITY),
            _ => {
                times[start..start + len / 3].fill(f64::NEG_INFINITY);
                times[end - len / 3..end].fill(f64::INFINITY);
            }
        }
        let asked = [until[end - 1], f64::INFINITY, f64::NEG_INFINITY][random.below(3)];
        until[start..end - 1].copy_from_slice(&times[start + 1..end]);
        until[end - 1] = asked;
    }
    (times, until)
}

#[test]
fn linear_layers_match_double_precision_in_every_tail() {
    let mut random = Random::new();
    let sizes = [0, 1, 2, 3, 7, 12, 13, 31, 32, 33, 64, 200];
    for cpu in cpus() {
        for (i, &m) in sizes.iter().enumerate() {
            for (j, &n) in sizes.iter().enumerate() {
                for (l, &k) in sizes.iter().enumerate() {
                    // Every pair of sizes, and a third of the triples, another third for each set.
                    if m.max(n).max(k) > 64 && !(i + j + l + cpu.isa() as usize).is_multiple_of(3) {
                        continue;
                    }
                    let activation =
                        [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::Silu][(i + j + l) % 4];
                    // In a few numbers, or behind one bias that a ReLU cuts off, a sum that happens to cancel is all of
                    // the norm.
                    let sign = |x: f32| if m * n < 32 || n < 4 { x.abs() } else { x };
                    let x: Vec<f32> = random.normals(m * k).into_iter().map(sign).collect();
                    let weight = random.normals(k * n).into_iter().map(|w| sign(w) / (k as f32).sqrt());
                    let weight: Vec<f32> = weight.collect();
                    let bias = (l % 2 == 0).then(|| random.normals(n).into_iter().map(sign).collect::<Vec<_>>());
                    let wanted = reference::linear(&x, &weight, bias.as_deref(), [m, k, n], activation);
                    let layer = Linear { weight: tensor(weight, &[k, n]), bias: bias.map(|bias| tensor(bias, &[n])) };
                    let x = if k == 0 { Matrix::zeros(m, 0) } else { Matrix::from_slice(&x, k) };
                    let out = cpu.linear(&x, &layer, activation);
                    assert_eq!((out.rows(), out.cols()), (m, n));
                    let error = relative_error(out.as_slice(), &wanted);
                    assert!(error < TOLERANCE, "{:?} {activation:?} m {m} k {k} n {n}: {error}", cpu.isa());
                }
            }
        }
    }
}

#[test]
fn layer_norm_matches_double_precision() {
    let mut random = Random::new();
    for cpu in cpus() {
        for dim in [1, 2, 3, 7, 12, 13, 31, 32, 33, 50, 64, 200] {
            for affine in [true, false] {
                let x: Vec<f32> = random.normals(9 * dim).into_iter().map(|x| 3.0 * x + 5.0).collect();
                let (weight, bias) = (random.normals(dim), random.normals(dim));
                let (weight, bias) = if affine { (Some(weight), Some(bias)) } else { (None, None) };
                let wanted = reference::layer_norm(&x, dim, weight.as_deref(), bias.as_deref(), 1e-3);
                let norm = LayerNorm {
                    weight: weight.map(|w| tensor(w, &[dim])),
                    bias: bias.map(|b| tensor(b, &[dim])),
                    eps: 1e-3,
                };
                let out = cpu.layer_norm(&Matrix::from_slice(&x, dim), &norm);
                let error = relative_error(out.as_slice(), &wanted);
                assert!(error < TOLERANCE, "{:?} dim {dim}: {error}", cpu.isa());
            }
        }
    }
}

#[test]
fn sums_of_exponentials_match_double_precision_where_they_overflow_and_where_most_vanish() {
    let mut random = Random::new();
    for (cpu, spread) in cpus().into_iter().flat_map(|cpu| [0.0, 1.0, 300.0].map(|spread| (cpu, spread))) {
        assert_eq!(cpu.log_sum_exp(&[]), f32::NEG_INFINITY);
        for len in [1, 2, 7, 8, 15, 16, 17, 31, 33, 256] {
            let x: Vec<f32> = random.normals(len).into_iter().map(|x| 100.0 + spread * x).collect();
            let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = x.iter().map(|&x| f64::from(x - most).exp()).sum();
            let (own, right) = (f64::from(cpu.log_sum_exp(&x)), f64::from(most) + sum.ln());
            assert!((own - right).abs() <= TOLERANCE * right.abs().max(1.0), "{:?}, {len}: {own}, {right}", cpu.isa());
        }
    }
}

#[test]
fn scaled_sums_match_double_precision_in_every_tail() {
    let mut random = Random::new();
    for cpu in cpus() {
        for len in [0, 1, 7, 8, 15, 16, 17, 33, 64] {
            let (to, x) = (random.normals(len), random.normals(len));
            let mut sum = to.clone();
            cpu.add_scaled(&mut sum, -1.7, &x);
            for ((sum, to), x) in sum.iter().zip(&to).zip(&x) {
                let right = f64::from(*to) + f64::from(-1.7f32) * f64::from(*x);
                assert!((f64::from(*sum) - right).abs() < 1e-6 * (1.0 + right.abs()), "{:?}, {len}", cpu.isa());
            }
        }
    }
}

#[test]
fn weighted_sums_have_the_bits_of_their_terms_added_one_after_the_other() {
    let mut random = Random::new();
    for cpu in cpus() {
        for len in [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 200] {
            for count in [0, 1, 5] {
                let (start, factors) = (random.normals(len), random.normals(count));
                let rows: Vec<Vec<f32>> = (0..count).map(|_| random.normals(len)).collect();
                let (mut sum, mut right) = (start.clone(), start);
                cpu.add_weighted(&mut sum, factors.iter().copied().zip(rows.iter().map(Vec::as_slice)));
                factors.iter().zip(&rows).for_each(|(&by, x)| cpu.add_scaled(&mut right, by, x));
                assert_eq!(sum, right, "{:?}, {len}, {count}", cpu.isa());
            }
        }
    }
}

#[test]
fn embedding_and_addition_match_double_precision() {
    let mut random = Random::new();
    for cpu in cpus() {
        for dim in [1, 7, 16, 33, 50, 64] {
            let (items, positions) = (random.normals(20 * dim), random.normals(10 * dim));
            let ids: Vec<u32> = (0..13).map(|_| random.below(20) as u32).collect();
            let places: Vec<u32> = (0..13).map(|_| random.below(10) as u32).collect();
            let batch = Sequences { items: &ids, positions: &places, offsets: &[0, 13], ..Sequences::default() };
            let item_table = tensor(items.clone(), &[20, dim]);
            let mut x = cpu.embed(&item_table, &tensor(positions.clone(), &[10, dim]), 1.7, &batch);
            let other = random.normals(13 * dim);
            cpu.add(&mut x, &Matrix::from_slice(&other, dim));
            let wanted: Vec<f64> = (0..13 * dim)
                .map(|at| {
                    let (event, column) = (at / dim, at % dim);
                    let item = f64::from(items[ids[event] as usize * dim + column]) * f64::from(1.7f32);
                    item + f64::from(positions[places[event] as usize * dim + column]) + f64::from(other[at])
                })
                .collect();
            let error = relative_error(x.as_slice(), &wanted);
            assert!(error < TOLERANCE, "{:?} dim {dim}: {error}", cpu.isa());
        }
    }
}

#[test]
fn attention_matches_double_precision_at_every_length_and_head_width() {
    let mut random = Random::new();
    let lengths = [1, 0, 31, 32, 33, 2, 200, 13, 0];
    let offsets = offsets(&lengths);
    let events = *offsets.last().unwrap();
    for cpu in cpus() {
        for (dim, heads) in [(64, 1), (64, 2), (50, 1), (50, 2), (8, 8), (33, 1), (48, 1), (128, 2)] {
            let [q, k, v] = [0; 3].map(|_| random.normals(events * dim));
            let mut wanted = Vec::new();
            for w in offsets.windows(2) {
                for i in w[0]..w[1] {
                    let history = w[0] * dim..w[1] * dim;
                    let row = &q[i * dim..(i + 1) * dim];
                    let (k, v) = (&k[history.clone()], &v[history]);
                    wanted.extend(reference::attention_row(row, k, v, heads, i - w[0] + 1));
                }
            }
            let [q, k, v] = [q, k, v].map(|x| Matrix::from_slice(&x, dim));
            let out = cpu.attention(&q, &k, &v, heads, &sequences(&offsets), Rows::All);
            let error = relative_error(out.as_slice(), &wanted);
            assert!(error < TOLERANCE, "{:?} dim {dim} heads {heads}: {error}", cpu.isa());
        }
    }
}

#[test]
fn pointwise_attention_matches_double_precision_and_its_last_row_is_the_last_of_all() {
    let mut random = Random::new();
    let offsets = offsets(&[1, 31, 200, 32, 33, 2]);
    let events = *offsets.last().unwrap();
    for cpu in cpus() {
        for (heads, dim, value_dim, timed, infinite) in [
            (1, 64, 64, true, false),
            (2, 25, 25, true, false),
            (8, 4, 16, false, false),
            (1, 33, 50, true, false),
            (1, 16, 16, true, true),
        ] {
            let [q, k] = [0; 2].map(|_| random.normals(events * heads * dim));
            let v = random.normals(events * heads * value_dim);
            let (positions, buckets) = (random.normals(2 * 211 - 1), random.normals(TIME_BUCKETS));
            let in_time = if infinite { histories_with_infinite_times } else { histories_in_time };
            let (times, until) = in_time(&mut random, &offsets);
            let batch = Sequences { offsets: &offsets, times: &times, until: &until, ..Sequences::default() };
            let by_time = timed.then_some(&buckets[..]);
            let wanted = reference::silu_attention([&q, &k, &v], heads, (&positions, by_time), 211.0, &batch);
            let [q, k] = [q, k].map(|x| Matrix::from_slice(&x, heads * dim));
            let v = Matrix::from_slice(&v, heads * value_dim);
            let bias = PairBias {
                positions: tensor(positions, &[421]),
                times: timed.then(|| tensor(buckets, &[TIME_BUCKETS])),
            };
            let attention = SiluAttention { heads, bias, divisor: 211.0 };
            let all = cpu.silu_attention(&q, &k, &v, &attention, &batch, Rows::All);
            let case = format!("{:?} {heads} heads of {dim} and {value_dim}", cpu.isa());
            assert!(relative_error(all.as_slice(), &wanted) < TOLERANCE, "{case}");
            let asked = cpu.last_rows(&q, &batch);
            let last = cpu.silu_attention(&asked, &k, &v, &attention, &batch, Rows::Last);
            let wanted: Vec<f64> = cpu.last_rows(&all, &batch).as_slice().iter().map(|&x| f64::from(x)).collect();
            assert!(relative_error(last.as_slice(), &wanted) < TOLERANCE, "{case}");
        }
    }
}

#[test]
fn attention_of_the_last_row_is_the_last_row_of_attention() {
    let mut random = Random::new();
    let offsets = offsets(&[1, 31, 200, 32, 33, 2]);
    let events = *offsets.last().unwrap();
    for cpu in cpus() {
        for (dim, heads) in [(64, 1), (50, 2), (96, 1)] {
            let [q, k, v] = [0; 3].map(|_| Matrix::from_slice(&random.normals(events * dim), dim));
            let batch = sequences(&offsets);
            let all = cpu.attention(&q, &k, &v, heads, &batch, Rows::All);
            let last = cpu.attention(&cpu.last_rows(&q, &batch), &k, &v, heads, &batch, Rows::Last);
            let wanted: Vec<f64> = cpu.last_rows(&all, &batch).as_slice().iter().map(|&x| f64::from(x)).collect();
            assert!(relative_error(last.as_slice(), &wanted) < TOLERANCE, "{:?} dim {dim}", cpu.isa());
        }
    }
}

#[test]
fn attention_of_a_tail_is_the_tail_of_attention() {
    let mut random = Random::new();
    let (events, dim, heads) = (70, 24, 2);
    let offsets = offsets(&[events]);
    for cpu in cpus() {
        let [q, k, v] = [0; 3].map(|_| Matrix::from_slice(&random.normals(events * dim), dim));
        let (times, until) = histories_in_time(&mut random, &offsets);
        let batch = Sequences { offsets: &offsets, times: &times, until: &until, ..Sequences::default() };
        let bias = PairBias {
            positions: tensor(random.normals(2 * 80 - 1), &[159]),
            times: Some(tensor(random.normals(TIME_BUCKETS), &[TIME_BUCKETS])),
        };
        let pointwise = SiluAttention { heads, bias, divisor: 80.0 };
        let attend = |q: &Matrix, rows| {
            let pointwise = cpu.silu_attention(q, &k, &v, &pointwise, &batch, rows);
            [cpu.attention(q, &k, &v, heads, &batch, rows), pointwise]
        };
        let all = attend(&q, Rows::All);
        for tail in [0, 1, 4, 5, 31, events] {
            let asked = Matrix::from_slice(&q.as_slice()[(events - tail) * dim..], dim);
            for (all, tailed) in all.iter().zip(attend(&asked, Rows::Tail)) {
                let wanted = &all.as_slice()[(events - tail) * dim..];
                let wanted: Vec<f64> = wanted.iter().map(|&x| f64::from(x)).collect();
                assert_eq!(tailed.rows(), tail);
                assert!(relative_error(tailed.as_slice(), &wanted) < TOLERANCE, "{:?} {tail}", cpu.isa());
            }
        }
    }
}

#[test]
fn a_candidate_sees_what_it_would_see_as_the_last_event() {
    let mut random = Random::new();
    for (events, candidates, [heads, dim, value_dim], timed) in [
        (1, 3, [1, 16, 16], true),
        (33, 9, [2, 25, 8], true),
        (70, 50, [2, 8, 24], false),
        (257, 33, [1, 64, 64], true),
    ] {
        let (times, mut until) = histories_in_time(&mut random, &[0, events]);
        until[events - 1] = times[events - 1] + random.below(1_000_000) as f64;
        let [q, own_k] = [0; 2].map(|_| random.normals(candidates * heads * dim));
        let own_v = random.normals(candidates * heads * value_dim);
        let (k, v) = (random.normals(events * heads * dim), random.normals(events * heads * value_dim));
        let bias = PairBias {
            positions: tensor(random.normals(2 * 300 - 1), &[599]),
            times: timed.then(|| tensor(random.normals(TIME_BUCKETS), &[TIME_BUCKETS])),
        };
        let attention = SiluAttention { heads, bias, divisor: 300.0 };
        // Each candidate after a copy of the history, at the time of the question.
        let repeated = |past: &[f32], own: &[f32], cols: usize| {
            let rows = own.chunks(cols).flat_map(|own| past.iter().chain(own).copied()).collect::<Vec<f32>>();
            Matrix::from_slice(&rows, cols)
        };
        let at = until[events - 1];
        let all = |of: &[f64]| of.iter().chain(&[at]).copied().collect::<Vec<f64>>().repeat(candidates);
        let (all_times, all_until) = (all(&times), all(&until));
        let all_offsets = offsets(&vec![events + 1; candidates]);
        let whole = Sequences { offsets: &all_offsets, times: &all_times, until: &all_until, ..Sequences::default() };
        let batch = Sequences { offsets: &[0, events], times: &times, until: &until, ..Sequences::default() };
        for cpu in cpus() {
            let [keys, values] = [repeated(&k, &own_k, heads * dim), repeated(&v, &own_v, heads * value_dim)];
            let q = Matrix::from_slice(&q, heads * dim);
            let wanted = cpu.silu_attention(&q, &keys, &values, &attention, &whole, Rows::Last);
            let wanted: Vec<f64> = wanted.as_slice().iter().map(|&x| f64::from(x)).collect();
            let [k, own_k] = [&k, &own_k].map(|x| Matrix::from_slice(x, heads * dim));
            let [v, own_v] = [&v, &own_v].map(|x| Matrix::from_slice(x, heads * value_dim));
            let found = cpu.silu_candidates(&q, [&own_k, &own_v], [&k, &v], &attention, &batch);
            let error = relative_error(found.as_slice(), &wanted);
            assert!(error < TOLERANCE, "{:?} {candidates} after {events}: {error}", cpu.isa());
        }
    }
}

#[test]
fn rows_are_added_and_taken_away_below() {
    let cpu = Cpu::new();
    let mut random = Random::new();
    let mut wanted: Vec<f32> = Vec::new();
    let mut x = Matrix::zeros(0, 7);
    for rows in [1, 0, 30, 3, 500] {
        let more = random.normals(rows * 7);
        cpu.append(&mut x, &Matrix::from_slice(&more, 7));
        wanted.extend(more);
        assert_eq!(x.as_slice(), wanted);
        let kept = x.rows().saturating_sub(1);
        cpu.truncate(&mut x, kept);
        wanted.truncate(wanted.len() - 7);
        assert_eq!(x.as_slice(), wanted);
        assert!(cpu.bytes(&x) >= 4 * wanted.len());
    }
}

#[test]
fn attention_with_folded_projections_is_attention_after_them() {
    let mut random = Random::new();
    let offsets = offsets(&[1, 31, 200, 32, 33, 2]);
    let events = *offsets.last().unwrap();
    for cpu in cpus() {
        for (inputs, dim, heads) in [(64, 64, 1), (64, 64, 4), (50, 50, 2), (33, 96, 3), (7, 8, 8)] {
            let x = Matrix::from_slice(&random.normals(events * inputs), inputs);
            let [key, value] = [0; 2].map(|_| Linear {
                weight: tensor(random.normals(inputs * dim), &[inputs, dim]),
                bias: Some(tensor(random.normals(dim), &[dim])),
            });
            let batch = sequences(&offsets);
            let q: Vec<f32> = random.normals(batch.len() * dim).into_iter().map(|x| 0.2 * x).collect();
            let q = Matrix::from_slice(&q, dim);
            let [k, v] = [&key, &value].map(|layer| cpu.linear(&x, layer, Activation::Identity));
            let wanted = cpu.attention(&q, &k, &v, heads, &batch, Rows::Last);
            let wanted: Vec<f64> = wanted.as_slice().iter().map(|&x| f64::from(x)).collect();
            let folded = cpu.last_attention(&q, &x, &key, &value, heads, &batch);
            let error = relative_error(folded.as_slice(), &wanted);
            assert!(error < TOLERANCE, "{:?} {inputs} to {dim}, {heads} heads: {error}", cpu.isa());
        }
    }
}

#[test]
fn attention_over_8192_events_is_right_and_needs_no_square_matrix() {
    let mut random = Random::new();
    let (n, dim) = (8192, 16);
    let [q, k, v] = [0; 3].map(|_| random.normals(n * dim));
    let cpu = Cpu::new();
    let offsets = [0, n];
    let [mq, mk, mv] = [&q, &k, &v].map(|x| Matrix::from_slice(x, dim));
    let out = cpu.attention(&mq, &mk, &mv, 2, &sequences(&offsets), Rows::All);
    for i in [0, 1, 4095, 8190, 8191, random.below(n), random.below(n)] {
        let wanted = reference::attention_row(&q[i * dim..(i + 1) * dim], &k, &v, 2, i + 1);
        let error = relative_error(out.row(i), &wanted);
        assert!(error < TOLERANCE, "row {i}: {error}");
    }
}

#[test]
fn attention_with_very_different_scores_stays_finite() {
    let mut random = Random::new();
    let (n, dim) = (70, 32);
    let q: Vec<f32> = random.normals(n * dim).into_iter().map(|x| 100.0 * x).collect();
    let [k, v] = [0; 2].map(|_| random.normals(n * dim));
    for cpu in cpus() {
        let [mq, mk, mv] = [&q, &k, &v].map(|x| Matrix::from_slice(x, dim));
        let out = cpu.attention(&mq, &mk, &mv, 1, &sequences(&[0, n]), Rows::All);
        let wanted: Vec<f64> =
            (0..n).flat_map(|i| reference::attention_row(&q[i * dim..(i + 1) * dim], &k, &v, 1, i + 1)).collect();
        // The scores themselves have f32 precision: hundreds, within 1e-5, go through an exponential.
        assert!(relative_error(out.as_slice(), &wanted) < 1e-3, "{:?}", cpu.isa());
    }
}

/// A forward pass through all operators that can mix rows.
fn forward(cpu: Cpu, weights: &[Linear; 4], items: &Tensor, ids: &[u32], offsets: &[usize]) -> Matrix {
    let positions: Vec<u32> = offsets.windows(2).flat_map(|w| 0..(w[1] - w[0]) as u32).collect();
    let batch = Sequences { items: ids, positions: &positions, offsets, ..Sequences::default() };
    let norm = LayerNorm { weight: None, bias: None, eps: 1e-6 };
    let x = cpu.embed(items, items, 8.0, &batch);
    let n = cpu.layer_norm(&x, &norm);
    let [q, k, v] = [0, 1, 2].map(|l| cpu.linear(&n, &weights[l], Activation::Gelu));
    let mut a = cpu.attention(&q, &k, &v, 2, &batch, Rows::All);
    cpu.add(&mut a, &x);
    cpu.last_rows(&cpu.linear(&a, &weights[3], Activation::Silu), &batch)
}

#[test]
fn a_history_gives_the_same_bits_alone_and_in_any_batch() {
    let mut random = Random::new();
    let (dim, catalogue) = (50, 300);
    let items = tensor(random.normals(catalogue * dim), &[catalogue, dim]);
    let weights = [0; 4].map(|_| Linear {
        weight: tensor(random.normals(dim * dim), &[dim, dim]),
        bias: Some(tensor(random.normals(dim), &[dim])),
    });
    let lengths: Vec<usize> = (0..60).map(|_| 1 + random.below(40)).collect();
    let offsets = offsets(&lengths);
    let ids: Vec<u32> = (0..*offsets.last().unwrap()).map(|_| random.below(catalogue) as u32).collect();
    for cpu in cpus() {
        let together = forward(cpu, &weights, &items, &ids, &offsets);
        let k = vec![10; lengths.len()];
        let filters = vec![Filter::default(); lengths.len()];
        let lists = cpu.top_k(together.as_slice(), &items, &k, &filters).unwrap();
        for (user, w) in offsets.windows(2).enumerate() {
            let alone = forward(cpu, &weights, &items, &ids[w[0]..w[1]], &[0, w[1] - w[0]]);
            assert_eq!(alone.as_slice(), together.row(user), "{:?} history {user}", cpu.isa());
            let list = cpu.top_k(alone.as_slice(), &items, &[10], &[Filter::default()]).unwrap();
            assert_eq!(list[0], lists[user], "{:?} list {user}", cpu.isa());
            let rows: Vec<u32> = list[0].iter().map(|s| s.item).collect();
            let scores = cpu.scores(alone.as_slice(), &items, &rows).unwrap();
            assert!(scores.iter().zip(&list[0]).all(|(a, b)| *a == b.score), "{:?} scores {user}", cpu.isa());
        }
    }
}

#[test]
fn top_k_is_the_sorted_list_under_every_filter() {
    let mut random = Random::new();
    for cpu in cpus() {
        for (rows, dim) in [(0, 5), (1, 1), (2, 64), (33, 7), (100, 50), (700, 64), (701, 13)] {
            // Small whole numbers make ties.
            let items: Vec<f32> = random.normals(rows * dim).into_iter().map(f32::round).collect();
            let mut items = tensor(items, &[rows, dim]);
            if rows > 50 {
                let mut values = items.as_slice().to_vec();
                values[40 * dim] = f32::NAN;
                items = tensor(values, &[rows, dim]);
            }
            for count in [1, 2, 20, 40] {
                let queries: Vec<f32> = random.normals(count * dim).into_iter().map(f32::round).collect();
                let k: Vec<usize> = (0..count).map(|q| [0, 1, 10, rows, rows + 5, usize::MAX][q % 6]).collect();
                let some = |random: &mut Random, part: usize| -> Vec<u32> {
                    (0..rows as u32).filter(|_| random.below(part) == 0).collect()
                };
                let excluded: Vec<Vec<u32>> = (0..count).map(|q| some(&mut random, 1 + q % 4)).collect();
                let candidates: Vec<Vec<u32>> = (0..count).map(|_| some(&mut random, 2)).collect();
                let filters: Vec<Filter<'_>> = (0..count)
                    .map(|q| Filter {
                        exclude: if q % 3 == 0 { &[] } else { &excluded[q] },
                        candidates: (q % 5 == 4).then_some(candidates[q].as_slice()),
                    })
                    .collect();
                let lists = cpu.top_k(&queries, &items, &k, &filters).unwrap();
                let all: Vec<u32> = (0..rows as u32).collect();
                for q in 0..count {
                    let query = &queries[q * dim..(q + 1) * dim];
                    let scores = cpu.scores(query, &items, &all).unwrap();
                    for (row, &score) in scores.iter().enumerate() {
                        let dot: f64 = query.iter().zip(items.row(row)).map(|(a, b)| f64::from(a * b)).sum();
                        assert!(score.is_nan() || (f64::from(score) - dot).abs() < 1e-6);
                    }
                    let allowed = |item: u32| {
                        filters[q].exclude.binary_search(&item).is_err()
                            && filters[q].candidates.is_none_or(|all| all.contains(&item))
                    };
                    let wanted = reference::ranking(&scores, allowed, k[q]);
                    assert_eq!(lists[q], wanted, "{:?} {rows}×{dim}, query {q} of {count}", cpu.isa());
                }
            }
        }
    }
}

#[test]
fn infinite_scores_are_ranked_and_nan_queries_find_nothing() {
    for cpu in cpus() {
        let items = tensor(vec![f32::NEG_INFINITY, 1.0, f32::INFINITY, f32::NAN, -3e38], &[5, 1]);
        for repeats in [1, 40] {
            let lists =
                cpu.top_k(&vec![2.0; repeats], &items, &vec![9; repeats], &vec![Filter::default(); repeats]).unwrap();
            for list in lists {
                assert_eq!(list.iter().map(|s| s.item).collect::<Vec<_>>(), [2, 1, 0, 4], "{:?}", cpu.isa());
            }
            let nan = vec![f32::NAN; repeats];
            let lists = cpu.top_k(&nan, &items, &vec![9; repeats], &vec![Filter::default(); repeats]).unwrap();
            assert!(lists.iter().all(Vec::is_empty), "{:?}", cpu.isa());
        }
    }
}

#[test]
fn candidates_beyond_the_catalogue_are_ignored() {
    let items = tensor(vec![1.0, 2.0, 3.0], &[3, 1]);
    for cpu in cpus() {
        let filter = Filter { exclude: &[1], candidates: Some(&[0, 1, 7, u32::MAX]) };
        let lists = cpu.top_k(&[1.0], &items, &[10], &[filter]).unwrap();
        assert_eq!(lists, [[Scored { item: 0, score: 1.0 }]], "{:?}", cpu.isa());
    }
}

#[test]
fn an_empty_batch_is_an_empty_matrix() {
    for cpu in cpus() {
        let items = tensor(vec![1.0; 8], &[2, 4]);
        let batch = Sequences::default();
        let x = cpu.embed(&items, &items, 1.0, &batch);
        let a = cpu.attention(&x, &x, &x, 2, &batch, Rows::Last);
        assert_eq!((a.rows(), cpu.last_rows(&a, &batch).rows()), (0, 0));
        assert!(cpu.top_k(&[], &items, &[], &[]).unwrap().is_empty());
        assert!(cpu.scores(&[0.0; 4], &items, &[]).unwrap().is_empty());
    }
}
