//! One step of the optimiser over all weights, in parallel, from what the workers accumulated.

use pgrec_kernels::{AdaGrad, AdamW, Optimizers, TableGradient, Tensor};
use rayon::prelude::*;

use super::RANGE;
use super::options::{OptimizerKind, Options};
use super::parameters::{Parameters, name_of};
use super::unfinished::Found;

/// What the optimiser remembers of every number.
pub(super) struct Optimizer {
    kind: OptimizerKind,
    beta1: f32,
    beta2: f32,
    decay: f32,
    clip: f64,
    step: u64,
    states: Vec<State>,
}

/// What its memory is called in a file.
const MEAN: &str = "mean";
const SQUARES: &str = "squares";

#[derive(Default)]
struct State {
    /// AdamW's mean of gradients.
    mean: Vec<f32>,
    /// AdamW's mean, or AdaGrad's sum, of their squares.
    squares: Vec<f32>,
    /// Norms and biases do not decay.
    decays: bool,
}

/// One number's row in a step: a stretch of a weight, its gradient and its state.
struct Stretch<'a> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    mean: &'a mut [f32],
    squares: &'a mut [f32],
    decays: bool,
}

impl Optimizer {
    pub(super) fn new(options: &Options, parameters: &Parameters) -> Self {
        let adam = options.optimizer == OptimizerKind::Adamw;
        let states = parameters.all().iter().map(|tensor| {
            let len = tensor.as_slice().len();
            State {
                mean: vec![0.0; if adam { len } else { 0 }],
                squares: vec![0.0; len],
                decays: tensor.shape().len() > 1,
            }
        });
        Self {
            kind: options.optimizer,
            beta1: options.beta1 as f32,
            beta2: options.beta2 as f32,
            decay: options.weight_decay as f32,
            clip: options.clip,
            step: 0,
            states: states.collect(),
        }
    }

    /// Adds what it remembers to a list.
    pub(super) fn list<'a>(&'a self, into: &mut Vec<(String, &'a [f32])>) {
        for (place, state) in self.states.iter().enumerate() {
            into.push((name_of(MEAN, place), &state.mean));
            into.push((name_of(SQUARES, place), &state.squares));
        }
    }

    /// Remembers what a file has of so many steps; nothing where that is of other sizes, and then this is of no use.
    pub(super) fn fill(&mut self, steps: u64, file: &Found<'_>) -> Option<()> {
        self.step = steps;
        for (place, state) in self.states.iter_mut().enumerate() {
            file.fill(&name_of(MEAN, place), &mut state.mean)?;
            file.fill(&name_of(SQUARES, place), &mut state.squares)?;
        }
        Some(())
    }

    /// Bytes it holds a number of the model.
    pub(super) fn bytes_a_number(options: &Options) -> usize {
        match options.optimizer {
            OptimizerKind::Adamw => 8,
            OptimizerKind::Adagrad => 4,
        }
    }

    /// Steps all weights by `gradients`, one for each weight: numbers, or rows of a table.
    pub(super) fn step<D: Optimizers + Sync>(
        &mut self,
        device: &D,
        rate: f64,
        parameters: &mut Parameters,
        gradients: &[Gradient<'_>],
    ) {
        self.step += 1;
        let scale = self.clipping(device, gradients);
        let mut stretches = Vec::new();
        for ((tensor, gradient), state) in parameters.all_mut().iter_mut().zip(gradients).zip(&mut self.states) {
            gradient.stretches(tensor, state, &mut stretches);
        }
        let adamw = AdamW {
            rate: rate as f32,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: 1e-8,
            decay: self.decay,
            step: self.step,
        };
        let adagrad = AdaGrad { rate: rate as f32, eps: 1e-10 };
        let kind = self.kind;
        stretches.into_par_iter().for_each(|s| match kind {
            OptimizerKind::Adamw => {
                let adamw = AdamW { decay: if s.decays { adamw.decay } else { 0.0 }, ..adamw };
                device.adamw(&adamw, s.weights, s.gradient, scale, s.mean, s.squares);
            }
            OptimizerKind::Adagrad => device.adagrad(&adagrad, s.weights, s.gradient, scale, s.squares),
        });
    }

    /// What gradients are multiplied with so that together they are not longer than `clip`.
    fn clipping<D: Optimizers + Sync>(&self, device: &D, gradients: &[Gradient<'_>]) -> f32 {
        if self.clip == 0.0 {
            return 1.0;
        }
        let parts: Vec<&[f32]> = gradients.iter().flat_map(|gradient| gradient.values().chunks(RANGE)).collect();
        let squares: Vec<f64> = parts.into_par_iter().map(|part| device.sum_squares(part)).collect();
        let length = squares.into_iter().sum::<f64>().sqrt();
        // Not finite: the step would destroy the weights; one without effect is better.
        if !length.is_finite() {
            return 0.0;
        }
        if length > self.clip { (self.clip / length) as f32 } else { 1.0 }
    }
}

/// The gradient of one weight.
pub(super) enum Gradient<'a> {
    /// For every number.
    Whole(&'a [f32]),
    /// For rows of a table.
    Table(&'a TableGradient),
}

impl Gradient<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Self::Whole(values) => values,
            Self::Table(table) => table.values(),
        }
    }
}

impl<'a> Gradient<'a> {
    /// Cuts weight, gradient and state into what one task steps.
    fn stretches(&self, tensor: &'a mut Tensor, state: &'a mut State, all: &mut Vec<Stretch<'a>>) {
        let decays = state.decays;
        let cols = tensor.cols();
        let (mut weights, mut mean, mut squares) = (tensor.to_mut(), &mut state.mean[..], &mut state.squares[..]);
        let mut take = |skip: usize, gradient: &'a [f32]| {
            let cut = |list: &mut &'a mut [f32]| {
                let (skip, len) = if list.is_empty() { (0, 0) } else { (skip, gradient.len()) };
                let (part, rest) = std::mem::take(list)[skip..].split_at_mut(len);
                *list = rest;
                part
            };
            let (weights, mean, squares) = (cut(&mut weights), cut(&mut mean), cut(&mut squares));
            all.push(Stretch { weights, gradient, mean, squares, decays });
        };
        match *self {
            Self::Whole(gradient) => gradient.chunks(RANGE).for_each(|part| take(0, part)),
            Self::Table(table) => match table.ids() {
                None => table.values().chunks(RANGE).for_each(|part| take(0, part)),
                Some(ids) => {
                    let mut order: Vec<(u32, usize)> = ids.iter().copied().zip(0..).collect();
                    order.sort_unstable();
                    let mut next = 0;
                    for (id, place) in order {
                        let gradient = &table.values()[place * cols..(place + 1) * cols];
                        take((id as usize - next) * cols, gradient);
                        next = id as usize + 1;
                    }
                }
            },
        }
    }
}
