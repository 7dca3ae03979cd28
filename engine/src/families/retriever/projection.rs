//! q + q·X, X of any rank, or of a given one as a product of two.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};

use crate::train::{Init, Parameter, Parameters};
use crate::{Artifact, ArtifactBuilder, Error, Result};

/// X, or its two factors.
const WHOLE: [&str; 1] = ["projection"];
const FACTORS: [&str; 2] = ["projection.down", "projection.up"];

/// Layers whose product is X; none is the identity.
#[derive(Debug, Clone)]
pub(super) struct Projection<W>(Vec<Linear<W>>);

/// Names and shapes of the weights.
fn weights(dim: usize, rank: usize) -> Vec<(&'static str, [usize; 2])> {
    match rank {
        0 => WHOLE.into_iter().zip([[dim, dim]]).collect(),
        rank => FACTORS.into_iter().zip([[dim, rank], [rank, dim]]).collect(),
    }
}

impl Projection<Parameter> {
    /// Adds the weights of one that is still the identity.
    pub(super) fn new(parameters: &mut Parameters, dim: usize, rank: usize, seed: u64) -> Result<Self> {
        let weights = weights(dim, rank);
        let last = weights.len() - 1;
        let layer = |(place, (name, shape)): (usize, (&str, [usize; 2]))| {
            // What the last layer gives is nothing at first, and the others have to give it something to learn from.
            let init = if place == last { Init::Zeros } else { Init::Normal(1.0 / (dim as f32).sqrt()) };
            parameters.add(name, &shape, init, seed)?;
            let weight = parameters.find(name);
            let weight = weight.ok_or_else(|| Error::Malformed(format!("weight \"{name}\" is missing")))?;
            Ok(Linear { weight, bias: None })
        };
        weights.into_iter().enumerate().map(layer).collect::<Result<_>>().map(Self)
    }

    /// The same with the weights of now.
    pub(super) fn with(&self, parameters: &Parameters) -> Projection<Tensor> {
        let layer = |layer: &Linear<Parameter>| Linear { weight: parameters.tensor(layer.weight).clone(), bias: None };
        Projection(self.0.iter().map(layer).collect())
    }
}

impl<W: Send + Sync> Projection<W> {
    /// Where queries belong, `[queries, dim]`.
    pub(super) fn of<O: Operators<Weight = W>>(&self, operators: &O, mut queries: O::Matrix) -> O::Matrix {
        let mut layers = self.0.iter();
        let Some(first) = layers.next() else { return queries };
        let mut added = operators.linear(&queries, first, Activation::Identity);
        for layer in layers {
            added = operators.linear(&added, layer, Activation::Identity);
        }
        operators.add(&mut queries, &added);
        queries
    }
}

impl Projection<Tensor> {
    /// The one that leaves every query where it is.
    pub(super) fn identity() -> Self {
        Self(Vec::new())
    }

    /// Whether nothing is projected.
    pub(super) fn is_identity(&self) -> bool {
        self.0.is_empty()
    }

    /// The weights that an artifact has for this rank.
    pub(super) fn open(artifact: &Artifact, dim: usize, rank: usize) -> Result<Self> {
        let layer = |(name, shape): (&str, [usize; 2])| {
            let weight = artifact.tensor_of(name, &shape)?;
            match weight.as_slice().iter().all(|x| x.is_finite()) {
                true => Ok(Linear { weight, bias: None }),
                false => Err(Error::Malformed(format!("tensor \"{name}\" holds a number that is not finite"))),
            }
        };
        weights(dim, rank).into_iter().map(layer).collect::<Result<_>>().map(Self)
    }

    /// Keeps the weights in an artifact.
    pub(super) fn store(&self, artifact: &mut ArtifactBuilder, dim: usize, rank: usize) {
        for ((name, shape), layer) in weights(dim, rank).into_iter().zip(&self.0) {
            artifact.f32(name, &shape, layer.weight.as_slice().to_vec());
        }
    }

    /// Where queries (`[queries, dim]`) belong.
    pub(super) fn project(&self, queries: &[f32], dim: usize) -> Vec<f32> {
        self.of(&Cpu::new(), Matrix::from_slice(queries, dim)).as_slice().to_vec()
    }
}
