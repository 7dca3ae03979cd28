//! The operators a model family is written over. One forward definition a family, any device.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{KernelError, Tensor};

/// A jagged batch: histories laid end to end, oldest event first, no padding.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequences<'a> {
    /// Dense item indices of all histories, concatenated.
    pub items: &'a [u32],
    /// Position-table row of every event, same length as `items`.
    pub positions: &'a [u32],
    /// Start of each history in `items`, and the end of the last: `histories + 1` numbers.
    pub offsets: &'a [usize],
    /// Unix time of every event in seconds, ascending within a history; empty where no operator looks at times.
    pub times: &'a [f64],
    /// What comes after every event: the time of the next one, or that of the question. As many as `times`.
    pub until: &'a [f64],
    /// What tells this batch from any other, where it is not 0: a device need not copy it again for every operator.
    pub identity: u64,
}

impl Sequences<'_> {
    /// A number for [`Sequences::identity`] that no batch of this process had before.
    pub fn new_identity() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// How many histories the batch holds.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether the batch holds no history.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which rows of the batch an operator computes: only what the answer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Every event.
    All,
    /// The last event of each history; the matrix has one row a history. Histories must not be empty.
    Last,
    /// The last events of the one history of the batch, as many as the queries have rows.
    Tail,
}

/// The element-wise function fused into a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x
    Identity,
    /// max(0, x)
    Relu,
    /// x·Φ(x), with the error function, not the tanh approximation.
    Gelu,
    /// x·σ(x)
    Silu,
}

/// y = act(x·W + b). `weight` is `[inputs, outputs]`, row-major: the transpose of PyTorch's.
/// `W` is what the operators take for weights: a [`Tensor`], or a parameter in training.
#[derive(Debug, Clone)]
pub struct Linear<W = Tensor> {
    /// `[inputs, outputs]`
    pub weight: W,
    /// `[outputs]`
    pub bias: Option<W>,
}

/// Layer normalisation over the columns: (x − mean)/√(var + eps)·weight + bias.
#[derive(Debug, Clone)]
pub struct LayerNorm<W = Tensor> {
    /// `[dim]`; absent in affine-free norms.
    pub weight: Option<W>,
    /// `[dim]`
    pub bias: Option<W>,
    /// Added to the variance.
    pub eps: f32,
}

/// Pointwise attention, SiLU(q·kᵀ + bias)/divisor·v (HSTU, Zhai et al. 2024, equation 3).
#[derive(Debug, Clone)]
pub struct SiluAttention<W = Tensor> {
    /// Into how many heads the columns are divided.
    pub heads: usize,
    /// What is added to scores, the same for all heads.
    pub bias: PairBias<W>,
    /// What weights are divided by.
    pub divisor: f32,
}

/// What [`SiluAttention`] adds to the product of a query and a key.
#[derive(Debug, Clone)]
pub struct PairBias<W = Tensor> {
    /// `[2·N − 1]` for histories of up to N events: number N − 1 + (j − i) for query i and key j.
    pub positions: W,
    /// `[TIME_BUCKETS]`: by how long before what comes after the query the key was ([`time_bucket`](crate::time_bucket)).
    pub times: Option<W>,
}

/// An item and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Dense item index.
    pub item: u32,
    /// Larger is better.
    pub score: f32,
}

/// Which items a top-k may return.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Dense indices that must not be returned, ascending.
    pub exclude: &'a [u32],
    /// When present, only these are scored, ascending and without repeats.
    pub candidates: Option<&'a [u32]>,
}

/// What a family's forward pass is written over. A device serves with it; a tape over a device trains with it, and
/// a double-precision implementation checks both.
pub trait Operators {
    /// A dense row-major matrix.
    type Matrix;
    /// Weights of a model.
    type Weight: Send + Sync;

