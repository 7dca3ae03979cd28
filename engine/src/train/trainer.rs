//! The loop: epochs of steps, validation, early stopping.

use std::time::{Duration, Instant};

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Losses, Tensor};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::batches::{self, Cut, Histories};
use super::by_content::Projected;
use super::objective::Objective;
use super::optimizer::Optimizer;
use super::options::Options;
use super::parameters::Parameters;
use super::tape::Dropout;
use super::unfinished::{self, Found, Kept, Standing};
use super::validation::{Metrics, Validation};
use super::workers::{Step, Workers};
use super::{RANGE, SequenceModel, is_sparse, schedule};
use crate::content::Way;
use crate::control::TrainingProgress;
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::{Error, Result};

/// Inputs that a worker takes at a time: with 64 numbers an input, a slice's matrices stay in the second-level cache.
const SLICE_EVENTS: usize = 256;

/// Operations of a slice, at most: some 20 ms on one core, so that a cancel is heard.
const SLICE_COST: usize = 2_000_000_000;

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);

/// What weights are called in a file: those of the latest step, their decayed mean, and the best of all epochs.
const WEIGHTS: &str = "weights";
const AVERAGE: &str = "average";
const BEST: &str = "best";

/// Trains a model from `parameters` on.
pub(crate) fn fit<M: SequenceModel>(
    training: &Training<'_>,
    options: &Options,
    model: &M,
    parameters: Parameters,
) -> Result<Fitted> {
    options.check()?;
    if options.epochs == 0 && training.start.is_none() {
        return Err(Error::Parameter("epochs is 0: only a model that is continued by init is one without any".into()));
    }
    let learnt = training.corpus.without_last(training.leave_last);
    let metrics = Metrics::of(model);
    let (histories, validation) = Validation::split(training, &learnt, options.validation_users, metrics);
    let histories = Histories { described: model.described(), ..histories };
    let objective = Objective::new(options, &learnt, model)?;
    let mut run = Run::new(training, options, model, parameters, &histories, &objective)?;
    run.go_on();
    run.epochs(&validation)?;
    run.finish()
}

/// A training under way.
struct Run<'a, M> {
    training: &'a Training<'a>,
    options: &'a Options,
    model: &'a M,
    histories: &'a Histories<'a>,
    objective: &'a Objective<'a>,
    /// Histories in a step.
    batch: usize,
    dropout: Dropout,
    /// Share of the training over which that becomes nothing.
    annealing: f64,
    device: Cpu,
    workers: Workers,
    optimizer: Optimizer,
    parameters: Parameters,
    /// The decayed mean of the weights, where it is kept.
    average: Option<Parameters>,
    /// What rows of items have of their content.
    projected: Option<Projected<'a>>,
    /// The rows of the model's tables divided by their lengths, where those are scored.
    scored: Vec<Tensor>,
    best: Option<(f64, Parameters)>,
    /// The projection of content that belongs to the best weights.
    best_way: Option<Way>,
    curve: Vec<Value>,
    random: SplitMix,
    metrics: Metrics,
    /// Epochs that are over, and of those the last ones without a better validation figure.
    epoch: u32,
    without_gain: u32,
    steps: u64,
    events: u64,
    /// Epochs and seconds of a training that this one goes on with.
    before: Option<(u32, f64)>,
    started: Instant,
    reported: Instant,
    kept: Instant,
    /// Why the last attempt to keep this failed.
    not_kept: Option<String>,
    progress: TrainingProgress,
}

