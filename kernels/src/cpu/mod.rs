//! The CPU backend: one file an operator, each written once over a vector type and compiled for every
//! instruction set. Nothing here starts a thread: callers split their batches.

mod activation;
mod attention;
mod backward;
mod candidates;
mod distance;
mod dot;
mod gemm;
mod isa;
mod loss;
mod matrix;
mod noise;
mod optimizer;
mod pairwise;
mod portable;
mod projected;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod reference;
mod rowwise;
mod silu_attention;
mod simd;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
mod top_k;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use isa::Isa;
pub use matrix::{Matrix, keep_buffers};
pub use pairwise::Pairwise;

pub(crate) use distance::{ByteProducts, Comparison, Number, Pair, RowDistances, hamming, prefetch};

use std::borrow::Cow;

use crate::{
    Activation, Device, Filter, KernelError, LayerNorm, Linear, Operators, PairBias, Rows, Scored, Sequences,
    SiluAttention, TIME_BUCKETS, Tensor,
};
use attention::{Asked, AttentionKernel};
use candidates::SiluCandidatesKernel;
use dot::ScoreKernel;
use gemm::LinearKernel;
use projected::ProjectedKernel;
use rowwise::{
    AddKernel, AddScaledKernel, AddWeightedKernel, EmbedKernel, L2Kernel, LayerNormKernel, LogSumExpKernel,
    MultiplyKernel,
};
use silu_attention::{Bias, SiluAttentionKernel, Times};
use top_k::{BatchKernel, Best, ScanKernel};

/// The CPU as a device.
///
/// Every operator computes a row of its result in the same order of additions whatever surrounds the row, so a
/// history gives the same bits alone and in any batch. Different instruction sets may differ in the last bits.
///
/// Operators run on the calling thread. Matrices of a few thousand rows stay in the second-level cache; larger
/// batches are better split, and the parts computed in parallel.
///
/// Shapes that do not fit together are errors of the caller, and panic.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    isa: Isa,
}

impl Cpu {
    /// With the fastest instructions this processor has.
    pub fn new() -> Self {
        Self { isa: Isa::detect() }
    }

    /// With the given instructions, where this processor has them.
    pub fn with_isa(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self { isa })
    }

    /// The instructions in use.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// log Σ eˣ over finite numbers; −∞ of none.
    pub fn log_sum_exp(self, x: &[f32]) -> f32 {
        if x.is_empty() { f32::NEG_INFINITY } else { self.run(LogSumExpKernel { x }) }
    }

    /// `to += by·x`, of slices of the same length.
    pub fn add_scaled(self, to: &mut [f32], by: f32, x: &[f32]) {
        assert_eq!(to.len(), x.len(), "a sum of different lengths");
        self.run(AddScaledKernel { to, by, x });
    }

    /// `to += Σ byₖ·xₖ` in the order of the terms, of slices of the same length: the bits of [`Cpu::add_scaled`] term by term,
    /// of which the sums stay in registers.
    pub fn add_weighted<'a>(self, to: &mut [f32], terms: impl Iterator<Item = (f32, &'a [f32])> + Clone) {
        self.run(AddWeightedKernel { to, terms });
    }

    fn run<K: isa::Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the constructors made sure that the instructions are available.
        unsafe { self.isa.run(kernel) }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

/// The vector of a tensor that has to be of length `dim`.
fn vector<'a>(tensor: &'a Option<Tensor>, dim: usize, name: &str) -> Option<&'a [f32]> {
    tensor.as_ref().map(|tensor| {
        let values = tensor.as_slice();
        assert_eq!(values.len(), dim, "{name} of shape {:?} for {dim} columns", tensor.shape());
        values
    })
}

/// Panics unless the offsets ascend from 0 to `rows`.
fn check_offsets(offsets: &[usize], rows: usize) {
    assert!(
        offsets.windows(2).all(|w| w[0] <= w[1]) && offsets.first().is_none_or(|&o| o == 0),
        "offsets of a batch must ascend from 0"
    );
    assert_eq!(offsets.last().copied().unwrap_or(0), rows, "offsets of a batch must end at its {rows} rows");
}

