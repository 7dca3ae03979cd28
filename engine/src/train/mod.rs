//! Training by gradients: the tape, the data path, the losses, the loop. Nothing here knows a family by name.
//!
//! A step's histories are packed without padding and cut into slices that fit a core's caches. Each worker takes
//! its share of the slices, in a fixed order, and goes through forward pass, loss and way back for one slice at a
//! time on one thread; then the workers' gradients are summed in a fixed order and the optimiser steps all weights.
//! So the same seed and number of threads give the same bits, and no thread ever waits within a network.

mod batches;
mod by_content;
#[cfg(test)]
mod checks;
mod coded;
mod described;
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
mod unfinished;
mod validation;
mod workers;

use std::ops::Range;

use pgrec_kernels::{Operators, Sequences};

#[cfg(test)]
pub(crate) use batches::HeldOut;
pub(crate) use batches::Histories;
#[cfg(test)]
pub(crate) use checks::{Check, compare, tolerance};
pub use coded::Order;
pub(crate) use coded::{CodeRows, EventRows};
pub(crate) use described::Described;
pub(crate) use options::is_sparse;
pub use options::{LossKind, NegativeSource, OptimizerKind, Options, Schedule, Windows};
pub(crate) use parameters::{Gradients, Init, Parameter, Parameters};
pub(crate) use rows::{RowTrainer, Slice};
pub(crate) use tape::{Tape, Var};
pub(crate) use trainer::fit;
pub use unfinished::Kept;
pub(crate) use validation::{Metrics, Validation};

use crate::content::Content;
use crate::{ArtifactBuilder, Result};

/// Numbers of a weight that one task works on: small enough to share out, large enough to be worth a task.
const RANGE: usize = 1 << 15;

/// How rows of items are partly their content's.
#[derive(Clone, Copy)]
pub(crate) struct ByContent<'a> {
    pub(crate) content: &'a Content,
    /// How often each item was touched.
    pub(crate) counts: &'a [f32],
    /// Share of the items that a step knows by their content alone.
    pub(crate) dropout: f64,
    /// Learning rate of the projection, as a multiple of that of all else.
    pub(crate) rate: f64,
    /// Its decoupled weight decay.
    pub(crate) decay: f64,
    /// Bytes that it takes.
    pub(crate) bytes: usize,
}

/// A network that turns a history into the vector by which the next item is found.
pub(crate) trait SequenceModel: Sync {
    /// Most events it looks at.
    fn window(&self) -> usize;

    /// The rows of the position table for a history of `len` events.
    fn positions(&self, len: usize) -> Range<u32>;

    /// The table of item vectors, by which inputs are looked up and answers are scored.
    fn items(&self) -> Parameter;

    /// The table of item vectors by which the next item is told beside its codes: then that is what the last that
    /// [`SequenceModel::encode`] gives is for, and `coded` has the items themselves after the rows of their codes.
    fn beside(&self) -> Option<Parameter> {
        None
    }

    /// Whether answers are scored by the cosine: then [`SequenceModel::encode`] gives rows of length 1.
    fn normalized(&self) -> bool;

    /// Whether the times of events are looked at.
    fn timed(&self) -> bool;

    /// The input that says of an event that no task's answer is yes, where each event is followed by what came of it
    /// and that is what is learnt: then [`SequenceModel::encode`] gives a logit a task. The others follow it.
    fn first_outcome(&self) -> Option<u32> {
        None
    }

    /// The codes of the items, where those are learnt and not the items. Their rows are those of
    /// [`SequenceModel::items`].
    fn codes(&self) -> Option<&CodeRows> {
        None
    }

    /// The words that the items are described by, where what follows them is learnt too: as inputs they are numbered
    /// after the items.
    fn described(&self) -> Option<&Described> {
        None
    }

    /// By what content rows of the table of items are placed too, where they are.
    fn content(&self) -> Option<ByContent<'_>> {
        None
    }

    /// The tables by which answers are scored.
    fn tables(&self) -> Vec<Parameter> {
        [self.items()].into_iter().chain(self.beside()).collect()
    }

    /// Floating-point operations of an event in training, roughly.
    fn cost(&self) -> usize;

    /// One vector an event, `[events, dim]`: that of the history up to it. Of a model of codes several: by the first the
    /// next item's codes are told, by each other one too, but given one more of them. `coded` are then [`CodeRows::row`]s
    /// of the events on every level, and those of the next items that are given.
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
