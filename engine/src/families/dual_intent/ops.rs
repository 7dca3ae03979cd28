//! Operators of this family on the tape, and the activations that serving shares with them.

use std::cell::RefCell;
use std::rc::Rc;

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Backward, TableGradient};

use crate::train::{Tape, Var};

/// LeakyReLU's, as PyTorch has it.
const SLOPE: f32 = 0.01;

/// A table that is no weight, and the derivative by its rows.
pub(super) struct Rows<'a> {
    rows: &'a [f32],
    dim: usize,
    gradient: Rc<RefCell<TableGradient>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(rows: &'a [f32], dim: usize) -> Self {
        let gradient = TableGradient::sparse(rows.len() / dim, dim);
        Self { rows, dim, gradient: Rc::new(RefCell::new(gradient)) }
    }

    fn row(&self, row: u32) -> &'a [f32] {
        &self.rows[row as usize * self.dim..][..self.dim]
    }

    /// The derivative that came together.
    pub(super) fn into_gradient(self) -> TableGradient {
        Rc::try_unwrap(self.gradient).map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner)
    }

    /// Σ weight·row for each of some lists of rows and weights.
    pub(super) fn sums(&self, tape: &Tape<'_, Cpu>, lists: &[Vec<(u32, f32)>]) -> Var<Matrix> {
        let (dim, cpu, mut sums) = (self.dim, Cpu::new(), Matrix::zeros(lists.len(), self.dim));
        for (list, sum) in lists.iter().zip(sums.as_mut_slice().chunks_exact_mut(dim)) {
            cpu.add_weighted(sum, list.iter().map(|&(row, weight)| (weight, self.row(row))));
        }
        let (gradient, lists) = (Rc::clone(&self.gradient), lists.to_vec());
        tape.apply(&[], sums, move |_, dy| {
            let mut into = gradient.borrow_mut();
            for (list, dy) in lists.iter().zip(dy.as_slice().chunks_exact(dim)) {
                list.iter().for_each(|&(row, weight)| cpu.add_scaled(into.row_mut(row), weight, dy));
            }
            Vec::new()
        })
    }

    /// Some rows.
    pub(super) fn some(&self, tape: &Tape<'_, Cpu>, ids: &[u32]) -> Var<Matrix> {
        let rows: Vec<f32> = ids.iter().flat_map(|&id| self.row(id)).copied().collect();
        let (gradient, ids, dim) = (Rc::clone(&self.gradient), ids.to_vec(), self.dim);
        tape.apply(&[], Matrix::from_slice(&rows, dim), move |_, dy| {
            let mut into = gradient.borrow_mut();
            ids.iter()
                .zip(dy.as_slice().chunks_exact(dim))
                .for_each(|(&id, dy)| Cpu::new().add_scaled(into.row_mut(id), 1.0, dy));
            Vec::new()
        })
    }

    /// For each of some lists of rows their mean, weighted by the softmax of their products with what asks: `asking` has a row
    /// for every `each` lists; zeros of an empty list.
    pub(super) fn attended(
        &self,
        tape: &Tape<'_, Cpu>,
        asking: &Var<Matrix>,
        each: usize,
        lists: &[&[u32]],
    ) -> Var<Matrix> {
        let (dim, cpu) = (self.dim, Cpu::new());
        let ids = lists.concat();
        let ends: Vec<usize> = lists
            .iter()
            .scan(0, |end, list| {
                *end += list.len();
                Some(*end)
            })
            .collect();
        let picked: Vec<f32> = ids.iter().flat_map(|&id| self.row(id)).copied().collect();
        let (mut means, mut shares) = (Matrix::zeros(lists.len(), dim), Vec::with_capacity(ids.len()));
        for (place, mean) in means.as_mut_slice().chunks_exact_mut(dim).enumerate() {
            let rows = picked[shares.len() * dim..ends[place] * dim].chunks_exact(dim);
            let own = attention(asking.value().row(place / each), rows.clone());
            cpu.add_weighted(mean, own.iter().copied().zip(rows));
            shares.extend(own);
        }
        let asked = Matrix::from_slice(asking.value().as_slice(), dim);
        let gradient = Rc::clone(&self.gradient);
        tape.apply(&[asking], means, move |_, dy| {
            let (mut into, mut by_asking) = (gradient.borrow_mut(), Matrix::zeros(asked.rows(), dim));
            let mut first = 0;
            for (place, end) in ends.into_iter().enumerate() {
                let (dy, asked, rows) = (dy.row(place), asked.row(place / each), &picked[first * dim..end * dim]);
                let products: Vec<f32> = rows.chunks_exact(dim).map(|row| dot(dy, row)).collect();
                let shares = &shares[first..end];
                let mean: f32 = products.iter().zip(shares).map(|(product, share)| product * share).sum();
                for (at, row) in rows.chunks_exact(dim).enumerate() {
                    let by_logit = shares[at] * (products[at] - mean);
                    let to = into.row_mut(ids[first + at]);
                    cpu.add_scaled(to, shares[at], dy);
                    cpu.add_scaled(to, by_logit, asked);
                    cpu.add_scaled(&mut by_asking.as_mut_slice()[place / each * dim..][..dim], by_logit, row);
                }
                first = end;
            }
            vec![by_asking]
        })
    }
}

