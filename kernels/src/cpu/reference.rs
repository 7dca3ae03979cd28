//! The operators in double precision, written as their formulas.

use crate::{Activation, Scored, Sequences, time_bucket};

/// Φ by the series of erf for small |x| and the continued fraction of erfc beyond.
fn normal_cdf(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    if z.abs() < 2.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 0.5 + sum / std::f64::consts::PI.sqrt();
    }
    let mut fraction = 0.0;
    for n in (1..400).rev() {
        fraction = f64::from(n) / 2.0 / (z.abs() + fraction);
    }
    let tail = 0.5 * (-z * z).exp() / std::f64::consts::PI.sqrt() / (z.abs() + fraction);
    if z < 0.0 { tail } else { 1.0 - tail }
}

pub(crate) fn gelu_f64(x: f64) -> f64 {
    x * normal_cdf(x)
}

pub(crate) fn silu_f64(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub(crate) fn activate_f64(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => gelu_f64(x),
        Activation::Silu => silu_f64(x),
    }
}

/// A number of the operators, or one that a finite difference has changed by less than they could see.
pub(crate) trait Number: Copy + Into<f64> {}
impl Number for f32 {}
impl Number for f64 {}

pub(crate) fn linear<T: Number>(
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    [m, k, n]: [usize; 3],
    activation: Activation,
) -> Vec<f64> {
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|p| x[i * k + p].into() * weight[p * n + j].into()).sum();
            let sum = sum + bias.map_or(0.0, |bias| bias[j].into());
            out.push(activate_f64(sum, activation));
        }
    }
    out
}

pub(crate) fn layer_norm<T: Number>(
    x: &[T],
    dim: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f32,
) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks(dim) {
        let row: Vec<f64> = row.iter().map(|&x| x.into()).collect();
        let mean = row.iter().sum::<f64>() / dim as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / dim as f64;
        out.extend(row.iter().enumerate().map(|(j, x)| {
            let y = (x - mean) / (variance + f64::from(eps)).sqrt();
            y * weight.map_or(1.0, |w| w[j].into()) + bias.map_or(0.0, |b| b[j].into())
        }));
    }
    out
}

/// One query row of one history against its first `known` events.
pub(crate) fn attention_row<T: Number>(q: &[T], k: &[T], v: &[T], heads: usize, known: usize) -> Vec<f64> {
    masked_attention_row(q, k, v, heads, known, |_, _| 1.0)
}

/// The same where the weight of a head and key is multiplied with `mask(head, key)`.
pub(crate) fn masked_attention_row<T: Number>(
    q: &[T],
    k: &[T],
    v: &[T],
    heads: usize,
    known: usize,
    mask: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let dim = q.len();
    let width = dim / heads;
    let mut out = vec![0.0; dim];
    for head in 0..heads {
        let columns = head * width..(head + 1) * width;
        let scores: Vec<f64> = (0..known)
            .map(|j| {
                let dot: f64 = columns.clone().map(|c| q[c].into() * k[j * dim + c].into()).sum();
                dot / (width as f64).sqrt()
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for c in columns {
            out[c] = (0..known).map(|j| weights[j] / sum * mask(head, j) * v[j * dim + c].into()).sum();
        }
    }
    out
}

/// Pointwise attention of all events; biases by position and, where there are any, by time.
pub(crate) fn silu_attention<T: Number>(
    [q, k, v]: [&[T]; 3],
    heads: usize,
    (positions, buckets): (&[T], Option<&[T]>),
    divisor: f64,
    batch: &Sequences<'_>,
) -> Vec<f64> {
    let events = batch.offsets.last().copied().unwrap_or(0);
    let [dim, value_dim] = [q, v].map(|x| x.len() / events.max(1) / heads);
    let mut out = vec![0.0; v.len()];
    for bounds in batch.offsets.windows(2) {
        for (i, head) in (bounds[0]..bounds[1]).flat_map(|i| (0..heads).map(move |head| (i, head))) {
            for j in bounds[0]..=i {
                let at = |event: usize| (event * heads + head) * dim;
                let product: f64 = (0..dim).map(|c| q[at(i) + c].into() * k[at(j) + c].into()).sum();
                let by_time = buckets.map_or(0.0, |of| of[time_bucket(batch.until[i] - batch.times[j])].into());
                let weight = silu_f64(product + positions[positions.len() / 2 + j - i].into() + by_time) / divisor;
                for c in 0..value_dim {
                    let at = |event: usize| (event * heads + head) * value_dim + c;
                    out[at(i)] += weight * v[at(j)].into();
                }
            }
        }
    }
    out
}

/// The ranking of given scores.
pub(crate) fn ranking(scores: &[f32], allowed: impl Fn(u32) -> bool, k: usize) -> Vec<Scored> {
    let mut all: Vec<Scored> = (0..scores.len() as u32)
        .filter(|&item| allowed(item) && !scores[item as usize].is_nan())
        .map(|item| Scored { item, score: scores[item as usize] })
        .collect();
    all.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.item.cmp(&b.item)));
    all.truncate(k);
    all
}

/// ‖out − wanted‖/‖wanted‖
pub(crate) fn relative_error(out: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(out.len(), wanted.len());
    let distance: f64 = out.iter().zip(wanted).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    let norm: f64 = wanted.iter().map(|b| b * b).sum();
    if norm == 0.0 { distance.sqrt() } else { (distance / norm).sqrt() }
}

/// Numbers that look normally distributed, fresh in every run; a failing test prints the seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = (time.as_nanos() as u64) | 1;
        println!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn normal(&mut self) -> f32 {
        let uniform = (0..4).map(|_| (self.next() >> 40) as f32 / (1u32 << 24) as f32).sum::<f32>();
        (uniform - 2.0) * 3f32.sqrt()
    }

    pub(crate) fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}
