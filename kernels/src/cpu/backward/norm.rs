//! The way back through layer normalisation, and rows of length 1.

use super::super::dot::dot;
use super::super::isa::Kernel;
use super::super::matrix::Scratch;
use super::super::rowwise::{Moments, SHORTEST, moments};
use super::super::simd::{MAX_LANES, Simd, for_vectors};

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
            for first in (0..self.rows).step_by(S::LANES) {
                let rows = NormRows {
                    x: self.x.as_ptr().add(first * dim),
                    dy: self.dy.as_ptr().add(first * dim),
                    weight: self.weight.map(|weight| weight.as_ptr()),
                    rows: S::LANES.min(self.rows - first),
                    dim,
                };
                rows.backward::<S>(self.eps, dweight, dbias, self.out.add(first * dim));
            }
            for (to, sum) in [(self.dweight, dweight), (self.dbias, dbias)] {
                for (j, to) in to.into_iter().flatten().enumerate() {
                    *to += *sum.add(j);
                }
            }
        }
    }
}

/// At most as many rows of a layer normalisation as a vector has lanes.
struct NormRows {
    x: *const f32,
    dy: *const f32,
    weight: Option<*const f32>,
    rows: usize,
    dim: usize,
}

impl NormRows {
    /// # Safety
    /// The processor has the instruction set of `S`; `out` is writable for the rows, the other pointers for `dim`
    /// numbers.
    #[inline(always)]
    unsafe fn backward<S: Simd>(&self, eps: f32, dweight: *mut f32, dbias: *mut f32, out: *mut f32) {
        let Self { x, dy, weight, rows, dim } = *self;
        // SAFETY: `count` numbers from j on are within a row, and r is one of the rows.
        unsafe {
            let zero = S::splat(0.0);
            let Moments { means, inverses } = moments::<S>(x, rows, dim, eps);
            let normal = |r: usize, j: usize, count| {
                (S::load_some(x.add(r * dim + j), count) - S::splat(means[r])) * S::splat(inverses[r])
            };
            let weight = |j: usize, count| weight.map_or(S::splat(1.0), |weight| S::load_some(weight.add(j), count));
            let (mut sums, mut products) = ([zero; MAX_LANES], [zero; MAX_LANES]);
            for_vectors!(S, dim, j, count => {
                let weight = weight(j, count);
                let mut by_weight = S::load_some(dweight.add(j), count);
                let mut by_bias = S::load_some(dbias.add(j), count);
                for r in 0..rows {
                    let (normal, dy) = (normal(r, j, count), S::load_some(dy.add(r * dim + j), count));
                    let g = dy * weight;
                    sums[r] = sums[r] + g;
                    products[r] = products[r].fma(g, normal);
                    by_weight = by_weight.fma(dy, normal);
                    by_bias = by_bias + dy;
                }
                by_weight.store_some(dweight.add(j), count);
                by_bias.store_some(dbias.add(j), count);
            });
            let (mut along_ones, mut along_normal) = ([0f32; MAX_LANES], [0f32; MAX_LANES]);
            let width = S::splat(dim as f32);
            (S::sums(&sums) / width).store(along_ones.as_mut_ptr());
            (S::sums(&products) / width).store(along_normal.as_mut_ptr());
            for r in 0..rows {
                let (one, along) = (S::splat(along_ones[r]), S::splat(along_normal[r]));
                for_vectors!(S, dim, j, count => {
                    let g = S::load_some(dy.add(r * dim + j), count) * weight(j, count);
                    let dx = (g - one - normal(r, j, count) * along) * S::splat(inverses[r]);
                    dx.store_some(out.add(r * dim + j), count);
                });
            }
        }
    }
}