/// The rows of attention that queries ask for. Panics unless there are as many as that.
fn asked(q: &Matrix, k: &Matrix, batch: &Sequences<'_>, rows: Rows) -> Asked {
    check_offsets(batch.offsets, k.rows());
    let (asked, wanted) = match rows {
        Rows::All => (Asked::All, k.rows()),
        Rows::Last => {
            assert!(batch.offsets.windows(2).all(|w| w[0] < w[1]), "an empty history has no last row");
            (Asked::Last, batch.len())
        }
        Rows::Tail => {
            assert!(batch.len() == 1 && q.rows() <= k.rows(), "the tail of one history");
            (Asked::Tail(q.rows()), q.rows())
        }
    };
    assert_eq!((q.rows(), q.cols()), (wanted, k.cols()), "shape of the queries");
    asked
}

/// Columns of a head. Panics unless they are the same for all.
fn head_dim(x: &Matrix, heads: usize) -> usize {
    assert!(heads > 0 && x.cols().is_multiple_of(heads), "{} columns do not divide into {heads} heads", x.cols());
    x.cols() / heads
}

/// The biases of a batch. Panics where they do not fit it.
fn pair_bias<'a>(bias: &'a PairBias, batch: &Sequences<'a>) -> Bias<'a> {
    let positions = bias.positions.as_slice();
    let longest = batch.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
    assert!(positions.len() % 2 == 1, "biases of pairs for 2·N − 1 differences, not {}", positions.len());
    assert!(longest <= positions.len().div_ceil(2), "a history of {longest} events and {} biases", positions.len());
    let times = bias.times.as_ref().map(|times| {
        let events = batch.offsets.last().copied().unwrap_or(0);
        assert_eq!(times.as_slice().len(), TIME_BUCKETS, "biases by time");
        assert_eq!((batch.times.len(), batch.until.len()), (events, events), "times of {events} events");
        Times { buckets: times.as_slice(), events: batch.times, until: batch.until }
    });
    Bias { positions, times }
}

impl Operators for Cpu {
    type Matrix = Matrix;
    type Weight = Tensor;

    fn embed(&self, items: &Tensor, positions: &Tensor, scale: f32, batch: &Sequences<'_>) -> Matrix {
        let (events, dim) = (batch.items.len(), items.cols());
        assert_eq!(positions.cols(), dim, "position and item vectors differ in length");
        assert_eq!(batch.positions.len(), events, "a position for every event");
        let fill = |out| {
            self.run(EmbedKernel {
                items: items.as_slice(),
                positions: positions.as_slice(),
                item_ids: batch.items,
                position_ids: batch.positions,
                scale,
                dim,
                out,
            })
        };
        // SAFETY: the kernel writes a row for every event.
        unsafe { Matrix::filled_by(events, dim, fill) }
    }

    fn layer_norm(&self, x: &Matrix, norm: &LayerNorm) -> Matrix {
        let dim = x.cols();
        let weight = vector(&norm.weight, dim, "layer norm weight");
        let bias = vector(&norm.bias, dim, "layer norm bias");
        let fill =
            |out| self.run(LayerNormKernel { x: x.as_slice(), weight, bias, eps: norm.eps, dim, rows: x.rows(), out });
        // SAFETY: the kernel writes every row.
        unsafe { Matrix::filled_by(x.rows(), dim, fill) }
    }

    fn linear(&self, x: &Matrix, layer: &Linear, activation: Activation) -> Matrix {
        let (inputs, outputs) = (layer.weight.rows(), layer.weight.cols());
        assert_eq!(x.cols(), inputs, "a layer of {inputs} inputs");
        let bias = vector(&layer.bias, outputs, "bias");
        let fill = |out| {
            self.run(LinearKernel {
                x: x.as_slice(),
                weight: layer.weight.as_slice(),
                bias,
                rows: x.rows(),
                inputs,
                outputs,
                stride: outputs,
                activation,
                out,
            })
        };
        // SAFETY: the kernel writes every row and column.
        unsafe { Matrix::filled_by(x.rows(), outputs, fill) }
    }

