//! Losses over a catalogue of items, which never hold a score for every event and item.

use crate::{Backward, TableGradient, Tensor};

/// Items that are not the answer.
#[derive(Debug, Clone, Copy)]
pub enum Negatives<'a> {
    /// As many for each row: `[rows, count]`.
    EachRow {
        /// Dense item indices.
        items: &'a [u32],
        /// How many a row has.
        count: usize,
    },
    /// The same for all rows.
    Shared {
        /// Dense item indices, possibly with repeats.
        items: &'a [u32],
        /// log of how often each is expected among them (its log-Q), which is subtracted from its score; absent
        /// where all are as likely.
        correction: Option<&'a [f32]>,
    },
}

/// Losses of rows of `hidden` (`[rows, dim]`) against a table of items (`[items, dim]`). Each gives the *sum* over
/// the rows of the loss (natural logarithms) times `weight`, and the derivative by `hidden`; the derivative by the
/// table is added to `ditems`. Indices must be in range.
///
/// Every method computes on the calling thread, in an order of additions fixed by its arguments.
pub trait Losses: Backward {
    /// The table in the layout that [`Losses::softmax`] reads; made once a step, shared by all threads.
    type Catalogue: Send + Sync;

    /// Lays out the table of items; with `normalized`, their rows divided by their lengths.
    fn catalogue(&self, items: &Tensor, normalized: bool) -> Self::Catalogue;

    /// The same table again after its numbers have changed, in the memory of the old layout.
    fn refresh(&self, catalogue: &mut Self::Catalogue, items: &Tensor);

    /// Cross-entropy of the softmax over all items of `scale`·hidden·itemsᵀ. `ditems` is a dense table; where the
    /// catalogue is normalised it accumulates the derivative by the normalised rows, which
    /// [`Losses::normalized_backward`] takes back once a step.
    fn softmax(
        &self,
        hidden: &Self::Matrix,
        catalogue: &Self::Catalogue,
        targets: &[u32],
        scale: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Self::Matrix);

    /// Turns the derivative by rows divided by their lengths into that by the rows themselves, in place.
    fn normalized_backward(&self, items: &Tensor, ditems: &mut TableGradient);

    /// Cross-entropy of the softmax over the target and the negatives. A negative that is the row's target counts
    /// nothing (an accidental hit). With `normalized`, item rows count as divided by their lengths, and `ditems`
    /// is as for [`Losses::softmax`].
    #[allow(clippy::too_many_arguments, reason = "the operator has this many operands")]
    fn sampled_softmax(
        &self,
        hidden: &Self::Matrix,
        items: &Tensor,
        normalized: bool,
        targets: &[u32],
        negatives: Negatives<'_>,
        scale: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Self::Matrix);

    /// −β·log σ(s⁺) − Σ log(1 − σ(s⁻)): binary cross-entropy with β = 1 (Kang & McAuley 2018), gBCE with
    /// β = α·(t·(1 − 1/α) + 1/α), α = count/(items − 1) (Petrov & Macdonald 2023, eq. 11–13). Negatives that are
    /// the row's target count nothing.
    #[allow(clippy::too_many_arguments, reason = "the operator has this many operands")]
    fn binary(
        &self,
        hidden: &Self::Matrix,
        items: &Tensor,
        targets: &[u32],
        negatives: Negatives<'_>,
        beta: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Self::Matrix);
}
