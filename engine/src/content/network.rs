//! A network of one hidden layer from content into a space: W₂ relu(W₁x + Σ wₜeₜ + b₁) + b₂ of a vector x and attributes t
//! with their weights (the feature loss of Hsieh et al. 2017, section 3.3).

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};
use rayon::prelude::*;

use super::{Content, Way};
use crate::train::{Gradients, Init, Options, Parameter, Parameters, RowTrainer, Slice, Tape, Var};
use crate::{Error, Result};

/// Items that one thread places at a time.
const ROWS: usize = 256;

/// Which weights it has, by their places.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    vectors: Option<Linear<Parameter>>,
    /// e, `[attributes, hidden]`
    words: Option<Parameter>,
    out: Linear<Parameter>,
}

impl Network {
    /// Adds the weights of a network for such content, with so many numbers between.
    pub(crate) fn new(
        parameters: &mut Parameters,
        content: &Content,
        hidden: usize,
        dim: usize,
        seed: u64,
    ) -> Result<Self> {
        let mut added = |name: &str, shape: &[usize], init: Init| {
            let name = format!("content.{name}");
            parameters.add(&name, shape, init, seed)?;
            parameters.find(&name).ok_or_else(|| Error::Malformed(format!("weight \"{name}\" is missing")))
        };
        let mut vectors = None;
        if let Some(of) = &content.vectors {
            let weight = added("vectors.weight", &[of.dim, hidden], Init::Glorot)?;
            vectors = Some(Linear { weight, bias: Some(added("vectors.bias", &[hidden], Init::Zeros)?) });
        }
        let words = match &content.words {
            Some(words) => Some(added("words", &[words.count(), hidden], Init::Normal(1.0 / (hidden as f32).sqrt()))?),
            None => None,
        };
        let weight = added("out.weight", &[hidden, dim], Init::Glorot)?;
        let out = Linear { weight, bias: Some(added("out.bias", &[dim], Init::Zeros)?) };
        words.iter().for_each(|&words| parameters.mark_table(words));
        Ok(Self { vectors, words, out })
    }

    /// Where items are, `[items, dim]`.
    fn place(&self, tape: &Tape<'_, Cpu>, content: &Content, items: &[u32]) -> Var<Matrix> {
        let mut hidden = tape.constant(Matrix::zeros(items.len(), tape.tensor(self.out.weight).rows()));
        if let (Some(layer), Some(vectors)) = (&self.vectors, &content.vectors) {
            let rows: Vec<f32> = items.iter().flat_map(|&item| vectors.row(item as usize)).copied().collect();
            let rows = tape.constant(Matrix::from_slice(&rows, vectors.dim));
            tape.add(&mut hidden, &tape.linear(&rows, layer, Activation::Identity));
        }
        if let (Some(table), Some(words)) = (self.words, &content.words) {
            let rows = items.iter().map(|&item| words.of(item as usize));
            tape.add(&mut hidden, &tape.weighted_sums(table, rows));
        }
        tape.linear(&tape.activated(&hidden, Activation::Relu), &self.out, Activation::Identity)
    }

    /// The network with these weights.
    fn way(&self, weights: &[Tensor], content: &Content) -> Way {
        let cpu = Cpu::new();
        let tape = Tape::of_rows(&cpu, weights);
        let tensor = |parameter: &Parameter| tape.tensor(*parameter).clone();
        let layer =
            |layer: &Linear<Parameter>| Linear { weight: tensor(&layer.weight), bias: layer.bias.as_ref().map(tensor) };
        Way::new(content, self.vectors.as_ref().map(layer), self.words.as_ref().map(tensor), Some(layer(&self.out)))
    }

    /// Where these weights place items, `[items, dim]`.
    pub(crate) fn places(&self, weights: &[Tensor], content: &Content, items: &[u32]) -> Vec<f32> {
        let cpu = Cpu::new();
        let place =
            |items: &[u32]| self.place(&Tape::of_rows(&cpu, weights), content, items).value().as_slice().to_vec();
        // A session that places one item does so on its own thread.
        if items.len() <= ROWS {
            return place(items);
        }
        items.par_chunks(ROWS).map(place).collect::<Vec<_>>().concat()
    }
}

/// A network while it learns where items are.
pub(crate) struct Learner<'a> {
    content: &'a Content,
    network: Network,
    parameters: Parameters,
    trainer: RowTrainer,
    rate: f64,
}

impl<'a> Learner<'a> {
    /// One that has not learnt anything yet.
    pub(crate) fn new(content: &'a Content, hidden: usize, dim: usize, options: &Options, seed: u64) -> Result<Self> {
        let mut parameters = Parameters::default();
        let network = Network::new(&mut parameters, content, hidden, dim, seed)?;
        let trainer = RowTrainer::new(options, &parameters);
        Ok(Self { content, network, parameters, trainer, rate: options.learning_rate })
    }

    /// One step by the mean squared distance between places of items and their points (`[items, dim]`). Gives the places
    /// that they had before it.
    pub(crate) fn step(&mut self, items: &[u32], points: &[f32]) -> Vec<f32> {
        let rows: Vec<usize> = (0..items.len()).collect();
        let pull = Pull { network: &self.network, content: self.content, items, points };
        self.trainer.step(&mut self.parameters, &rows, self.rate, &pull).concat()
    }

    /// The network as it is now, for a model to keep.
    pub(crate) fn way(&self) -> Way {
        self.network.way(self.parameters.all(), self.content)
    }

    /// Where it places items, `[items, dim]`.
    pub(crate) fn places(&self, items: &[u32]) -> Vec<f32> {
        self.network.places(self.parameters.all(), self.content, items)
    }
}

/// The mean squared distance between places of items and their points.
pub(super) struct Pull<'a> {
    pub(super) network: &'a Network,
    pub(super) content: &'a Content,
    pub(super) items: &'a [u32],
    pub(super) points: &'a [f32],
}

impl Slice for Pull<'_> {
    /// The places.
    type Told = Vec<f32>;

    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> Vec<f32> {
        let items: Vec<u32> = rows.iter().map(|&row| self.items[row]).collect();
        let output = self.network.place(&tape, self.content, &items);
        let (dim, share) = (output.value().cols(), 2.0 / self.items.len() as f32);
        let places = output.value().as_slice().to_vec();
        let mut apart = Matrix::from_slice(&places, dim);
        for (apart, &row) in apart.as_mut_slice().chunks_exact_mut(dim).zip(rows) {
            apart.iter_mut().zip(&self.points[row * dim..][..dim]).for_each(|(x, point)| *x = share * (*x - point));
        }
        tape.backward(&output, apart, gradients);
        places
    }
}
