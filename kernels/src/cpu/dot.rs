//! Dot products of one vector with many rows.

use super::isa::Kernel;
use super::simd::{MAX_LANES, Simd};

/// The dot product of two vectors of `dim` f32s: a chain of additions for each lane, then the sum of the lanes.
///
/// # Safety
/// The processor has the instruction set of `S`; both are readable for `dim` f32s.
#[inline(always)]
pub(super) unsafe fn dot<S: Simd>(query: *const f32, row: *const f32, dim: usize) -> f32 {
    // SAFETY: the caller's pointers.
    unsafe { lanes::<S, 1>(query, &[row], dim)[0].sum() }
}

/// The dot products of `query` with the first `LANES` rows, a row a lane: the same bits as [`dot`].
///
/// # Safety
/// The processor has the instruction set of `S`; `query` and the rows are readable for `dim` f32s.
#[inline(always)]
pub(super) unsafe fn dots<S: Simd>(query: *const f32, rows: &[*const f32; MAX_LANES], dim: usize) -> S {
    // SAFETY: the caller's pointers.
    unsafe {
        let mut sums = [S::splat(0.0); MAX_LANES];
        for r in (0..S::LANES).step_by(4) {
            // Four rows at a time read the table almost as it lies, and are enough independent chains.
            let four = lanes::<S, 4>(query, &[rows[r], rows[r + 1], rows[r + 2], rows[r + 3]], dim);
            sums[r..r + 4].copy_from_slice(&four);
        }
        S::sums(&sums)
    }
}

/// The lanes whose sums are the dot products of `query` with `R` rows.
#[inline(always)]
unsafe fn lanes<S: Simd, const R: usize>(query: *const f32, rows: &[*const f32; R], dim: usize) -> [S; R] {
    // SAFETY: at most dim numbers are read from each.
    unsafe {
        let mut sums = [S::splat(0.0); R];
        let mut d = 0;
        while d + S::LANES <= dim {
            let part = S::load(query.add(d));
            for r in 0..R {
                sums[r] = sums[r].fma(part, S::load(rows[r].add(d)));
            }
            d += S::LANES;
        }
        if d < dim {
            let part = S::load_part(query.add(d), dim - d);
            for r in 0..R {
                sums[r] = sums[r].fma(part, S::load_part(rows[r].add(d), dim - d));
            }
        }
        sums
    }
}

/// Dot products of `query` with `count` rows from `first` on, `stride` numbers apart, written to `out`.
///
/// # Safety
/// As for [`dots`]; `out` is writable for `count` f32s.
#[inline(always)]
pub(super) unsafe fn dots_strided<S: Simd>(
    query: *const f32,
    first: *const f32,
    stride: usize,
    count: usize,
    dim: usize,
    out: *mut f32,
) {
    for i in (0..count).step_by(S::LANES) {
        let mut rows = [first; MAX_LANES];
        for (l, row) in rows.iter_mut().enumerate() {
            // Lanes past the end repeat the last row and are not stored.
            // SAFETY: the index is below count.
            *row = unsafe { first.add((i + l).min(count - 1) * stride) };
        }
        // SAFETY: as the caller vouches; at most count numbers are written.
        unsafe { dots::<S>(query, &rows, dim).store_part(out.add(i), S::LANES.min(count - i)) };
    }
}

/// Dot products of `query` with the rows of `items` that `rows` names; the rows exist.
pub(super) struct ScoreKernel<'a> {
    pub query: &'a [f32],
    pub items: &'a [f32],
    pub rows: &'a [u32],
    pub out: &'a mut [f32],
}

impl Kernel for ScoreKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.query.len();
        for (indices, out) in self.rows.chunks(S::LANES).zip(self.out.chunks_mut(S::LANES)) {
            let mut rows = [self.items.as_ptr(); MAX_LANES];
            for (l, row) in rows.iter_mut().enumerate() {
                let index = indices[l.min(indices.len() - 1)] as usize;
                *row = self.items[index * dim..(index + 1) * dim].as_ptr();
            }
            // SAFETY: the slices above are dim long, and out has as many numbers as are stored.
            unsafe { dots::<S>(self.query.as_ptr(), &rows, dim).store_part(out.as_mut_ptr(), out.len()) };
        }
    }
}
