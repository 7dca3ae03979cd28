//! The way back through causal softmax attention, without a matrix of all pairs (Dao et al. 2022, algorithm 4).
//!
//! With P the weights before dropout, M what dropout multiplies them with, and o = (P ∘ M)·v:
//! dv = (P ∘ M)ᵀ·do, dP = (do·vᵀ) ∘ M, dS = P ∘ (dP − D) with D = Σ do·o a row, dq = dS·k/√d and dk = dSᵀ·q/√d.
//! P = e^(q·kᵀ/√d − lse) is computed again, for a block of queries and keys at a time.

use super::super::attention::{HeadNoise, transpose_panels};
use super::super::dot::dot;
use super::super::gemm::{Left, Right, add_rows, for_row_tiles, store_row, tile};
use super::super::isa::Kernel;
use super::super::matrix::Scratch;
use super::super::simd::{MAX_LANES, Simd};
use crate::Noise;

/// Query rows of a block: a multiple of every tile's height, and products long enough that adding them to the
/// derivatives of keys and values does not count.
const QUERIES: usize = 48;

/// Keys of a block, a multiple of every panel: two blocks of numbers stay in the second-level cache beside the rest.
const KEYS: usize = 256;

/// Numbers from one row of a block to the next. Tiles read past the keys that a row knows, and rows at a power of two
/// would share their cache lines' places.
const STRIDE: usize = KEYS + MAX_LANES;

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
        let longest = self.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let width = longest.next_multiple_of(2 * S::LANES);
        let [mut keys, mut values] = [0; 2].map(|_| Scratch::new(dim * width));
        let [mut weights, mut dscores] = [0; 2].map(|_| Scratch::new(QUERIES * STRIDE));
        for (history, bounds) in self.offsets.windows(2).enumerate() {
            let len = bounds[1] - bounds[0];
            for index in 0..self.heads {
                let at = bounds[0] * self.dim + index * dim;
                // SAFETY: the caller checked that the offsets are within the matrices; the scratch is as large as
                // the methods ask for.
                unsafe {
                    let head = Head {
                        q: self.q.as_ptr().add(at),
                        k: self.k.as_ptr().add(at),
                        v: self.v.as_ptr().add(at),
                        out: self.out.as_ptr().add(at),
                        dout: self.dout.as_ptr().add(at),
                        lse: self.lse.as_ptr().add(bounds[0] * self.heads + index),
                        dq: self.dq.as_mut_ptr().add(at),
                        dk: self.dk.as_mut_ptr().add(at),
                        dv: self.dv.as_mut_ptr().add(at),
                        heads: self.heads,
                        stride: self.dim,
                        dim,
                        len,
                        scale: 1.0 / (dim as f32).sqrt(),
                        noise: self.noise.map(|noise| HeadNoise::new(&noise, history, index, len)),
                        growth: self.growth,
                        keys: keys.as_mut_ptr(),
                        values: values.as_mut_ptr(),
                        weights: weights.as_mut_ptr(),
                        dscores: dscores.as_mut_ptr(),
                    };
                    head.backward::<S>();
                }
            }
        }
    }
}

/// One head of one history.
struct Head {
    q: *const f32,
    k: *const f32,
    v: *const f32,
    out: *const f32,
    dout: *const f32,
    lse: *const f32,
    dq: *mut f32,
    dk: *mut f32,
    dv: *mut f32,
    /// Numbers of `lse` from one row to the next.
    heads: usize,
    /// Numbers of all others from one row to the next.
    stride: usize,
    /// Columns of the head.
    dim: usize,
    /// Rows of the history.
    len: usize,
    /// What scores are multiplied with before the softmax.
    scale: f32,
    noise: Option<HeadNoise>,
    growth: f32,
    /// Keys and values as panels: `dim` times the length, rounded up to two vectors.
    keys: *mut f32,
    values: *mut f32,
    /// Blocks of P ∘ M and of dS/√d: `QUERIES` rows of `STRIDE` numbers.
    weights: *mut f32,
    dscores: *mut f32,
}

/// A block of queries `first .. end` and keys `key .. key_end`, of which some are known to the last query.
struct Block {
    first: usize,
    end: usize,
    key: usize,
    key_end: usize,
}

impl Head {
    /// # Safety
    /// The processor has the instruction set of `S`; the pointers are as the fields say.
    #[inline(always)]
    unsafe fn backward<S: Simd>(&self) {
        // SAFETY: rows stay below `len`.
        unsafe {
            transpose_panels::<S>(self.k, self.stride, self.len, self.dim, self.keys);
            transpose_panels::<S>(self.v, self.stride, self.len, self.dim, self.values);
            for first in (0..self.len).step_by(QUERIES) {
                let end = self.len.min(first + QUERIES);
                let mut shares = [0f32; QUERIES];
                for (i, share) in (first..end).zip(&mut shares) {
                    *share = dot::<S>(self.dout.add(i * self.stride), self.out.add(i * self.stride), self.dim);
                }
                for key in (0..end).step_by(KEYS) {
                    let block = Block { first, end, key, key_end: end.min(key + KEYS) };
                    self.weights::<S>(&block, &shares);
                    self.products::<S>(&block);
                }
            }
        }
    }

