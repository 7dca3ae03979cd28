//! The device as families see it.

use std::borrow::Cow;

use super::{Cuda, Matrix};
use crate::{
    Activation, Device, Filter, KernelError, LayerNorm, Linear, Operators, Rows, Scored, Sequences, SiluAttention,
    Tensor,
};

impl Operators for Cuda {
    type Matrix = Matrix;
    type Weight = Tensor;

    fn embed(&self, items: &Tensor, positions: &Tensor, scale: f32, batch: &Sequences<'_>) -> Matrix {
        self.embed_rows(items, positions, scale, batch)
    }

    fn layer_norm(&self, x: &Matrix, norm: &LayerNorm) -> Matrix {
        self.norm_rows(x, norm, None)
    }

    fn linear(&self, x: &Matrix, layer: &Linear, activation: Activation) -> Matrix {
        self.linear_rows(x, layer, activation)
    }

    fn add(&self, x: &mut Matrix, y: &Matrix) {
        self.add_rows(x, y);
    }

    fn attention(&self, q: &Matrix, k: &Matrix, v: &Matrix, heads: usize, batch: &Sequences<'_>, rows: Rows) -> Matrix {
        self.attend(q, k, v, heads, batch, rows)
    }

    fn silu_attention(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        attention: &SiluAttention,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Matrix {
        self.silu_attend(q, k, v, attention, batch, rows)
    }

    fn norm_linear<const N: usize>(
        &self,
        x: &Matrix,
        norm: &LayerNorm,
        layers: [&Linear; N],
        activation: Activation,
    ) -> [Matrix; N] {
        self.norm_linear_rows(x, norm, layers, activation)
    }

    fn gated_linear(
        &self,
        gate: &Matrix,
        x: &Matrix,
        norm: &LayerNorm,
        layer: &Linear,
        residual: &Matrix,
        _batch: &Sequences<'_>,
    ) -> Matrix {
        self.gated_linear_rows(gate, x, norm, layer, residual)
    }

    fn multiply(&self, x: &Matrix, y: &Matrix) -> Matrix {
        self.multiply_rows(x, y)
    }

    fn last_rows(&self, x: &Matrix, batch: &Sequences<'_>) -> Matrix {
        self.rows_asked(x, batch)
    }

    fn l2_normalize(&self, x: &Matrix) -> Matrix {
        self.unit_rows(x)
    }
}

impl Device for Cuda {
    fn silu_candidates(
        &self,
        q: &Matrix,
        own: [&Matrix; 2],
        past: [&Matrix; 2],
        attention: &SiluAttention,
        batch: &Sequences<'_>,
    ) -> Matrix {
        self.silu_of_candidates(q, own, past, attention, batch)
    }

    fn append(&self, x: &mut Matrix, rows: &Matrix) {
        self.attempt(|| x.append(&self.driver, rows));
    }

    fn truncate(&self, x: &mut Matrix, rows: usize) {
        x.truncate(rows);
    }

    fn upload(&self, numbers: &[f32], cols: usize) -> Result<Matrix, KernelError> {
        self.check()?;
        assert!(numbers.len().is_multiple_of(cols.max(1)), "{} numbers do not make rows of {cols}", numbers.len());
        Ok(Matrix::upload(&self.driver, self.precision, numbers, cols)?)
    }

    fn bytes(&self, x: &Matrix) -> usize {
        x.bytes()
    }

    fn download<'a>(&self, x: &'a Matrix) -> Result<Cow<'a, [f32]>, KernelError> {
        self.check()?;
        Ok(Cow::Owned(x.download(&self.driver)?))
    }

    fn top_k(
        &self,
        queries: &[f32],
        items: &Tensor,
        k: &[usize],
        filters: &[Filter<'_>],
    ) -> Result<Vec<Vec<Scored>>, KernelError> {
        Ok(self.best(queries, items, k, filters)?)
    }

    fn scores(&self, query: &[f32], items: &Tensor, rows: &[u32]) -> Result<Vec<f32>, KernelError> {
        Ok(self.dots(query, items, rows)?)
    }
}