    fn add(&self, x: &mut Matrix, y: &Matrix) {
        assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "sum of different shapes");
        self.run(AddKernel { x: x.as_mut_slice(), y: y.as_slice() });
    }

    fn attention(&self, q: &Matrix, k: &Matrix, v: &Matrix, heads: usize, batch: &Sequences<'_>, rows: Rows) -> Matrix {
        let (events, dim) = (k.rows(), k.cols());
        let asked = asked(q, k, batch, rows);
        assert_eq!((v.rows(), v.cols()), (events, dim), "keys and values differ in shape");
        assert!(heads > 0 && dim.is_multiple_of(heads), "{dim} columns do not divide into {heads} heads");
        let fill = |out| {
            self.run(AttentionKernel {
                q: q.as_slice(),
                k: k.as_slice(),
                v: v.as_slice(),
                heads,
                dim,
                offsets: batch.offsets,
                asked,
                training: None,
                out,
            })
        };
        // SAFETY: the kernel writes every head of every row of q's shape.
        unsafe { Matrix::filled_by(q.rows(), dim, fill) }
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
        let &SiluAttention { heads, ref bias, divisor } = attention;
        let asked = asked(q, k, batch, rows);
        assert_eq!(v.rows(), k.rows(), "keys and values differ in number");
        let [dim, value_dim] = [k, v].map(|x| head_dim(x, heads));
        let fill = |out| {
            self.run(SiluAttentionKernel {
                q: q.as_slice(),
                k: k.as_slice(),
                v: v.as_slice(),
                heads,
                dim,
                value_dim,
                bias: pair_bias(bias, batch),
                divisor,
                offsets: batch.offsets,
                asked,
                out,
            })
        };
        // SAFETY: the kernel writes every head of every row.
        unsafe { Matrix::filled_by(q.rows(), v.cols(), fill) }
    }

    fn multiply(&self, x: &Matrix, y: &Matrix) -> Matrix {
        assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "product of different shapes");
        let fill = |out| self.run(MultiplyKernel { x: x.as_slice(), y: y.as_slice(), out });
        // SAFETY: the kernel writes as many numbers as x has.
        unsafe { Matrix::filled_by(x.rows(), x.cols(), fill) }
    }

    fn last_attention(
        &self,
        q: &Matrix,
        x: &Matrix,
        key: &Linear,
        value: &Linear,
        heads: usize,
        batch: &Sequences<'_>,
    ) -> Matrix {
        let (inputs, dim) = (x.cols(), q.cols());
        check_offsets(batch.offsets, x.rows());
        assert!(batch.offsets.windows(2).all(|w| w[0] < w[1]), "an empty history has no last row");
        assert_eq!(q.rows(), batch.len(), "a query row for every history");
        for layer in [key, value] {
            assert_eq!((layer.weight.rows(), layer.weight.cols()), (inputs, dim), "shape of a projection");
        }
        assert!(heads > 0 && dim.is_multiple_of(heads), "{dim} columns do not divide into {heads} heads");
        let fill = |out| {
            self.run(ProjectedKernel {
                q: q.as_slice(),
                x: x.as_slice(),
                key: key.weight.as_slice(),
                value: value.weight.as_slice(),
                value_bias: vector(&value.bias, dim, "bias"),
                heads,
                dim,
                inputs,
                offsets: batch.offsets,
                out,
            })
        };
        // SAFETY: the kernel writes every head of every row.
        unsafe { Matrix::filled_by(q.rows(), dim, fill) }
    }

    fn last_rows(&self, x: &Matrix, batch: &Sequences<'_>) -> Matrix {
        check_offsets(batch.offsets, x.rows());
        let dim = x.cols();
        let fill = |out: *mut f32| {
            for (history, bounds) in batch.offsets.windows(2).enumerate() {
                assert!(bounds[0] < bounds[1], "an empty history has no last row");
                let row = x.row(bounds[1] - 1);
                // SAFETY: the result has a row for every history.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), out.add(history * dim), dim) };
            }
        };
        // SAFETY: every row is copied.
        unsafe { Matrix::filled_by(batch.len(), dim, fill) }
    }

    fn l2_normalize(&self, x: &Matrix) -> Matrix {
        let fill = |out| self.run(L2Kernel { x: x.as_slice(), dim: x.cols(), rows: x.rows(), out });
        // SAFETY: the kernel writes every row.
        unsafe { Matrix::filled_by(x.rows(), x.cols(), fill) }
    }
}

