//! The way back through causal pointwise attention (HSTU): A = SiLU(S)/divisor and dS = SiLU′(S)/divisor ∘ (do·vᵀ) with
//! S = q·kᵀ + bias; a bias's derivative is the sum of dS where it was added.

use super::super::activation::{Curve, Silu};
use super::super::isa::Kernel;
use super::super::matrix::Scratch;
use super::super::silu_attention::Bias;
use super::super::simd::{MAX_LANES, Simd, for_vectors};
use super::blocks::{BlockScratch, Differentiate, Head, KEYS};
use crate::time::for_runs;

/// The derivatives by q, k, v and the biases.
pub(super) struct SiluAttentionBackwardKernel<'a> {
    /// `[events, heads·dim]`
    pub q: &'a [f32],
    pub k: &'a [f32],
    /// `[events, heads·value_dim]`
    pub v: &'a [f32],
    pub dout: &'a [f32],
    pub heads: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub bias: Bias<'a>,
    pub divisor: f32,
    pub offsets: &'a [usize],
    /// Zeros.
    pub dq: &'a mut [f32],
    pub dk: &'a mut [f32],
    pub dv: &'a mut [f32],
    /// Accumulators, as long as the biases.
    pub dpositions: &'a mut [f32],
    pub dtimes: Option<&'a mut [f32]>,
}

impl Kernel for SiluAttentionBackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (stride, value_stride) = (self.heads * self.dim, self.heads * self.value_dim);
        let mut scratch = BlockScratch::new::<S>(self.offsets, self.dim, self.value_dim);
        let mut row = Scratch::new(KEYS + 2 * MAX_LANES);
        for bounds in self.offsets.windows(2) {
            let bias = self.bias.of_history(bounds[0], bounds[1]);
            for index in 0..self.heads {
                let (at, value_at) =
                    (bounds[0] * stride + index * self.dim, bounds[0] * value_stride + index * self.value_dim);
                // SAFETY: the caller checked that the offsets are within the matrices.
                unsafe {
                    let head = Head {
                        q: self.q.as_ptr().add(at),
                        k: self.k.as_ptr().add(at),
                        v: self.v.as_ptr().add(value_at),
                        dout: self.dout.as_ptr().add(value_at),
                        dq: self.dq.as_mut_ptr().add(at),
                        dk: self.dk.as_mut_ptr().add(at),
                        dv: self.dv.as_mut_ptr().add(value_at),
                        stride,
                        dim: self.dim,
                        value_stride,
                        value_dim: self.value_dim,
                        len: bounds[1] - bounds[0],
                    };
                    let pointwise = Pointwise {
                        bias,
                        factor: 1.0 / self.divisor,
                        dpositions: self.dpositions,
                        dtimes: self.dtimes.as_deref_mut(),
                        row: row.as_mut_ptr(),
                    };
                    head.backward::<S>(&mut scratch, pointwise);
                }
            }
        }
    }
}

/// What the derivatives by the scores of one head are computed from, and where those by the biases go.
struct Pointwise<'a> {
    bias: Bias<'a>,
    factor: f32,
    dpositions: &'a mut [f32],
    dtimes: Option<&'a mut [f32]>,
    /// Biases by time of a row of a block.
    row: *mut f32,
}

