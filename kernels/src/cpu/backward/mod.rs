//! Training on the CPU: the derivatives of the operators.

mod activation;
mod attention;
mod blocks;
#[cfg(test)]
mod differences;
mod dropout;
mod embed;
mod linear;
pub(super) mod norm;
mod silu_attention;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::attention::{Asked, AttentionKernel, Training};
use super::gemm::LinearKernel;
use super::matrix::Scratch;
use super::noise::{check_noise, growth};
use super::{Cpu, Matrix, check_offsets, head_dim, pair_bias, vector};
use crate::{Activation, Backward, LayerNorm, Linear, Noise, Sequences, SiluAttention, TIME_BUCKETS, TableGradient};
use activation::{ActivateBackwardKernel, ActivateKernel};
use attention::AttentionBackwardKernel;
use dropout::DropOutKernel;
use embed::EmbedBackwardKernel;
use linear::{ColumnSumsKernel, TransposeKernel, WeightKernel};
use norm::{L2BackwardKernel, LayerNormBackwardKernel};
use silu_attention::SiluAttentionBackwardKernel;

/// Panics unless both matrices have the same shape.
fn check_shape(x: &Matrix, of: &Matrix, name: &str) {
    assert_eq!((x.rows(), x.cols()), (of.rows(), of.cols()), "shape of {name}");
}

/// The accumulator of a vector's derivative, which has to be of length `dim`.
fn accumulator<'a>(matrix: Option<&'a mut Matrix>, dim: usize, name: &str) -> Option<&'a mut [f32]> {
    matrix.map(|matrix| {
        assert_eq!(matrix.rows() * matrix.cols(), dim, "derivative by {name} as {matrix:?}");
        matrix.as_mut_slice()
    })
}

/// Panics unless the operands of attention fit together. Gives the noise back where there is any.
fn check_attention<'a>(
    q: &Matrix,
    others: [&Matrix; 2],
    heads: usize,
    batch: &Sequences<'_>,
    noise: Option<Noise<'a>>,
) -> Option<Noise<'a>> {
    check_offsets(batch.offsets, q.rows());
    for matrix in others {
        check_shape(matrix, q, "keys and values");
    }
    assert!(heads > 0 && q.cols().is_multiple_of(heads), "{} columns do not divide into {heads} heads", q.cols());
    noise.filter(|noise| {
        check_noise(noise, batch.len());
        noise.rate > 0.0
    })
}

impl Backward for Cpu {
    fn zeros(&self, rows: usize, cols: usize) -> Matrix {
        Matrix::zeros(rows, cols)
    }

    fn copy(&self, x: &Matrix) -> Matrix {
        Matrix::from_slice(x.as_slice(), x.cols())
    }

    fn activate(&self, x: &Matrix, activation: Activation) -> Matrix {
        let fill = |out| self.run(ActivateKernel { x: x.as_slice(), activation, out });
        // SAFETY: the kernel writes as many numbers as x has.
        unsafe { Matrix::filled_by(x.rows(), x.cols(), fill) }
    }

    fn activate_backward(&self, x: &Matrix, activation: Activation, dy: &mut Matrix) {
        check_shape(dy, x, "a derivative by an activation");
        self.run(ActivateBackwardKernel { x: x.as_slice(), activation, dy: dy.as_mut_slice() });
    }

    fn drop_out(&self, x: &mut Matrix, batch: &Sequences<'_>, noise: Noise<'_>) {
        check_offsets(batch.offsets, x.rows());
        check_noise(&noise, batch.len());
        if noise.rate > 0.0 {
            let cols = x.cols();
            self.run(DropOutKernel { x: x.as_mut_slice(), cols, offsets: batch.offsets, noise });
        }
    }

