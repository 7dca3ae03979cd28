//! The way back through the embedding.

use super::super::isa::Kernel;
use super::super::simd::{Simd, for_vectors};
use crate::{Sequences, TableGradient};

/// Adds `scale·dy` to the rows of the items and `dy` to those of the positions, event by event.
pub(super) struct EmbedBackwardKernel<'a> {
    /// `[events, dim]`
    pub dy: &'a [f32],
    pub dim: usize,
    pub scale: f32,
    pub batch: &'a Sequences<'a>,
    /// Of `dim` columns.
    pub ditems: &'a mut TableGradient,
    /// `[positions, dim]`
    pub dpositions: &'a mut [f32],
}

impl Kernel for EmbedBackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim;
        let events = self.batch.items.iter().zip(self.batch.positions).enumerate();
        for (event, (&item, &position)) in events {
            let dy = self.dy[event * dim..(event + 1) * dim].as_ptr();
            let position = position as usize * dim;
            let position = self.dpositions[position..position + dim].as_mut_ptr();
            let item = self.ditems.row_mut(item);
            assert_eq!(item.len(), dim);
            let item = item.as_mut_ptr();
            for_vectors!(S, dim, j, count => {
                // SAFETY: all three rows are dim long.
                unsafe {
                    let dy = S::load_some(dy.add(j), count);
                    (S::load_some(position.add(j), count) + dy).store_some(position.add(j), count);
                    let item = item.add(j);
                    S::load_some(item, count).fma(dy, S::splat(self.scale)).store_some(item, count);
                }
            });
        }
    }
}
