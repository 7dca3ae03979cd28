//! A network from content into a space: W₂ act(W₁x + Σ wₜeₜ + b₁) + b₂ of a vector x and attributes t with their weights (the
//! feature loss of Hsieh et al. 2017, section 3.3), or W₁x + Σ wₜeₜ + b₁ alone.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};
use rayon::prelude::*;

use super::{Content, Way};
use crate::train::{Gradients, Init, Options, Parameter, Parameters, RowTrainer, Slice, Tape, Var};
use crate::{Error, Result};

/// Items that one thread places at a time.
const ROWS: usize = 256;

/// What a network is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Form {
    /// Numbers between content and place; 0: a place is linear in the content.
    pub(crate) hidden: usize,
    /// Numbers of a place.
    pub(crate) dim: usize,
    /// The activation's slope below 0: 0 makes it a ReLU, more a leaky one.
    pub(crate) slope: f32,
}

impl Form {
    /// Numbers that content is turned into at first.
    fn first(self) -> usize {
        if self.hidden > 0 { self.hidden } else { self.dim }
    }

    /// How many weights there are for so many numbers and attributes, or some more.
    pub(crate) fn weights(self, inputs: usize) -> usize {
        let first = inputs.saturating_add(1).saturating_mul(self.first());
        first.saturating_add(self.hidden.saturating_add(1).saturating_mul(self.dim))
    }
}

/// Which weights it has, by their places.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    form: Form,
    vectors: Option<Linear<Parameter>>,
    /// e, `[attributes, hidden]`
    words: Option<Parameter>,
    /// Absent where there is no hidden layer.
    out: Option<Linear<Parameter>>,
}

impl Network {
    /// Adds the weights of a network for such content.
    pub(crate) fn new(parameters: &mut Parameters, content: &Content, form: Form, seed: u64) -> Result<Self> {
        let Form { hidden, dim, .. } = form;
        let first = form.first();
        let mut added = |name: &str, shape: &[usize], init: Init| {
            let name = format!("content.{name}");
            parameters.add(&name, shape, init, seed)?;
            parameters.find(&name).ok_or_else(|| Error::Malformed(format!("weight \"{name}\" is missing")))
        };
        let mut vectors = None;
        if let Some(of) = &content.vectors {
            let weight = added("vectors.weight", &[of.dim, first], Init::Glorot)?;
            vectors = Some(Linear { weight, bias: Some(added("vectors.bias", &[first], Init::Zeros)?) });
        }
        let words = match &content.words {
            Some(words) => Some(added("words", &[words.count(), first], Init::Normal(1.0 / (first as f32).sqrt()))?),
            None => None,
        };
        let mut out = None;
        if hidden > 0 {
            let weight = added("out.weight", &[hidden, dim], Init::Glorot)?;
            out = Some(Linear { weight, bias: Some(added("out.bias", &[dim], Init::Zeros)?) });
        }
        words.iter().for_each(|&words| parameters.mark_table(words));
        Ok(Self { form, vectors, words, out })
    }

    /// Where items are, `[items, dim]`.
    pub(crate) fn place(&self, tape: &Tape<'_, Cpu>, content: &Content, items: &[u32]) -> Var<Matrix> {
        let mut hidden = tape.constant(Matrix::zeros(items.len(), self.form.first()));
        if let (Some(layer), Some(vectors)) = (&self.vectors, &content.vectors) {
            let rows: Vec<f32> = items.iter().flat_map(|&item| vectors.row(item as usize)).copied().collect();
            let rows = tape.constant(Matrix::from_slice(&rows, vectors.dim));
            tape.add(&mut hidden, &tape.linear(&rows, layer, Activation::Identity));
        }
        if let (Some(table), Some(words)) = (self.words, &content.words) {
            let rows = items.iter().map(|&item| words.of(item as usize));
            tape.add(&mut hidden, &tape.weighted_sums(table, rows));
        }
        match &self.out {
            Some(out) => tape.linear(&activated(tape, &hidden, self.form.slope), out, Activation::Identity),
            None => hidden,
        }
    }

    /// The network with these weights.
    pub(crate) fn way(&self, weights: &[Tensor], content: &Content) -> Way {
        let cpu = Cpu::new();
        let tape = Tape::of_rows(&cpu, weights);
        let tensor = |parameter: &Parameter| tape.tensor(*parameter).clone();
        let layer =
            |layer: &Linear<Parameter>| Linear { weight: tensor(&layer.weight), bias: layer.bias.as_ref().map(tensor) };
        let (vectors, words, out) =
            (self.vectors.as_ref().map(layer), self.words.as_ref().map(tensor), self.out.as_ref().map(layer));
        Way::new(content, vectors, words, out, self.form.slope)
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

/// max(x, slope·x)
fn activated(tape: &Tape<'_, Cpu>, x: &Var<Matrix>, slope: f32) -> Var<Matrix> {
    if slope == 0.0 {
        return tape.activated(x, Activation::Relu);
    }
    let cols = x.value().cols();
    let bent: Vec<f32> = x.value().as_slice().iter().map(|&x| x.max(slope * x)).collect();
    let value = Matrix::from_slice(&bent, cols);
    // A result is below 0 where what it was made of is.
    tape.apply(&[x], value, move |_, mut dy| {
        dy.as_mut_slice().iter_mut().zip(&bent).for_each(|(dy, y)| *dy *= if *y < 0.0 { slope } else { 1.0 });
        vec![dy]
    })
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
        let network = Network::new(&mut parameters, content, Form { hidden, dim, slope: 0.0 }, seed)?;
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
