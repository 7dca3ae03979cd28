//! What tests of a family's gradients need: those of one step, and the same loss in double precision.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Losses, UNASKED};

use super::batches::{self, Cut, HeldOut, Histories, Sample, Slice};
use super::double::{Double, Matrix64, dot, unit};
use super::objective::{Drawn, NextItem, Objective};
use super::optimizer::Gradient;
use super::options::{LossKind, Options, Windows};
use super::parameters::Parameters;
use super::tape::Dropout;
use super::workers::{Step, Workers};
use super::{CodeRows, SequenceModel};
use crate::random::SplitMix;
use crate::{Control, Corpus, Result};

/// One step over all histories of a corpus, without dropout.
pub(crate) struct Check<'a, M> {
    model: &'a M,
    options: &'a Options,
    objective: Objective<'a>,
    histories: Histories<'a>,
    samples: Vec<Sample>,
    slices: Vec<Range<usize>>,
    step_key: u64,
}

impl<'a, M: SequenceModel> Check<'a, M> {
    /// Histories are laid out longest first, in slices of about `slice_events` inputs; `step_key` decides on the
    /// negatives. Of the options, loss, temperature and negatives must be given where they matter: a check knows no
    /// defaults.
    pub(crate) fn new(
        model: &'a M,
        options: &'a Options,
        corpus: &'a Corpus,
        slice_events: usize,
        step_key: u64,
    ) -> Result<Self> {
        let objective = Objective::new(options, corpus, model)?;
        let histories = Histories { corpus, held_out: HeldOut::Nobody, described: model.described() };
        let cut = Cut { window: model.window(), windows: Windows::Latest, stochastic_length: None };
        let mut samples = batches::samples(&histories, &cut, &mut SplitMix::new(0));
        let slices = batches::slices(&mut samples, slice_events);
        Ok(Self { model, options, objective, histories, samples, slices, step_key })
    }

    /// Loss, and its derivative by every number of every weight, as training computes them.
    pub(crate) fn gradient(&self, parameters: &Parameters, workers: usize) -> Result<(f64, Vec<Vec<f32>>)> {
        let device = Cpu::new();
        let unit_rows = if self.model.normalized() { self.model.tables() } else { Vec::new() };
        let unit = |&table| {
            let mut scored = parameters.tensor(table).clone();
            device.unit_rows(parameters.tensor(table).as_slice(), scored.cols(), scored.to_mut());
            scored
        };
        let scored: Vec<_> = unit_rows.iter().map(unit).collect();
        let mut workers = Workers::new(device, parameters, workers, self.objective.is_dense(), &unit_rows);
        let step = Step {
            model: self.model,
            parameters,
            scored: &scored,
            objective: &self.objective,
            histories: &self.histories,
            samples: &self.samples,
            slices: &self.slices,
            dropout: Dropout::default(),
            weight: 1.0 / batches::events(&self.samples) as f32,
            epoch_key: 0,
            step_key: self.step_key,
        };
        let loss = workers.run(&step, &Control::default())?;
        let gradients = workers.gradient();
        let whole = gradients.iter().zip(parameters.all()).map(|(gradient, weight)| match gradient {
            Gradient::Whole(values) => values.to_vec(),
            Gradient::Table(table) => {
                let mut rows = vec![0.0; weight.as_slice().len()];
                let ids = table.ids().map_or_else(|| (0..weight.rows() as u32).collect(), <[u32]>::to_vec);
                for (id, row) in ids.into_iter().zip(table.values().chunks_exact(weight.cols())) {
                    rows[id as usize * weight.cols()..][..weight.cols()].copy_from_slice(row);
                }
                rows
            }
        });
        Ok((loss, whole.collect()))
    }

    /// The loss in double precision.
    pub(crate) fn loss(&self, weights: &Double) -> f64 {
        let mut slice = Slice::default();
        let mut sum = 0.0;
        for (number, range) in self.slices.iter().enumerate() {
            slice.pack(&self.samples[range.clone()], &self.histories, self.model, 0);
            let told = self.model.encode(weights, &slice.sequences(), &slice.coded());
            let next_item = |next: &NextItem, told: &Matrix64, table: usize| {
                let drawn = next.draw(&slice.answers, SplitMix::new(self.step_key ^ number as u64).next());
                self.sum_of_losses(told, &self.scored_rows(weights, table), &slice.answers, &drawn)
            };
            sum += match &self.objective {
                Objective::Next(next) => next_item(next, &told[0], 0),
                Objective::Outcome => sum_of_doubts(&told[0], &slice.answers),
                Objective::Codes(codes, beside) => {
                    let table = self.scored_rows(weights, 0);
                    let (told, last) = told.split_at(told.len() - usize::from(beside.is_some()));
                    let beside = beside.iter().zip(last).map(|(next, told)| next_item(next, told, 1)).sum::<f64>();
                    let at = |(place, told): (usize, &Matrix64)| {
                        let (levels, share) = codes.told(&slice.levels, place);
                        let of = |&level: &usize| sum_of_surprises(told, &table, codes, level, &slice.answers);
                        f64::from(share) * levels.iter().map(of).sum::<f64>()
                    };
                    beside + told.iter().enumerate().map(at).sum::<f64>()
                }
            };
        }
        sum / batches::events(&self.samples) as f64
    }

