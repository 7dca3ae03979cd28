//! Losses on the CPU.

mod each;
mod grid;
mod hits;
mod logistic;
mod rows;
mod shared;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::backward::norm::L2BackwardKernel;
use super::rowwise::L2Kernel;
use super::{Cpu, Matrix};
use crate::{Losses, Negatives, TableGradient, Tensor, UNASKED};
use each::{Binary, EachKernel, RowLoss, Softmax};
use grid::Grid;
use hits::hits;
use rows::{PairsKernel, ScatterKernel, TargetsKernel};
use shared::{NegativesKernel, SoftmaxKernel};

impl Losses for Cpu {
    fn softmax(
        &self,
        hidden: &Matrix,
        items: &Tensor,
        targets: &[u32],
        scale: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Matrix) {
        check(hidden, items, targets, ditems);
        let answers = Answers { cpu: self, hidden, items, targets, scale, weight };
        let (mut dhidden, mut coefficients) = (zeros_like(hidden), vec![0.0; targets.len()]);
        let table = ditems.dense_mut().expect("the softmax over all items has a derivative by all of them");
        let loss = self.run(SoftmaxKernel {
            grid: answers.grid(items.as_slice(), items.rows()),
            targets: &answers.scores(),
            included: true,
            weight,
            dhidden: dhidden.as_mut_slice(),
            ditems: table,
            coefficients: &mut coefficients,
        });
        answers.add(&coefficients, &mut dhidden, ditems);
        (f64::from(weight) * loss, dhidden)
    }

    fn sampled_softmax(
        &self,
        hidden: &Matrix,
        items: &Tensor,
        targets: &[u32],
        negatives: Negatives<'_>,
        scale: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Matrix) {
        check(hidden, items, targets, ditems);
        let answers = Answers { cpu: self, hidden, items, targets, scale, weight };
        let (negatives, correction) = match negatives {
            Negatives::EachRow { items, count } => return answers.each(Softmax, items, count, ditems),
            Negatives::Shared { items, correction } => (items, correction),
        };
        let shared = answers.gather(negatives, correction);
        let (mut dhidden, mut dshared) = (zeros_like(hidden), zeros_like(&shared));
        let mut coefficients = vec![0.0; targets.len()];
        let hits = hits(negatives, targets);
        let loss = self.run(SoftmaxKernel {
            grid: Grid { correction, hits: &hits, ..answers.grid(shared.as_slice(), negatives.len()) },
            targets: &answers.scores(),
            included: false,
            weight,
            dhidden: dhidden.as_mut_slice(),
            ditems: dshared.as_mut_slice(),
            coefficients: &mut coefficients,
        });
        self.run(ScatterKernel { ids: negatives, from: dshared.as_slice(), dim: hidden.cols(), to: ditems });
        answers.add(&coefficients, &mut dhidden, ditems);
        (f64::from(weight) * loss, dhidden)
    }

    fn binary(
        &self,
        hidden: &Matrix,
        items: &Tensor,
        targets: &[u32],
        negatives: Negatives<'_>,
        beta: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Matrix) {
        check(hidden, items, targets, ditems);
        let answers = Answers { cpu: self, hidden, items, targets, scale: 1.0, weight };
        let (negatives, correction) = match negatives {
            Negatives::EachRow { items, count } => return answers.each(Binary { beta }, items, count, ditems),
            Negatives::Shared { items, correction } => (items, correction),
        };
        let shared = answers.gather(negatives, correction);
        let (mut dhidden, mut dshared) = (zeros_like(hidden), zeros_like(&shared));
        let hits = hits(negatives, targets);
        let mut loss = self.run(NegativesKernel {
            grid: Grid { correction, hits: &hits, ..answers.grid(shared.as_slice(), negatives.len()) },
            weight,
            dhidden: dhidden.as_mut_slice(),
            ditems: dshared.as_mut_slice(),
        });
        self.run(ScatterKernel { ids: negatives, from: dshared.as_slice(), dim: hidden.cols(), to: ditems });
        let mut coefficients = answers.scores();
        for score in &mut coefficients {
            // log σ(s) and its derivative σ(−s), of the few scores that are not negatives'.
            let x = f64::from(-*score);
            loss += f64::from(beta) * (x.max(0.0) + (-x.abs()).exp().ln_1p());
            *score = (-f64::from(beta) / (1.0 + (-x).exp())) as f32;
        }
        answers.add(&coefficients, &mut dhidden, ditems);
        (f64::from(weight) * loss, dhidden)
    }

    fn yes_or_no(&self, logits: &Matrix, answers: &[u32], weight: f32) -> (f64, Matrix) {
        assert_eq!(logits.rows(), answers.len(), "answers for every row");
        assert!(logits.cols() <= 32, "{} questions have no bit each", logits.cols());
        let mut derivative = zeros_like(logits);
        let mut loss = 0.0;
        let rows = logits.as_slice().chunks(logits.cols().max(1));
        for ((row, &answers), derivatives) in
            rows.zip(answers).zip(derivative.as_mut_slice().chunks_mut(logits.cols().max(1)))
        {
            if answers == UNASKED {
                continue;
            }
            for (question, (&logit, derivative)) in row.iter().zip(derivatives).enumerate() {
                let yes = answers >> question & 1 == 1;
                // −log σ(x) where the answer is yes, of a logit turned round where it is no.
                let x = f64::from(if yes { -logit } else { logit });
                loss += x.max(0.0) + (-x.abs()).exp().ln_1p();
                let sigma = 1.0 / (1.0 + (-x).exp());
                *derivative = weight * (if yes { -sigma } else { sigma }) as f32;
            }
        }
        (f64::from(weight) * loss, derivative)
    }

