//! The way back through layer normalisation, and rows of length 1.

use super::super::dot::dot;
use super::super::isa::Kernel;
use super::super::matrix::Scratch;
use super::super::rowwise::SHORTEST;
use super::super::simd::Simd;

/// Of y = x̂·weight + bias with x̂ = (x − mean)/√(var + eps): with g = dy·weight,
/// dx = (g − mean(g) − x̂·mean(g·x̂))/√(var + eps), and dweight = Σ dy·x̂, dbias = Σ dy over the rows.
pub(super) struct LayerNormBackwardKernel<'a> {
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub weight: Option<&'a [f32]>,
    pub eps: f32,
    /// Columns; `weight` and the accumulators are as long.
    pub dim: usize,
    pub rows: usize,
    pub dweight: Option<&'a mut [f32]>,
    pub dbias: Option<&'a mut [f32]>,
    /// `x.len()` numbers, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for LayerNormBackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim;
        assert!(self.x.len() >= self.rows * dim && self.dy.len() >= self.rows * dim);
        let mut sums = Scratch::new(2 * dim);
        let (dweight, dbias) = (sums.as_mut_ptr(), sums.as_mut_ptr().wrapping_add(dim));
        // SAFETY: rows are dim long, and so are the weight and each half of the sums.
        unsafe {
            std::ptr::write_bytes(dweight, 0, 2 * dim);
            for r in 0..self.rows {
                let row = Row {
                    x: self.x.as_ptr().add(r * dim),
                    dy: self.dy.as_ptr().add(r * dim),
                    weight: self.weight.map(|weight| weight.as_ptr()),
                    dim,
                };
                row.backward::<S>(self.eps, dweight, dbias, self.out.add(r * dim));
            }
            for (to, sum) in [(self.dweight, dweight), (self.dbias, dbias)] {
                for (j, to) in to.into_iter().flatten().enumerate() {
                    *to += *sum.add(j);
                }
            }
        }
    }
}

/// One row of a layer normalisation.
struct Row {
    x: *const f32,
    dy: *const f32,
    weight: Option<*const f32>,
    dim: usize,
}

impl Row {
    /// # Safety
    /// The processor has the instruction set of `S`; all pointers are those of `dim` numbers.
    #[inline(always)]
    unsafe fn backward<S: Simd>(&self, eps: f32, dweight: *mut f32, dbias: *mut f32, out: *mut f32) {
        let dim = self.dim;
        let count = |j: usize| S::LANES.min(dim - j);
        // SAFETY: `count` numbers from j on are within the row.
        unsafe {
            let zero = S::splat(0.0);
            let mut sum = zero;
            for j in (0..dim).step_by(S::LANES) {
                sum = sum + S::load_some(self.x.add(j), count(j));
            }
            let mean = S::splat(sum.sum() / dim as f32);
            let mut squares = zero;
            for j in (0..dim).step_by(S::LANES) {
                let difference = (S::load_some(self.x.add(j), count(j)) - mean).keep(count(j), zero);
                squares = squares.fma(difference, difference);
            }
            let inverse = S::splat(1.0 / (squares.sum() / dim as f32 + eps).sqrt());
            let (mut sum, mut product) = (zero, zero);
            for j in (0..dim).step_by(S::LANES) {
                let normal = (S::load_some(self.x.add(j), count(j)) - mean) * inverse;
                let dy = S::load_some(self.dy.add(j), count(j));
                let g = self.weighted(dy, j, count(j));
                sum = sum + g;
                product = product.fma(g, normal);
                S::load_some(dweight.add(j), count(j)).fma(dy, normal).store_some(dweight.add(j), count(j));
                (S::load_some(dbias.add(j), count(j)) + dy).store_some(dbias.add(j), count(j));
            }
            let (sum, product) = (S::splat(sum.sum() / dim as f32), S::splat(product.sum() / dim as f32));
            for j in (0..dim).step_by(S::LANES) {
                let normal = (S::load_some(self.x.add(j), count(j)) - mean) * inverse;
                let g = self.weighted(S::load_some(self.dy.add(j), count(j)), j, count(j));
                ((g - sum - normal * product) * inverse).store_some(out.add(j), count(j));
            }
        }
    }

    /// `dy·weight` from column j on.
    #[inline(always)]
    unsafe fn weighted<S: Simd>(&self, dy: S, j: usize, count: usize) -> S {
        match self.weight {
            // SAFETY: `count` numbers from j on are within the weight.
            Some(weight) => dy * unsafe { S::load_some(weight.add(j), count) },
            None => dy,
        }
    }
}

/// Of y = x/|x|: dx = (dy − y·(y·dy))/|x|. Rows too short to be divided by their length are multiples of x.
pub(super) struct L2BackwardKernel<'a> {
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub dim: usize,
    pub rows: usize,
    /// `x.len()` numbers, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for L2BackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim;
        assert!(self.x.len() >= self.rows * dim && self.dy.len() >= self.rows * dim);
        for r in 0..self.rows {
            // SAFETY: rows are dim long.
            unsafe {
                let (x, dy) = (self.x.as_ptr().add(r * dim), self.dy.as_ptr().add(r * dim));
                let out = self.out.add(r * dim);
                let length = dot::<S>(x, x, dim).sqrt();
                let inverse = 1.0 / length.max(SHORTEST);
                let along = if length < SHORTEST { 0.0 } else { dot::<S>(x, dy, dim) * inverse * inverse };
                let (inverse, along) = (S::splat(inverse), S::splat(along));
                for j in (0..dim).step_by(S::LANES) {
                    let count = S::LANES.min(dim - j);
                    let dx = S::load_some(dy.add(j), count) - S::load_some(x.add(j), count) * along;
                    (dx * inverse).store_some(out.add(j), count);
                }
            }
        }
    }
}
