//! Training of networks whose examples are rows without any order: no histories, no windows.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Backward, Operators, Sequences};
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

/// Adds a slice's gradients for these rows, and gives its loss.
pub(crate) trait Slice: Sync {
    /// `rows` are numbers of examples; the tape is empty and knows no histories.
    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> f64;
}

impl RowTrainer {
    /// For as many slices a step as there are threads.
    pub(crate) fn new(options: &Options, parameters: &Parameters) -> Self {
        let device = Cpu::new();
        let slices = (0..rayon::current_num_threads()).map(|_| Gradients::new(&device, parameters, true)).collect();
        Self { device, slices, optimizer: Optimizer::new(options, parameters) }
    }

    /// One step by the examples `rows`. Gives the sum of the slices' losses.
    pub(crate) fn step(&mut self, parameters: &mut Parameters, rows: &[usize], rate: f64, slice: &impl Slice) -> f64 {
        const NOTHING: Sequences<'static> =
            Sequences { items: &[], positions: &[], offsets: &[0], times: &[], until: &[], identity: 0 };
        let each = rows.len().div_ceil(self.slices.len()).max(1);
        let device = self.device;
        let losses: Vec<f64> = self
            .slices
            .par_iter_mut()
            .zip(rows.par_chunks(each))
            .map(|(gradients, rows)| {
                let tape = Tape::new(&device, parameters.all(), NOTHING, &[], Dropout::default());
                slice.compute(tape, rows, gradients)
            })
            .collect();
        let Some((first, others)) = self.slices.split_first_mut() else { return 0.0 };
        for (place, slot) in first.slots_mut().iter_mut().enumerate() {
            let Slot::Whole(sum) = slot else { continue };
            others.iter_mut().for_each(|other| device.add(sum, other.whole(Parameter(place))));
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
        losses.iter().sum()
    }
}

impl<'a, D: Backward> Tape<'a, D> {
    /// Numbers from elsewhere, to which no derivative goes.
    pub(crate) fn constant(&self, value: D::Matrix) -> Var<D::Matrix> {
        self.apply(&[], value, |_, _| Vec::new())
    }
}