impl Device for Cpu {
    fn upload(&self, numbers: &[f32], cols: usize) -> Result<Matrix, KernelError> {
        Ok(Matrix::from_slice(numbers, cols))
    }

    fn silu_candidates(
        &self,
        q: &Matrix,
        own: [&Matrix; 2],
        past: [&Matrix; 2],
        attention: &SiluAttention,
        batch: &Sequences<'_>,
    ) -> Matrix {
        let &SiluAttention { heads, ref bias, divisor } = attention;
        let (candidates, [keys, values]) = (q.rows(), past);
        assert_eq!(batch.len(), 1, "candidates of one history");
        check_offsets(batch.offsets, keys.rows());
        assert_eq!(values.rows(), keys.rows(), "keys and values differ in number");
        assert_eq!(own.map(Matrix::rows), [candidates; 2], "keys and values of every candidate");
        assert_eq!([q.cols(), own[0].cols(), own[1].cols()], [keys.cols(), keys.cols(), values.cols()], "columns");
        let [dim, value_dim] = past.map(|x| head_dim(x, heads));
        let fill = |out| {
            self.run(SiluCandidatesKernel {
                q: q.as_slice(),
                own: own.map(Matrix::as_slice),
                past: past.map(Matrix::as_slice),
                heads,
                dim,
                value_dim,
                bias: pair_bias(bias, batch),
                divisor,
                len: keys.rows(),
                candidates,
                out,
            })
        };
        // SAFETY: the kernel writes every head of every candidate.
        unsafe { Matrix::filled_by(candidates, values.cols(), fill) }
    }

    fn append(&self, x: &mut Matrix, rows: &Matrix) {
        x.append(rows);
    }

    fn truncate(&self, x: &mut Matrix, rows: usize) {
        x.truncate(rows);
    }

    fn bytes(&self, x: &Matrix) -> usize {
        x.bytes()
    }

    fn download<'a>(&self, x: &'a Matrix) -> Result<Cow<'a, [f32]>, KernelError> {
        Ok(Cow::Borrowed(x.as_slice()))
    }

    fn top_k(
        &self,
        queries: &[f32],
        items: &Tensor,
        k: &[usize],
        filters: &[Filter<'_>],
    ) -> Result<Vec<Vec<Scored>>, KernelError> {
        let (rows, dim) = (items.rows(), items.cols());
        assert_eq!(queries.len(), k.len() * dim, "{} queries of {dim} numbers", k.len());
        assert_eq!(filters.len(), k.len(), "a filter for every query");
        assert!(u32::try_from(rows).is_ok(), "more items than indices");
        let query = |q: usize| &queries[q * dim..(q + 1) * dim];
        let together: Vec<usize> = (0..k.len()).filter(|&q| k[q] > 0 && filters[q].candidates.is_none()).collect();
        let mut lists = vec![Vec::new(); k.len()];
        let batched = together.len() >= top_k::BATCH;
        if batched {
            let kernel = BatchKernel {
                queries: together.iter().map(|&q| (query(q), Best::new(k[q], rows, filters[q].exclude))).collect(),
                items: items.as_slice(),
                rows,
                dim,
            };
            for (&q, list) in together.iter().zip(self.run(kernel)) {
                lists[q] = list;
            }
        }
        for (q, list) in lists.iter_mut().enumerate() {
            if k[q] > 0 && !(batched && filters[q].candidates.is_none()) {
                let filter = &filters[q];
                *list = self.run(ScanKernel { query: query(q), items: items.as_slice(), rows, k: k[q], filter });
            }
        }
        Ok(lists)
    }

    fn scores(&self, query: &[f32], items: &Tensor, rows: &[u32]) -> Result<Vec<f32>, KernelError> {
        assert_eq!(query.len(), items.cols(), "query and item vectors differ in length");
        let mut out = vec![0.0; rows.len()];
        self.run(ScoreKernel { query, items: items.as_slice(), rows, out: &mut out });
        Ok(out)
    }
}
