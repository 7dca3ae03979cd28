//! The workers of a training: each goes through its slices of a step, then their gradients are summed.

use std::ops::Range;

use pgrec_kernels::cpu::{Cpu, Matrix, keep_buffers};
use pgrec_kernels::{Losses, Optimizers, TableGradient, Tensor};
use rayon::prelude::*;

use super::batches::{Histories, Sample, Slice};
use super::objective::{self, Objective};
use super::optimizer::Gradient;
use super::parameters::{Gradients, Parameter, Parameters, Slot, zero_rows};
use super::tape::{Dropout, Tape};
use super::{RANGE, SequenceModel};
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
    /// The derivatives by the rows that answers are scored by, where those are not the tables' own.
    scored: Vec<TableGradient>,
    slice: Slice,
    loss: f64,
}

/// What every worker needs to know of a step.
pub(super) struct Step<'a, M> {
    pub(super) model: &'a M,
    pub(super) parameters: &'a Parameters,
    /// The tables' rows divided by their lengths, where answers are scored by those.
    pub(super) scored: &'a [Tensor],
    pub(super) objective: &'a Objective<'a>,
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
    /// `unit_rows` are the tables whose rows answers are scored by after a division by their lengths.
    pub(super) fn new(
        device: Cpu,
        parameters: &Parameters,
        count: usize,
        dense: bool,
        unit_rows: &[Parameter],
    ) -> Self {
        let worker = || Worker {
            gradients: Gradients::new(&device, parameters, dense),
            scored: unit_rows.iter().map(|&table| zero_rows(parameters.tensor(table), dense)).collect(),
            slice: Slice::default(),
            loss: 0.0,
        };
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
        for (place, &table) in step.model.tables().iter().enumerate().take(step.scored.len()) {
            self.add_scored(place, table, step.parameters.tensor(table));
        }
        Ok(self.all.iter().map(|worker| worker.loss).sum())
    }

    /// Adds the other workers' gradients to the first's, in their order.
    fn sum_gradients(&mut self) {
        let device = self.device;
        for &table in &self.tables {
            sum_tables(&device, self.all.iter_mut().map(|worker| worker.gradients.table(table)).collect());
        }
        for place in 0..self.all.first().map_or(0, |worker| worker.scored.len()) {
            sum_tables(&device, self.all.iter_mut().map(|worker| &mut worker.scored[place]).collect());
        }
        let Some((first, others)) = self.all.split_first_mut() else { return };
        for (place, slot) in first.gradients.slots_mut().iter_mut().enumerate() {
            let Slot::Whole(sum) = slot else { continue };
            for other in &mut *others {
                device.accumulate(sum.as_mut_slice(), other.gradients.whole(Parameter(place)).as_slice());
            }
        }
    }

    /// Turns the derivative by rows of length 1 that were scored into that by the rows of a table, whose numbers are
    /// `items`, and adds it to the table's, which so far has what came through the inputs.
    fn add_scored(&mut self, place: usize, table: Parameter, items: &Tensor) {
        let (device, cols) = (self.device, items.cols());
        let Worker { gradients, scored, .. } = &mut self.all[0];
        let scored = &mut scored[place];
        match scored.ids().map(<[u32]>::to_vec) {
            None => {
                let rows = items.as_slice().par_chunks((RANGE / cols).max(1) * cols);
                let drows = scored.values_mut().par_chunks_mut((RANGE / cols).max(1) * cols);
                rows.zip(drows).for_each(|(rows, drows)| device.unit_rows_backward(rows, cols, drows));
            }
            Some(ids) => {
                let drows = scored.values_mut().par_chunks_mut(cols);
                ids.into_par_iter()
                    .zip(drows)
                    .for_each(|(id, drow)| device.unit_rows_backward(items.row(id as usize), cols, drow));
            }
        }
        sum_tables(&device, vec![gradients.table(table), scored]);
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
            worker.scored.iter_mut().for_each(TableGradient::clear);
        });
    }
}

/// Adds accumulators of one table to the first of them.
fn sum_tables(device: &Cpu, mut tables: Vec<&mut TableGradient>) {
    let mut taken: Vec<TableGradient> = tables.iter_mut().map(|table| std::mem::take(&mut **table)).collect();
    let rows = RANGE / taken.first().map_or(1, TableGradient::cols).max(1);
    TableGradient::sum(&mut taken, rows.max(1)).into_par_iter().for_each(|part| part.run(device));
    for (table, gradient) in tables.into_iter().zip(taken) {
        *table = gradient;
    }
}

/// Bytes of dropped matrices that a thread keeps for its next slice: some 30 of 256 rows of 64 numbers a block.
const KEPT: usize = 64 << 20;

impl Worker {
    fn compute<M: SequenceModel>(&mut self, device: &Cpu, step: &Step<'_, M>, number: usize, range: Range<usize>) {
        let model = step.model;
        let Self { gradients, scored, slice, loss } = self;
        slice.pack(&step.samples[range], step.histories, model, step.epoch_key);
        let (batch, coded) = (slice.sequences(), slice.coded());
        let tape = Tape::new(device, step.parameters.all(), batch, &slice.keys, step.dropout).with(&coded);
        let told = model.encode(&tape, &batch, &coded);
        let (tables, count) = (model.tables(), told.len());
        let mut derivatives = Vec::with_capacity(told.len());
        let key = SplitMix::new(step.step_key ^ number as u64).next();
        for (place, told) in told.iter().enumerate() {
            let value = told.value();
            let parts = match step.objective {
                Objective::Next(next) => {
                    let (rows, into) = scored_by(step, &tables, scored, gradients, 0);
                    vec![next.of(device, value, rows, &slice.answers, key, step.weight, into)]
                }
                Objective::Outcome => vec![device.yes_or_no(value, &slice.answers, step.weight)],
                Objective::Codes(_, Some(next)) if place + 1 == count => {
                    let (rows, into) = scored_by(step, &tables, scored, gradients, 1);
                    vec![next.of(device, value, rows, &slice.answers, key, step.weight, into)]
                }
                Objective::Codes(codes, _) => {
                    let (levels, share) = codes.told(&slice.levels, place);
                    let (rows, into) = scored_by(step, &tables, scored, gradients, 0);
                    let weight = share * step.weight;
                    let of =
                        |&level| objective::surprise(device, value, rows, codes, level, &slice.answers, weight, into);
                    levels.iter().map(of).collect()
                }
            };
            for (part, derivative) in parts {
                *loss += part;
                derivatives.push((told, derivative));
            }
        }
        tape.backward_of(derivatives, gradients);
    }
}

/// The rows of one of a model's tables that answers are scored by, and where the derivative by them is added.
fn scored_by<'w, M>(
    step: &Step<'w, M>,
    tables: &[Parameter],
    scored: &'w mut [TableGradient],
    gradients: &'w mut Gradients<Matrix>,
    place: usize,
) -> (&'w Tensor, &'w mut TableGradient) {
    let rows = step.scored.get(place).unwrap_or(step.parameters.tensor(tables[place]));
    (rows, scored.get_mut(place).unwrap_or_else(|| gradients.table(tables[place])))
}
