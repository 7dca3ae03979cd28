//! The way back through causal attention of any kind, without a matrix of all pairs (Dao et al. 2022, algorithm 4).
//!
//! With A the weights, o = A·v and S the scores: dv = Aᵀ·do, dA = do·vᵀ, dq = dS·k and dk = dSᵀ·q. A and dS are
//! computed again, for a block of queries and keys at a time.

use super::super::attention::transpose_panels;
use super::super::gemm::{Left, Right, add_rows, for_row_tiles, store_row, tile};
use super::super::matrix::Scratch;
use super::super::simd::{MAX_LANES, Simd};

/// Query rows of a block: a multiple of every tile's height, and products long enough that adding them to the
/// derivatives of keys and values does not count.
const QUERIES: usize = 48;

/// Keys of a block, a multiple of every panel: two blocks of numbers stay in the second-level cache beside the rest.
pub(super) const KEYS: usize = 256;

/// Numbers from one row of a block to the next. Tiles read past the keys that a row knows, and rows at a power of two
/// would share their cache lines' places.
const STRIDE: usize = KEYS + MAX_LANES;

/// Turns scores and derivatives by weights into weights and derivatives by scores.
pub(super) trait Differentiate {
    /// For query `i` and the keys `key .. key + known`, `known` ≤ [`KEYS`]: from q·k in `weights` and do·v in `dscores`,
    /// A and dS, both with zeros in the rest of the last vector.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; both rows hold `known` numbers, rounded up to whole vectors.
    unsafe fn row<S: Simd>(&mut self, i: usize, key: usize, known: usize, weights: *mut f32, dscores: *mut f32);
}

/// One head of one history.
pub(super) struct Head {
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    pub dout: *const f32,
    pub dq: *mut f32,
    pub dk: *mut f32,
    pub dv: *mut f32,
    /// Numbers from one row of queries and keys to the next, and columns of the head in them.
    pub stride: usize,
    pub dim: usize,
    /// The same of values and of the derivative by the result.
    pub value_stride: usize,
    pub value_dim: usize,
    /// Rows of the history.
    pub len: usize,
}

/// What heads are computed in.
pub(super) struct BlockScratch {
    /// Keys and values as panels: their columns times the longest length, rounded up to two vectors.
    keys: Scratch,
    values: Scratch,
    /// Blocks of A and of dS: `QUERIES` rows of `STRIDE` numbers.
    weights: Scratch,
    dscores: Scratch,
}

impl BlockScratch {
    /// Enough for every history of a batch.
    pub(super) fn new<S: Simd>(offsets: &[usize], dim: usize, value_dim: usize) -> Self {
        let longest = offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let width = longest.next_multiple_of(2 * S::LANES);
        let [weights, dscores] = [0; 2].map(|_| Scratch::new(QUERIES * STRIDE));
        Self { keys: Scratch::new(dim * width), values: Scratch::new(value_dim * width), weights, dscores }
    }
}

/// A block of queries `first .. end` and keys `key .. key_end`, of which some are known to the last query.
struct Block {
    first: usize,
    end: usize,
    key: usize,
    key_end: usize,
    weights: *mut f32,
    dscores: *mut f32,
}

impl Head {
    /// Adds the derivatives by q, k and v.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; the pointers are as the fields say, and the scratch was made for
    /// the history.
    #[inline(always)]
    pub(super) unsafe fn backward<S: Simd>(&self, scratch: &mut BlockScratch, mut by: impl Differentiate) {
        let (keys, values) = (scratch.keys.as_mut_ptr(), scratch.values.as_mut_ptr());
        let (weights, dscores) = (scratch.weights.as_mut_ptr(), scratch.dscores.as_mut_ptr());
        // SAFETY: rows stay below `len`.
        unsafe {
            transpose_panels::<S>(self.k, self.stride, self.len, self.dim, keys);
            transpose_panels::<S>(self.v, self.value_stride, self.len, self.value_dim, values);
            for first in (0..self.len).step_by(QUERIES) {
                let end = self.len.min(first + QUERIES);
                for key in (0..end).step_by(KEYS) {
                    let block = Block { first, end, key, key_end: end.min(key + KEYS), weights, dscores };
                    self.fill::<S>(&block, keys, values, &mut by);
                    self.products::<S>(&block);
                }
            }
        }
    }