    /// Fills the block's P ∘ M and dS/√d. Beyond the keys that a row knows there are zeros, as far as the products
    /// read.
    #[inline(always)]
    unsafe fn weights<S: Simd>(&self, block: &Block, shares: &[f32; QUERIES]) {
        // SAFETY: rows stay within the block, columns below `KEYS`.
        unsafe {
            for_row_tiles!(S, block.end - block.first, r, M => {
                let i = block.first + r;
                let known = (i + M).min(block.key_end);
                if known > block.key {
                    for (rows, panels, to) in
                        [(self.q, self.keys, self.weights), (self.dout, self.values, self.dscores)]
                    {
                        let left = Left { at: rows.add(i * self.stride), stride: self.stride, step: 1 };
                        self.pairs::<S, M>(left, panels, block.key..known, to.add(r * STRIDE));
                    }
                }
                for (r, &share) in shares.iter().enumerate().skip(r).take(M) {
                    let known = (block.first + r + 1).clamp(block.key, block.key_end) - block.key;
                    self.row::<S>(block, r, known, share);
                }
            });
        }
    }

    /// The products of `M` rows with a range of keys or values, to rows of a block. The range begins at a panel.
    #[inline(always)]
    unsafe fn pairs<S: Simd, const M: usize>(
        &self,
        left: Left,
        panels: *const f32,
        range: std::ops::Range<usize>,
        to: *mut f32,
    ) {
        let panel = 2 * S::LANES;
        let mut j = range.start;
        // SAFETY: the panels hold all keys; a block's rows end at a multiple of a panel, or later.
        unsafe {
            while j < range.end {
                let right = Right { at: panels.add(j * self.dim), stride: panel, last: S::LANES };
                let to = to.add(j - range.start);
                // The diagonal cuts half of the panels' second vectors off.
                if range.end - j > S::LANES {
                    let sums = tile::<S, M, 2, false>(left, right, self.dim, [S::splat(0.0); 2]);
                    for (r, row) in sums.into_iter().enumerate() {
                        store_row::<S, 2, false>(row, to.add(r * STRIDE), S::LANES);
                    }
                } else {
                    let sums = tile::<S, M, 1, false>(left, right, self.dim, [S::splat(0.0)]);
                    for (r, row) in sums.into_iter().enumerate() {
                        store_row::<S, 1, false>(row, to.add(r * STRIDE), S::LANES);
                    }
                }
                j += panel;
            }
        }
    }

    /// Turns one row of a block from q·k and do·v into P ∘ M and dS/√d.
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, block: &Block, r: usize, known: usize, share: f32) {
        let i = block.first + r;
        let beyond = (known + S::TILE_ROWS).min(STRIDE);
        // SAFETY: columns stay below the stride.
        unsafe {
            let (weights, dscores) = (self.weights.add(r * STRIDE), self.dscores.add(r * STRIDE));
            let (zero, scale) = (S::splat(0.0), S::splat(self.scale));
            let (lse, share, growth) =
                (S::splat(-*self.lse.add(i * self.heads)), S::splat(share), S::splat(self.growth));
            let mut j = 0;
            while j < known {
                let p = lse.fma(S::load(weights.add(j)), scale).exp();
                let dp = S::load(dscores.add(j));
                let (kept, dp) = match &self.noise {
                    Some(noise) => {
                        let mask = noise.survive(growth, i, block.key + j);
                        (p * mask, dp * mask)
                    }
                    None => (p, dp),
                };
                let ds = p * (dp - share) * scale;
                let count = S::LANES.min(known - j);
                kept.keep(count, zero).store(weights.add(j));
                ds.keep(count, zero).store(dscores.add(j));
                j += S::LANES;
            }
            while j < beyond {
                zero.store(weights.add(j));
                zero.store(dscores.add(j));
                j += S::LANES;
            }
        }
    }

    /// Adds a block's share to the three derivatives.
    #[inline(always)]
    unsafe fn products<S: Simd>(&self, block: &Block) {
        let Block { first, end, key, key_end } = *block;
        // SAFETY: rows and keys are those of the block; all are below `len`.
        unsafe {
            for_row_tiles!(S, end - first, r, M => {
                let i = first + r;
                let known = (i + M).min(key_end);
                if known > key {
                    let left = Left { at: self.dscores.add(r * STRIDE), stride: STRIDE, step: 1 };
                    let (to, right) = (self.dq.add(i * self.stride), self.k.add(key * self.stride));
                    add_rows::<S, M>(left, right, self.stride, known - key, self.dim, to, self.stride);
                }
            });
            for_row_tiles!(S, key_end - key, c, M => {
                // Queries before key + c do not know these keys.
                let i = first.max(key + c);
                let at = (i - first) * STRIDE + c;
                for (from, rows, to) in [(self.dscores, self.q, self.dk), (self.weights, self.dout, self.dv)] {
                    let left = Left { at: from.add(at), stride: 1, step: STRIDE };
                    let (to, right) = (to.add((key + c) * self.stride), rows.add(i * self.stride));
                    add_rows::<S, M>(left, right, self.stride, end - i, self.dim, to, self.stride);
                }
            });
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
