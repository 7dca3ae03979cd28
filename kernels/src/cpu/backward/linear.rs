//! The way back through a linear layer.

use super::super::gemm::{Left, add_rows, for_row_tiles};
use super::super::isa::Kernel;
use super::super::simd::{MAX_LANES, Simd};

/// Rows of a block of the products by weights: with 256 columns of derivatives they fill half of a second-level cache.
const BLOCK: usize = 512;

/// `out += xᵀ·dy`
pub(super) struct WeightKernel<'a> {
    /// `[rows, inputs]`
    pub x: &'a [f32],
    /// `[rows, outputs]`
    pub dy: &'a [f32],
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// `[inputs, outputs]`
    pub out: &'a mut [f32],
}

impl Kernel for WeightKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for first in (0..self.rows).step_by(BLOCK) {
            let rows = BLOCK.min(self.rows - first);
            let (x, dy) = (self.x[first * self.inputs..].as_ptr(), self.dy[first * self.outputs..].as_ptr());
            // SAFETY: i + M ≤ inputs; the caller checked the shapes against the slices.
            unsafe {
                for_row_tiles!(S, self.inputs, i, M => {
                    let left = Left { at: x.add(i), stride: 1, step: self.inputs };
                    let out = self.out.as_mut_ptr().add(i * self.outputs);
                    add_rows::<S, M>(left, dy, self.outputs, rows, self.outputs, out, self.outputs);
                });
            }
        }
    }
}

/// Adds the sum of the rows to `out`.
pub(super) struct ColumnSumsKernel<'a> {
    /// `[rows, out.len()]`
    pub x: &'a [f32],
    pub rows: usize,
    pub out: &'a mut [f32],
}

impl Kernel for ColumnSumsKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let cols = self.out.len();
        assert!(self.x.len() >= self.rows * cols);
        let mut j = 0;
        // SAFETY: columns j .. j + lanes of rows within x, and of out.
        unsafe {
            while j + 4 * S::LANES <= cols {
                self.columns::<S, 4>(j, S::LANES);
                j += 4 * S::LANES;
            }
            while j < cols {
                let count = S::LANES.min(cols - j);
                self.columns::<S, 1>(j, count);
                j += count;
            }
        }
    }
}

impl ColumnSumsKernel<'_> {
    /// `V` vectors of columns from `j` on, the last of `last` lanes. More are summed at a time than one, because an
    /// addition waits for the one before it.
    #[inline(always)]
    unsafe fn columns<S: Simd, const V: usize>(&mut self, j: usize, last: usize) {
        let count = |v: usize| if v == V - 1 { last } else { S::LANES };
        // SAFETY: the caller's columns are within the rows.
        unsafe {
            let mut sums = [S::splat(0.0); V];
            for r in 0..self.rows {
                let row = self.x.as_ptr().add(r * self.out.len() + j);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = *sum + S::load_some(row.add(v * S::LANES), count(v));
                }
            }
            for (v, sum) in sums.into_iter().enumerate() {
                let to = self.out.as_mut_ptr().add(j + v * S::LANES);
                (S::load_some(to, count(v)) + sum).store_some(to, count(v));
            }
        }
    }
}

/// The transpose.
pub(super) struct TransposeKernel<'a> {
    /// `[rows, cols]`
    pub from: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    /// As many numbers, not necessarily initialised.
    pub to: *mut f32,
}

impl Kernel for TransposeKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        assert!(self.from.len() >= self.rows * self.cols);
        let mut i = 0;
        while i < self.rows {
            let height = S::LANES.min(self.rows - i);
            let mut rows = [self.from.as_ptr(); MAX_LANES];
            for (l, row) in rows.iter_mut().enumerate().take(S::LANES) {
                // Rows past the end repeat the last one and are not stored.
                // SAFETY: the index is below `rows`.
                *row = unsafe { self.from.as_ptr().add((i + l).min(self.rows - 1) * self.cols) };
            }
            let mut j = 0;
            while j < self.cols {
                let width = S::LANES.min(self.cols - j);
                // SAFETY: rows are readable for `cols` numbers; row j + c of the transpose holds i + height.
                unsafe {
                    let columns = S::load_columns(&rows, j, width);
                    for (c, column) in columns.iter().enumerate().take(width) {
                        column.store_some(self.to.add((j + c) * self.rows + i), height);
                    }
                }
                j += width;
            }
            i += height;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::differences::{Accumulator, Differences, inner};
    use crate::cpu::Matrix;
    use crate::cpu::reference::{self, Random};
    use crate::cpu::tests::{cpus, tensor};
    use crate::{Activation, Backward, Linear};

    #[test]
    fn linear_layers_pass_derivatives_back_in_every_tail() {
        let mut random = Random::new();
        for [m, k, n] in [[1, 1, 1], [3, 2, 5], [13, 50, 50], [31, 33, 17], [200, 64, 64], [70, 25, 100], [1100, 9, 40]]
        {
            let [x, dy] = [k, n].map(|cols| random.normals(m * cols));
            let (weight, bias) = (random.normals(k * n), random.normals(n));
            let differences = Differences::new(&mut random, &[&x, &weight, &bias], 12, |at| {
                inner(&reference::linear(&at[0], &at[1], Some(&at[2]), [m, k, n], Activation::Identity), &dy)
            });
            let layer = Linear { weight: tensor(weight, &[k, n]), bias: Some(tensor(bias, &[n])) };
            for cpu in cpus() {
                let mut dweight = Accumulator::new(&mut random, k, n);
                let mut dbias = Accumulator::new(&mut random, 1, n);
                let (x, dy) = (Matrix::from_slice(&x, k), Matrix::from_slice(&dy, n));
                let dx = cpu.linear_backward(&x, &layer, &dy, &mut dweight.matrix, Some(&mut dbias.matrix));
                let case = format!("{:?} {m}×{k}×{n}", cpu.isa());
                differences.check(&[dx.as_slice(), &dweight.added(), &dbias.added()], &case);
                let without = cpu.linear_backward(&x, &layer, &dy, &mut dweight.matrix, None);
                assert_eq!(without.as_slice(), dx.as_slice());
            }
        }
    }
}