    fn linear_backward(
        &self,
        x: &Matrix,
        layer: &Linear,
        dy: &Matrix,
        dweight: &mut Matrix,
        dbias: Option<&mut Matrix>,
    ) -> Matrix {
        let (rows, inputs, outputs) = (x.rows(), layer.weight.rows(), layer.weight.cols());
        assert_eq!(x.cols(), inputs, "a layer of {inputs} inputs");
        assert_eq!((dy.rows(), dy.cols()), (rows, outputs), "a derivative by {rows} rows of {outputs} outputs");
        assert_eq!((dweight.rows(), dweight.cols()), (inputs, outputs), "shape of a derivative by weights");
        if let Some(out) = accumulator(dbias, outputs, "bias") {
            self.run(ColumnSumsKernel { x: dy.as_slice(), rows, out });
        }
        self.run(WeightKernel {
            x: x.as_slice(),
            dy: dy.as_slice(),
            rows,
            inputs,
            outputs,
            out: dweight.as_mut_slice(),
        });
        let mut transpose = Scratch::new(inputs * outputs);
        let to = transpose.as_mut_ptr();
        self.run(TransposeKernel { from: layer.weight.as_slice(), rows: inputs, cols: outputs, to });
        // SAFETY: the kernel has written all numbers of the transpose, which outlives the slice.
        let weight = unsafe { std::slice::from_raw_parts(to, inputs * outputs) };
        let fill = |out| {
            self.run(LinearKernel {
                x: dy.as_slice(),
                weight,
                bias: None,
                rows,
                inputs: outputs,
                outputs: inputs,
                stride: inputs,
                activation: Activation::Identity,
                out,
            })
        };
        // SAFETY: the kernel writes every row and column.
        unsafe { Matrix::filled_by(rows, inputs, fill) }
    }

    fn layer_norm_backward(
        &self,
        x: &Matrix,
        norm: &LayerNorm,
        dy: &Matrix,
        dweight: Option<&mut Matrix>,
        dbias: Option<&mut Matrix>,
    ) -> Matrix {
        let dim = x.cols();
        check_shape(dy, x, "a derivative by a layer norm");
        let weight = vector(&norm.weight, dim, "layer norm weight");
        let kernel = |out| LayerNormBackwardKernel {
            x: x.as_slice(),
            dy: dy.as_slice(),
            weight,
            eps: norm.eps,
            dim,
            rows: x.rows(),
            dweight: accumulator(dweight, dim, "layer norm weight"),
            dbias: accumulator(dbias, dim, "layer norm bias"),
            out,
        };
        // SAFETY: the kernel writes every row.
        unsafe { Matrix::filled_by(x.rows(), dim, |out| self.run(kernel(out))) }
    }

    fn attention_forward(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        noise: Option<Noise<'_>>,
    ) -> (Matrix, Matrix) {
        let noise = check_attention(q, [k, v], heads, batch, noise);
        let (events, dim) = (q.rows(), q.cols());
        let mut lse = Matrix::zeros(events, heads);
        let fill = |out| {
            self.run(AttentionKernel {
                q: q.as_slice(),
                k: k.as_slice(),
                v: v.as_slice(),
                heads,
                dim,
                offsets: batch.offsets,
                asked: Asked::All,
                training: Some(Training { noise, lse: lse.as_mut_slice() }),
                out,
            })
        };
        // SAFETY: the kernel writes every head of every row.
        let out = unsafe { Matrix::filled_by(events, dim, fill) };
        (out, lse)
    }

    fn attention_backward(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        out: &Matrix,
        lse: &Matrix,
        dout: &Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        noise: Option<Noise<'_>>,
    ) -> [Matrix; 3] {
        let noise = check_attention(q, [k, v], heads, batch, noise);
        check_shape(out, q, "the result of attention");
        check_shape(dout, q, "a derivative by attention");
        assert_eq!((lse.rows(), lse.cols()), (q.rows(), heads), "shape of the sums of attention");
        let mut derivatives = [q, k, v].map(|x| Matrix::zeros(x.rows(), x.cols()));
        let [dq, dk, dv] = &mut derivatives;
        self.run(AttentionBackwardKernel {
            q: q.as_slice(),
            k: k.as_slice(),
            v: v.as_slice(),
            out: out.as_slice(),
            lse: lse.as_slice(),
            dout: dout.as_slice(),
            heads,
            dim: q.cols(),
            offsets: batch.offsets,
            noise,
            growth: noise.as_ref().map_or(1.0, growth),
            dq: dq.as_mut_slice(),
            dk: dk.as_mut_slice(),
            dv: dv.as_mut_slice(),
        });
        derivatives
    }

