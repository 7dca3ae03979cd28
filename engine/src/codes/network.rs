//! What autoencoders of item vectors share: their layers, and the loop that trains them.

use std::time::Instant;

use pgrec_kernels::cpu::Matrix;
use pgrec_kernels::{Activation, Linear, Operators};
use serde::Deserialize;
use serde_json::{Value, json};

use super::encoder::{Layer, Network};
use super::{Codebook, Options};
use crate::control::TrainingProgress;
use crate::random::SplitMix;
use crate::train::{self, Init, Parameter, Parameters, RowTrainer, Slice, Tape, Var};
use crate::{Control, Error, Result};

/// How an autoencoder is made and trained.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Widths of the layers between a vector and what is coded of it; in the other order on the way back.
    pub hidden: Vec<usize>,
    /// Numbers that are coded on each level.
    pub latent: usize,
    /// Times that all vectors are gone through.
    pub epochs: u32,
    /// Vectors a step.
    pub batch: usize,
    /// Learning rate of AdamW, to which it rises over some steps.
    pub learning_rate: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
}

/// Those of LC-Rec but for the layers, which there begin with 4,096 numbers.
impl Default for Training {
    fn default() -> Self {
        let (batch, learning_rate, weight_decay) = (1024, 1e-3, 1e-4);
        Self { hidden: vec![512, 256, 128], latent: 32, epochs: 200, batch, learning_rate, weight_decay }
    }
}

/// Steps over which the learning rate rises.
const WARMUP: u64 = 50;

/// In the last epochs no code word is moved by anything but its gradient.
const SETTLED: f32 = 0.1;

impl Training {
    /// Refuses what no network can be made of.
    pub(super) fn check(&self) -> Result<()> {
        let sizes = self.hidden.iter().chain([&self.latent, &self.batch]);
        if sizes.clone().any(|&size| size == 0 || size > 1 << 16) || self.epochs == 0 {
            return Err(Error::Parameter("hidden, latent, batch and epochs are numbers from 1 to 65536".into()));
        }
        let rates = [self.learning_rate, self.weight_decay];
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
            return Err(Error::Parameter("learning_rate and weight_decay are numbers from 0 on".into()));
        }
        Ok(())
    }

    /// Widths from a vector to what is coded.
    pub(super) fn down(&self, input: usize) -> Vec<usize> {
        [input].into_iter().chain(self.hidden.iter().copied()).chain([self.latent]).collect()
    }

    /// Widths from code words to a vector.
    pub(super) fn up(&self, coded: usize, output: usize) -> Vec<usize> {
        [coded].into_iter().chain(self.hidden.iter().rev().copied()).chain([output]).collect()
    }
}

/// Adds linear layers of these widths.
pub(super) fn layers(
    parameters: &mut Parameters,
    name: &str,
    widths: &[usize],
    seed: u64,
) -> Result<Vec<Linear<Parameter>>> {
    let mut layers = Vec::with_capacity(widths.len());
    for (place, pair) in widths.windows(2).enumerate() {
        let weight = added(parameters, &format!("{name}.{place}.weight"), &[pair[0], pair[1]], Init::Glorot, seed)?;
        let bias = added(parameters, &format!("{name}.{place}.bias"), &[pair[1]], Init::Zeros, seed)?;
        layers.push(Linear { weight, bias: Some(bias) });
    }
    Ok(layers)
}

fn added(parameters: &mut Parameters, name: &str, shape: &[usize], init: Init, seed: u64) -> Result<Parameter> {
    parameters.add(name, shape, init, seed)?;
    parameters.find(name).ok_or_else(|| Error::Malformed(format!("weight \"{name}\" is missing")))
}

/// Adds a table of code words for every level.
pub(super) fn books(
    parameters: &mut Parameters,
    levels: usize,
    size: usize,
    dim: usize,
    seed: u64,
) -> Result<Vec<Parameter>> {
    (0..levels).map(|level| added(parameters, &format!("words.{level}"), &[size, dim], Init::Zeros, seed)).collect()
}

/// Layers with ReLU between them.
pub(super) fn forward<O: Operators>(tape: &O, layers: &[Linear<O::Weight>], input: O::Matrix) -> O::Matrix {
    let mut x = input;
    for (place, layer) in layers.iter().enumerate() {
        let activation = if place + 1 < layers.len() { Activation::Relu } else { Activation::Identity };
        x = tape.linear(&x, layer, activation);
    }
    x
}

/// The layers with their numbers.
pub(super) fn learnt(parameters: &Parameters, layers: &[Linear<Parameter>]) -> Network {
    let layer = |layer: &Linear<Parameter>| {
        let weight = parameters.tensor(layer.weight);
        let bias = layer.bias.map(|bias| parameters.tensor(bias).as_slice().to_vec());
        Layer { inputs: weight.rows(), weight: weight.as_slice().to_vec(), bias }
    };
    Network { layers: layers.iter().map(layer).collect() }
}

