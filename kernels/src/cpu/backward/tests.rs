//! Every derivative, with every instruction set of this processor, against finite differences in double precision.

use super::super::noise::{Stream, growth};
use super::super::reference::{self, Random, relative_error};
use super::super::tests::{cpus, offsets, sequences, tensor};
use super::*;
use crate::{Operators, Tensor};

const TOLERANCE: f64 = 1e-4;
const ACTIVATIONS: [Activation; 4] = [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::Silu];

/// Some numbers of each input, and the finite differences of a loss by them.
struct Differences {
    samples: Vec<Vec<usize>>,
    wanted: Vec<Vec<f64>>,
}

impl Differences {
    fn new(random: &mut Random, inputs: &[&[f32]], count: usize, loss: impl Fn(&[Vec<f64>]) -> f64) -> Self {
        const STEP: f64 = 1e-5;
        let mut inputs: Vec<Vec<f64>> =
            inputs.iter().map(|input| input.iter().map(|&x| f64::from(x)).collect()).collect();
        let samples: Vec<Vec<usize>> = inputs
            .iter()
            .map(|input| match input.len() {
                len if len <= count => (0..len).collect(),
                len => (0..count).map(|_| random.below(len)).collect(),
            })
            .collect();
        let mut wanted = Vec::new();
        for (i, sample) in samples.iter().enumerate() {
            let mut slope = |at: usize| {
                let x = inputs[i][at];
                let mut at_distance = |step: f64| {
                    inputs[i][at] = x + step;
                    loss(&inputs)
                };
                let slope = (at_distance(STEP) - at_distance(-STEP)) / (2.0 * STEP);
                inputs[i][at] = x;
                slope
            };
            wanted.push(sample.iter().map(|&at| slope(at)).collect());
        }
        Self { samples, wanted }
    }

    fn check(&self, derivatives: &[&[f32]], case: &str) {
        assert_eq!(derivatives.len(), self.samples.len());
        for (i, derivative) in derivatives.iter().enumerate() {
            let (mut distance, mut norm) = (0.0, 0.0);
            for (&at, wanted) in self.samples[i].iter().zip(&self.wanted[i]) {
                distance += (f64::from(derivative[at]) - wanted).powi(2);
                norm += wanted * wanted;
            }
            // Some derivatives are 0, such as that of the softmax of one number.
            let floor = 0.03 * (self.samples[i].len() as f64).sqrt();
            let error = distance.sqrt() / norm.sqrt().max(floor);
            assert!(error < TOLERANCE, "{case}, derivative {i}: {error}");
        }
    }
}

fn inner(x: &[f64], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, &y)| x * f64::from(y)).sum()
}

/// Accumulators begin with other numbers than zero, which must still be there.
struct Accumulator {
    before: Vec<f32>,
    matrix: Matrix,
}

impl Accumulator {
    fn new(random: &mut Random, rows: usize, cols: usize) -> Self {
        let before = random.normals(rows * cols);
        Self { matrix: Matrix::from_slice(&before, cols), before }
    }

    fn added(&self) -> Vec<f32> {
        self.matrix.as_slice().iter().zip(&self.before).map(|(x, before)| x - before).collect()
    }
}

#[test]
fn linear_layers_pass_derivatives_back_in_every_tail() {
    let mut random = Random::new();
    for [m, k, n] in [[1, 1, 1], [3, 2, 5], [13, 50, 50], [31, 33, 17], [200, 64, 64], [70, 25, 100], [1100, 9, 40]] {
        let [x, dy] = [k, n].map(|cols| random.normals(m * cols));
        let (weight, bias) = (random.normals(k * n), random.normals(n));
        let differences = Differences::new(&mut random, &[&x, &weight, &bias], 12, |at| {
            inner(&reference::linear(&at[0], &at[1], Some(&at[2]), [m, k, n], Activation::Identity), &dy)
        });
        let layer = Linear { weight: tensor(weight, &[k, n]), bias: Some(tensor(bias, &[n])) };
        for cpu in cpus() {
            let mut dweight = Accumulator::new(&mut random, k, n);
            let mut dbias = Accumulator::new(&mut random, 1, n);
            let (x, dy) = (Matrix::from_slice(&x, k), Matrix::from_slice(&dy, n));
            let dx = cpu.linear_backward(&x, &layer, &dy, &mut dweight.matrix, Some(&mut dbias.matrix));
            let case = format!("{:?} {m}×{k}×{n}", cpu.isa());
            differences.check(&[dx.as_slice(), &dweight.added(), &dbias.added()], &case);
            let without = cpu.linear_backward(&x, &layer, &dy, &mut dweight.matrix, None);
            assert_eq!(without.as_slice(), dx.as_slice());
        }
    }
}