    fn unit_rows(&self, rows: &[f32], cols: usize, out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "as many rows of length 1");
        let count = rows_of(rows, cols);
        self.run(L2Kernel { x: rows, dim: cols, rows: count, out: out.as_mut_ptr() });
    }

    fn unit_rows_backward(&self, rows: &[f32], cols: usize, drows: &mut [f32]) {
        assert_eq!(rows.len(), drows.len(), "a derivative by every row");
        // The kernel does not work in place; a copy of some rows at a time stays in the cache.
        const CHUNK: usize = 32;
        let mut copy = Vec::with_capacity(CHUNK * cols);
        for (x, dx) in rows.chunks(CHUNK * cols.max(1)).zip(drows.chunks_mut(CHUNK * cols.max(1))) {
            copy.clear();
            copy.extend_from_slice(dx);
            let rows = rows_of(x, cols);
            self.run(L2BackwardKernel { x, dy: &copy, dim: cols, rows, out: dx.as_mut_ptr() });
        }
    }
}

/// How many rows of `cols` there are. Panics where something is left over.
fn rows_of(values: &[f32], cols: usize) -> usize {
    let rows = values.len().checked_div(cols).unwrap_or(0);
    assert_eq!(rows * cols, values.len(), "{} numbers do not make rows of {cols}", values.len());
    rows
}

/// Panics unless the operands of a loss fit together.
fn check(hidden: &Matrix, items: &Tensor, targets: &[u32], ditems: &TableGradient) {
    assert_eq!(hidden.cols(), items.cols(), "events and items differ in length");
    assert_eq!(targets.len(), hidden.rows(), "a target for every row");
    assert_eq!(
        (ditems.table_rows(), ditems.cols()),
        (items.rows(), items.cols()),
        "shape of the derivative by the items"
    );
    check_ids(targets, items);
}

fn check_ids(ids: &[u32], items: &Tensor) {
    let largest = ids.iter().copied().max();
    assert!(largest.is_none_or(|id| (id as usize) < items.rows()), "item {largest:?} of {}", items.rows());
}

/// What the losses have in common.
struct Answers<'a> {
    cpu: &'a Cpu,
    hidden: &'a Matrix,
    items: &'a Tensor,
    targets: &'a [u32],
    scale: f32,
    weight: f32,
}

impl<'a> Answers<'a> {
    /// The targets' scores.
    fn scores(&self) -> Vec<f32> {
        self.cpu.run(PairsKernel {
            hidden: self.hidden.as_slice(),
            dim: self.hidden.cols(),
            items: self.items.as_slice(),
            ids: self.targets,
            scale: self.scale,
        })
    }

    /// The events against `count` rows of `items`.
    fn grid(&self, items: &'a [f32], count: usize) -> Grid<'a> {
        let (rows, dim) = (self.hidden.rows(), self.hidden.cols());
        assert_eq!(items.len(), count * dim);
        Grid { hidden: self.hidden.as_slice(), rows, dim, scale: self.scale, items, count, correction: None, hits: &[] }
    }

    /// The vectors of the negatives.
    fn gather(&self, negatives: &[u32], correction: Option<&[f32]>) -> Matrix {
        check_ids(negatives, self.items);
        assert!(correction.is_none_or(|all| all.len() == negatives.len()), "a correction for every negative");
        let dim = self.items.cols();
        let mut shared = Matrix::zeros(negatives.len(), dim);
        for (to, &id) in shared.as_mut_slice().chunks_exact_mut(dim.max(1)).zip(negatives) {
            to.copy_from_slice(self.items.row(id as usize));
        }
        shared
    }

    /// Adds the targets' part to the derivatives.
    fn add(&self, coefficients: &[f32], dhidden: &mut Matrix, ditems: &mut TableGradient) {
        self.cpu.run(TargetsKernel {
            hidden: self.hidden.as_slice(),
            dim: self.hidden.cols(),
            items: self.items.as_slice(),
            targets: self.targets,
            coefficients,
            factor: self.weight * self.scale,
            dhidden: dhidden.as_mut_slice(),
            ditems,
        });
    }

    /// The loss over negatives of each row's own.
    fn each<L: RowLoss>(&self, loss: L, negatives: &[u32], count: usize, ditems: &mut TableGradient) -> (f64, Matrix) {
        assert_eq!(negatives.len(), count * self.targets.len(), "{count} negatives for every row");
        check_ids(negatives, self.items);
        let (rows, dim) = (self.hidden.rows(), self.hidden.cols());
        let mut sum = 0.0;
        let fill = |dhidden| {
            sum = self.cpu.run(EachKernel {
                loss,
                hidden: self.hidden.as_slice(),
                dim,
                items: self.items.as_slice(),
                targets: self.targets,
                negatives,
                count,
                scale: self.scale,
                weight: self.weight,
                ditems,
                dhidden,
            });
        };
        // SAFETY: the kernel writes every row.
        let dhidden = unsafe { Matrix::filled_by(rows, dim, fill) };
        (f64::from(self.weight) * sum, dhidden)
    }
}

fn zeros_like(matrix: &Matrix) -> Matrix {
    Matrix::zeros(matrix.rows(), matrix.cols())
}
