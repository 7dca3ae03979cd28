//! Matrix products: the register tile that every product here is made of, and the linear layer.
//!
//! Each number of a product is one chain of fused multiply-adds over the inner index, in ascending order,
//! whatever tile it falls into. That makes a row's result independent of the batch around it.
#![allow(clippy::needless_range_loop, reason = "indices keep the unrolled register tiles readable")]

use super::activation::activate;
use super::isa::Kernel;
use super::simd::Simd;
use crate::Activation;

/// Runs `$body` with `$rows` a constant for tiles of descending height that cover rows `0..$count`.
/// `$i` is the first row of the tile.
macro_rules! for_row_tiles {
    ($simd:ty, $count:expr, $i:ident, $rows:ident => $body:expr) => {{
        let count: usize = $count;
        let mut $i = 0;
        for_row_tiles!(@ $simd, count, $i, $rows, $body, 12 8 6 4 2 1);
        debug_assert_eq!($i, count);
    }};
    (@ $simd:ty, $count:ident, $i:ident, $rows:ident, $body:expr, $($height:literal)*) => {$(
        if <$simd as Simd>::TILE_ROWS >= $height {
            while $count - $i >= $height {
                const ROWS: usize = $height;
                {
                    const $rows: usize = ROWS;
                    $body
                }
                $i += $height;
            }
        }
    )*};
}
pub(super) use for_row_tiles;

/// A left operand, broadcast number by number: number `p` of row `r` is at `r·stride + p·step`. Row-major with a step
/// of 1; the transpose of a row-major matrix with a stride of 1.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub at: *const f32,
    pub stride: usize,
    pub step: usize,
}

/// A right operand: row-major, read in vectors. With `last` lanes in the last vector of the tile.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub at: *const f32,
    pub stride: usize,
    pub last: usize,
}

/// `start + left·right` for `M` rows and `V` vectors of columns, over `inner` products. Every row has the same start.
/// `PART`: the last vector has only `right.last` lanes.
///
/// # Safety
/// The processor has the instruction set of `S`; `left` is readable for `M` rows of `inner` numbers and
/// `right` for `inner` rows of the tile's columns.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const M: usize, const V: usize, const PART: bool>(
    left: Left,
    right: Right,
    inner: usize,
    start: [S; V],
) -> [[S; V]; M] {
    let mut acc = [start; M];
    let mut b = right.at;
    for p in 0..inner {
        // SAFETY: row p < inner of the right operand, and column p of M rows of the left one.
        unsafe {
            let mut columns = start;
            for v in 0..V {
                columns[v] = if PART && v == V - 1 {
                    S::load_part(b.add(v * S::LANES), right.last)
                } else {
                    S::load(b.add(v * S::LANES))
                };
            }
            for r in 0..M {
                let a = S::splat(*left.at.add(r * left.stride + p * left.step));
                for v in 0..V {
                    acc[r][v] = acc[r][v].fma(a, columns[v]);
                }
            }
            b = b.wrapping_add(right.stride);
        }
    }
    acc
}

/// `V` vectors at `from`, the last of `last` lanes where `PART`.
///
/// # Safety
/// The processor has the instruction set of `S`; `from` is readable for that many numbers.
#[inline(always)]
pub(super) unsafe fn load_row<S: Simd, const V: usize, const PART: bool>(from: *const f32, last: usize) -> [S; V] {
    // SAFETY: within the numbers the caller vouches for.
    unsafe {
        let mut row = [S::splat(0.0); V];
        for (v, x) in row.iter_mut().enumerate() {
            let at = from.add(v * S::LANES);
            *x = if PART && v == V - 1 { S::load_part(at, last) } else { S::load(at) };
        }
        row
    }
}

/// Writes `V` vectors, the last with `last` lanes where `PART`.
///
/// # Safety
/// `to` is writable for that many numbers.
#[inline(always)]
pub(super) unsafe fn store_row<S: Simd, const V: usize, const PART: bool>(row: [S; V], to: *mut f32, last: usize) {
    for (v, x) in row.into_iter().enumerate() {
        // SAFETY: within the numbers the caller vouches for.
        unsafe {
            let at = to.add(v * S::LANES);
            if PART && v == V - 1 { x.store_part(at, last) } else { x.store(at) }
        }
    }
}