impl Differentiate for Pointwise<'_> {
    #[inline(always)]
    unsafe fn row<S: Simd>(&mut self, i: usize, key: usize, known: usize, weights: *mut f32, dscores: *mut f32) {
        if known == 0 {
            return;
        }
        let (positions, middle) = (self.bias.positions(i, key), self.dpositions.len() / 2);
        let dpositions = self.dpositions[middle + key - i..][..known].as_mut_ptr();
        // SAFETY: columns stay within the caller's rows, biases by position reach to the diagonal, and those by time
        // have a row of a block.
        unsafe {
            if let Some(times) = &self.bias.times {
                times.fill::<S>(times.until[i], key..key + known, self.row);
            }
            let (zero, factor) = (S::splat(0.0), S::splat(self.factor));
            for_vectors!(S, known, j, count => {
                let mut score = S::load(weights.add(j)) + S::load_some(positions.add(j), count);
                if self.bias.times.is_some() {
                    score = score + S::load(self.row.add(j));
                }
                let ds = S::load(dscores.add(j)) * Silu::slope(score) * factor;
                (Silu::value(score) * factor).keep(count, zero).store(weights.add(j));
                ds.keep(count, zero).store(dscores.add(j));
                (S::load_some(dpositions.add(j), count) + ds).store_some(dpositions.add(j), count);
            });
            if let (Some(times), Some(dtimes)) = (&self.bias.times, &mut self.dtimes) {
                for_runs(&times.events[key..key + known], times.until[i], |range, bucket| {
                    let mut sum = zero;
                    let (len, from) = (range.len(), dscores.add(range.start));
                    for_vectors!(S, len, j, count => sum = sum + S::load_some(from.add(j), count));
                    dtimes[bucket] += sum.sum();
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::differences::{Accumulator, Differences, inner};
    use crate::cpu::Matrix;
    use crate::cpu::reference::{self, Random, relative_error};
    use crate::cpu::tests::{cpus, histories_in_time, offsets, tensor};
    use crate::{Backward, Operators, PairBias, Rows, Sequences, SiluAttention, TIME_BUCKETS};

    #[test]
    fn pointwise_attention_passes_derivatives_back_at_every_length_and_head_width() {
        let mut random = Random::new();
        let cases: [(&[usize], [usize; 3], bool, usize); 7] = [
            (&[1], [1, 8, 8], true, 8),
            (&[1, 0, 13, 50, 2], [1, 64, 64], true, 10),
            (&[31, 0, 49, 1], [2, 25, 25], false, 10),
            (&[17, 33], [2, 25, 32], true, 10),
            (&[12, 48, 16], [3, 32, 16], true, 10),
            (&[300], [2, 8, 8], true, 6),
            (&[3, 290], [1, 8, 16], false, 6),
        ];
        for (lengths, [heads, dim, value_dim], timed, samples) in cases {
            let offsets = offsets(lengths);
            let events = *offsets.last().unwrap();
            let most = lengths.iter().max().unwrap() + random.below(20);
            let [q, k] = [0; 2].map(|_| random.normals(events * heads * dim));
            let [v, dout] = [0; 2].map(|_| random.normals(events * heads * value_dim));
            let (positions, buckets) = (random.normals(2 * most - 1), random.normals(TIME_BUCKETS));
            let (times, until) = histories_in_time(&mut random, &offsets);
            let batch = Sequences { offsets: &offsets, times: &times, until: &until, ..Sequences::default() };
            let forward = |x: &[Vec<f64>]| {
                let buckets = timed.then(|| &x[4][..]);
                reference::silu_attention([&x[0], &x[1], &x[2]], heads, (&x[3], buckets), 7.0, &batch)
            };
            let inputs: [&[f32]; 5] = [&q, &k, &v, &positions, &buckets];
            let inputs = if timed { &inputs[..] } else { &inputs[..4] };
            let differences = Differences::new(&mut random, inputs, samples, |at| inner(&forward(at), &dout));
            let double: Vec<Vec<f64>> = inputs.iter().map(|x| x.iter().map(|&x| f64::from(x)).collect()).collect();
            let wanted = forward(&double);
            let [q, k] = [&q, &k].map(|x| Matrix::from_slice(x, heads * dim));
            let [v, dout] = [&v, &dout].map(|x| Matrix::from_slice(x, heads * value_dim));
            let bias = PairBias {
                positions: tensor(positions.clone(), &[2 * most - 1]),
                times: timed.then(|| tensor(buckets.clone(), &[TIME_BUCKETS])),
            };
            let attention = SiluAttention { heads, bias, divisor: 7.0 };
            for cpu in cpus() {
                let case = format!("{:?} lengths {lengths:?} {heads} heads of {dim} and {value_dim}", cpu.isa());
                let out = cpu.silu_attention(&q, &k, &v, &attention, &batch, Rows::All);
                assert!(relative_error(out.as_slice(), &wanted) < 1e-5, "{case}");
                let mut dpositions = Accumulator::new(&mut random, 1, 2 * most - 1);
                let mut dtimes = Accumulator::new(&mut random, 1, TIME_BUCKETS);
                let into = (&mut dpositions.matrix, timed.then_some(&mut dtimes.matrix));
                let [dq, dk, dv] = cpu.silu_attention_backward(&q, &k, &v, &attention, &batch, &dout, into);
                let added = [dpositions.added(), dtimes.added()];
                let found = [dq.as_slice(), dk.as_slice(), dv.as_slice(), &added[0], &added[1]];
                differences.check(&found[..inputs.len()], &case);
            }
        }
    }
}
