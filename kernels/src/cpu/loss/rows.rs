//! Rows of tables: gathered, scored against their events, and added to.

use super::super::dot::dot;
use super::super::isa::Kernel;
use super::super::simd::{Simd, for_vectors};
use crate::TableGradient;

/// The dot products of every row of `hidden` with the item of the same row.
pub(super) struct PairsKernel<'a> {
    /// `[ids.len(), dim]`
    pub hidden: &'a [f32],
    pub dim: usize,
    pub items: &'a [f32],
    pub ids: &'a [u32],
    pub scale: f32,
}

impl Kernel for PairsKernel<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Vec<f32> {
        let mut out = vec![0.0; self.ids.len()];
        for (r, (&id, out)) in self.ids.iter().zip(&mut out).enumerate() {
            let (row, item) = (row(self.hidden, r, self.dim), row(self.items, id as usize, self.dim));
            // SAFETY: both are dim long.
            *out = self.scale * unsafe { dot::<S>(row.as_ptr(), item.as_ptr(), self.dim) };
        }
        out
    }
}

/// Row `index` of a matrix.
#[inline(always)]
fn row(matrix: &[f32], index: usize, dim: usize) -> &[f32] {
    &matrix[index * dim..(index + 1) * dim]
}

/// `to += factor·from`, of which `from` is as long.
#[inline(always)]
unsafe fn add_multiple<S: Simd>(to: &mut [f32], factor: S, from: &[f32]) {
    assert_eq!(to.len(), from.len());
    let (len, to, from) = (from.len(), to.as_mut_ptr(), from.as_ptr());
    // SAFETY: the processor is the caller's; numbers are below the common length.
    unsafe {
        for_vectors!(S, len, j, lanes => {
            S::load_some(to.add(j), lanes).fma(factor, S::load_some(from.add(j), lanes)).store_some(to.add(j), lanes);
        });
    }
}

/// Adds row `n` of `from` to the row of `ids[n]`.
pub(super) struct ScatterKernel<'a> {
    pub ids: &'a [u32],
    /// `[ids.len(), dim]`
    pub from: &'a [f32],
    pub dim: usize,
    pub to: &'a mut TableGradient,
}

impl Kernel for ScatterKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (n, &id) in self.ids.iter().enumerate() {
            // SAFETY: the processor is the caller's.
            unsafe { add_multiple(self.to.row_mut(id), S::splat(1.0), row(self.from, n, self.dim)) };
        }
    }
}

/// What the targets add to the derivatives, each row having a coefficient: `dhidden = factor·(dhidden +
/// coefficient·target)`, and `factor·coefficient·hidden` for the target.
pub(super) struct TargetsKernel<'a> {
    /// `[targets.len(), dim]`
    pub hidden: &'a [f32],
    pub dim: usize,
    pub items: &'a [f32],
    pub targets: &'a [u32],
    pub coefficients: &'a [f32],
    pub factor: f32,
    /// As `hidden`.
    pub dhidden: &'a mut [f32],
    pub ditems: &'a mut TableGradient,
}

impl Kernel for TargetsKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim;
        for (r, (&target, &coefficient)) in self.targets.iter().zip(self.coefficients).enumerate() {
            let item = row(self.items, target as usize, dim);
            let to = self.dhidden[r * dim..(r + 1) * dim].as_mut_ptr();
            // SAFETY: rows are dim long.
            unsafe {
                let (factor, coefficient) = (S::splat(self.factor), S::splat(coefficient));
                for_vectors!(S, dim, j, lanes => {
                    let sum = S::load_some(to.add(j), lanes).fma(coefficient, S::load_some(item.as_ptr().add(j), lanes));
                    (sum * factor).store_some(to.add(j), lanes);
                });
                add_multiple(self.ditems.row_mut(target), coefficient * factor, row(self.hidden, r, dim));
            }
        }
    }
}
