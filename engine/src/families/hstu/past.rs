//! What the events of a batch look back at.

use pgrec_kernels::{Device, Operators, Rows, Sequences, SiluAttention};

use crate::families::sequential::Kept;

/// What there is besides the events of a batch.
pub(in crate::families) trait Past<O: Operators> {
    /// Attention of a layer: queries, of the `rows` asked for of the batch, look at keys and values of the batch and of
    /// what was before it.
    fn attend(
        &mut self,
        dev: &O,
        layer: usize,
        qkv: [O::Matrix; 3],
        attention: &SiluAttention<O::Weight>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix;
}

/// The batch is all there is.
pub(in crate::families) struct Nothing;

impl<O: Operators> Past<O> for Nothing {
    fn attend(
        &mut self,
        dev: &O,
        _layer: usize,
        [q, k, v]: [O::Matrix; 3],
        attention: &SiluAttention<O::Weight>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        dev.silu_attention(&q, &k, &v, attention, batch, rows)
    }
}

impl<D: Device> Past<D> for Kept<'_, D> {
    fn attend(
        &mut self,
        dev: &D,
        layer: usize,
        [q, k, v]: [D::Matrix; 3],
        attention: &SiluAttention,
        _batch: &Sequences<'_>,
        rows: Rows,
    ) -> D::Matrix {
        let rows = if rows == Rows::All { Rows::Tail } else { rows };
        let whole = self.whole;
        let [k, v] = self.add(layer, [k, v]);
        dev.silu_attention(&q, k, v, attention, &whole, rows)
    }
}

/// Candidates after a history, each of which sees that and itself.
pub(in crate::families) struct Beyond<'a, D: Device>(pub &'a Kept<'a, D>);

impl<D: Device> Past<D> for Beyond<'_, D> {
    fn attend(
        &mut self,
        dev: &D,
        layer: usize,
        [q, k, v]: [D::Matrix; 3],
        attention: &SiluAttention,
        _batch: &Sequences<'_>,
        _rows: Rows,
    ) -> D::Matrix {
        let [past_k, past_v] = self.0.layer(layer);
        dev.silu_candidates(&q, [&k, &v], [past_k, past_v], attention, &self.0.whole)
    }
}
