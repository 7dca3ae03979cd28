//! Rows of the table of items that are partly their content's ([`Projection`]).

use super::ByContent;
use super::optimizer::Gradient;
use super::parameters::{Parameter, Parameters};
use crate::Result;
use crate::content::{Projection, Way};
use crate::random::SplitMix;

/// Items whose rows are moved by the projection after every step; of larger catalogues after as many steps more.
const AT_ONCE: usize = 1 << 15;

/// Content while rows are learnt.
pub(super) struct Projected<'a> {
    by: ByContent<'a>,
    table: Parameter,
    projection: Projection<'a>,
    /// Steps between two moves of all rows.
    every: u64,
    /// What dropped rows were.
    dropped: Vec<(u32, Vec<f32>)>,
    random: SplitMix,
}

impl<'a> Projected<'a> {
    /// A projection at random, as large as the rows are: those begin as it, which is alike for items that are.
    pub(super) fn new(by: ByContent<'a>, table: Parameter, parameters: &mut Parameters, seed: u64) -> Result<Self> {
        let rows = parameters.tensor_mut(table);
        let (dim, values) = (rows.cols(), rows.to_mut());
        let square = values.iter().map(|x| x * x).sum::<f32>() / values.len().max(1) as f32;
        let projection = Projection::new(by.content, by.counts, dim, square.sqrt(), seed);
        put(values, dim, projection.learnt(), &projection.of(projection.learnt())?);
        let every = projection.learnt().len().div_ceil(AT_ONCE).max(1) as u64;
        Ok(Self { by, table, projection, every, dropped: Vec::new(), random: SplitMix::new(!seed) })
    }

    /// Leaves some rows with nothing but their projection for a step (content dropout), so that it learns to do alone.
    pub(super) fn drop_out(&mut self, parameters: &mut Parameters) -> Result<()> {
        let share = self.by.dropout as f32;
        if share == 0.0 {
            return Ok(());
        }
        let random = &mut self.random;
        let items: Vec<u32> = self.projection.learnt().iter().copied().filter(|_| random.uniform() < share).collect();
        let table = parameters.tensor_mut(self.table);
        let (dim, values) = (table.cols(), table.to_mut());
        for (&item, place) in items.iter().zip(self.projection.of(&items)?.chunks_exact(dim)) {
            let row = &mut values[item as usize * dim..][..dim];
            self.dropped.push((item, row.to_vec()));
            row.copy_from_slice(place);
        }
        Ok(())
    }

    /// One step of the projection, given the derivative by the table, before that is stepped.
    pub(super) fn step(&mut self, gradients: &[Gradient<'_>], rate: f64) -> Result<()> {
        let Some(Gradient::Table(table)) = gradients.get(self.table.0) else { return Ok(()) };
        let dim = table.cols();
        let row = |at: usize| &table.values()[at * dim..][..dim];
        match table.ids() {
            Some(ids) => self.projection.step(rate * self.by.rate, self.by.decay, ids, row),
            None => {
                let all: Vec<u32> = (0..table.table_rows() as u32).collect();
                self.projection.step(rate * self.by.rate, self.by.decay, &all, row)
            }
        }
    }

    /// After step number `step` of the table: dropped rows are what they were, and all are moved by what the projection has
    /// changed.
    pub(super) fn finish_step(&mut self, parameters: &mut Parameters, step: u64) -> Result<()> {
        let table = parameters.tensor_mut(self.table);
        let (dim, values) = (table.cols(), table.to_mut());
        for (item, before) in self.dropped.drain(..) {
            values[item as usize * dim..][..dim].copy_from_slice(&before);
        }
        match step.is_multiple_of(self.every) {
            true => self.projection.move_rows(values),
            false => Ok(()),
        }
    }

    /// The projection as it is now, for a model to keep.
    pub(super) fn way(&self) -> Result<Way> {
        self.projection.way()
    }

    /// Puts the rows of items that nobody has touched where their content places them.
    pub(super) fn complete(&self, parameters: &mut Parameters) -> Result<()> {
        let table = parameters.tensor_mut(self.table);
        let (dim, values) = (table.cols(), table.to_mut());
        let cold = self.projection.cold();
        put(values, dim, cold, &self.projection.of(cold)?);
        Ok(())
    }
}

fn put(values: &mut [f32], dim: usize, items: &[u32], places: &[f32]) {
    for (&item, place) in items.iter().zip(places.chunks_exact(dim)) {
        values[item as usize * dim..][..dim].copy_from_slice(place);
    }
}
