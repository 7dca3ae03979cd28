//! Pointwise attention of candidates that stand after a history, each beside the others (M-FALCON).

use super::activation::{Curve, Silu};
use super::attention::{Asked, Head, HeadScratch, Weigh};
use super::isa::Kernel;
use super::matrix::Scratch;
use super::silu_attention::Bias;
use super::simd::{MAX_LANES, Simd, for_vectors};

/// SiLU(q·kᵀ + bias)/divisor·v over the events of one history and the candidate itself, in each head.
pub(super) struct SiluCandidatesKernel<'a> {
    /// `[candidates, heads·dim]`
    pub q: &'a [f32],
    /// Keys and values of the candidates.
    pub own: [&'a [f32]; 2],
    /// Keys and values of the history, `[len, heads·dim]` and `[len, heads·value_dim]`.
    pub past: [&'a [f32]; 2],
    pub heads: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub bias: Bias<'a>,
    pub divisor: f32,
    pub len: usize,
    pub candidates: usize,
    /// As many numbers as the result has, not necessarily initialised.
    pub out: *mut f32,
}

/// Scores made weights, by biases that are the same for all candidates.
#[derive(Clone, Copy)]
struct Beyond<'a> {
    /// One an event.
    biases: &'a [f32],
    factor: f32,
}

impl Weigh for Beyond<'_> {
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&mut self, row: *mut f32, i: usize) -> f32 {
        // SAFETY: the caller's row, and a bias for each of its numbers.
        unsafe {
            let zero = S::splat(0.0);
            for_vectors!(S, i + 1, j, count => {
                let score = S::load(row.add(j)) + S::load_some(self.biases.as_ptr().add(j), count);
                Silu::value(score).keep(count, zero).store(row.add(j));
            });
        }
        self.factor
    }
}

impl Kernel for SiluCandidatesKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (stride, value_stride) = (self.heads * self.dim, self.heads * self.value_dim);
        let mut biases = Scratch::new(self.len + 2 * MAX_LANES);
        // SAFETY: the scratch has room for a bias an event and a vector more.
        let biases = unsafe {
            self.write_biases::<S>(biases.as_mut_ptr());
            std::slice::from_raw_parts(biases.as_mut_ptr(), self.len)
        };
        let weigh = Beyond { biases, factor: 1.0 / self.divisor };
        let asked = Asked::Beyond(self.candidates);
        let mut scratch = HeadScratch::new::<S>(&[0, self.len], self.dim, asked);
        for index in 0..self.heads {
            let (column, value_column) = (index * self.dim, index * self.value_dim);
            // SAFETY: the caller checked that the matrices have as many rows and columns as that.
            unsafe {
                let head = Head {
                    q: self.q.as_ptr().add(column),
                    k: self.past[0].as_ptr().add(column),
                    v: self.past[1].as_ptr().add(value_column),
                    out: self.out.add(value_column),
                    stride,
                    dim: self.dim,
                    value_stride,
                    value_dim: self.value_dim,
                    len: self.len,
                };
                head.rows::<S>(&mut scratch, asked, weigh);
                for candidate in 0..self.candidates {
                    self.add_own::<S>(candidate, index);
                }
            }
        }
    }
}

impl SiluCandidatesKernel<'_> {
    /// Writes what is added to the scores of events.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; `to` is writable for as many numbers as there are events, and a
    /// vector more.
    #[inline(always)]
    unsafe fn write_biases<S: Simd>(&self, to: *mut f32) {
        let positions = self.bias.positions(self.len, 0);
        // SAFETY: as above; biases by position reach beyond the last event.
        unsafe {
            match &self.bias.times {
                Some(times) => times.fill::<S>(times.until[self.len - 1], 0..self.len, to),
                None => std::ptr::write_bytes(to, 0, self.len),
            }
            for j in 0..self.len {
                *to.add(j) += *positions.add(j);
            }
        }
    }

    /// Adds what a candidate sees of itself, which happens when it is asked for.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; the candidate and the head exist, and what the candidate sees of
    /// the history is written.
    #[inline(always)]
    unsafe fn add_own<S: Simd>(&self, candidate: usize, head: usize) {
        let column = candidate * self.heads * self.dim + head * self.dim;
        let value_column = candidate * self.heads * self.value_dim + head * self.value_dim;
        let (q, k) = (&self.q[column..column + self.dim], &self.own[0][column..column + self.dim]);
        let v = &self.own[1][value_column..value_column + self.value_dim];
        let bias = self.bias.positions[self.bias.positions.len() / 2]
            + self.bias.times.as_ref().map_or(0.0, |times| times.buckets[0]);
        let score = q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() + bias;
        let weight = score / (1.0 + (-score).exp()) / self.divisor;
        // SAFETY: as above.
        unsafe {
            let out = self.out.add(value_column);
            let weight = S::splat(weight);
            for_vectors!(S, self.value_dim, j, count => {
                let sum = S::load_some(out.add(j), count).fma(weight, S::load_some(v.as_ptr().add(j), count));
                sum.store_some(out.add(j), count);
            });
        }
    }
}
