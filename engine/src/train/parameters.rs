//! The weights of a model in training and what is accumulated for them.

use pgrec_kernels::{Backward, TableGradient, Tensor};

use super::unfinished::Found;
use crate::random::SplitMix;
use crate::{Error, Result};

/// A weight by its place among [`Parameters`]: what a family's forward pass takes for weights in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameter(pub(super) usize);

/// How a weight begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// All zeros: biases.
    Zeros,
    /// All ones: factors of norms.
    Ones,
    /// Normal with this deviation, cut at two deviations.
    Normal(f32),
    /// Uniform in ±√(6/(inputs + outputs)) (Glorot & Bengio 2010).
    Glorot,
}

/// Named weights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
    /// The tables of which a step may touch few rows.
    tables: Vec<bool>,
}

impl Parameters {
    /// Adds a weight. Its numbers depend on seed and name alone.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize], init: Init, seed: u64) -> Result<()> {
        let count = shape.iter().product();
        let mut random = SplitMix::new(name.bytes().fold(seed, |hash, b| SplitMix::new(hash ^ u64::from(b)).next()));
        let values = match init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Normal(deviation) => (0..count).map(|_| deviation * random.truncated_normal()).collect(),
            Init::Glorot => {
                let bound = (6.0 / shape.iter().sum::<usize>() as f32).sqrt();
                (0..count).map(|_| bound * (2.0 * random.uniform() - 1.0)).collect()
            }
        };
        self.names.push(name.to_owned());
        self.tensors.push(Tensor::from_vec(values, shape.to_vec()).map_err(|e| Error::Malformed(e.to_string()))?);
        self.tables.push(false);
        Ok(())
    }

    /// The weight of that name.
    pub(crate) fn find(&self, name: &str) -> Option<Parameter> {
        self.names.iter().position(|known| known == name).map(Parameter)
    }

    /// Says that a weight is a table whose rows are stepped one by one when a step touches few of them.
    pub(crate) fn mark_table(&mut self, table: Parameter) {
        self.tables[table.0] = true;
    }

    /// The weights that are tables.
    pub(super) fn tables(&self) -> Vec<Parameter> {
        (0..self.tables.len()).filter(|&place| self.tables[place]).map(Parameter).collect()
    }

    /// Every weight with its name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.tensors)
    }

    /// A weight's numbers.
    pub(crate) fn tensor(&self, parameter: Parameter) -> &Tensor {
        &self.tensors[parameter.0]
    }

    /// A weight's numbers, to change.
    pub(crate) fn tensor_mut(&mut self, parameter: Parameter) -> &mut Tensor {
        &mut self.tensors[parameter.0]
    }

    /// All numbers, in the order in which weights were added.
    pub(crate) fn all(&self) -> &[Tensor] {
        &self.tensors
    }

    pub(super) fn all_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }

    /// Adds all numbers to a list, under names that begin so.
    pub(super) fn list<'a>(&'a self, group: &str, into: &mut Vec<(String, &'a [f32])>) {
        let named = self.tensors.iter().enumerate().map(|(place, tensor)| (name_of(group, place), tensor.as_slice()));
        into.extend(named);
    }

    /// Such weights with the numbers of a file, if it has as many.
    pub(super) fn found(&self, group: &str, file: &Found<'_>) -> Option<Self> {
        let mut found = self.clone();
        for (place, tensor) in found.tensors.iter_mut().enumerate() {
            file.fill(&name_of(group, place), tensor.to_mut())?;
        }
        Some(found)
    }

    /// Moves every number by `share` of its distance towards another's.
    pub(super) fn approach(&mut self, other: &Self, share: f32) {
        for (own, other) in self.tensors.iter_mut().zip(&other.tensors) {
            own.to_mut().iter_mut().zip(other.as_slice()).for_each(|(own, other)| *own += share * (other - *own));
        }
    }

    /// Numbers in all weights.
    pub(crate) fn len(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.as_slice().len()).sum()
    }
}

/// What the numbers of a weight are called in a file.
pub(super) fn name_of(group: &str, place: usize) -> String {
    format!("{group}.{place}")
}

/// An accumulator for a table: of all rows, or of those that are touched.
pub(super) fn zero_rows(table: &Tensor, dense: bool) -> TableGradient {
    match dense {
        true => TableGradient::dense(table.rows(), table.cols()),
        false => TableGradient::sparse(table.rows(), table.cols()),
    }
}

/// What one worker accumulates for every weight.
pub(crate) struct Gradients<M> {
    slots: Vec<Slot<M>>,
}

/// One weight's part.
pub(super) enum Slot<M> {
    /// As many numbers as the weight has.
    Whole(M),
    /// Rows of a table.
    Table(TableGradient),
}

impl<M> Gradients<M> {
    /// Zeros for every weight. `dense` says whether steps touch all rows of the tables.
    pub(crate) fn new<D: Backward<Matrix = M>>(device: &D, parameters: &Parameters, dense: bool) -> Self {
        let slots = parameters.tensors.iter().zip(&parameters.tables).map(|(tensor, &table)| {
            if table {
                return Slot::Table(zero_rows(tensor, dense));
            }
            let (rows, cols) = match tensor.shape() {
                [cols] => (1, *cols),
                _ => (tensor.rows(), tensor.cols()),
            };
            Slot::Whole(device.zeros(rows, cols))
        });
        Self { slots: slots.collect() }
    }

    pub(super) fn slots_mut(&mut self) -> &mut [Slot<M>] {
        &mut self.slots
    }

    /// The accumulator of a weight that is no table.
    pub(crate) fn whole(&mut self, parameter: Parameter) -> &mut M {
        match &mut self.slots[parameter.0] {
            Slot::Whole(matrix) => matrix,
            Slot::Table(_) => panic!("a table takes part in an operator that touches all of it"),
        }
    }

    /// The accumulators of two weights that are no tables; the second may be absent.
    pub(super) fn pair(&mut self, first: Parameter, second: Option<Parameter>) -> (&mut M, Option<&mut M>) {
        let Some(second) = second else { return (self.whole(first), None) };
        match self.slots.get_disjoint_mut([first.0, second.0]) {
            Ok([Slot::Whole(first), Slot::Whole(second)]) => (first, Some(second)),
            _ => panic!("a table, or one weight twice, in an operator of two weights"),
        }
    }

    /// The accumulators of a table and of another weight.
    pub(super) fn table_and(&mut self, table: Parameter, other: Parameter) -> (&mut TableGradient, &mut M) {
        match self.slots.get_disjoint_mut([table.0, other.0]) {
            Ok([Slot::Table(table), Slot::Whole(other)]) => (table, other),
            _ => panic!("an embedding needs a table and another weight"),
        }
    }

    /// The accumulator of a table.
    pub(crate) fn table(&mut self, table: Parameter) -> &mut TableGradient {
        match &mut self.slots[table.0] {
            Slot::Table(table) => table,
            Slot::Whole(_) => panic!("not a table"),
        }
    }
}
