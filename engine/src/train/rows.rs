//! Training of networks whose examples are rows without any order: no histories, no windows.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Backward, Operators, Sequences, TableGradient, Tensor};
use rayon::prelude::*;

use super::optimizer::{Gradient, Optimizer};
use super::options::Options;
use super::parameters::{Gradients, Parameter, Parameters, Slot};
use super::tape::{Dropout, Tape, Var};

/// Gradients of a batch, in slices that threads take in a fixed order, and the optimiser's state.
pub(crate) struct RowTrainer {
    device: Cpu,
    slices: Vec<Gradients<Matrix>>,
    optimizer: Optimizer,
}

/// What a slice of the examples of a step computes.
pub(crate) trait Slice: Sync {
    /// What it tells besides.
    type Told: Send;

    /// Adds the gradients for these examples, given by their numbers; the tape is empty and knows no histories.
    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> Self::Told;
}

impl RowTrainer {
    /// For as many slices a step as there are threads.
    pub(crate) fn new(options: &Options, parameters: &Parameters) -> Self {
        Self::in_slices(options, parameters, rayon::current_num_threads())
    }

    /// For so many slices a step: then the number of threads changes no bit.
    pub(crate) fn in_slices(options: &Options, parameters: &Parameters, slices: usize) -> Self {
        let device = Cpu::new();
        let slices = (0..slices).map(|_| Gradients::new(&device, parameters, false)).collect();
        Self { device, slices, optimizer: Optimizer::new(options, parameters) }
    }

    /// One step by the examples `rows`. Gives what the slices tell, in the order of their rows.
    pub(crate) fn step<S: Slice>(
        &mut self,
        parameters: &mut Parameters,
        rows: &[usize],
        rate: f64,
        slice: &S,
    ) -> Vec<S::Told> {
        let each = rows.len().div_ceil(self.slices.len()).max(1);
        let device = self.device;
        let told = self
            .slices
            .par_iter_mut()
            .zip(rows.par_chunks(each))
            .map(|(gradients, rows)| slice.compute(Tape::of_rows(&device, parameters.all()), rows, gradients))
            .collect();
        let Some((first, others)) = self.slices.split_first_mut() else { return told };
        for (place, slot) in first.slots_mut().iter_mut().enumerate() {
            for other in &mut *others {
                match slot {
                    Slot::Whole(sum) => device.add(sum, other.whole(Parameter(place))),
                    Slot::Table(sum) => add_rows(sum, other.table(Parameter(place))),
                }
            }
        }
        let gradients: Vec<Gradient<'_>> = first
            .slots_mut()
            .iter()
            .map(|slot| match slot {
                Slot::Whole(matrix) => Gradient::Whole(matrix.as_slice()),
                Slot::Table(table) => Gradient::Table(table),
            })
            .collect();
        self.optimizer.step(&device, rate, parameters, &gradients);
        self.slices.par_iter_mut().for_each(|gradients| {
            for slot in gradients.slots_mut() {
                match slot {
                    Slot::Whole(matrix) => matrix.as_mut_slice().fill(0.0),
                    Slot::Table(table) => table.clear(),
                }
            }
        });
        told
    }
}

/// Adds the touched rows of one accumulator to another's.
fn add_rows(sum: &mut TableGradient, other: &TableGradient) {
    let rows = other.ids().into_iter().flatten().zip(other.values().chunks_exact(other.cols().max(1)));
    rows.for_each(|(&id, row)| sum.row_mut(id).iter_mut().zip(row).for_each(|(to, x)| *to += x));
}

impl<'a, D: Backward> Tape<'a, D> {
    /// An empty tape of weights that knows no histories.
    pub(crate) fn of_rows(device: &'a D, weights: &'a [Tensor]) -> Self {
        const NOTHING: Sequences<'static> =
            Sequences { items: &[], positions: &[], offsets: &[0], times: &[], until: &[], identity: 0 };
        Self::new(device, weights, NOTHING, &[], Dropout::default())
    }

    /// Numbers from elsewhere, to which no derivative goes.
    pub(crate) fn constant(&self, value: D::Matrix) -> Var<D::Matrix> {
        self.apply(&[], value, |_, _| Vec::new())
    }
}
