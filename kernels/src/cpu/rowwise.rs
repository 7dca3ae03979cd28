//! Operators that work row by row: embedding, normalisation, addition, sums.

use super::dot::dot;
use super::isa::Kernel;
use super::simd::{MAX_LANES, Simd, for_vectors};

/// `scale·items[id] + positions[pos]`, row by row; the ids exist.
pub(super) struct EmbedKernel<'a> {
    pub items: &'a [f32],
    pub positions: &'a [f32],
    pub item_ids: &'a [u32],
    pub position_ids: &'a [u32],
    pub scale: f32,
    pub dim: usize,
    /// `item_ids.len()·dim` numbers, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for EmbedKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the slices are dim long and `out` has a row for every id.
        unsafe {
            let scale = S::splat(self.scale);
            for (event, (&item, &position)) in self.item_ids.iter().zip(self.position_ids).enumerate() {
                let (item, position) = (item as usize * self.dim, position as usize * self.dim);
                let item = self.items[item..item + self.dim].as_ptr();
                let position = self.positions[position..position + self.dim].as_ptr();
                let out = self.out.add(event * self.dim);
                for_vectors!(S, self.dim, j, count => {
                    let sum = S::load_some(position.add(j), count).fma(scale, S::load_some(item.add(j), count));
                    sum.store_some(out.add(j), count);
                });
            }
        }
    }
}

/// (x − mean)/√(var + eps)·weight + bias, row by row.
pub(super) struct LayerNormKernel<'a> {
    pub x: &'a [f32],
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub eps: f32,
    /// Columns; `weight` and `bias` are as long.
    pub dim: usize,
    pub rows: usize,
    /// `x.len()` numbers, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for LayerNormKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim;
        assert!(self.x.len() >= self.rows * dim);
        for first in (0..self.rows).step_by(S::LANES) {
            let rows = S::LANES.min(self.rows - first);
            // SAFETY: x, weight, bias and the rows of out are dim long.
            unsafe {
                let (x, out) = (self.x.as_ptr().add(first * dim), self.out.add(first * dim));
                let Moments { means, inverses } = moments::<S>(x, rows, dim, self.eps);
                for r in 0..rows {
                    let (mean, inverse) = (S::splat(means[r]), S::splat(inverses[r]));
                    for_vectors!(S, dim, j, count => {
                        let mut y = (S::load_some(x.add(r * dim + j), count) - mean) * inverse;
                        if let Some(weight) = self.weight {
                            y = y * S::load_some(weight.as_ptr().add(j), count);
                        }
                        if let Some(bias) = self.bias {
                            y = y + S::load_some(bias.as_ptr().add(j), count);
                        }
                        y.store_some(out.add(r * dim + j), count);
                    });
                }
            }
        }
    }
}

/// What rows are normalised with, of as many rows as a vector has lanes.
pub(super) struct Moments {
    pub means: [f32; MAX_LANES],
    /// 1/√(var + eps)
    pub inverses: [f32; MAX_LANES],
}

/// The moments of the first `rows ≤ LANES` rows: the lanes of several sums are added up together, and the divisions
/// and roots are those of one vector.
///
/// # Safety
/// The processor has the instruction set of `S`; `x` is readable for that many rows of `dim` numbers.
#[inline(always)]
pub(super) unsafe fn moments<S: Simd>(x: *const f32, rows: usize, dim: usize, eps: f32) -> Moments {
    let mut moments = Moments { means: [0.0; MAX_LANES], inverses: [0.0; MAX_LANES] };
    // SAFETY: within the caller's rows; a vector has no more lanes than the arrays.
    unsafe {
        let (zero, width) = (S::splat(0.0), S::splat(dim as f32));
        let mut sums = [zero; MAX_LANES];
        for (r, sum) in sums.iter_mut().enumerate().take(rows) {
            let mut lanes = zero;
            for_vectors!(S, dim, j, count => { lanes = lanes + S::load_some(x.add(r * dim + j), count) });
            *sum = lanes;
        }
        (S::sums(&sums) / width).store(moments.means.as_mut_ptr());
        for (r, sum) in sums.iter_mut().enumerate().take(rows) {
            let (mean, mut lanes) = (S::splat(moments.means[r]), zero);
            for_vectors!(S, dim, j, count => {
                let difference = (S::load_some(x.add(r * dim + j), count) - mean).keep(count, zero);
                lanes = lanes.fma(difference, difference);
            });
            *sum = lanes;
        }
        let variances = S::sums(&sums) / width;
        (S::splat(1.0) / (variances + S::splat(eps)).sqrt()).store(moments.inverses.as_mut_ptr());
    }
    moments
}

/// `x += y`; both are of the same length.
pub(super) struct AddKernel<'a> {
    pub x: &'a mut [f32],
    pub y: &'a [f32],
}

