//! Causal attention on jagged batches, without a matrix of all pairs; and the softmax that weighs its scores.
//!
//! For each history and head the keys are transposed once into panels of two vectors. Then, for a tile of
//! query rows at a time: scores against the keys up to the tile's last row (one matrix product), weights from them in
//! place, and the product with the values. The scratch holds one row tile of scores and one head's keys.

use super::dot::dots_strided;
use super::gemm::{Left, Right, for_row_tiles, store_row, tile};
use super::isa::Kernel;
use super::matrix::Scratch;
use super::noise::{Stream, growth};
use super::simd::{MAX_LANES, Simd};
use crate::Noise;

/// softmax(q·kᵀ/√d_head)·v within each history and head.
pub(super) struct AttentionKernel<'a> {
    /// `[events, dim]`, or the rows that are asked for.
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub heads: usize,
    pub dim: usize,
    pub offsets: &'a [usize],
    pub asked: Asked,
    /// What training needs beyond the result, of all rows.
    pub training: Option<Training<'a>>,
    /// As many numbers as `q`, not necessarily initialised.
    pub out: *mut f32,
}

/// What differs in training.
pub(super) struct Training<'a> {
    /// Dropout on the weights, after the softmax.
    pub noise: Option<Noise<'a>>,
    /// `[events, heads]`: log Σ e^(score·scale).
    pub lse: &'a mut [f32],
}

/// What makes weights of the scores of one head of one history.
pub(super) trait Weigh {
    /// Turns the products of query `i` with the keys 0 ..= i into weights, and the rest of their last vector into
    /// zeros. What it gives is what the weighted sum of the values is multiplied with.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; `row` holds i + 1 numbers, rounded up to whole vectors.
    unsafe fn weigh<S: Simd>(&mut self, row: *mut f32, i: usize) -> f32;
}

/// softmax(score·scale)
pub(super) struct Softmax {
    /// What scores are multiplied with.
    pub scale: f32,
    training: Option<HeadTraining>,
}

impl Softmax {
    /// Of a head of so many columns.
    pub(super) fn new(dim: usize) -> Self {
        Self { scale: 1.0 / (dim as f32).sqrt(), training: None }
    }
}

impl Weigh for Softmax {
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&mut self, row: *mut f32, i: usize) -> f32 {
        // SAFETY: the caller's row; the training's numbers are those of the head.
        unsafe {
            let Sum { largest, sum } = softmax::<S>(row, i + 1, self.scale);
            let Some(training) = &self.training else { return 1.0 / sum };
            *training.lse.add(i * training.stride) = largest * self.scale + sum.ln();
            let Some((noise, growth)) = &training.noise else { return 1.0 / sum };
            for j in (0..i + 1).step_by(S::LANES) {
                noise.survive(S::load(row.add(j)), i, j).store(row.add(j));
            }
            1.0 / sum * growth
        }
    }
}

/// [`Training`] of one head of one history.
struct HeadTraining {
    noise: Option<(HeadNoise, f32)>,
    /// Of the history's first event.
    lse: *mut f32,
    /// Numbers of `lse` from one row to the next.
    stride: usize,
}

/// Which attention weights of a head fall away.
#[derive(Clone, Copy)]
pub(super) struct HeadNoise {
    stream: Stream,
    /// Rows of all heads before this one.
    above: usize,
    len: usize,
}

impl HeadNoise {
    pub(super) fn new(noise: &Noise<'_>, history: usize, head: usize, len: usize) -> Self {
        Self { stream: Stream::new(noise, history), above: head * len, len }
    }

    /// Those of `LANES` weights of query row `row`, from key `column` on, that stay.
    #[inline(always)]
    pub(super) fn survive<S: Simd>(&self, weights: S, row: usize, column: usize) -> S {
        weights.survive(self.stream, ((self.above + row) * self.len + column) as u32)
    }
}

/// One head of one history.
pub(super) struct Head {
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    pub out: *mut f32,
    /// Numbers from one row of queries and keys to the next.
    pub stride: usize,
    /// Columns of the head in queries and keys.
    pub dim: usize,
    /// Numbers from one row of values and results to the next.
    pub value_stride: usize,
    /// Columns of the head in values and results.
    pub value_dim: usize,
    /// Rows of the history.
    pub len: usize,
}

