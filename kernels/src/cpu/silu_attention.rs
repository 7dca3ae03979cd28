//! Causal pointwise attention with biases by position and time (HSTU), on jagged batches.

use std::ops::Range;

use super::activation::{Curve, Silu};
use super::attention::{Asked, Head, HeadScratch, Weigh};
use super::isa::Kernel;
use super::matrix::Scratch;
use super::simd::{MAX_LANES, Simd, for_vectors};
use crate::time::for_runs;

/// SiLU(q·kᵀ + bias)/divisor·v within each history and head.
pub(super) struct SiluAttentionKernel<'a> {
    /// `[events, heads·dim]`, or the rows that are asked for.
    pub q: &'a [f32],
    pub k: &'a [f32],
    /// `[events, heads·value_dim]`
    pub v: &'a [f32],
    pub heads: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub bias: Bias<'a>,
    pub divisor: f32,
    pub offsets: &'a [usize],
    pub asked: Asked,
    /// As many numbers as the result has, not necessarily initialised.
    pub out: *mut f32,
}

/// What is added to scores.
#[derive(Clone, Copy)]
pub(super) struct Bias<'a> {
    /// Of 2N − 1 numbers, that of query i and key j is N − 1 + (j − i).
    pub positions: &'a [f32],
    pub times: Option<Times<'a>>,
}

/// What is added by time.
#[derive(Clone, Copy)]
pub(super) struct Times<'a> {
    /// One number a bucket.
    pub buckets: &'a [f32],
    /// When events were, and what came after them.
    pub events: &'a [f64],
    pub until: &'a [f64],
}

impl<'a> Bias<'a> {
    /// That of the events `from .. to` of the batch, a history.
    pub(super) fn of_history(self, from: usize, to: usize) -> Self {
        let times =
            self.times.map(|times| Times { events: &times.events[from..to], until: &times.until[from..to], ..times });
        Self { times, ..self }
    }

    /// Those by position of query `i` with keys from `key` on.
    #[inline(always)]
    pub(super) fn positions(&self, i: usize, key: usize) -> *const f32 {
        self.positions[self.positions.len() / 2 + key - i..].as_ptr()
    }
}

impl Times<'_> {
    /// Writes what a question asked at a time adds for some keys.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; `to` is writable for as many numbers and a vector more.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd>(&self, at: f64, keys: Range<usize>, to: *mut f32) {
        for_runs(&self.events[keys], at, |range, bucket| {
            // A vector may reach into the next run, which is written after it.
            // SAFETY: the range is within the keys.
            unsafe {
                let bias = S::splat(self.buckets[bucket]);
                for j in range.step_by(S::LANES) {
                    bias.store(to.add(j));
                }
            }
        });
    }
}

/// A head's scores made weights.
struct Pointwise<'a> {
    bias: Bias<'a>,
    factor: f32,
    /// A row of biases by time.
    row: *mut f32,
}

impl Weigh for Pointwise<'_> {
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&mut self, row: *mut f32, i: usize) -> f32 {
        let positions = self.bias.positions(i, 0);
        // SAFETY: the caller's row; biases by position reach to the diagonal, and those by time have a row.
        unsafe {
            if let Some(times) = &self.bias.times {
                times.fill::<S>(times.until[i], 0..i + 1, self.row);
            }
            let zero = S::splat(0.0);
            for_vectors!(S, i + 1, j, count => {
                let mut score = S::load(row.add(j)) + S::load_some(positions.add(j), count);
                if self.bias.times.is_some() {
                    score = score + S::load(self.row.add(j));
                }
                Silu::value(score).keep(count, zero).store(row.add(j));
            });
        }
        self.factor
    }
}

impl Kernel for SiluAttentionKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (stride, value_stride) = (self.heads * self.dim, self.heads * self.value_dim);
        let mut scratch = HeadScratch::new::<S>(self.offsets, self.dim, self.asked);
        let longest = self.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let mut row = Scratch::new(longest + 2 * MAX_LANES);
        for (history, bounds) in self.offsets.windows(2).enumerate() {
            let bias = self.bias.of_history(bounds[0], bounds[1]);
            for index in 0..self.heads {
                let first = self.asked.row(history, bounds[0]);
                // SAFETY: the caller checked that the offsets are within the matrices.
                unsafe {
                    let head = Head {
                        q: self.q.as_ptr().add(first * stride + index * self.dim),
                        k: self.k.as_ptr().add(bounds[0] * stride + index * self.dim),
                        v: self.v.as_ptr().add(bounds[0] * value_stride + index * self.value_dim),
                        out: self.out.add(first * value_stride + index * self.value_dim),
                        stride,
                        dim: self.dim,
                        value_stride,
                        value_dim: self.value_dim,
                        len: bounds[1] - bounds[0],
                    };
                    let weigh = Pointwise { bias, factor: 1.0 / self.divisor, row: row.as_mut_ptr() };
                    head.rows::<S>(&mut scratch, self.asked, weigh);
                }
            }
        }
    }
}
