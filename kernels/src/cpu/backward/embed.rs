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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::differences::{Accumulator, Differences, inner};
    use crate::cpu::Matrix;
    use crate::cpu::reference::Random;
    use crate::cpu::tests::cpus;
    use crate::{Backward, Sequences, TableGradient};

    #[test]
    fn embeddings_pass_derivatives_back_to_every_row_they_read() {
        let mut random = Random::new();
        for dim in [1, 7, 50, 64] {
            let (items, positions) = (random.normals(20 * dim), random.normals(9 * dim));
            let ids: Vec<u32> = (0..40).map(|_| random.below(20) as u32).collect();
            let places: Vec<u32> = (0..40).map(|_| random.below(9) as u32).collect();
            let batch = Sequences { items: &ids, positions: &places, offsets: &[0, 40], ..Sequences::default() };
            let dy = random.normals(40 * dim);
            let differences = Differences::new(&mut random, &[&items, &positions], 60, |at| {
                let row =
                    |e: usize, c: usize| 1.7 * at[0][ids[e] as usize * dim + c] + at[1][places[e] as usize * dim + c];
                inner(&(0..40 * dim).map(|n| row(n / dim, n % dim)).collect::<Vec<_>>(), &dy)
            });
            for cpu in cpus() {
                let (mut dense, mut sparse) = (TableGradient::dense(20, dim), TableGradient::sparse(20, dim));
                let mut dpositions = Accumulator::new(&mut random, 9, dim);
                let dy = Matrix::from_slice(&dy, dim);
                cpu.embed_backward(&dy, 1.7, &batch, &mut dense, &mut dpositions.matrix);
                differences.check(&[dense.values(), &dpositions.added()], &format!("{:?} dim {dim}", cpu.isa()));
                cpu.embed_backward(&dy, 1.7, &batch, &mut sparse, &mut dpositions.matrix);
                for id in sparse.ids().unwrap().to_vec() {
                    assert_eq!(dense.row_mut(id), sparse.row_mut(id));
                }
            }
        }
    }
}