impl Kernel for AttentionKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let dim = self.dim / self.heads;
        let mut scratch = HeadScratch::new::<S>(self.offsets, dim, self.asked);
        let growth = self.training.as_ref().and_then(|training| training.noise.as_ref()).map_or(1.0, growth);
        for (history, bounds) in self.offsets.windows(2).enumerate() {
            for index in 0..self.heads {
                let row = self.asked.row(history, bounds[0]);
                let (column, len) = (index * dim, bounds[1] - bounds[0]);
                // SAFETY: the caller checked that the offsets are within the matrices.
                unsafe {
                    let head = Head {
                        q: self.q.as_ptr().add(row * self.dim + column),
                        k: self.k.as_ptr().add(bounds[0] * self.dim + column),
                        v: self.v.as_ptr().add(bounds[0] * self.dim + column),
                        out: self.out.add(row * self.dim + column),
                        stride: self.dim,
                        dim,
                        value_stride: self.dim,
                        value_dim: dim,
                        len,
                    };
                    let training = self.training.as_mut().map(|training| HeadTraining {
                        noise: training.noise.map(|noise| (HeadNoise::new(&noise, history, index, len), growth)),
                        lse: training.lse.as_mut_ptr().add(bounds[0] * self.heads + index),
                        stride: self.heads,
                    });
                    let softmax = Softmax { training, ..Softmax::new(dim) };
                    head.rows::<S>(&mut scratch, self.asked, softmax);
                }
            }
        }
    }
}

/// Which rows of each history are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    All,
    Last,
    /// So many of the last, of a single history.
    Tail(usize),
    /// So many that are no part of a single history and see all of it.
    Beyond(usize),
}

/// Fewer rows than this are computed one by one, without laying the keys out anew.
const FEW: usize = 5;

impl Asked {
    /// The first row of queries and results of a history whose events begin at `start`.
    pub(super) fn row(self, history: usize, start: usize) -> usize {
        match self {
            Self::All => start,
            Self::Last => history,
            Self::Tail(_) | Self::Beyond(_) => 0,
        }
    }

    /// How many rows of a history of `len`.
    fn rows(self, len: usize) -> usize {
        match self {
            Self::All => len,
            Self::Last => 1,
            Self::Tail(rows) => rows.min(len),
            Self::Beyond(rows) => rows,
        }
    }

    /// How many events of `len` row number `row` looks at.
    fn known(self, len: usize, row: usize) -> usize {
        match self {
            Self::All => row + 1,
            Self::Last | Self::Beyond(_) => len,
            Self::Tail(_) => len - self.rows(len) + row + 1,
        }
    }

    /// Whether rows of histories of up to `longest` are computed one by one.
    fn one_by_one(self, longest: usize) -> bool {
        self != Self::All && self.rows(longest) < FEW
    }
}

/// What a head's rows are computed in.
pub(super) struct HeadScratch {
    scores: Scratch,
    keys: Scratch,
}

impl HeadScratch {
    /// Enough for every history of a batch, for heads of `dim` columns; for few rows alone much less.
    pub(super) fn new<S: Simd>(offsets: &[usize], dim: usize, asked: Asked) -> Self {
        let longest = offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let width = longest.next_multiple_of(2 * S::LANES);
        let few = asked.one_by_one(longest);
        Self {
            scores: Scratch::new(if few { width } else { S::TILE_ROWS * width }),
            keys: Scratch::new(if few { 0 } else { dim * width }),
        }
    }
}

impl Head {
    /// The head's rows that are asked for.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; the pointers are those of a head of a history, and the scratch was
    /// made for it.
    #[inline(always)]
    pub(super) unsafe fn rows<S: Simd>(&self, scratch: &mut HeadScratch, asked: Asked, mut weigh: impl Weigh) {
        // SAFETY: the scratch is as large as both need.
        unsafe {
            if asked.one_by_one(self.len) {
                for row in 0..asked.rows(self.len) {
                    self.row::<S>(scratch.scores.as_mut_ptr(), row, asked.known(self.len, row), &mut weigh);
                }
            } else {
                self.tiles::<S>(scratch.keys.as_mut_ptr(), scratch.scores.as_mut_ptr(), asked, weigh);
            }
        }
    }