    fn silu_attention_backward(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        attention: &SiluAttention,
        batch: &Sequences<'_>,
        dout: &Matrix,
        (dpositions, dtimes): (&mut Matrix, Option<&mut Matrix>),
    ) -> [Matrix; 3] {
        check_offsets(batch.offsets, q.rows());
        check_shape(k, q, "keys");
        check_shape(dout, v, "a derivative by attention");
        assert_eq!(v.rows(), q.rows(), "keys and values differ in number");
        let &SiluAttention { heads, ref bias, divisor } = attention;
        let [dim, value_dim] = [q, v].map(|x| head_dim(x, heads));
        let bias = pair_bias(bias, batch);
        assert_eq!(dtimes.is_some(), bias.times.is_some(), "a derivative by biases that are there");
        let mut derivatives = [q, k, v].map(|x| Matrix::zeros(x.rows(), x.cols()));
        let [dq, dk, dv] = &mut derivatives;
        self.run(SiluAttentionBackwardKernel {
            q: q.as_slice(),
            k: k.as_slice(),
            v: v.as_slice(),
            dout: dout.as_slice(),
            heads,
            dim,
            value_dim,
            bias,
            divisor,
            offsets: batch.offsets,
            dq: dq.as_mut_slice(),
            dk: dk.as_mut_slice(),
            dv: dv.as_mut_slice(),
            dpositions: accumulator(Some(dpositions), bias.positions.len(), "biases by position").unwrap_or(&mut []),
            dtimes: accumulator(dtimes, TIME_BUCKETS, "biases by time"),
        });
        derivatives
    }

    fn embed_backward(
        &self,
        dy: &Matrix,
        scale: f32,
        batch: &Sequences<'_>,
        ditems: &mut TableGradient,
        dpositions: &mut Matrix,
    ) {
        let dim = dy.cols();
        assert_eq!((batch.items.len(), batch.positions.len()), (dy.rows(), dy.rows()), "ids for every event");
        assert_eq!((ditems.cols(), dpositions.cols()), (dim, dim), "columns of the tables' derivatives");
        let dpositions = dpositions.as_mut_slice();
        self.run(EmbedBackwardKernel { dy: dy.as_slice(), dim, scale, batch, ditems, dpositions });
    }

    fn last_rows_backward(&self, dy: &Matrix, batch: &Sequences<'_>) -> Matrix {
        assert_eq!(dy.rows(), batch.len(), "a row for every history");
        let (events, dim) = (batch.offsets.last().copied().unwrap_or(0), dy.cols());
        check_offsets(batch.offsets, events);
        let mut dx = Matrix::zeros(events, dim);
        for (history, bounds) in batch.offsets.windows(2).enumerate() {
            assert!(bounds[0] < bounds[1], "an empty history has no last row");
            let at = (bounds[1] - 1) * dim;
            dx.as_mut_slice()[at..at + dim].copy_from_slice(dy.row(history));
        }
        dx
    }

    fn l2_normalize_backward(&self, x: &Matrix, dy: &Matrix) -> Matrix {
        check_shape(dy, x, "a derivative by normalised rows");
        let (dim, rows) = (x.cols(), x.rows());
        let fill = |out| self.run(L2BackwardKernel { x: x.as_slice(), dy: dy.as_slice(), dim, rows, out });
        // SAFETY: the kernel writes every row.
        unsafe { Matrix::filled_by(rows, dim, fill) }
    }
}