impl<'a, M: SequenceModel> Run<'a, M> {
    fn new(
        training: &'a Training<'a>,
        options: &'a Options,
        model: &'a M,
        mut parameters: Parameters,
        histories: &'a Histories<'a>,
        objective: &'a Objective<'a>,
    ) -> Result<Self> {
        let metrics = Metrics::of(model);
        let threads = rayon::current_num_threads();
        let unit_rows = if model.normalized() { model.tables() } else { Vec::new() };
        let scored: Vec<Tensor> = unit_rows.iter().map(|&table| parameters.tensor(table).clone()).collect();
        let corpus = histories.corpus;
        let more = model.content().map_or(0, |by| by.bytes);
        let more = more.saturating_add(batches::bytes(corpus, model.window()));
        check_memory(training, options, &parameters, &scored, threads, more)?;
        let projected = match model.content() {
            Some(by) => Some(Projected::new(by, model.items(), &mut parameters, training.seed)?),
            None => None,
        };
        let device = Cpu::new();
        let now = Instant::now();
        let sparse = is_sparse(corpus);
        let events = (corpus.interactions() as f64 / corpus.users().max(1) as f64).min(model.window() as f64);
        Ok(Self {
            training,
            options,
            model,
            histories,
            objective,
            batch: options.histories_a_step(events),
            dropout: options.dropout_for(sparse),
            annealing: options.annealing_for(sparse),
            device,
            workers: Workers::new(device, &parameters, threads, objective.is_dense(), &unit_rows),
            optimizer: Optimizer::new(options, &parameters),
            scored,
            projected,
            average: (options.average > 0.0).then(|| parameters.clone()),
            parameters,
            best: None,
            best_way: None,
            curve: Vec::new(),
            random: SplitMix::new(training.seed),
            metrics,
            epoch: 0,
            without_gain: 0,
            steps: 0,
            events: 0,
            before: None,
            started: now,
            reported: now,
            kept: now,
            not_kept: None,
            progress: TrainingProgress {
                epochs: options.epochs,
                metric: metrics.labels[0],
                ..TrainingProgress::default()
            },
        })
    }

    /// Goes on from what an interrupted training like this one has kept, if there is such.
    fn go_on(&mut self) -> Option<()> {
        if self.projected.is_some() {
            return None;
        }
        let bytes = std::fs::read(self.training.kept?.file).ok()?;
        let found = Found::read(&bytes)?;
        let of = |group: &str| self.parameters.found(group, &found);
        let parameters = of(WEIGHTS)?;
        let average = if self.average.is_some() { Some(of(AVERAGE)?) } else { None };
        let best = match found.standing.best {
            Some(figure) => Some((f64::from_bits(figure), of(BEST)?)),
            None => None,
        };
        let mut optimizer = Optimizer::new(self.options, &parameters);
        optimizer.fill(found.standing.steps, &found)?;
        (self.parameters, self.average, self.best, self.optimizer) = (parameters, average, best, optimizer);
        let Standing { epoch, without_gain, steps, events, seconds, random, curve, .. } = found.standing;
        (self.epoch, self.without_gain, self.steps, self.events) = (epoch, without_gain, steps, events);
        (self.random, self.curve, self.before) = (SplitMix::new(random), curve, Some((epoch, seconds)));
        self.progress.best = self.best.as_ref().map(|(best, _)| *best);
        Some(())
    }

    /// Keeps how far this is, where that is due.
    fn keep(&mut self) {
        // A projection is not among what is kept.
        let (Some(Kept { file, every }), None) = (self.training.kept, &self.projected) else { return };
        if self.kept.elapsed() < every {
            return;
        }
        let standing = Standing {
            epoch: self.epoch,
            without_gain: self.without_gain,
            steps: self.steps,
            events: self.events,
            seconds: self.seconds(),
            random: self.random.state(),
            best: self.best.as_ref().map(|(figure, _)| figure.to_bits()),
            curve: self.curve.clone(),
        };
        let mut numbers = Vec::new();
        self.parameters.list(WEIGHTS, &mut numbers);
        self.average.iter().for_each(|average| average.list(AVERAGE, &mut numbers));
        self.best.iter().for_each(|(_, best)| best.list(BEST, &mut numbers));
        self.optimizer.list(&mut numbers);
        // A full disk ends no training.
        self.not_kept = unfinished::write(file, &standing, &numbers).err().map(|error| error.to_string());
        self.kept = Instant::now();
    }

    /// Seconds in training, those before an interruption among them.
    fn seconds(&self) -> f64 {
        self.before.map_or(0.0, |(_, seconds)| seconds) + self.started.elapsed().as_secs_f64()
    }

