//! What is wanted of an item, and how much it is liked: the generator of intents and the two scorers (UDITSR). First layers are
//! kept in parts, so that what depends on a user alone, or on an item alone, is computed once.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};

use super::ops::{bent, beside, repeated, squashed};
use crate::families::sequential::needed;
use crate::train::{Init, Parameter, Parameters, Tape, Var};
use crate::{Artifact, ArtifactBuilder, Error, Result};

/// A scorer: MLP(3d → 3d/2 → 3d/4 → 1) with LeakyReLU.
#[derive(Debug, Clone)]
pub(super) struct Scorer<W> {
    /// Of the user's vector, and of the intent where that is the same for all items.
    pub(super) user: Linear<W>,
    pub(super) item: Linear<W>,
    /// Of an intent that is another for every item.
    pub(super) intent: Option<Linear<W>>,
    pub(super) hidden: Linear<W>,
    pub(super) out: Linear<W>,
}

/// The generator: MLP(4d → 2d → 2d → d) with tanh.
#[derive(Debug, Clone)]
pub(super) struct Generator<W> {
    /// Of the user's vector and latest queries.
    pub(super) user: Linear<W>,
    pub(super) item: Linear<W>,
    /// Of the item's queries.
    pub(super) asked: Linear<W>,
    /// What asks which of an item's queries matter, of the user's vector and latest queries.
    pub(super) attention: Linear<W>,
    pub(super) hidden: Linear<W>,
    pub(super) out: Linear<W>,
}

/// All layers.
#[derive(Debug, Clone)]
pub(super) struct Network<W> {
    pub(super) generator: Generator<W>,
    pub(super) search: Scorer<W>,
    pub(super) recommend: Scorer<W>,
}

/// Numbers in the layers of vectors of `dim` numbers.
pub(super) fn weights(dim: usize) -> usize {
    // 4d·2d + 2d·2d + 2d·d of the generator and 2d·d of what asks, 3d·3d/2 + 3d/2·3d/4 of each scorer, and biases.
    28 * dim * dim + 16 * dim
}

/// Makes or finds the layers: `get` gives a weight of a name, a shape, and how it begins.
fn layers<W>(dim: usize, mut get: impl FnMut(&str, &[usize], Init) -> Result<W>) -> Result<Network<W>> {
    let mut layer = |name: &str, inputs: usize, outputs: usize, biased: bool| {
        let weight = get(&format!("{name}.weight"), &[inputs, outputs], Init::Glorot)?;
        let bias = match biased {
            true => Some(get(&format!("{name}.bias"), &[outputs], Init::Zeros)?),
            false => None,
        };
        Ok::<_, Error>(Linear { weight, bias })
    };
    let (wide, first, second) = (2 * dim, 3 * dim / 2, 3 * dim / 4);
    Ok(Network {
        generator: Generator {
            user: layer("generator.user", 2 * dim, wide, true)?,
            item: layer("generator.item", dim, wide, false)?,
            asked: layer("generator.asked", dim, wide, false)?,
            attention: layer("generator.attention", 2 * dim, dim, true)?,
            hidden: layer("generator.hidden", wide, wide, true)?,
            out: layer("generator.out", wide, dim, true)?,
        },
        search: Scorer {
            user: layer("search.user", 2 * dim, first, true)?,
            item: layer("search.item", dim, first, false)?,
            intent: None,
            hidden: layer("search.hidden", first, second, true)?,
            out: layer("search.out", second, 1, true)?,
        },
        recommend: Scorer {
            user: layer("recommend.user", dim, first, true)?,
            item: layer("recommend.item", dim, first, false)?,
            intent: Some(layer("recommend.intent", dim, first, false)?),
            hidden: layer("recommend.hidden", first, second, true)?,
            out: layer("recommend.out", second, 1, true)?,
        },
    })
}

impl Network<Parameter> {
    /// Adds its weights.
    pub(super) fn new(parameters: &mut Parameters, dim: usize, seed: u64) -> Result<Self> {
        layers(dim, |name, shape, init| {
            parameters.add(name, shape, init, seed)?;
            needed(name, parameters.find(name))
        })
    }
}

impl Network<Tensor> {
    /// The network as it is now.
    pub(super) fn now(parameters: &Parameters, dim: usize) -> Result<Self> {
        layers(dim, |name, _, _| needed(name, parameters.find(name).map(|found| parameters.tensor(found).clone())))
    }

    /// That of an artifact.
    pub(super) fn open(artifact: &Artifact, dim: usize) -> Result<Self> {
        layers(dim, |name, shape, _| artifact.tensor_of(name, shape))
    }
}

/// Keeps the weights in an artifact.
pub(super) fn store(parameters: &Parameters, artifact: &mut ArtifactBuilder) {
    for (name, tensor) in parameters.iter() {
        artifact.f32(name, tensor.shape(), tensor.as_slice().to_vec());
    }
}

impl Scorer<Parameter> {
    /// Scores of items, `[users·each, 1]`: `each` for every row of `user`, which has the intent beside it where that is the
    /// same for all items.
    pub(super) fn score(
        &self,
        tape: &Tape<'_, Cpu>,
        user: &Var<Matrix>,
        items: &Var<Matrix>,
        intents: Option<&Var<Matrix>>,
        each: usize,
    ) -> Var<Matrix> {
        let mut first = repeated(tape, &tape.linear(user, &self.user, Activation::Identity), each);
        tape.add(&mut first, &tape.linear(items, &self.item, Activation::Identity));
        if let (Some(layer), Some(intents)) = (&self.intent, intents) {
            tape.add(&mut first, &tape.linear(intents, layer, Activation::Identity));
        }
        let second = tape.linear(&bent(tape, &first), &self.hidden, Activation::Identity);
        tape.linear(&bent(tape, &second), &self.out, Activation::Identity)
    }
}

impl Generator<Parameter> {
    /// Intents, `[users·each, dim]`: `each` items for every user. `asked`: what is made of an item's queries, given what asks.
    pub(super) fn intents(
        &self,
        tape: &Tape<'_, Cpu>,
        (user, wanted): (&Var<Matrix>, &Var<Matrix>),
        items: &Var<Matrix>,
        asked: impl FnOnce(&Var<Matrix>) -> Var<Matrix>,
        each: usize,
    ) -> Var<Matrix> {
        let user = beside(tape, user, wanted);
        let asked = asked(&tape.linear(&user, &self.attention, Activation::Identity));
        let mut first = repeated(tape, &tape.linear(&user, &self.user, Activation::Identity), each);
        tape.add(&mut first, &tape.linear(items, &self.item, Activation::Identity));
        tape.add(&mut first, &tape.linear(&asked, &self.asked, Activation::Identity));
        let second = tape.linear(&squashed(tape, &first), &self.hidden, Activation::Identity);
        tape.linear(&squashed(tape, &second), &self.out, Activation::Identity)
    }
}