    /// Fills the block's A and dS. Beyond the keys that a row knows there are zeros, as far as the products read.
    #[inline(always)]
    unsafe fn fill<S: Simd>(&self, block: &Block, keys: *const f32, values: *const f32, by: &mut impl Differentiate) {
        // SAFETY: rows stay within the block, columns below `KEYS`.
        unsafe {
            for_row_tiles!(S, block.end - block.first, r, M => {
                let i = block.first + r;
                let known = (i + M).min(block.key_end);
                if known > block.key {
                    let range = block.key..known;
                    let left = Left { at: self.q.add(i * self.stride), stride: self.stride, step: 1 };
                    pairs::<S, M>(left, keys, self.dim, range.clone(), block.weights.add(r * STRIDE));
                    let left = Left { at: self.dout.add(i * self.value_stride), stride: self.value_stride, step: 1 };
                    pairs::<S, M>(left, values, self.value_dim, range, block.dscores.add(r * STRIDE));
                }
                for r in r..r + M {
                    let known = (block.first + r + 1).clamp(block.key, block.key_end) - block.key;
                    let (weights, dscores) = (block.weights.add(r * STRIDE), block.dscores.add(r * STRIDE));
                    by.row::<S>(block.first + r, block.key, known, weights, dscores);
                    let mut j = known.next_multiple_of(S::LANES);
                    while j < (known + S::TILE_ROWS).min(STRIDE) {
                        S::splat(0.0).store(weights.add(j));
                        S::splat(0.0).store(dscores.add(j));
                        j += S::LANES;
                    }
                }
            });
        }
    }

    /// Adds a block's share to the three derivatives.
    #[inline(always)]
    unsafe fn products<S: Simd>(&self, block: &Block) {
        let Block { first, end, key, key_end, weights, dscores } = *block;
        let (stride, value_stride) = (self.stride, self.value_stride);
        // SAFETY: rows and keys are those of the block; all are below `len`.
        unsafe {
            for_row_tiles!(S, end - first, r, M => {
                let i = first + r;
                let known = (i + M).min(key_end);
                if known > key {
                    let left = Left { at: dscores.add(r * STRIDE), stride: STRIDE, step: 1 };
                    let (to, right) = (self.dq.add(i * stride), self.k.add(key * stride));
                    add_rows::<S, M>(left, right, stride, known - key, self.dim, to, stride);
                }
            });
            for_row_tiles!(S, key_end - key, c, M => {
                // Queries before key + c do not know these keys.
                let i = first.max(key + c);
                let at = (i - first) * STRIDE + c;
                let left = |block: *mut f32| Left { at: block.add(at), stride: 1, step: STRIDE };
                let (to, right) = (self.dk.add((key + c) * stride), self.q.add(i * stride));
                add_rows::<S, M>(left(dscores), right, stride, end - i, self.dim, to, stride);
                let (to, right) = (self.dv.add((key + c) * value_stride), self.dout.add(i * value_stride));
                add_rows::<S, M>(left(weights), right, value_stride, end - i, self.value_dim, to, value_stride);
            });
        }
    }
}

/// The products of `M` rows of `dim` columns with a range of the rows in `panels`, to rows of a block. The range
/// begins at a panel.
///
/// # Safety
/// The processor has the instruction set of `S`; the panels hold the range, and `to` is within a block.
#[inline(always)]
unsafe fn pairs<S: Simd, const M: usize>(
    left: Left,
    panels: *const f32,
    dim: usize,
    range: std::ops::Range<usize>,
    to: *mut f32,
) {
    let panel = 2 * S::LANES;
    let mut j = range.start;
    // SAFETY: a block's rows end at a multiple of a panel, or later.
    unsafe {
        while j < range.end {
            let right = Right { at: panels.add(j * dim), stride: panel, last: S::LANES };
            let to = to.add(j - range.start);
            // The diagonal cuts half of the panels' second vectors off.
            if range.end - j > S::LANES {
                let sums = tile::<S, M, 2, false>(left, right, dim, [S::splat(0.0); 2]);
                for (r, row) in sums.into_iter().enumerate() {
                    store_row::<S, 2, false>(row, to.add(r * STRIDE), S::LANES);
                }
            } else {
                let sums = tile::<S, M, 1, false>(left, right, dim, [S::splat(0.0)]);
                for (r, row) in sums.into_iter().enumerate() {
                    store_row::<S, 1, false>(row, to.add(r * STRIDE), S::LANES);
                }
            }
            j += panel;
        }
    }
}