    fn epochs(&mut self, validation: &Validation) -> Result<()> {
        let &Options { epochs, patience, validate_every, .. } = self.options;
        while self.epoch < epochs && (patience == 0 || self.without_gain < patience) {
            let epoch = self.epoch + 1;
            let loss = self.epoch(epoch)?;
            let mut point = json!({ "epoch": epoch, "loss": loss });
            let due = epoch.is_multiple_of(validate_every) || epoch == epochs;
            if due && let Some(figures) = self.validate(validation)? {
                let [figure, _] = figures;
                for (label, figure) in self.metrics.labels.into_iter().zip(figures) {
                    point[label] = json!(figure);
                }
                let better = self.best.as_ref().is_none_or(|(best, _)| figure > *best);
                if better {
                    self.best = Some((figure, self.completed()?));
                    self.best_way = self.way()?;
                }
                self.without_gain = if better { 0 } else { self.without_gain + validate_every };
                self.progress.validation = Some(figure);
                self.progress.best = self.best.as_ref().map(|(best, _)| *best);
            }
            point["seconds"] = json!(self.seconds());
            self.curve.push(point);
            self.epoch = epoch;
            self.report(true);
            self.keep();
        }
        Ok(())
    }

    /// One pass over the histories; the mean loss of its steps.
    fn epoch(&mut self, epoch: u32) -> Result<f64> {
        let &Options { windows, stochastic_length, .. } = self.options;
        let cut = Cut { window: self.model.window(), windows, stochastic_length };
        let mut samples = batches::samples(self.histories, &cut, &mut self.random);
        if samples.is_empty() {
            return Err(Error::Data("no history has the two interactions that one learns a next item from".into()));
        }
        let epoch_key = self.random.next();
        let steps = samples.len().div_ceil(self.batch) as u64;
        self.progress = TrainingProgress { epoch, step: 0, steps, loss: None, ..self.progress.clone() };
        let (mut sum, mut events) = (0.0, 0);
        for step in samples.chunks_mut(self.batch) {
            let inputs = batches::events(step) as u64;
            sum += self.step(step, epoch_key, steps * u64::from(self.options.epochs))? * inputs as f64;
            events += inputs;
            self.events += inputs;
            self.progress.step += 1;
            self.progress.loss = Some(sum / events as f64);
            self.report(false);
        }
        Ok(sum / events as f64)
    }

    fn step(&mut self, samples: &mut [batches::Sample], epoch_key: u64, all_steps: u64) -> Result<f64> {
        let items = self.model.items();
        let dim = self.parameters.tensor(items).cols();
        let cost = self.model.cost() + self.objective.cost(dim);
        let slices = batches::slices(samples, SLICE_EVENTS.min(SLICE_COST / cost.max(1)).max(1));
        if let Some(projected) = &mut self.projected {
            projected.drop_out(&mut self.parameters)?;
        }
        self.lay_out_scored();
        let loss = self.workers.run(
            &Step {
                model: self.model,
                parameters: &self.parameters,
                scored: &self.scored,
                objective: self.objective,
                histories: self.histories,
                samples,
                slices: &slices,
                dropout: self.dropout.scaled(schedule::dropout_left(self.annealing, self.steps, all_steps) as f32),
                weight: 1.0 / batches::events(samples) as f32,
                epoch_key,
                step_key: SplitMix::new(self.training.seed ^ self.steps).next(),
            },
            self.training.control,
        )?;
        if !loss.is_finite() {
            let why = format!("the loss is {loss} at step {}: lower learning_rate, or set clip", self.steps + 1);
            return Err(Error::Data(why));
        }
        let rate = schedule::rate(self.options, self.steps, all_steps);
        let gradients = self.workers.gradient();
        if let Some(projected) = &mut self.projected {
            projected.step(&gradients, rate)?;
        }
        self.optimizer.step(&self.device, rate, &mut self.parameters, &gradients);
        self.workers.clear();
        self.steps += 1;
        if let Some(projected) = &mut self.projected {
            projected.finish_step(&mut self.parameters, self.steps)?;
        }
        if let Some(average) = &mut self.average {
            // Early on the mean would be that of the random start.
            let decay = self.options.average.min((1.0 + self.steps as f64) / (10.0 + self.steps as f64));
            average.approach(&self.parameters, 1.0 - decay as f32);
        }
        Ok(loss)
    }

