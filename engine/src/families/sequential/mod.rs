//! What families share that turn a history into a vector and score items by its dot product with theirs: serving,
//! training, and how the weights of a model are laid out. A family is its [`Architecture`].

mod batch;
mod by_content;
mod memory;
mod model;
mod train;

use std::ops::Range;

use pgrec_kernels::{Device, Operators, Rows, Sequences, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use batch::Batch;
pub(crate) use memory::{Kept, Remembered};
pub(crate) use model::{Sequential, allowed, best, most_similar};
pub(crate) use train::{Own, fit};

use crate::train::Init;
use crate::{Artifact, Error, Result};

/// Name of the table of items' vectors, by which inputs are looked up.
pub(crate) const ITEMS: &str = "items";

/// Name of the table that items are scored by, where it is not [`ITEMS`].
pub(crate) const SCORED: &str = "scored_items";

/// One tensor of a model.
#[derive(Debug, PartialEq)]
pub(crate) struct Weight {
    /// Its name in the artifact.
    pub name: String,
    /// Its shape there. Linear layers are `[inputs, outputs]`.
    pub shape: Vec<usize>,
    /// Whether a model can do without.
    pub optional: bool,
    /// How it begins in training.
    pub init: Init,
}

impl Weight {
    /// One that no model is without.
    pub fn needed(name: impl Into<String>, shape: &[usize], init: Init) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), optional: false, init }
    }

    /// One that a model can do without.
    pub fn optional(name: impl Into<String>, shape: &[usize], init: Init) -> Self {
        Self { optional: true, ..Self::needed(name, shape, init) }
    }
}

/// The shape of a model and the form of its layers: what is stored with the artifact as its configuration, and how a
/// forward pass is made of weights.
pub(crate) trait Architecture:
    Clone + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The family's name.
    const FAMILY: &'static str;
    /// The weights in their places.
    type Encoder<W: Send + Sync>: Send + Sync;

    /// Refuses what no forward pass can be made of.
    fn check(&self) -> Result<()>;
    /// How many layers there are, one like the other.
    fn blocks(&self) -> usize;
    /// Numbers of a vector.
    fn dim(&self) -> usize;
    /// How many of the latest events are looked at.
    fn window(&self) -> usize;
    /// The rows of the position table for a history of `len` events, which is not above the window.
    fn position_rows(&self, len: usize) -> Range<u32>;
    /// Whether scores are cosines: histories' vectors have length 1, and so have the rows of [`SCORED`].
    fn normalized(&self) -> bool;
    /// Whether the times of events are looked at.
    fn timed(&self) -> bool;
    /// How many rows of [`ITEMS`] follow those of the items: one for each combination of outcomes, where events are
    /// followed by what came of them.
    fn outcomes(&self) -> usize {
        0
    }
    /// Floating-point operations of the forward pass over a history of `events`, roughly.
    fn cost(&self, events: usize) -> usize;
    /// The tensors of a model over `items` items, [`ITEMS`] among them.
    fn weights(&self, items: usize) -> Vec<Weight>;
    /// Puts weights in their places by their names; `weight` gives None for what a model is without.
    fn encoder<W: Send + Sync>(&self, weight: impl Fn(&str) -> Result<Option<W>>) -> Result<Self::Encoder<W>>;
    /// One vector a history (or, of [`Rows::All`], one an event, of the history up to it), `[rows, dim]`.
    fn encode<O: Operators>(
        &self,
        encoder: &Self::Encoder<O::Weight>,
        dev: &O,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix;
    /// Whether keys and values of settled events can be kept: positions hold while the window is not full.
    fn remembers(&self) -> bool {
        false
    }
    /// The vector of one history of which the events before the `new` ones are in `kept`, to which the new ones are
    /// added; of an architecture that remembers.
    fn encode_new<D: Device>(
        &self,
        _encoder: &Self::Encoder<D::Weight>,
        _kept: &mut Kept<'_, D>,
        _new: &Sequences<'_>,
    ) -> Result<D::Matrix> {
        Err(Error::Parameter(format!("family \"{}\" keeps nothing of histories", Self::FAMILY)))
    }
}

/// A weight that has to be there.
pub(crate) fn needed<W>(name: &str, weight: Option<W>) -> Result<W> {
    weight.ok_or_else(|| Error::Malformed(format!("tensor \"{name}\" is missing")))
}

/// Refuses items that are not below `items`.
pub(crate) fn check_known(items: usize, asked: &[u32]) -> Result<()> {
    match asked.iter().find(|&&item| item as usize >= items) {
        Some(item) => Err(Error::Parameter(format!("item index {item} is not below {items}"))),
        None => Ok(()),
    }
}

/// Refuses a vector that is not `dim` wide.
pub(crate) fn check_width(vector: &[f32], dim: usize) -> Result<()> {
    match vector.len() == dim {
        true => Ok(()),
        false => Err(Error::Parameter(format!("the vector has {} dimensions, the model's have {dim}", vector.len()))),
    }
}

/// Checks sizes of an architecture: each between 1 and 2²⁰.
pub(crate) fn check_sizes(family: &str, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|&&(_, size)| size == 0 || size > 1 << 20) {
        Some((name, size)) => {
            let why = format!("{family} configuration: {name} {size} is not between 1 and {}", 1 << 20);
            Err(Error::Malformed(why))
        }
        None => Ok(()),
    }
}

/// The configuration in an artifact and its weights, whose shapes are checked against it.
pub(crate) fn open<A: Architecture>(artifact: &Artifact) -> Result<(A, A::Encoder<Tensor>)> {
    let architecture: A = artifact.config()?;
    architecture.check()?;
    for weight in architecture.weights(artifact.catalogue().len()) {
        if artifact.has(&weight.name) || !weight.optional {
            artifact.tensor_of(&weight.name, &weight.shape)?;
        }
    }
    let encoder = architecture.encoder(|name| artifact.has(name).then(|| artifact.tensor(name)).transpose())?;
    Ok((architecture, encoder))
}

/// Rows of `dim` numbers divided by their lengths, or by 1e-6 where they are shorter.
pub(crate) fn unit_rows(rows: &[f32], dim: usize) -> Vec<f32> {
    let unit = |row: &[f32]| {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        row.iter().map(|x| x / length).collect::<Vec<f32>>()
    };
    rows.chunks_exact(dim).flat_map(unit).collect()
}

/// The configuration as it is stored.
pub(crate) fn config_json<A: Architecture>(architecture: &A) -> Result<serde_json::Value> {
    serde_json::to_value(architecture).map_err(|e| Error::Malformed(format!("{} configuration: {e}", A::FAMILY)))
}

#[cfg(test)]
mod gradient_tests;