impl Kernel for AddKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (len, x, y) = (self.x.len().min(self.y.len()), self.x.as_mut_ptr(), self.y.as_ptr());
        // SAFETY: indices stay below the shorter length.
        unsafe {
            for_vectors!(S, len, j, count => {
                (S::load_some(x.add(j), count) + S::load_some(y.add(j), count)).store_some(x.add(j), count);
            });
        }
    }
}

/// `out = x·y`; all are of the same length.
pub(super) struct MultiplyKernel<'a> {
    pub x: &'a [f32],
    pub y: &'a [f32],
    /// `x.len()` numbers, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for MultiplyKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (len, x, y) = (self.x.len().min(self.y.len()), self.x.as_ptr(), self.y.as_ptr());
        // SAFETY: indices stay below the shorter length.
        unsafe {
            for_vectors!(S, len, j, count => {
                (S::load_some(x.add(j), count) * S::load_some(y.add(j), count)).store_some(self.out.add(j), count);
            });
        }
    }
}

/// What a row shorter than this is divided by.
pub(super) const SHORTEST: f32 = 1e-6;

/// Rows divided by their length.
pub(super) struct L2Kernel<'a> {
    pub x: &'a [f32],
    pub dim: usize,
    pub rows: usize,
    /// `x.len()` numbers, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for L2Kernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim;
        assert!(self.x.len() >= self.rows * dim);
        for r in 0..self.rows {
            // SAFETY: rows are dim long.
            unsafe {
                let (x, out) = (self.x.as_ptr().add(r * dim), self.out.add(r * dim));
                let inverse = S::splat(1.0 / dot::<S>(x, x, dim).sqrt().max(SHORTEST));
                for j in (0..dim).step_by(S::LANES) {
                    let count = S::LANES.min(dim - j);
                    (S::load_some(x.add(j), count) * inverse).store_some(out.add(j), count);
                }
            }
        }
    }
}

/// log Σ eˣ over all numbers.
pub(super) struct LogSumExpKernel<'a> {
    pub x: &'a [f32],
}

impl Kernel for LogSumExpKernel<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        // SAFETY: the vectors cover the slice.
        unsafe {
            let (x, lowest) = (self.x.as_ptr(), S::splat(f32::NEG_INFINITY));
            let mut most = lowest;
            for_vectors!(S, self.x.len(), j, count => {
                most = most.max(S::load_some(x.add(j), count).keep(count, lowest));
            });
            let most = most.largest();
            let (shift, mut sum) = (S::splat(most), S::splat(0.0));
            for_vectors!(S, self.x.len(), j, count => {
                sum = sum + (S::load_some(x.add(j), count) - shift).exp().keep(count, S::splat(0.0));
            });
            most + sum.sum().ln()
        }
    }
}

/// `to += Σ by·x`; all slices have the same length, which is checked.
pub(super) struct AddWeightedKernel<'a, T> {
    pub to: &'a mut [f32],
    pub terms: T,
}

impl<'x, T: Iterator<Item = (f32, &'x [f32])> + Clone> Kernel for AddWeightedKernel<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // As many sums as hide the time that an addition takes.
        const VECTORS: usize = 4;
        let (len, to) = (self.to.len(), self.to.as_mut_ptr());
        let mut j = 0;
        // SAFETY: terms are as long as the sum is, which is checked, and the vectors cover that length.
        unsafe {
            while len - j >= VECTORS * S::LANES {
                let mut sums: [S; VECTORS] = std::array::from_fn(|v| S::load(to.add(j + v * S::LANES)));
                for (by, x) in self.terms.clone() {
                    assert_eq!(x.len(), len, "a sum of different lengths");
                    let (by, x) = (S::splat(by), x.as_ptr());
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.fma(by, S::load(x.add(j + v * S::LANES)));
                    }
                }
                for (v, sum) in sums.into_iter().enumerate() {
                    sum.store(to.add(j + v * S::LANES));
                }
                j += VECTORS * S::LANES;
            }
            while j < len {
                let count = S::LANES.min(len - j);
                let mut sum = S::load_some(to.add(j), count);
                for (by, x) in self.terms.clone() {
                    assert_eq!(x.len(), len, "a sum of different lengths");
                    sum = sum.fma(S::splat(by), S::load_some(x.as_ptr().add(j), count));
                }
                sum.store_some(to.add(j), count);
                j += count;
            }
        }
    }
}

/// `to += by·x`; both slices have the same length.
pub(super) struct AddScaledKernel<'a> {
    pub to: &'a mut [f32],
    pub by: f32,
    pub x: &'a [f32],
}

impl Kernel for AddScaledKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (to, x) = (self.to.as_mut_ptr(), self.x.as_ptr());
        // SAFETY: the vectors cover the common length.
        unsafe {
            let by = S::splat(self.by);
            for_vectors!(S, self.x.len(), j, count => {
                S::load_some(to.add(j), count).fma(by, S::load_some(x.add(j), count)).store_some(to.add(j), count);
            });
        }
    }
}