    /// The rows that answers are scored by, where they are not the tables' own.
    fn lay_out_scored(&mut self) {
        for (scored, table) in self.scored.iter_mut().zip(self.model.tables()) {
            let table = self.parameters.tensor(table);
            let (device, cols) = (self.device, table.cols());
            let range = (RANGE / cols).max(1) * cols;
            let rows = table.as_slice().par_chunks(range);
            rows.zip(scored.to_mut().par_chunks_mut(range)).for_each(|(rows, out)| device.unit_rows(rows, cols, out));
        }
    }

    fn weights(&self) -> &Parameters {
        self.average.as_ref().unwrap_or(&self.parameters)
    }

    /// The weights, in which items that nobody has touched are where their content places them.
    fn completed(&self) -> Result<Parameters> {
        let mut weights = self.weights().clone();
        if let Some(projected) = &self.projected {
            projected.complete(&mut weights)?;
        }
        Ok(weights)
    }

    fn way(&self) -> Result<Option<Way>> {
        self.projected.as_ref().map(Projected::way).transpose()
    }

    fn validate(&self, validation: &Validation) -> Result<Option<[f64; 2]>> {
        validation.measure(&self.model.artifact(self.weights(), false)?, self.training.control)
    }

    fn report(&mut self, always: bool) {
        if !always && self.reported.elapsed() < REPORT {
            return;
        }
        self.reported = Instant::now();
        let seconds = self.seconds();
        let progress = &mut self.progress;
        progress.events_per_second = self.events as f64 / seconds.max(1e-9);
        let done = f64::from(progress.epoch - 1) + progress.step as f64 / progress.steps.max(1) as f64;
        progress.seconds_left = (done > 0.0).then(|| seconds * (f64::from(progress.epochs) - done) / done);
        self.training.control.report(progress.clone());
    }

    fn finish(mut self) -> Result<Fitted> {
        let latest = if self.best.is_none() { Some(self.completed()?) } else { None };
        if latest.is_some() {
            self.best_way = self.way()?;
        }
        let best = self.best.map(|(_, best)| best).or(latest).ok_or_else(|| Error::Malformed("no weights".into()))?;
        let mut metrics = Map::new();
        if let Some((epochs, _)) = self.before {
            metrics.insert("went_on_after_epoch".into(), json!(epochs));
        }
        if let Some(why) = self.not_kept {
            metrics.insert("not_kept".into(), json!(why));
        }
        let mut artifact = self.model.artifact(&best, true)?;
        if let Some(way) = &self.best_way {
            way.store(&mut artifact);
        }
        Ok(Fitted { artifact, curve: self.curve, metrics })
    }
}

/// Refuses a training whose weights, gradients, optimiser and `more` (bytes: the places of histories, and content) do not fit
/// the bound.
fn check_memory(
    training: &Training<'_>,
    options: &Options,
    parameters: &Parameters,
    scored: &[Tensor],
    threads: usize,
    more: usize,
) -> Result<()> {
    // The weights, the best of them, perhaps their mean; the optimiser; a gradient a worker.
    let copies = 2 + usize::from(options.average > 0.0) + threads;
    let needed = parameters.len().saturating_mul(4 * copies + Optimizer::bytes_a_number(options));
    // The tables that are scored, and a gradient of each a worker.
    let numbers: usize = scored.iter().map(|scored| scored.as_slice().len()).sum();
    let scored = numbers.saturating_mul(4 * (1 + threads));
    let needed = needed.saturating_add(scored).saturating_add(more);
    let what = "weights, gradients and the places of histories";
    training.require_memory(needed, what, "fewer threads, a smaller dim or the loss \"sampled_softmax\" need less")
}
