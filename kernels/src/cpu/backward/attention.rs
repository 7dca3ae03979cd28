//! The way back through causal softmax attention.
//!
//! With P the weights before dropout, M what dropout multiplies them with, and o = (P ∘ M)·v: dS = P ∘ (dP − D)/√d with
//! dP = (do·vᵀ) ∘ M and D = Σ do·o a row. P = e^(q·kᵀ/√d − lse).

use super::super::attention::HeadNoise;
use super::super::dot::dot;
use super::super::isa::Kernel;
use super::super::simd::Simd;
use super::blocks::{BlockScratch, Differentiate, Head};
use crate::Noise;

/// The derivatives by q, k and v.
pub(super) struct AttentionBackwardKernel<'a> {
    /// `[events, dim]`, as are all but `lse`.
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    /// `[events, heads]`
    pub lse: &'a [f32],
    pub dout: &'a [f32],
    pub heads: usize,
    pub dim: usize,
    pub offsets: &'a [usize],
    pub noise: Option<Noise<'a>>,
    /// What weights that stay are multiplied with.
    pub growth: f32,
    /// Zeros.
    pub dq: &'a mut [f32],
    pub dk: &'a mut [f32],
    pub dv: &'a mut [f32],
}

impl Kernel for AttentionBackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim / self.heads;
        let mut scratch = BlockScratch::new::<S>(self.offsets, dim, dim);
        for (history, bounds) in self.offsets.windows(2).enumerate() {
            let len = bounds[1] - bounds[0];
            for index in 0..self.heads {
                let at = bounds[0] * self.dim + index * dim;
                // SAFETY: the caller checked that the offsets are within the matrices.
                unsafe {
                    let dout = self.dout.as_ptr().add(at);
                    let head = Head {
                        q: self.q.as_ptr().add(at),
                        k: self.k.as_ptr().add(at),
                        v: self.v.as_ptr().add(at),
                        dout,
                        dq: self.dq.as_mut_ptr().add(at),
                        dk: self.dk.as_mut_ptr().add(at),
                        dv: self.dv.as_mut_ptr().add(at),
                        stride: self.dim,
                        dim,
                        value_stride: self.dim,
                        value_dim: dim,
                        len,
                    };
                    let softmax = Softmax {
                        out: self.out.as_ptr().add(at),
                        dout,
                        stride: self.dim,
                        dim,
                        lse: self.lse.as_ptr().add(bounds[0] * self.heads + index),
                        heads: self.heads,
                        noise: self.noise.map(|noise| HeadNoise::new(&noise, history, index, len)),
                        growth: self.growth,
                    };
                    head.backward::<S>(&mut scratch, softmax);
                }
            }
        }
    }
}

/// What the derivatives by the scores of one head are computed from.
struct Softmax {
    out: *const f32,
    dout: *const f32,
    /// Numbers of both from one row to the next.
    stride: usize,
    /// Columns of the head.
    dim: usize,
    lse: *const f32,
    /// Numbers of `lse` from one row to the next.
    heads: usize,
    noise: Option<HeadNoise>,
    growth: f32,
}

impl Differentiate for Softmax {
    #[inline(always)]
    unsafe fn row<S: Simd>(&mut self, i: usize, key: usize, known: usize, weights: *mut f32, dscores: *mut f32) {
        // SAFETY: the row is one of the history; columns stay within the caller's rows.
        unsafe {
            let share = dot::<S>(self.dout.add(i * self.stride), self.out.add(i * self.stride), self.dim);
            let (zero, scale) = (S::splat(0.0), S::splat(1.0 / (self.dim as f32).sqrt()));
            let (lse, share, growth) =
                (S::splat(-*self.lse.add(i * self.heads)), S::splat(share), S::splat(self.growth));
            for j in (0..known).step_by(S::LANES) {
                let p = lse.fma(S::load(weights.add(j)), scale).exp();
                let dp = S::load(dscores.add(j));
                let (kept, dp) = match &self.noise {
                    Some(noise) => {
                        let mask = noise.survive(growth, i, key + j);
                        (p * mask, dp * mask)
                    }
                    None => (p, dp),
                };
                let ds = p * (dp - share) * scale;
                let count = S::LANES.min(known - j);
                kept.keep(count, zero).store(weights.add(j));
                ds.keep(count, zero).store(dscores.add(j));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::differences::{Differences, inner};
    use crate::cpu::Matrix;
    use crate::cpu::noise::{Stream, growth};
    use crate::cpu::reference::{self, Random, relative_error};
    use crate::cpu::tests::{cpus, offsets, sequences};
    use crate::{Backward, Noise, Operators, Rows};

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
                let served = cpu.attention(&q, &k, &v, heads, &batch, Rows::All);
                for noise in [None, Some(Noise { keys: &keys, site: 0, rate: 0.0 })] {
                    let (out, lse) = cpu.attention_forward(&q, &k, &v, heads, &batch, noise);
                    assert_eq!(out.as_slice(), served.as_slice(), "{:?}", cpu.isa());
                    assert_eq!((lse.rows(), lse.cols()), (232, heads));
                }
            }
        }
    }
}