/// The softmax of the products of some rows with what asks.
pub(super) fn attention<'a>(asking: &[f32], rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut shares: Vec<f32> = rows.map(|row| dot(asking, row)).collect();
    let most = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    shares.iter_mut().for_each(|share| *share = (*share - most).exp());
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The columns of both.
pub(super) fn beside(tape: &Tape<'_, Cpu>, a: &Var<Matrix>, b: &Var<Matrix>) -> Var<Matrix> {
    let (first, second) = (a.value().cols(), b.value().cols());
    let rows = a.value().as_slice().chunks_exact(first).zip(b.value().as_slice().chunks_exact(second));
    let both: Vec<f32> = rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
    tape.apply(&[a, b], Matrix::from_slice(&both, first + second), move |_, dy| {
        let part = |from: usize, to: usize| -> Matrix {
            let rows = dy.as_slice().chunks_exact(first + second);
            Matrix::from_slice(&rows.flat_map(|row| &row[from..to]).copied().collect::<Vec<f32>>(), to - from)
        };
        vec![part(0, first), part(first, first + second)]
    })
}

/// Every row so many times.
pub(super) fn repeated(tape: &Tape<'_, Cpu>, x: &Var<Matrix>, times: usize) -> Var<Matrix> {
    let cols = x.value().cols();
    let mut rows = Vec::with_capacity(times * x.value().as_slice().len());
    for row in x.value().as_slice().chunks_exact(cols) {
        (0..times).for_each(|_| rows.extend_from_slice(row));
    }
    tape.apply(&[x], Matrix::from_slice(&rows, cols), move |_, dy| {
        let mut sums = Matrix::zeros(dy.rows() / times, cols);
        let cpu = Cpu::new();
        for (place, dy) in dy.as_slice().chunks_exact(cols).enumerate() {
            cpu.add_scaled(&mut sums.as_mut_slice()[place / times * cols..][..cols], 1.0, dy);
        }
        vec![sums]
    })
}

/// a + b
pub(super) fn sum(tape: &Tape<'_, Cpu>, a: &Var<Matrix>, b: &Var<Matrix>) -> Var<Matrix> {
    let mut sum = Matrix::from_slice(a.value().as_slice(), a.value().cols());
    Cpu::new().add_scaled(sum.as_mut_slice(), 1.0, b.value().as_slice());
    tape.apply(&[a, b], sum, |cpu, dy| vec![cpu.copy(&dy), dy])
}

/// Products of the rows of both times a number, `[rows, 1]`.
pub(super) fn products(tape: &Tape<'_, Cpu>, a: &Var<Matrix>, b: &Var<Matrix>, by: f32) -> Var<Matrix> {
    let cols = a.value().cols();
    let [own, other] = [a, b].map(|x| Matrix::from_slice(x.value().as_slice(), cols));
    let pairs = own.as_slice().chunks_exact(cols).zip(other.as_slice().chunks_exact(cols));
    let products: Vec<f32> = pairs.map(|(a, b)| by * dot(a, b)).collect();
    tape.apply(&[a, b], Matrix::from_slice(&products, 1), move |_, dy| {
        let scaled = |x: &Matrix| {
            let rows = x.as_slice().chunks_exact(cols).zip(dy.as_slice());
            let numbers: Vec<f32> = rows.flat_map(|(row, dy)| row.iter().map(move |x| by * dy * x)).collect();
            Matrix::from_slice(&numbers, cols)
        };
        vec![scaled(&other), scaled(&own)]
    })
}

/// LeakyReLU.
pub(super) fn bent(tape: &Tape<'_, Cpu>, x: &Var<Matrix>) -> Var<Matrix> {
    let mut value = Matrix::from_slice(x.value().as_slice(), x.value().cols());
    bend(value.as_mut_slice());
    // A number and what becomes of it have the same sign.
    let signs: Vec<bool> = value.as_slice().iter().map(|&x| x > 0.0).collect();
    tape.apply(&[x], value, move |_, mut dy| {
        dy.as_mut_slice().iter_mut().zip(&signs).for_each(|(dy, &positive)| *dy *= if positive { 1.0 } else { SLOPE });
        vec![dy]
    })
}

/// tanh
pub(super) fn squashed(tape: &Tape<'_, Cpu>, x: &Var<Matrix>) -> Var<Matrix> {
    let mut value = Matrix::from_slice(x.value().as_slice(), x.value().cols());
    squash(value.as_mut_slice());
    let result = value.as_slice().to_vec();
    tape.apply(&[x], value, move |_, mut dy| {
        dy.as_mut_slice().iter_mut().zip(&result).for_each(|(dy, y)| *dy *= 1.0 - y * y);
        vec![dy]
    })
}

/// LeakyReLU in place.
pub(super) fn bend(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.max(SLOPE * *x));
}

/// tanh in place, to 5e-7: a quotient of polynomials (as Eigen has it), which the compiler turns into vector instructions.
pub(super) fn squash(x: &mut [f32]) {
    const ODD: [f32; 7] = [
        4.893_525_5e-3,
        6.372_619_3e-4,
        1.485_722_4e-5,
        5.122_297_1e-8,
        -8.604_672e-11,
        2.000_188e-13,
        -2.760_768_5e-16,
    ];
    const EVEN: [f32; 4] = [4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6];
    for x in x {
        let y = x.clamp(-7.905_311, 7.905_311);
        let square = y * y;
        let over = ODD.iter().rev().fold(0.0, |sum, by| sum * square + by);
        let under = EVEN.iter().rev().fold(0.0, |sum, by| sum * square + by);
        *x = y * over / under;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_squashed_is_the_hyperbolic_tangent() {
        for n in -2000..=2000 {
            let x = n as f32 / 150.0;
            let mut y = [x];
            squash(&mut y);
            assert!((f64::from(y[0]) - f64::from(x).tanh()).abs() < 5e-7, "{x}: {}", y[0]);
        }
    }
}