#[test]
fn layer_norms_pass_derivatives_back() {
    let mut random = Random::new();
    let rows = 9;
    for dim in [2, 3, 7, 16, 25, 33, 50, 64, 200] {
        let x: Vec<f32> = random.normals(rows * dim).into_iter().map(|x| 2.0 * x + 1.0).collect();
        let dy = random.normals(rows * dim);
        let (weight, bias) = (random.normals(dim), random.normals(dim));
        let affine = Differences::new(&mut random, &[&x, &weight, &bias], 20, |at| {
            inner(&reference::layer_norm(&at[0], dim, Some(&at[1]), Some(&at[2]), 1e-2), &dy)
        });
        let plain = Differences::new(&mut random, &[&x], 20, |at| {
            inner(&reference::layer_norm(&at[0], dim, None, None, 1e-2), &dy)
        });
        let mut norm = LayerNorm { weight: Some(tensor(weight, &[dim])), bias: Some(tensor(bias, &[dim])), eps: 1e-2 };
        let (x, dy) = (Matrix::from_slice(&x, dim), Matrix::from_slice(&dy, dim));
        for cpu in cpus() {
            let case = format!("{:?} dim {dim}", cpu.isa());
            let mut dweight = Accumulator::new(&mut random, 1, dim);
            let mut dbias = Accumulator::new(&mut random, 1, dim);
            let dx = cpu.layer_norm_backward(&x, &norm, &dy, Some(&mut dweight.matrix), Some(&mut dbias.matrix));
            affine.check(&[dx.as_slice(), &dweight.added(), &dbias.added()], &case);
        }
        (norm.weight, norm.bias) = (None, None);
        for cpu in cpus() {
            let dx = cpu.layer_norm_backward(&x, &norm, &dy, None, None);
            plain.check(&[dx.as_slice()], &format!("{:?} dim {dim}, no weight", cpu.isa()));
        }
    }
}