pub(super) fn codebook(words: &pgrec_kernels::Tensor) -> Codebook {
    Codebook { size: words.rows(), dim: words.cols(), words: words.as_slice().to_vec() }
}

/// Some rows of a matrix.
pub(super) fn gathered(vectors: &[f32], dim: usize, rows: &[usize]) -> Matrix {
    let values: Vec<f32> = rows.iter().flat_map(|&row| &vectors[row * dim..][..dim]).copied().collect();
    Matrix::from_slice(&values, dim)
}

/// Ends a tape by the squared distance of `output` to `target`, the mean over `count` rows and all numbers. Gives the
/// loss.
pub(super) fn reconstruct(
    tape: Tape<'_, pgrec_kernels::cpu::Cpu>,
    output: &Var<Matrix>,
    target: &Matrix,
    count: usize,
    gradients: &mut train::Gradients<Matrix>,
) -> f64 {
    let share = 1.0 / (count * target.cols()) as f32;
    let mut loss = 0.0f64;
    let mut difference = Matrix::from_slice(output.value().as_slice(), target.cols());
    for (x, y) in difference.as_mut_slice().iter_mut().zip(target.as_slice()) {
        let apart = *x - y;
        loss += f64::from(apart * apart);
        *x = 2.0 * share * apart;
    }
    tape.backward(output, difference, gradients);
    loss * f64::from(share)
}

/// An autoencoder between its steps.
pub(super) trait Autoencoder: Slice<Told = f64> {
    /// How many rows the step under way has.
    fn begin(&mut self, rows: usize);
    /// What each level codes of each vector, level by level, `[n, latent]`.
    fn coded(&self, parameters: &Parameters, control: &Control) -> Result<Vec<Vec<f32>>>;
    /// The tables of code words.
    fn books(&self) -> &[Parameter];
}

/// Trains until all epochs are over. One object an epoch: its loss, and the seconds so far.
pub(super) fn train<A: Autoencoder>(
    model: &mut A,
    parameters: &mut Parameters,
    count: usize,
    training: &Training,
    options: &Options,
    control: &Control,
) -> Result<Vec<Value>> {
    let settings = train::Options {
        learning_rate: training.learning_rate,
        weight_decay: training.weight_decay,
        beta2: 0.999,
        ..train::Options::default()
    };
    let mut trainer = RowTrainer::new(&settings, parameters);
    let mut random = SplitMix::new(options.seed ^ 0x5eed);
    let mut order: Vec<usize> = (0..count).collect();
    let (start, steps) = (Instant::now(), count.div_ceil(training.batch) as u64);
    let (mut curve, mut done) = (Vec::new(), 0);
    for epoch in 1..=training.epochs {
        random.shuffle(&mut order);
        let mut loss = 0.0;
        for (step, rows) in (1..).zip(order.chunks(training.batch)) {
            control.check()?;
            done += 1;
            model.begin(rows.len());
            let rate = training.learning_rate * (done as f64 / WARMUP as f64).min(1.0);
            loss += trainer.step(parameters, rows, rate, model).iter().sum::<f64>() / steps as f64;
            let passed = start.elapsed().as_secs_f64();
            let share = done as f64 / (steps * u64::from(training.epochs)) as f64;
            control.report(TrainingProgress {
                epoch,
                epochs: training.epochs,
                step,
                steps,
                loss: Some(loss * steps as f64 / step as f64),
                seconds_left: Some(passed / share - passed),
                ..TrainingProgress::default()
            });
        }
        curve.push(json!({ "epoch": epoch, "loss": loss, "seconds": start.elapsed().as_secs_f64() }));
        if (epoch as f32) < (1.0 - SETTLED) * training.epochs as f32 {
            revive(model, parameters, &mut random, control)?;
        }
    }
    Ok(curve)
}

/// Puts code words that are nearest to nothing where some vector's part is.
fn revive<A: Autoencoder>(
    model: &A,
    parameters: &mut Parameters,
    random: &mut SplitMix,
    control: &Control,
) -> Result<()> {
    let coded = model.coded(parameters, control)?;
    for (&book, rows) in model.books().iter().zip(&coded) {
        let words = codebook(parameters.tensor(book));
        let mut used = vec![false; words.size];
        super::nearest::nearest(rows, &words, control)?.iter().for_each(|(code, _)| used[usize::from(*code)] = true);
        let dim = words.dim;
        for (word, _) in used.iter().enumerate().filter(|(_, used)| !**used) {
            let row = random.below(rows.len() / dim);
            parameters.tensor_mut(book).to_mut()[word * dim..][..dim].copy_from_slice(&rows[row * dim..][..dim]);
        }
    }
    Ok(())
}