    /// # Safety
    /// The pointers are those of a head of a history; `keys` holds `dim` and `scores` `TILE_ROWS` times the
    /// length, rounded up to two vectors.
    #[inline(always)]
    unsafe fn tiles<S: Simd>(&self, keys: *mut f32, scores: *mut f32, asked: Asked, mut weigh: impl Weigh) {
        let panel = 2 * S::LANES;
        let width = self.len.next_multiple_of(panel);
        // SAFETY: rows stay below `len`, columns of the scratch below `width`.
        unsafe {
            transpose_panels::<S>(self.k, self.stride, self.len, self.dim, keys);
            let zero = S::splat(0.0);
            for_row_tiles!(S, asked.rows(self.len), row, M => {
                let queries = Left { at: self.q.add(row * self.stride), stride: self.stride, step: 1 };
                let known = asked.known(self.len, row + M - 1);
                let mut j = 0;
                while j < known {
                    let right = Right { at: keys.add(j * self.dim), stride: panel, last: S::LANES };
                    let to = scores.add(j);
                    // The diagonal cuts half of the panels' second vectors off.
                    if known - j > S::LANES {
                        let sums = tile::<S, M, 2, false>(queries, right, self.dim, [zero; 2]);
                        for (r, row) in sums.into_iter().enumerate() {
                            store_row::<S, 2, false>(row, to.add(r * width), S::LANES);
                        }
                    } else {
                        let sums = tile::<S, M, 1, false>(queries, right, self.dim, [zero]);
                        for (r, row) in sums.into_iter().enumerate() {
                            store_row::<S, 1, false>(row, to.add(r * width), S::LANES);
                        }
                    }
                    j += panel;
                }
                let mut weights = [0f32; M];
                for (r, weight) in weights.iter_mut().enumerate() {
                    let scores = scores.add(r * width);
                    let own = asked.known(self.len, row + r);
                    *weight = weigh.weigh::<S>(scores, own - 1);
                    let mut j = own.next_multiple_of(S::LANES);
                    while j < known {
                        zero.store(scores.add(j));
                        j += S::LANES;
                    }
                }
                let left = Left { at: scores, stride: width, step: 1 };
                self.values::<S, M>(left, known, &weights, self.out.add(row * self.value_stride));
            });
        }
    }

    /// Row number `row` of those that are asked for, over the first `known` events.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; `scores` holds the length, rounded up to a vector.
    #[inline(always)]
    pub(super) unsafe fn row<S: Simd>(&self, scores: *mut f32, row: usize, known: usize, weigh: &mut impl Weigh) {
        // SAFETY: as above.
        unsafe {
            dots_strided::<S>(self.q.add(row * self.stride), self.k, self.stride, known, self.dim, scores);
            let weight = weigh.weigh::<S>(scores, known - 1);
            let (left, out) = (Left { at: scores, stride: 0, step: 1 }, self.out.add(row * self.value_stride));
            self.values::<S, 1>(left, known, &[weight], out);
        }
    }

    /// `out = weight·(scores·values)` for `M` rows, over the first `known` events.
    #[inline(always)]
    unsafe fn values<S: Simd, const M: usize>(&self, left: Left, known: usize, weights: &[f32; M], out: *mut f32) {
        let mut j = 0;
        // SAFETY: columns stay below `dim`.
        unsafe {
            if M == 1 {
                while j + 4 * S::LANES <= self.value_dim {
                    self.value_panel::<S, M, 4, false>(left, known, weights, out, j, S::LANES);
                    j += 4 * S::LANES;
                }
            }
            while j + 2 * S::LANES <= self.value_dim {
                self.value_panel::<S, M, 2, false>(left, known, weights, out, j, S::LANES);
                j += 2 * S::LANES;
            }
            match self.value_dim - j {
                0 => {}
                rest if rest <= S::LANES => self.value_panel::<S, M, 1, true>(left, known, weights, out, j, rest),
                rest => self.value_panel::<S, M, 2, true>(left, known, weights, out, j, rest - S::LANES),
            }
        }
    }