/// `to += left·right` for `M` rows of `cols` columns, the sum of the products being added as one number.
///
/// # Safety
/// As for [`tile`]; `to` is readable and writable for `M` rows of `cols` numbers, `to_stride` apart.
#[inline(always)]
pub(super) unsafe fn add_rows<S: Simd, const M: usize>(
    left: Left,
    right: *const f32,
    right_stride: usize,
    inner: usize,
    cols: usize,
    to: *mut f32,
    to_stride: usize,
) {
    // SAFETY: the panels below stay within the columns.
    unsafe {
        let panel = |j: usize, last| (Right { at: right.add(j), stride: right_stride, last }, to.add(j));
        let mut j = 0;
        while j + 2 * S::LANES <= cols {
            let (right, to) = panel(j, S::LANES);
            add_tile::<S, M, 2, false>(left, right, inner, to, to_stride);
            j += 2 * S::LANES;
        }
        match cols - j {
            0 => {}
            rest if rest <= S::LANES => {
                let (right, to) = panel(j, rest);
                add_tile::<S, M, 1, true>(left, right, inner, to, to_stride);
            }
            rest => {
                let (right, to) = panel(j, rest - S::LANES);
                add_tile::<S, M, 2, true>(left, right, inner, to, to_stride);
            }
        }
    }
}

/// One panel of [`add_rows`].
#[inline(always)]
unsafe fn add_tile<S: Simd, const M: usize, const V: usize, const PART: bool>(
    left: Left,
    right: Right,
    inner: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let sums = tile::<S, M, V, PART>(left, right, inner, [S::splat(0.0); V]);
        for (r, row) in sums.into_iter().enumerate() {
            let to = to.add(r * stride);
            let mut there = load_row::<S, V, PART>(to, right.last);
            for (there, x) in there.iter_mut().zip(row) {
                *there = *there + x;
            }
            store_row::<S, V, PART>(there, to, right.last);
        }
    }
}

/// `out = act(x·weight + bias)`; `x` is `[rows, inputs]`, `weight` and `out` are the first `outputs` columns of
/// matrices of `stride` columns.
pub(super) struct LinearKernel<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub stride: usize,
    pub activation: Activation,
    /// Not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for LinearKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut j = 0;
        // SAFETY: the panels below stay within `outputs` columns; the caller has the instruction set.
        unsafe {
            if self.rows < 4 {
                // Few rows are few independent chains of additions; wider panels make up for it.
                while j + 4 * S::LANES <= self.outputs {
                    self.panel::<S, 4, false>(j, S::LANES);
                    j += 4 * S::LANES;
                }
            }
            while j + 2 * S::LANES <= self.outputs {
                self.panel::<S, 2, false>(j, S::LANES);
                j += 2 * S::LANES;
            }
            match self.outputs - j {
                0 => {}
                rest if rest <= S::LANES => self.panel::<S, 1, true>(j, rest),
                rest => self.panel::<S, 2, true>(j, rest - S::LANES),
            }
        }
    }
}

impl LinearKernel<'_> {
    /// All rows of `V` vectors of columns from column `j` on.
    ///
    /// # Safety
    /// As for [`Kernel::run`]; the columns are within the matrix.
    #[inline(always)]
    unsafe fn panel<S: Simd, const V: usize, const PART: bool>(&self, j: usize, last: usize) {
        // SAFETY: j and i are within the shapes, which the constructor's caller checked against the slices.
        unsafe {
            let start = match self.bias {
                Some(bias) => load_row::<S, V, PART>(bias.as_ptr().add(j), last),
                None => [S::splat(0.0); V],
            };
            let lowest = S::splat(if self.activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY });
            let right = Right { at: self.weight.as_ptr().add(j), stride: self.stride, last };
            for_row_tiles!(S, self.rows, i, M => {
                let left = Left { at: self.x.as_ptr().add(i * self.inputs), stride: self.inputs, step: 1 };
                let sums = tile::<S, M, V, PART>(left, right, self.inputs, start);
                let out = self.out.add(i * self.stride + j);
                for (r, row) in sums.into_iter().enumerate() {
                    let mut row = row;
                    for x in &mut row {
                        *x = lowest.max(*x);
                    }
                    store_row::<S, V, PART>(row, out.add(r * self.stride), last);
                }
                // The tile is still in the first-level cache; in registers this would be a copy of the
                // function's code for every accumulator.
                let columns = (V - 1) * S::LANES + last;
                activate::<S>(self.activation, out, M, columns, self.stride);
            });
        }
    }
}