    /// The rows of one of the model's tables, as answers are scored by them.
    fn scored_rows(&self, weights: &Double, table: usize) -> Vec<Vec<f64>> {
        let normalized = self.model.normalized();
        let rows = weights.weight(self.model.tables()[table]).rows();
        rows.map(|row| if normalized { unit(row) } else { row.to_vec() }).collect()
    }

    fn sum_of_losses(&self, hidden: &Matrix64, items: &[Vec<f64>], answers: &[u32], drawn: &Drawn) -> f64 {
        let options = self.options;
        let (temperature, count) = (options.temperature.unwrap_or(1.0), options.negatives.unwrap_or(1));
        let rows = hidden.rows().zip(answers).enumerate().map(|(row, (hidden, &answer))| {
            let score = |item: u32| dot(hidden, &items[item as usize]) / temperature;
            if options.loss == LossKind::Softmax {
                return log_sum_exp((0..items.len() as u32).map(score)) - score(answer);
            }
            let own = if options.shared_negatives { 0..drawn.items.len() } else { row * count..(row + 1) * count };
            let correction = |at: usize| drawn.correction.as_ref().map_or(0.0, |of| f64::from(of[at]));
            let others = own.filter(|&at| drawn.items[at] != answer);
            let others = others.map(|at| score(drawn.items[at]) - correction(at));
            match options.loss {
                LossKind::SampledSoftmax => log_sum_exp(others.chain([score(answer)])) - score(answer),
                loss => {
                    let alpha = count as f64 / (items.len() - 1) as f64;
                    let gbce = alpha * (options.calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha);
                    let beta = if loss == LossKind::Gbce { gbce } else { 1.0 };
                    beta * softplus(-score(answer)) + others.map(softplus).sum::<f64>()
                }
            }
        });
        rows.sum()
    }
}

/// Cross-entropies of the softmax over the codes of a level that each row may choose from.
fn sum_of_surprises(told: &Matrix64, table: &[Vec<f64>], codes: &CodeRows, level: usize, answers: &[u32]) -> f64 {
    let surprise = |(told, &item): (&[f64], &u32)| {
        let score = |row: u32| dot(told, &table[row as usize]) * f64::from(codes.scale);
        log_sum_exp(codes.choices(level).of(item).iter().map(|&row| score(row))) - score(codes.row(item, level))
    };
    told.rows().zip(answers).map(surprise).sum()
}

/// Binary cross-entropies of logits, in rows that are asked.
fn sum_of_doubts(logits: &Matrix64, answers: &[u32]) -> f64 {
    let asked = logits.rows().zip(answers).filter(|&(_, &answers)| answers != UNASKED);
    let of_row = |(row, &answers): (&[f64], &u32)| -> f64 {
        let yes = |question: usize| answers >> question & 1 == 1;
        row.iter().enumerate().map(|(question, &x)| softplus(if yes(question) { -x } else { x })).sum()
    };
    asked.map(of_row).sum()
}

fn log_sum_exp(scores: impl Iterator<Item = f64>) -> f64 {
    scores.map(f64::exp).sum::<f64>().ln()
}

fn softplus(x: f64) -> f64 {
    x.exp().ln_1p()
}

/// Weights of which none is 0, gains of norms around one.
fn draw(parameters: &mut Parameters, random: &mut SplitMix) {
    let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let gain = name.contains("norm") && name.ends_with("weight");
        let weight = parameters.find(&name).unwrap();
        for x in parameters.tensor_mut(weight).to_mut() {
            *x = if gain { 1.0 } else { 0.0 } + 0.4 * random.truncated_normal();
        }
    }
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |most, x| f64::from(x.abs()).max(most))
}

/// How far a derivative may be off: a weight's own derivatives set the scale, where they are not nearly 0, as those
/// of a key's bias are, on which attention does not depend.
pub(crate) fn tolerance(own: &[f32], all: &[Vec<f32>]) -> f64 {
    let most = all.iter().map(|gradient| largest(gradient)).fold(0.0, f64::max);
    1e-4 * largest(own).max(1e-2 * most)
}

/// Compares the gradient of a step over all histories with finite differences of the loss in double precision, at weights
/// that are drawn at random.
pub(crate) fn compare<M: SequenceModel>(
    case: &str,
    network: &M,
    options: &Options,
    parameters: &mut Parameters,
    corpus: &Corpus,
    random: &mut SplitMix,
) {
    const STEP: f64 = 1e-5;
    // Three slices or so, on two workers.
    let check = Check::new(network, options, corpus, 9, random.next()).unwrap();
    let mut exact = loop {
        draw(parameters, random);
        let exact = Double::new(parameters);
        check.loss(&exact);
        // Farther than one step from where a ReLU bends.
        if exact.nearest_kink.get() > 20.0 * STEP {
            break exact;
        }
    };
    let (loss, gradients) = check.gradient(parameters, 2).unwrap();
    assert!((loss - check.loss(&exact)).abs() < 1e-5 * loss, "{case}: {loss}");
    for (weight, (name, _)) in parameters.iter().enumerate() {
        let own = &gradients[weight];
        for _ in 0..4 {
            let at = random.below(own.len());
            let there = exact.weights[weight].values[at];
            let mut moved = |by: f64| {
                exact.weights[weight].values[at] = there + by;
                check.loss(&exact)
            };
            let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            exact.weights[weight].values[at] = there;
            let off = (f64::from(own[at]) - difference).abs();
            assert!(off <= tolerance(own, &gradients), "{case}, {name}[{at}]: {} is not {difference}", own[at]);
        }
    }
}
