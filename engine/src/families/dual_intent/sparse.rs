//! Sparse matrices by rows, and their products with dense ones.

use pgrec_kernels::cpu::Cpu;
use rayon::prelude::*;

use crate::{Control, Result};

/// Rows that one task computes.
const ROWS: usize = 256;

/// A sparse matrix (compressed rows).
#[derive(Debug, Clone)]
pub(super) struct Sparse {
    /// Where each row begins, and the end of the last.
    offsets: Vec<usize>,
    columns: Vec<u32>,
    weights: Vec<f32>,
    /// How many columns there are.
    width: usize,
}

impl Sparse {
    /// No rows, of so many columns.
    pub(super) fn of_width(width: usize) -> Self {
        Self { offsets: vec![0], columns: Vec::new(), weights: Vec::new(), width }
    }

    /// One more row.
    pub(super) fn push(&mut self, row: impl IntoIterator<Item = (u32, f32)>) {
        for (column, weight) in row {
            self.columns.push(column);
            self.weights.push(weight);
        }
        self.offsets.push(self.columns.len());
    }

    pub(super) fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Columns and weights of a row.
    pub(super) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[row]..self.offsets[row + 1];
        (&self.columns[range.clone()], &self.weights[range])
    }

    pub(super) fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.width + 1];
        self.columns.iter().for_each(|&column| offsets[column as usize + 1] += 1);
        (0..self.width).for_each(|row| offsets[row + 1] += offsets[row]);
        let mut next = offsets.clone();
        let (mut columns, mut weights) = (vec![0; self.columns.len()], vec![0.0; self.columns.len()]);
        for row in 0..self.rows() {
            let (own, with) = self.row(row);
            for (&column, &weight) in own.iter().zip(with) {
                let place = &mut next[column as usize];
                (columns[*place], weights[*place]) = (row as u32, weight);
                *place += 1;
            }
        }
        Self { offsets, columns, weights, width: self.rows() }
    }

    /// Its product with `x`, rows of `dim` numbers. A row is summed by one thread, in the order of its columns: the number of
    /// threads changes no bit.
    pub(super) fn times(&self, x: &[f32], dim: usize, control: &Control) -> Result<Vec<f32>> {
        let (mut product, cpu) = (vec![0.0; self.rows() * dim], Cpu::new());
        product.par_chunks_mut(ROWS * dim).enumerate().try_for_each(|(task, rows)| {
            control.check()?;
            for (row, to) in (task * ROWS..).zip(rows.chunks_exact_mut(dim)) {
                let (columns, weights) = self.row(row);
                let term = |(&column, &weight): (&u32, &f32)| (weight, &x[column as usize * dim..][..dim]);
                cpu.add_weighted(to, columns.iter().zip(weights).map(term));
            }
            Ok::<_, crate::Error>(())
        })?;
        Ok(product)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_computed_by_hand() {
        let mut matrix = Sparse::of_width(3);
        matrix.push([(0, 2.0), (2, 1.0)]);
        matrix.push([]);
        matrix.push([(2, -1.0)]);
        matrix.push([(1, 0.5), (0, 1.0)]);
        let control = Control::default();
        let product = matrix.times(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0], 2, &control).unwrap();
        assert_eq!(product, [5.0, 50.0, 0.0, 0.0, -3.0, -30.0, 2.0, 20.0]);
        let back = matrix.transposed().times(&[1.0, 2.0, 3.0, 4.0], 1, &control).unwrap();
        assert_eq!(back, [6.0, 2.0, -2.0]);
    }
}