/// Of y = x/|x|: dx = (dy − y·(y·dy))/|x|. Rows too short to be divided by their length are multiples of x.
pub(in crate::cpu) struct L2BackwardKernel<'a> {
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
                for_vectors!(S, dim, j, count => {
                    let dx = S::load_some(dy.add(j), count) - S::load_some(x.add(j), count) * along;
                    (dx * inverse).store_some(out.add(j), count);
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::differences::{Accumulator, Differences, inner};
    use crate::cpu::Matrix;
    use crate::cpu::reference::{self, Random, relative_error};
    use crate::cpu::tests::{cpus, tensor};
    use crate::{Backward, LayerNorm, Operators};

    #[test]
    fn layer_norms_pass_derivatives_back() {
        let mut random = Random::new();
        let rows = 9;
        for dim in [2, 3, 7, 16, 25, 33, 50, 64, 200] {
            let x: Vec<f32> = random.normals(rows * dim).into_iter().map(|x| 2.0 * x + 1.0).collect();
            let dy = random.normals(rows * dim);
            let (weight, bias) = (random.normals(dim), random.normals(dim));
            let affine = Differences::new(&mut random, &[&x, &weight, &bias], 20, |at| {
                inner(&reference::layer_norm(&at[0], dim, Some(&at[1]), Some(&at[2]), 1e-2), &dy)
            });
            let plain = Differences::new(&mut random, &[&x], 20, |at| {
                inner(&reference::layer_norm(&at[0], dim, None, None, 1e-2), &dy)
            });
            let mut norm =
                LayerNorm { weight: Some(tensor(weight, &[dim])), bias: Some(tensor(bias, &[dim])), eps: 1e-2 };
            let (x, dy) = (Matrix::from_slice(&x, dim), Matrix::from_slice(&dy, dim));
            for cpu in cpus() {
                let case = format!("{:?} dim {dim}", cpu.isa());
                let mut dweight = Accumulator::new(&mut random, 1, dim);
                let mut dbias = Accumulator::new(&mut random, 1, dim);
                let dx = cpu.layer_norm_backward(&x, &norm, &dy, Some(&mut dweight.matrix), Some(&mut dbias.matrix));
                affine.check(&[dx.as_slice(), &dweight.added(), &dbias.added()], &case);
            }
            (norm.weight, norm.bias) = (None, None);
            for cpu in cpus() {
                let dx = cpu.layer_norm_backward(&x, &norm, &dy, None, None);
                plain.check(&[dx.as_slice()], &format!("{:?} dim {dim}, no weight", cpu.isa()));
            }
        }
    }

    #[test]
    fn rows_of_length_1_pass_derivatives_back() {
        let mut random = Random::new();
        for dim in [1, 3, 16, 25, 64] {
            let (mut x, dy) = (random.normals(6 * dim), random.normals(6 * dim));
            // Neither a row of zeros nor one at the bend where rows become too short.
            x[..dim].fill(0.0);
            x[dim..2 * dim].iter_mut().for_each(|x| *x *= 1e-9);
            x[2 * dim..].iter_mut().for_each(|x| *x += 0.5_f32.copysign(*x));
            let normalized = |x: &[f64]| -> Vec<f64> {
                x.chunks(dim)
                    .flat_map(|row| {
                        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-6);
                        row.iter().map(move |x| x / length)
                    })
                    .collect()
            };
            let long = 2 * dim;
            let differences =
                Differences::new(&mut random, &[&x[long..]], 50, |at| inner(&normalized(&at[0]), &dy[long..]));
            let wanted = normalized(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            for cpu in cpus() {
                let (x, dy) = (Matrix::from_slice(&x, dim), Matrix::from_slice(&dy, dim));
                assert!(relative_error(cpu.l2_normalize(&x).as_slice(), &wanted) < 1e-5);
                let dx = cpu.l2_normalize_backward(&x, &dy);
                differences.check(&[&dx.as_slice()[long..]], &format!("{:?} dim {dim}", cpu.isa()));
                for (dx, dy) in dx.as_slice()[..long].iter().zip(dy.as_slice()) {
                    assert!((dx - 1e6 * dy).abs() <= 1.0 + dy.abs(), "short rows are multiples of x: {dx} for {dy}");
                }
            }
        }
    }
}