    #[inline(always)]
    unsafe fn value_panel<S: Simd, const M: usize, const V: usize, const PART: bool>(
        &self,
        left: Left,
        known: usize,
        weights: &[f32; M],
        out: *mut f32,
        j: usize,
        last: usize,
    ) {
        // SAFETY: the columns from j on are within the head.
        unsafe {
            let right = Right { at: self.v.add(j), stride: self.value_stride, last };
            let sums = tile::<S, M, V, PART>(left, right, known, [S::splat(0.0); V]);
            for (r, row) in sums.into_iter().enumerate() {
                let mut row = row;
                for x in &mut row {
                    *x = *x * S::splat(weights[r]);
                }
                store_row::<S, V, PART>(row, out.add(r * self.value_stride + j), last);
            }
        }
    }
}

/// Rows as panels of two vectors: row `j`'s number `d` goes to `to[(j / panel·dim + d)·panel + j % panel]`. Rows past
/// the end of the last panel repeat the last row.
///
/// # Safety
/// The processor has the instruction set of `S`; `from` is readable for `len` rows of `dim` numbers, `stride` apart,
/// and `to` writable for `dim` times `len` rounded up to two vectors.
#[inline(always)]
pub(super) unsafe fn transpose_panels<S: Simd>(from: *const f32, stride: usize, len: usize, dim: usize, to: *mut f32) {
    let panel = 2 * S::LANES;
    let mut j = 0;
    while j < len.next_multiple_of(panel) {
        let mut rows = [from; MAX_LANES];
        for (l, row) in rows.iter_mut().enumerate().take(S::LANES) {
            // SAFETY: the index is below `len`.
            *row = unsafe { from.add((j + l).min(len - 1) * stride) };
        }
        let mut d = 0;
        while d < dim {
            let count = S::LANES.min(dim - d);
            // SAFETY: rows are readable for `dim` numbers; the panel of j holds dim·panel numbers.
            unsafe {
                let columns = S::load_columns(&rows, d, count);
                let to = to.add(j / panel * panel * dim + d * panel + j % panel);
                for (c, column) in columns.iter().enumerate().take(count) {
                    column.store(to.add(c * panel));
                }
            }
            d += S::LANES;
        }
        j += S::LANES;
    }
}

/// What a softmax divides by, and what it subtracts from the scores.
struct Sum {
    largest: f32,
    sum: f32,
}

/// Replaces the first `count ≥ 1` scores by e^(scale·(score − largest)) and the rest of their last vector by
/// zeros.
///
/// # Safety
/// The processor has the instruction set of `S`; `row` holds `count` numbers, rounded up to whole vectors.
#[inline(always)]
unsafe fn softmax<S: Simd>(row: *mut f32, count: usize, scale: f32) -> Sum {
    let whole = count / S::LANES * S::LANES;
    let rest = count - whole;
    // SAFETY: the caller's row.
    unsafe {
        let lowest = S::splat(f32::NEG_INFINITY);
        let mut largest = lowest;
        for j in (0..whole).step_by(S::LANES) {
            largest = S::load(row.add(j)).max(largest);
        }
        if rest > 0 {
            largest = S::load(row.add(whole)).keep(rest, lowest).max(largest);
        }
        let most = largest.largest();
        let largest = S::splat(most);
        let scale = S::splat(scale);
        let mut sum = S::splat(0.0);
        for j in (0..whole).step_by(S::LANES) {
            let e = ((S::load(row.add(j)) - largest) * scale).exp();
            e.store(row.add(j));
            sum = sum + e;
        }
        if rest > 0 {
            let zero = S::splat(0.0);
            let e = ((S::load(row.add(whole)) - largest) * scale).exp().keep(rest, zero);
            e.store(row.add(whole));
            sum = sum + e;
        }
        Sum { largest: most, sum: sum.sum() }
    }
}
