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

/// The answers of a row that is not asked anything ([`Losses::yes_or_no`]).
pub const UNASKED: u32 = u32::MAX;

/// Losses of rows of `hidden` (`[rows, dim]`) against a table of items (`[items, dim]`). Each gives the *sum* over
/// the rows of the loss (natural logarithms) times `weight`, and the derivative by `hidden`; the derivative by the
/// table is added to `ditems`. Indices must be in range.
///
/// For scores that do not depend on the lengths of item vectors, `items` is the table that [`Losses::unit_rows`]
/// made of the real one, once a step, and `ditems` is taken back to the real one by
/// [`Losses::unit_rows_backward`], also once a step.
///
/// Every method computes on the calling thread, in an order of additions fixed by its arguments.
pub trait Losses: Backward {
    /// Cross-entropy of the softmax over all items of `scale`·hidden·itemsᵀ. `ditems` is a dense table.
    fn softmax(
        &self,
        hidden: &Self::Matrix,
        items: &Tensor,
        targets: &[u32],
        scale: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Self::Matrix);

    /// Cross-entropy of the softmax over the target and the negatives of `scale`·hidden·itemsᵀ, less the correction
    /// where there is one: the target's score is not corrected. A negative that is the row's target counts nothing
    /// (an accidental hit).
    #[allow(clippy::too_many_arguments, reason = "the operator has this many operands")]
    fn sampled_softmax(
        &self,
        hidden: &Self::Matrix,
        items: &Tensor,
        targets: &[u32],
        negatives: Negatives<'_>,
        scale: f32,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, Self::Matrix);

    /// −β·log σ(s⁺) − Σ log(1 − σ(s⁻)) with s = hidden·itemsᵀ: binary cross-entropy with β = 1 (Kang & McAuley
    /// 2018), gBCE with β = α·(t·(1 − 1/α) + 1/α), α = count/(items − 1) (Petrov & Macdonald 2023, eq. 11–13).
    /// Negatives that are the row's target count nothing; a correction is subtracted as in
    /// [`Losses::sampled_softmax`].
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

    /// Binary cross-entropy of as many questions as `logits` has columns: bit c of a row's answers is set where that to
    /// question c is yes. Rows whose answers are [`UNASKED`] count nothing.
    fn yes_or_no(&self, logits: &Self::Matrix, answers: &[u32], weight: f32) -> (f64, Self::Matrix);

    /// Rows of `cols` numbers divided by their lengths, or by 1e-6 where they are shorter. `rows` and `out` are of
    /// one length: a table, or a thread's part of it.
    fn unit_rows(&self, rows: &[f32], cols: usize, out: &mut [f32]);

    /// Turns the derivative by what [`Losses::unit_rows`] made of `rows` into that by `rows`, in place.
    fn unit_rows_backward(&self, rows: &[f32], cols: usize, drows: &mut [f32]);
}
