//! The way back through the operators: what a tape needs of a device.

use crate::{Activation, Device, LayerNorm, Linear, Sequences, SiluAttention, TableGradient};

/// Where the random numbers of dropout come from: nothing but the key of a history, the place in the network and the
/// place in the history. The same numbers fall away however a batch is split, and backward finds them again without
/// having kept them.
#[derive(Debug, Clone, Copy)]
pub struct Noise<'a> {
    /// One for each history of the batch; a new one in each epoch.
    pub keys: &'a [u64],
    /// Which dropout of the network this is.
    pub site: u32,
    /// The share that falls away, in 0 ..< 1. What stays is divided by `1 − rate`.
    pub rate: f32,
}

/// The operators' derivatives. `dy` is the derivative of the loss by an operator's result; derivatives by matrices
/// are returned, those by weights are added to what the caller accumulates.
///
/// Every method computes on the calling thread, in an order of additions fixed by its arguments.
pub trait Backward: Device {
    /// A matrix of zeros, for accumulating derivatives of a weight. Vectors are matrices of one row.
    fn zeros(&self, rows: usize, cols: usize) -> Self::Matrix;
    /// The same numbers in a matrix of their own.
    fn copy(&self, x: &Self::Matrix) -> Self::Matrix;

    /// An activation on its own: act(x). Backward needs what was activated, so a tape does not fuse it.
    fn activate(&self, x: &Self::Matrix, activation: Activation) -> Self::Matrix;
    /// dy·act′(x), in place of `dy`.
    fn activate_backward(&self, x: &Self::Matrix, activation: Activation, dy: &mut Self::Matrix);

    /// Dropout on a matrix with a row for every event, in place. It is its own backward.
    fn drop_out(&self, x: &mut Self::Matrix, batch: &Sequences<'_>, noise: Noise<'_>);

    /// Of y = x·W + b: gives dx = dy·Wᵀ, adds xᵀ·dy to `dweight` and the columns' sums of dy to `dbias`.
    fn linear_backward(
        &self,
        x: &Self::Matrix,
        layer: &Linear,
        dy: &Self::Matrix,
        dweight: &mut Self::Matrix,
        dbias: Option<&mut Self::Matrix>,
    ) -> Self::Matrix;

    /// Of [`crate::Operators::layer_norm`]: gives dx, adds to the derivatives of weight and bias where there are any.
    fn layer_norm_backward(
        &self,
        x: &Self::Matrix,
        norm: &LayerNorm,
        dy: &Self::Matrix,
        dweight: Option<&mut Self::Matrix>,
        dbias: Option<&mut Self::Matrix>,
    ) -> Self::Matrix;

    /// [`crate::Operators::attention`] of all rows, with dropout on the attention weights (after the softmax, as
    /// in PyTorch's), and log Σ e^(q·k/√d_head) of every event and head, `[events, heads]`, for the way back.
    fn attention_forward(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        noise: Option<Noise<'_>>,
    ) -> (Self::Matrix, Self::Matrix);
    /// The derivatives by q, k and v. `out` and `lse` are what [`Backward::attention_forward`] gave; the weights are
    /// computed again, never kept.
    #[allow(clippy::too_many_arguments, reason = "the operator has this many operands")]
    fn attention_backward(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        out: &Self::Matrix,
        lse: &Self::Matrix,
        dout: &Self::Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        noise: Option<Noise<'_>>,
    ) -> [Self::Matrix; 3];

    /// Of [`crate::Operators::silu_attention`] of all rows: gives the derivatives by q, k and v, adds those by the biases
    /// to what is accumulated for them (of positions, and of times where there are any).
    #[allow(clippy::too_many_arguments, reason = "the operator has this many operands")]
    fn silu_attention_backward(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        attention: &SiluAttention,
        batch: &Sequences<'_>,
        dout: &Self::Matrix,
        dbias: (&mut Self::Matrix, Option<&mut Self::Matrix>),
    ) -> [Self::Matrix; 3];

    /// Of [`crate::Operators::embed`]: adds `scale·dy` to the rows of the items and `dy` to those of the positions.
    fn embed_backward(
        &self,
        dy: &Self::Matrix,
        scale: f32,
        batch: &Sequences<'_>,
        ditems: &mut TableGradient,
        dpositions: &mut Self::Matrix,
    );

    /// Of [`crate::Operators::last_rows`]: `[events, dim]`, zero but for the last row of each history.
    fn last_rows_backward(&self, dy: &Self::Matrix, batch: &Sequences<'_>) -> Self::Matrix;

    /// Of [`crate::Operators::l2_normalize`]: gives dx.
    fn l2_normalize_backward(&self, x: &Self::Matrix, dy: &Self::Matrix) -> Self::Matrix;
}