    /// `scale·items[id] + positions[pos]` for every event: `[events, dim]`. Indices must be in range.
    fn embed(&self, items: &Self::Weight, positions: &Self::Weight, scale: f32, batch: &Sequences<'_>) -> Self::Matrix;
    /// Row-wise layer normalisation.
    fn layer_norm(&self, x: &Self::Matrix, norm: &LayerNorm<Self::Weight>) -> Self::Matrix;
    /// A linear layer with its activation fused.
    fn linear(&self, x: &Self::Matrix, layer: &Linear<Self::Weight>, activation: Activation) -> Self::Matrix;
    /// `x += y`
    fn add(&self, x: &mut Self::Matrix, y: &Self::Matrix);
    /// Causal softmax attention, softmax(q·kᵀ/√d_head)·v, within each history and head.
    /// With [`Rows::Last`] `q` has one row a history and so has the result. In training some attention weights
    /// fall away, see [`Operators::dropout`].
    fn attention(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Self::Matrix;
    /// [`Operators::attention`] of [`Rows::Last`] with k = `key`(x) and v = `value`(x), which a device need not
    /// compute for every event.
    fn last_attention(
        &self,
        q: &Self::Matrix,
        x: &Self::Matrix,
        key: &Linear<Self::Weight>,
        value: &Linear<Self::Weight>,
        heads: usize,
        batch: &Sequences<'_>,
    ) -> Self::Matrix {
        let k = self.linear(x, key, Activation::Identity);
        let v = self.linear(x, value, Activation::Identity);
        self.attention(q, &k, &v, heads, batch, Rows::Last)
    }
    /// Causal pointwise attention within each history and head, for histories of as many events as the bias knows.
    /// Values may be of another width than queries and keys. With [`Rows::Last`] `q` has one row a history and so has
    /// the result, with [`Rows::Tail`] a row for each of the last events of one.
    fn silu_attention(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        attention: &SiluAttention<Self::Weight>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Self::Matrix;
    /// Layers of the normalised rows of `x`, one matrix a layer.
    fn norm_linear<const N: usize>(
        &self,
        x: &Self::Matrix,
        norm: &LayerNorm<Self::Weight>,
        layers: [&Linear<Self::Weight>; N],
        activation: Activation,
    ) -> [Self::Matrix; N] {
        let normed = self.layer_norm(x, norm);
        layers.map(|layer| self.linear(&normed, layer, activation))
    }
    /// `layer`(dropout(gate ∘ norm(x))) + residual; the rows are the last of their histories, or of all events.
    fn gated_linear(
        &self,
        gate: &Self::Matrix,
        x: &Self::Matrix,
        norm: &LayerNorm<Self::Weight>,
        layer: &Linear<Self::Weight>,
        residual: &Self::Matrix,
        batch: &Sequences<'_>,
    ) -> Self::Matrix {
        let gated = self.multiply(gate, &self.layer_norm(x, norm));
        let mut y = self.linear(&self.dropout(gated, batch), layer, Activation::Identity);
        self.add(&mut y, residual);
        y
    }
    /// x·y, number by number.
    fn multiply(&self, x: &Self::Matrix, y: &Self::Matrix) -> Self::Matrix;
    /// The last row of each history: `[histories, dim]`. Histories must not be empty.
    fn last_rows(&self, x: &Self::Matrix, batch: &Sequences<'_>) -> Self::Matrix;
    /// Rows divided by their length, or by 1e-6 where they are shorter.
    fn l2_normalize(&self, x: &Self::Matrix) -> Self::Matrix;
    /// In training some numbers become 0 and the others grow by as much; in serving nothing happens.
    /// `x` has a row for every event.
    fn dropout(&self, x: Self::Matrix, _batch: &Sequences<'_>) -> Self::Matrix {
        x
    }
}

/// A place where models compute. Matrices live there; weights are [`Tensor`]s the device may keep resident.
pub trait Device: Operators<Matrix: Send + Sync, Weight = Tensor> + Send + Sync {
    /// Pointwise attention of candidates, which look at all of a history and at themselves, not at each other (M-FALCON,
    /// Zhai et al. 2024, algorithm 1): each stands after the last event and is asked for when the last event says.
    /// `q` and `own`, keys and values, have a row a candidate; `past`, keys and values, one an event of the batch's one
    /// history.
    fn silu_candidates(
        &self,
        q: &Self::Matrix,
        own: [&Self::Matrix; 2],
        past: [&Self::Matrix; 2],
        attention: &SiluAttention,
        batch: &Sequences<'_>,
    ) -> Self::Matrix;
    /// Adds rows below those of `x`.
    fn append(&self, x: &mut Self::Matrix, rows: &Self::Matrix);
    /// Keeps the first `rows` rows of `x`.
    fn truncate(&self, x: &mut Self::Matrix, rows: usize);
    /// A matrix of row-major numbers of the host, which make whole rows. Fails where the device does.
    fn upload(&self, numbers: &[f32], cols: usize) -> Result<Self::Matrix, KernelError>;
    /// Bytes that a matrix takes.
    fn bytes(&self, x: &Self::Matrix) -> usize;
    /// The matrix as row-major numbers on the host, where it may lie already. Fails where the device did, in this call or one
    /// before it.
    fn download<'a>(&self, x: &'a Self::Matrix) -> Result<Cow<'a, [f32]>, KernelError>;
    /// For each row of `queries` (`[n, dim]`, host) the `k` items with the largest dot product, best first,
    /// ties by ascending index, each under its own filter. Never holds the whole score matrix. Fails where the device
    /// does.
    fn top_k(
        &self,
        queries: &[f32],
        items: &Tensor,
        k: &[usize],
        filters: &[Filter<'_>],
    ) -> Result<Vec<Vec<Scored>>, KernelError>;
    /// The dot products of one query with the given rows of `items`: the same bits as [`Device::top_k`] reports.
    /// Rows must exist. Fails where the device does.
    fn scores(&self, query: &[f32], items: &Tensor, rows: &[u32]) -> Result<Vec<f32>, KernelError>;
}
