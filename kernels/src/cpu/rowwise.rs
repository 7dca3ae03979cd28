//! Operators that work row by row: embedding, normalisation, addition.

use super::dot::dot;
use super::isa::Kernel;
use super::simd::Simd;

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
                let mut j = 0;
                while j + S::LANES <= self.dim {
                    S::load(position.add(j)).fma(scale, S::load(item.add(j))).store(out.add(j));
                    j += S::LANES;
                }
                if j < self.dim {
                    let rest = self.dim - j;
                    let sum = S::load_part(position.add(j), rest).fma(scale, S::load_part(item.add(j), rest));
                    sum.store_part(out.add(j), rest);
                }
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
        let (whole, rest) = (self.dim / S::LANES * S::LANES, self.dim % S::LANES);
        let count = self.dim as f32;
        for r in 0..self.rows {
            let x = self.x[r * self.dim..(r + 1) * self.dim].as_ptr();
            // SAFETY: x, weight, bias and the row of out are dim long.
            unsafe {
                let mut sum = S::splat(0.0);
                for j in (0..whole).step_by(S::LANES) {
                    sum = sum + S::load(x.add(j));
                }
                if rest > 0 {
                    sum = sum + S::load_part(x.add(whole), rest);
                }
                let mean = S::splat(sum.sum() / count);
                let mut squares = S::splat(0.0);
                for j in (0..whole).step_by(S::LANES) {
                    let difference = S::load(x.add(j)) - mean;
                    squares = squares.fma(difference, difference);
                }
                if rest > 0 {
                    let difference = (S::load_part(x.add(whole), rest) - mean).keep(rest, S::splat(0.0));
                    squares = squares.fma(difference, difference);
                }
                let inverse = S::splat(1.0 / (squares.sum() / count + self.eps).sqrt());
                let out = self.out.add(r * self.dim);
                for j in (0..whole).step_by(S::LANES) {
                    let mut y = (S::load(x.add(j)) - mean) * inverse;
                    if let Some(weight) = self.weight {
                        y = y * S::load(weight.as_ptr().add(j));
                    }
                    if let Some(bias) = self.bias {
                        y = y + S::load(bias.as_ptr().add(j));
                    }
                    y.store(out.add(j));
                }
                if rest > 0 {
                    let mut y = (S::load_part(x.add(whole), rest) - mean) * inverse;
                    if let Some(weight) = self.weight {
                        y = y * S::load_part(weight.as_ptr().add(whole), rest);
                    }
                    if let Some(bias) = self.bias {
                        y = y + S::load_part(bias.as_ptr().add(whole), rest);
                    }
                    y.store_part(out.add(whole), rest);
                }
            }
        }
    }
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
            let mut j = 0;
            while j + S::LANES <= len {
                (S::load(x.add(j)) + S::load(y.add(j))).store(x.add(j));
                j += S::LANES;
            }
            if j < len {
                (S::load_part(x.add(j), len - j) + S::load_part(y.add(j), len - j)).store_part(x.add(j), len - j);
            }
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
