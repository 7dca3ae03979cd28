//! The workers of a training: each goes through its slices of a step, then their gradients are summed.

use std::ops::Range;

use pgrec_kernels::cpu::{Cpu, Matrix, keep_buffers};
use pgrec_kernels::{Losses, Optimizers, TableGradient, Tensor};
use rayon::prelude::*;

use super::SequenceModel;
use super::batches::{Histories, Sample, Slice};
use super::objective::Objective;
use super::optimizer::Gradient;
use super::parameters::{Gradients, Parameter, Parameters, Slot};
use super::tape::{Dropout, Tape};
use crate::random::SplitMix;
use crate::{Control, Error, Result};

/// One a thread.
pub(super) struct Workers {
    device: Cpu,
    tables: Vec<Parameter>,
    all: Vec<Worker>,
}

struct Worker {
    gradients: Gradients<Matrix>,
    slice: Slice,
    loss: f64,
}

/// What every worker needs to know of a step.
pub(super) struct Step<'a, M> {
    pub(super) model: &'a M,
    pub(super) parameters: &'a Parameters,
    /// The table that answers are scored by.
    pub(super) scored: &'a Tensor,
    pub(super) objective: &'a Objective,
    pub(super) histories: &'a Histories<'a>,
    pub(super) samples: &'a [Sample],
    pub(super) slices: &'a [Range<usize>],
    pub(super) dropout: Dropout,
    /// 1 over the events of the step.
    pub(super) weight: f32,
    /// That of the epoch, for dropout.
    pub(super) epoch_key: u64,
    /// That of the step, for negatives.
    pub(super) step_key: u64,
}

impl Workers {
    pub(super) fn new(device: Cpu, parameters: &Parameters, count: usize, dense: bool) -> Self {
        let worker =
            || Worker { gradients: Gradients::new(&device, parameters, dense), slice: Slice::default(), loss: 0.0 };
        Self { device, tables: parameters.tables(), all: (0..count).map(|_| worker()).collect() }
    }

    /// Computes the loss of a step, the mean over its events, and leaves its gradient with the first worker.
    pub(super) fn run<M: SequenceModel>(&mut self, step: &Step<'_, M>, control: &Control) -> Result<f64> {
        let (device, count) = (self.device, self.all.len());
        self.all.par_iter_mut().enumerate().try_for_each(|(first, worker)| {
            keep_buffers(KEPT);
            worker.loss = 0.0;
            for (number, range) in step.slices.iter().enumerate().skip(first).step_by(count) {
                control.check()?;
                worker.compute(&device, step, number, range.clone());
            }
            Ok::<(), Error>(())
        })?;
        self.sum_gradients();
        Ok(self.all.iter().map(|worker| worker.loss).sum())
    }

    /// Adds the other workers' gradients to the first's, in their order.
    fn sum_gradients(&mut self) {
        let device = self.device;
        for &table in &self.tables {
            let taken = self.all.iter_mut().map(|worker| std::mem::take(worker.gradients.table(table)));
            let mut tables: Vec<TableGradient> = taken.collect();
            let rows = (RANGE / tables[0].cols().max(1)).max(1);
            TableGradient::sum(&mut tables, rows).into_par_iter().for_each(|part| part.run(&device));
            for (worker, gradient) in self.all.iter_mut().zip(tables) {
                *worker.gradients.table(table) = gradient;
            }
        }
        let Some((first, others)) = self.all.split_first_mut() else { return };
        for (place, slot) in first.gradients.slots_mut().iter_mut().enumerate() {
            let Slot::Whole(sum) = slot else { continue };
            for other in &mut *others {
                device.accumulate(sum.as_mut_slice(), other.gradients.whole(Parameter(place)).as_slice());
            }
        }
    }

    /// Turns the step's gradient by the rows of length 1 that were scored into that by the rows of `items`.
    pub(super) fn unit_rows_backward(&mut self, table: Parameter, items: &Tensor) {
        let (device, cols) = (self.device, items.cols());
        let gradient = self.all[0].gradients.table(table);
        match gradient.ids().map(<[u32]>::to_vec) {
            None => {
                let rows = items.as_slice().par_chunks((RANGE / cols).max(1) * cols);
                let drows = gradient.values_mut().par_chunks_mut((RANGE / cols).max(1) * cols);
                rows.zip(drows).for_each(|(rows, drows)| device.unit_rows_backward(rows, cols, drows));
            }
            Some(ids) => {
                let drows = gradient.values_mut().par_chunks_mut(cols);
                ids.into_par_iter()
                    .zip(drows)
                    .for_each(|(id, drow)| device.unit_rows_backward(items.row(id as usize), cols, drow));
            }
        }
    }

    /// The gradient of the step, one a weight.
    pub(super) fn gradient(&mut self) -> Vec<Gradient<'_>> {
        let slots = self.all[0].gradients.slots_mut().iter();
        slots
            .map(|slot| match slot {
                Slot::Whole(matrix) => Gradient::Whole(matrix.as_slice()),
                Slot::Table(table) => Gradient::Table(table),
            })
            .collect()
    }

    /// Back to zero, for the next step.
    pub(super) fn clear(&mut self) {
        self.all.par_iter_mut().for_each(|worker| {
            for slot in worker.gradients.slots_mut() {
                match slot {
                    Slot::Whole(matrix) => matrix.as_mut_slice().fill(0.0),
                    Slot::Table(table) => table.clear(),
                }
            }
        });
    }
}

/// Numbers of a table that one task works on.
pub(super) const RANGE: usize = 1 << 15;

/// Bytes of dropped matrices that a thread keeps for its next slice: some 30 of 256 rows of 64 numbers a block.
const KEPT: usize = 64 << 20;

impl Worker {
    fn compute<M: SequenceModel>(&mut self, device: &Cpu, step: &Step<'_, M>, number: usize, range: Range<usize>) {
        let samples = &step.samples[range];
        self.slice.pack(samples, step.histories, &|len| step.model.positions(len), step.epoch_key);
        let batch = self.slice.sequences();
        let tape = Tape::new(device, step.parameters.all(), batch, &self.slice.keys, step.dropout);
        let hidden = step.model.encode(&tape, &batch);
        let items = step.model.items();
        let (loss, gradient) = step.objective.of(
            device,
            hidden.value(),
            step.scored,
            &self.slice.answers,
            SplitMix::new(step.step_key ^ number as u64).next(),
            step.weight,
            self.gradients.table(items),
        );
        self.loss += loss;
        tape.backward(&hidden, gradient, &mut self.gradients);
    }
}