#[test]
fn activations_pass_derivatives_back() {
    let mut random = Random::new();
    // Not at the bend of the ReLU, where the two sides differ.
    let away = |x: f32| if x.abs() < 1e-3 { 0.5 } else { 2.0 * x };
    for cols in [1, 7, 16, 64, 100] {
        let x: Vec<f32> = random.normals(5 * cols).into_iter().map(away).collect();
        let dy = random.normals(5 * cols);
        for activation in ACTIVATIONS {
            let value = |x: &[f64]| x.iter().map(|&x| reference::activate_f64(x, activation)).collect::<Vec<_>>();
            let differences = Differences::new(&mut random, &[&x], 500, |at| inner(&value(&at[0]), &dy));
            for cpu in cpus() {
                let case = format!("{:?} {activation:?} of {cols}", cpu.isa());
                let (x, mut dx) = (Matrix::from_slice(&x, cols), Matrix::from_slice(&dy, cols));
                let y = cpu.activate(&x, activation);
                let wanted = value(&x.as_slice().iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
                assert!(relative_error(y.as_slice(), &wanted) < 1e-5, "{case}");
                cpu.activate_backward(&x, activation, &mut dx);
                differences.check(&[dx.as_slice()], &case);
            }
        }
    }
}

#[test]
fn slopes_of_activations_are_0_and_1_far_from_the_middle() {
    let x = [-3e38, -1e4, -200.0, 200.0, 1e4, 3e38];
    for cpu in cpus() {
        for activation in [Activation::Relu, Activation::Gelu, Activation::Silu] {
            let mut dy = Matrix::from_slice(&[1.0; 6], 6);
            cpu.activate_backward(&Matrix::from_slice(&x, 6), activation, &mut dy);
            for (slope, wanted) in dy.as_slice().iter().zip([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]) {
                assert!((slope - wanted).abs() < 1e-6, "{:?} {activation:?} {dy:?}", cpu.isa());
            }
        }
    }
}

/// Attention of all rows in double precision, after the dropout of `noise`.
fn attention_f64(
    [q, k, v]: [&[f64]; 3],
    dim: usize,
    heads: usize,
    offsets: &[usize],
    noise: Option<Noise<'_>>,
) -> Vec<f64> {
    let mut out = Vec::new();
    for (history, w) in offsets.windows(2).enumerate() {
        let len = w[1] - w[0];
        for i in 0..len {
            let mask = |head: usize, key: usize| match &noise {
                None => 1.0,
                Some(noise) => {
                    let stays = Stream::new(noise, history).keeps(((head * len + i) * len + key) as u32);
                    if stays { f64::from(growth(noise)) } else { 0.0 }
                }
            };
            let (row, events) = ((w[0] + i) * dim..(w[0] + i + 1) * dim, w[0] * dim..w[1] * dim);
            let (k, v) = (&k[events.clone()], &v[events]);
            out.extend(reference::masked_attention_row(&q[row], k, v, heads, i + 1, mask));
        }
    }
    out
}

#[test]
fn attention_passes_derivatives_back_at_every_length_and_head_width() {
    let mut random = Random::new();
    let cases: [(&[usize], usize, usize, f32, usize); 9] = [
        (&[1], 8, 1, 0.0, 8),
        (&[1, 0, 13, 50, 2], 64, 1, 0.0, 10),
        (&[1, 0, 13, 50, 2], 64, 1, 0.5, 10),
        (&[31, 0, 49, 1], 50, 2, 0.2, 10),
        (&[17, 33], 50, 1, 0.0, 10),
        (&[12, 48, 16], 33, 1, 0.1, 10),
        (&[47, 5], 96, 3, 0.3, 6),
        (&[300], 16, 2, 0.0, 4),
        (&[3, 290], 8, 1, 0.4, 4),
    ];
    for (lengths, dim, heads, rate, samples) in cases {
        let offsets = offsets(lengths);
        let events = *offsets.last().unwrap();
        let [q, k, v, dout] = [0; 4].map(|_| random.normals(events * dim));
        let keys: Vec<u64> = lengths.iter().map(|_| random.next()).collect();
        let noise = Some(Noise { keys: &keys, site: 3, rate });
        let forward = |x: [&[f64]; 3]| attention_f64(x, dim, heads, &offsets, noise.filter(|n| n.rate > 0.0));
        let differences = Differences::new(&mut random, &[&q, &k, &v], samples, |at| {
            inner(&forward([&at[0], &at[1], &at[2]]), &dout)
        });
        let double = [&q, &k, &v].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let wanted = forward([&double[0], &double[1], &double[2]]);
        let [q, k, v, dout] = [&q, &k, &v, &dout].map(|x| Matrix::from_slice(x, dim));
        for cpu in cpus() {
            let case = format!("{:?} lengths {lengths:?} dim {dim} heads {heads} rate {rate}", cpu.isa());
            let batch = sequences(&offsets);
            let (out, lse) = cpu.attention_forward(&q, &k, &v, heads, &batch, noise);
            assert!(relative_error(out.as_slice(), &wanted) < 1e-5, "{case}");
            let [dq, dk, dv] = cpu.attention_backward(&q, &k, &v, &out, &lse, &dout, heads, &batch, noise);
            differences.check(&[dq.as_slice(), dk.as_slice(), dv.as_slice()], &case);
        }
    }
}

#[test]
fn attention_without_dropout_is_the_attention_that_serves() {
    let mut random = Random::new();
    let offsets = offsets(&[1, 0, 200, 31]);
    let keys = [1, 2, 3, 4];
    for cpu in cpus() {
        for (dim, heads) in [(64, 1), (50, 2)] {
            let [q, k, v] = [0; 3].map(|_| Matrix::from_slice(&random.normals(232 * dim), dim));
            let batch = sequences(&offsets);
            let served = cpu.attention(&q, &k, &v, heads, &batch, crate::Rows::All);
            for noise in [None, Some(Noise { keys: &keys, site: 0, rate: 0.0 })] {
                let (out, lse) = cpu.attention_forward(&q, &k, &v, heads, &batch, noise);
                assert_eq!(out.as_slice(), served.as_slice(), "{:?}", cpu.isa());
                assert_eq!((lse.rows(), lse.cols()), (232, heads));
            }
        }
    }
}

#[test]
fn embeddings_pass_derivatives_back_to_every_row_they_read() {
    let mut random = Random::new();
    for dim in [1, 7, 50, 64] {
        let (items, positions) = (random.normals(20 * dim), random.normals(9 * dim));
        let ids: Vec<u32> = (0..40).map(|_| random.below(20) as u32).collect();
        let places: Vec<u32> = (0..40).map(|_| random.below(9) as u32).collect();
        let batch = Sequences { items: &ids, positions: &places, offsets: &[0, 40] };
        let dy = random.normals(40 * dim);
        let differences = Differences::new(&mut random, &[&items, &positions], 60, |at| {
            let row = |e: usize, c: usize| 1.7 * at[0][ids[e] as usize * dim + c] + at[1][places[e] as usize * dim + c];
            inner(&(0..40 * dim).map(|n| row(n / dim, n % dim)).collect::<Vec<_>>(), &dy)
        });
        for cpu in cpus() {
            let (mut dense, mut sparse) = (TableGradient::dense(20, dim), TableGradient::sparse(20, dim));
            let mut dpositions = Accumulator::new(&mut random, 9, dim);
            let dy = Matrix::from_slice(&dy, dim);
            cpu.embed_backward(&dy, 1.7, &batch, &mut dense, &mut dpositions.matrix);
            differences.check(&[dense.values(), &dpositions.added()], &format!("{:?} dim {dim}", cpu.isa()));
            cpu.embed_backward(&dy, 1.7, &batch, &mut sparse, &mut dpositions.matrix);
            for id in sparse.ids().unwrap().to_vec() {
                assert_eq!(dense.row_mut(id), sparse.row_mut(id));
            }
        }
    }
}

#[test]
fn rows_of_length_1_pass_derivatives_back() {
    let mut random = Random::new();
    for dim in [1, 3, 16, 25, 64] {
        let (mut x, dy) = (random.normals(6 * dim), random.normals(6 * dim));
        // Neither a row of zeros nor one at the bend where rows become too short.
        x[..dim].fill(0.0);
        x[dim..2 * dim].iter_mut().for_each(|x| *x *= 1e-9);
        x[2 * dim..].iter_mut().for_each(|x| *x += 0.5_f32.copysign(*x));
        let normalized = |x: &[f64]| -> Vec<f64> {
            x.chunks(dim)
                .flat_map(|row| {
                    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-6);
                    row.iter().map(move |x| x / length)
                })
                .collect()
        };
        let long = 2 * dim;
        let differences =
            Differences::new(&mut random, &[&x[long..]], 50, |at| inner(&normalized(&at[0]), &dy[long..]));
        let wanted = normalized(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        for cpu in cpus() {
            let (x, dy) = (Matrix::from_slice(&x, dim), Matrix::from_slice(&dy, dim));
            assert!(relative_error(cpu.l2_normalize(&x).as_slice(), &wanted) < 1e-5);
            let dx = cpu.l2_normalize_backward(&x, &dy);
            differences.check(&[&dx.as_slice()[long..]], &format!("{:?} dim {dim}", cpu.isa()));
            for (dx, dy) in dx.as_slice()[..long].iter().zip(dy.as_slice()) {
                assert!((dx - 1e6 * dy).abs() <= 1.0 + dy.abs(), "short rows are multiples of x: {dx} for {dy}");
            }
        }
    }
}

#[test]
fn last_rows_pass_derivatives_back_to_where_they_were() {
    let mut random = Random::new();
    let offsets = offsets(&[1, 3, 2]);
    let dy = random.normals(3 * 5);
    for cpu in cpus() {
        let dx = cpu.last_rows_backward(&Matrix::from_slice(&dy, 5), &sequences(&offsets));
        for (row, of) in (0..6).zip([Some(0), None, None, Some(1), None, Some(2)]) {
            let wanted = of.map_or(vec![0.0; 5], |n: usize| dy[n * 5..(n + 1) * 5].to_vec());
            assert_eq!(dx.row(row), wanted);
        }
    }
}

/// The dropout of ones.
fn mask(cpu: Cpu, rows: usize, cols: usize, noise: Noise<'_>) -> Matrix {
    let mut x = Matrix::from_slice(&vec![1.0; rows * cols], cols);
    cpu.drop_out(&mut x, &sequences(&[0, rows]), noise);
    x
}

#[test]
fn the_same_numbers_fall_away_with_every_instruction_set() {
    let mut random = Random::new();
    for (rows, cols, rate) in [(1, 1, 0.5), (13, 50, 0.2), (200, 64, 0.5), (7, 25, 0.9), (3, 3, 0.0)] {
        let noise = Noise { keys: &[random.next()], site: 7, rate };
        let stream = Stream::new(&noise, 0);
        let wanted: Vec<f32> =
            (0..(rows * cols) as u32).map(|n| if stream.keeps(n) { growth(&noise) } else { 0.0 }).collect();
        for cpu in cpus() {
            assert_eq!(mask(cpu, rows, cols, noise).as_slice(), wanted, "{:?} {rows}×{cols}", cpu.isa());
        }
        if rate == 0.0 {
            assert!(wanted.iter().all(|&x| x == 1.0));
        }
    }
}

#[test]
fn dropout_decides_by_the_rate_and_by_nothing_else() {
    let mut random = Random::new();
    let (rows, cols) = (4096, 64);
    let count = (rows * cols) as f64;
    let cpu = Cpu::new();
    for rate in [0.1f32, 0.2, 0.5, 0.75] {
        // Keys and sites in a row, as a caller might number them.
        let key = random.next() >> 40;
        let kept = |key: u64, site| -> Vec<f64> {
            let mask = mask(cpu, rows, cols, Noise { keys: &[key], site, rate });
            let centre = 1.0 - f64::from(rate);
            mask.as_slice().iter().map(|&x| f64::from(u8::from(x != 0.0)) - centre).collect()
        };
        let base = kept(key, 0);
        let variance = f64::from(rate) * f64::from(1.0 - rate);
        let mean = base.iter().sum::<f64>() / count;
        assert!(mean.abs() < 5.0 * (variance / count).sqrt(), "rate {rate}: off by {mean}");
        let correlation = |other: &[f64]| base.iter().zip(other).map(|(a, b)| a * b).sum::<f64>() / variance;
        let mut others = vec![kept(key + 1, 0), kept(key, 1), kept(key + 1, 1), kept(key ^ 1 << 32, 0)];
        others.extend([1, 2, 16, cols - 1, cols, cols + 1, 2 * cols, 1024].map(|lag| base[lag..].to_vec()));
        for (n, other) in others.iter().enumerate() {
            let deviations = correlation(other) / count.sqrt();
            assert!(deviations.abs() < 5.5, "rate {rate}, comparison {n}: {deviations} standard deviations");
        }
    }
}

/// All operators that could mix histories, forth and back: the derivatives of the embedded rows.
fn there_and_back(cpu: Cpu, x: &Matrix, layer: &Linear, dy: &Matrix, offsets: &[usize], keys: &[u64]) -> Matrix {
    let (batch, noise) = (sequences(offsets), |site| Noise { keys, site, rate: 0.3 });
    let norm = LayerNorm { weight: None, bias: None, eps: 1e-6 };
    let mut normal = cpu.layer_norm(x, &norm);
    cpu.drop_out(&mut normal, &batch, noise(0));
    let y = cpu.linear(&normal, layer, Activation::Identity);
    let (out, lse) = cpu.attention_forward(&y, &y, &y, 2, &batch, Some(noise(1)));
    let a = cpu.activate(&out, Activation::Gelu);
    let mut da = cpu.l2_normalize_backward(&a, dy);
    cpu.activate_backward(&out, Activation::Gelu, &mut da);
    let [mut d, dk, dv] = cpu.attention_backward(&y, &y, &y, &out, &lse, &da, 2, &batch, Some(noise(1)));
    cpu.add(&mut d, &dk);
    cpu.add(&mut d, &dv);
    let mut dweight = cpu.zeros(x.cols(), x.cols());
    let mut d = cpu.linear_backward(&normal, layer, &d, &mut dweight, None);
    cpu.drop_out(&mut d, &batch, noise(0));
    cpu.layer_norm_backward(x, &norm, &d, None, None)
}

#[test]
fn a_history_gives_the_same_derivatives_alone_and_in_any_batch() {
    let mut random = Random::new();
    let dim = 50;
    let lengths: Vec<usize> = (0..20).map(|_| random.below(70)).collect();
    let offsets = offsets(&lengths);
    let events = *offsets.last().unwrap();
    let (x, dy) = (random.normals(events * dim), random.normals(events * dim));
    let keys: Vec<u64> = lengths.iter().map(|_| random.next()).collect();
    let layer = Linear { weight: tensor(random.normals(dim * dim), &[dim, dim]), bias: None::<Tensor> };
    for cpu in cpus() {
        let part = |x: &[f32], w: &[usize]| Matrix::from_slice(&x[w[0] * dim..w[1] * dim], dim);
        let all = [0, events];
        let together = there_and_back(cpu, &part(&x, &all), &layer, &part(&dy, &all), &offsets, &keys);
        for (history, w) in offsets.windows(2).enumerate() {
            let own = [0, w[1] - w[0]];
            let alone = there_and_back(cpu, &part(&x, w), &layer, &part(&dy, w), &own, &keys[history..=history]);
            let wanted = &together.as_slice()[w[0] * dim..w[1] * dim];
            assert_eq!(alone.as_slice(), wanted, "{:?} history {history}", cpu.isa());
        }
    }
}

#[test]
fn derivatives_by_weights_are_the_same_bits_in_every_run() {
    let mut random = Random::new();
    let (x, dy) = (random.normals(300 * 50), random.normals(300 * 50));
    let layer = Linear { weight: tensor(random.normals(2500), &[50, 50]), bias: None };
    let norm = LayerNorm { weight: Some(tensor(random.normals(50), &[50])), bias: None, eps: 1e-8 };
    for cpu in cpus() {
        let run = || {
            let (x, dy) = (Matrix::from_slice(&x, 50), Matrix::from_slice(&dy, 50));
            let [mut a, mut b, mut c] = [50, 1, 1].map(|rows| cpu.zeros(rows, 50));
            cpu.linear_backward(&x, &layer, &dy, &mut a, Some(&mut b));
            cpu.layer_norm_backward(&x, &norm, &dy, Some(&mut c), Some(&mut b));
            [a, b, c].map(|x| x.as_slice().to_vec())
        };
        assert_eq!(run(), run(), "{:?}", cpu.isa());
    }
}

#[test]
fn an_empty_batch_has_empty_derivatives() {
    let layer = Linear { weight: tensor(vec![1.0; 16], &[4, 4]), bias: None };
    let batch = Sequences { items: &[], positions: &[], offsets: &[] };
    let noise = Noise { keys: &[], site: 0, rate: 0.5 };
    for cpu in cpus() {
        let mut x = Matrix::zeros(0, 4);
        cpu.drop_out(&mut x, &batch, noise);
        let (out, lse) = cpu.attention_forward(&x, &x, &x, 2, &batch, Some(noise));
        let [dq, _, _] = cpu.attention_backward(&x, &x, &x, &out, &lse, &x, 2, &batch, Some(noise));
        let mut dweight = cpu.zeros(4, 4);
        let dx = cpu.linear_backward(&dq, &layer, &x, &mut dweight, None);
        assert_eq!((dx.rows(), cpu.last_rows_backward(&dx, &batch).rows()), (0, 0));
        assert!(dweight.as_slice().iter().all(|&x| x == 0.0));
    }
}
