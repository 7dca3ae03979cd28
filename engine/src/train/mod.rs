//! Training by gradients: the tape, the data path, the losses, the loop. Nothing here knows a family by name.
//!
//! A step's histories are packed without padding and cut into slices that fit a core's caches. Each worker takes
//! its share of the slices, in a fixed order, and goes through forward pass, loss and way back for one slice at a
//! time on one thread; then the workers' gradients are summed in a fixed order and the optimiser steps all weights.
//! So the same seed and number of threads give the same bits, and no thread ever waits within a network.

mod batches;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod double;
mod objective;
mod optimizer;
mod options;
mod parameters;
mod rows;
mod schedule;
mod tape;
mod trainer;
mod validation;
mod workers;

use std::ops::Range;

use pgrec_kernels::{Operators, Sequences};

#[cfg(test)]
pub(crate) use checks::{Check, compare, tolerance};
pub(crate) use options::is_sparse;
pub use options::{LossKind, NegativeSource, OptimizerKind, Options, Schedule, Windows};
pub(crate) use parameters::{Gradients, Init, Parameter, Parameters};
pub(crate) use rows::{RowTrainer, Slice};
#[cfg(test)]
pub(crate) use tape::Dropout;
pub(crate) use tape::{Tape, Var};
pub(crate) use trainer::fit;

use crate::codes::Codes;
use crate::{ArtifactBuilder, Result};

/// Numbers of a weight that one task works on: small enough to share out, large enough to be worth a task.
const RANGE: usize = 1 << 15;

/// Codes of items as rows of one table, level after level.
#[derive(Debug, Clone)]
pub(crate) struct CodeRows {
    /// The first row of every level.
    starts: Vec<u32>,
    /// `[items, levels]`
    codes: Vec<u16>,
    /// Of every level.
    choices: Vec<Choices>,
    /// For every level the table of its code words, by which codes are scored.
    pub(crate) heads: Vec<Parameter>,
}

/// Codes of one level that some item has after the same codes as an item.
#[derive(Debug, Clone)]
struct Choices {
    /// Of every item, places in `codes`.
    of: Vec<Range<u32>>,
    codes: Vec<u32>,
}

impl Choices {
    fn new(codes: &Codes<'_>, order: &[u32], level: usize) -> Self {
        let mut choices = Self { of: vec![0..0; codes.len()], codes: Vec::new() };
        let code = |item: &u32| codes.item(*item as usize);
        for group in order.chunk_by(|a, b| code(a)[..level] == code(b)[..level]) {
            let mut next: Vec<u32> = group.iter().map(|item| u32::from(code(item)[level])).collect();
            next.dedup();
            let start = choices.codes.len() as u32;
            choices.codes.append(&mut next);
            let end = choices.codes.len() as u32;
            group.iter().for_each(|&item| choices.of[item as usize] = start..end);
        }
        choices
    }
}

impl CodeRows {
    /// Of items with these codes, of so many code words a level.
    pub(crate) fn new(sizes: &[usize], codes: &Codes<'_>, heads: Vec<Parameter>) -> Self {
        let starts = sizes.iter().scan(0, |start, &size| Some(std::mem::replace(start, *start + size as u32)));
        let order = codes.order();
        let choices = (0..sizes.len()).map(|level| Choices::new(codes, &order, level)).collect();
        Self { starts: starts.collect(), codes: codes.of.to_vec(), choices, heads }
    }

    /// The codes on a level that some item has after the same codes as this one, its own among them, ascending.
    pub(crate) fn choices(&self, item: u32, level: usize) -> &[u32] {
        let Range { start, end } = self.choices[level].of[item as usize];
        &self.choices[level].codes[start as usize..end as usize]
    }

    /// Codes of an item.
    pub(crate) fn levels(&self) -> usize {
        self.starts.len()
    }

    /// The code of an item on a level.
    pub(crate) fn code(&self, item: u32, level: usize) -> u16 {
        self.codes[item as usize * self.levels() + level]
    }

    /// Its row.
    pub(crate) fn row(&self, item: u32, level: usize) -> u32 {
        self.starts[level] + u32::from(self.code(item, level))
    }
}

/// A network that turns a history into the vector by which the next item is found.
pub(crate) trait SequenceModel: Sync {
    /// Most events it looks at.
    fn window(&self) -> usize;

    /// The rows of the position table for a history of `len` events.
    fn positions(&self, len: usize) -> Range<u32>;

    /// The table of item vectors, by which inputs are looked up and answers are scored.
    fn items(&self) -> Parameter;

    /// Whether answers are scored by the cosine: then [`SequenceModel::encode`] gives rows of length 1.
    fn normalized(&self) -> bool;

    /// Whether the times of events are looked at.
    fn timed(&self) -> bool;

    /// The input that says of an event that no task's answer is yes, where each event is followed by what came of it
    /// and that is what is learnt: then [`SequenceModel::encode`] gives a logit a task. The others follow it.
    fn first_outcome(&self) -> Option<u32> {
        None
    }

    /// The codes of the items, where those are learnt one after the other, and not the items.
    fn codes(&self) -> Option<&CodeRows> {
        None
    }

    /// Floating-point operations of an event in training, roughly.
    fn cost(&self) -> usize;

    /// One vector an event, `[events, dim]`: that of the history up to it. Of a model of codes as many as there are
    /// levels: the vector by which the next item's code is told, given its codes on the levels before. `coded` are then
    /// [`CodeRows::row`]s of the events on every level, and of the next items on all but the last.
    fn encode<O: Operators<Weight = Parameter>>(
        &self,
        operators: &O,
        batch: &Sequences<'_>,
        coded: &[Sequences<'_>],
    ) -> Vec<O::Matrix>;

    /// The model with these weights, as it is stored. `search` adds what a large catalogue is searched by, which
    /// takes long and a validation can do without.
    fn artifact(&self, parameters: &Parameters, search: bool) -> Result<ArtifactBuilder>;
}
