//! Epochs over what is learnt from, judged by what is not.

use std::time::Instant;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Device, Filter, Tensor};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::compare::{Candidates, Comparison};
use super::log::{Example, Log};
use super::projection::Projection;
use super::{NAME, Params, model};
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::train::{Options, Parameter, Parameters, RowTrainer};
use crate::{Error, Result, TrainingProgress};

/// Into how many parts the searches of a step are cut, whose gradients are added up in their order.
const SLICES: usize = 8;
/// Searches that are ranked at a time.
const RANKED: usize = 32;
/// Places below this count nothing in the mean reciprocal rank.
const DEPTH: usize = 100;
/// What a curve calls it.
const MRR: &str = "mrr";

pub(super) fn fit(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    check_memory(training, params)?;
    let log = Log::of(training, params)?;
    let mut run = Run::new(training, params, &log)?;
    let unprojected = run.reciprocal_rank(&Projection::identity())?;
    // What is not better than nothing is not kept.
    let (mut best, mut kept) = (unprojected, Projection::identity());
    let (mut curve, mut without_gain, mut latest, start) = (Vec::new(), 0, None, Instant::now());
    for epoch in 1..=params.epochs {
        let said = TrainingProgress { epoch, validation: latest, best: Some(best), ..TrainingProgress::default() };
        let loss = run.epoch(&said, start)?;
        let now = run.projection.with(&run.parameters);
        let figure = run.reciprocal_rank(&now)?;
        curve.push(json!({ "epoch": epoch, "loss": loss, MRR: figure, "seconds": start.elapsed().as_secs_f64() }));
        (latest, without_gain) = (Some(figure), without_gain + 1);
        if figure > best {
            (best, kept, without_gain) = (figure, now, 0);
        }
        if params.patience > 0 && without_gain >= params.patience {
            break;
        }
    }
    let validation = json!({
        MRR: best,
        "unprojected_mrr": unprojected,
        "searches": log.validation.len(),
        "items": log.items.rows(),
    });
    let metrics = [("validation".to_owned(), validation), ("learnt".to_owned(), Value::Bool(!kept.is_identity()))];
    let artifact = model::artifact(params, &kept, log.items.cols(), training);
    Ok(Fitted { artifact, curve, metrics: Map::from_iter(metrics) })
}

fn check_memory(training: &Training<'_>, params: &Params) -> Result<()> {
    let corpus = training.corpus;
    let (dim, rank) = (corpus.vector_dim(), params.rank);
    let all = corpus.anonymous_searches().chain((0..corpus.users()).flat_map(|user| corpus.searches(user)));
    let (searches, shown) =
        all.fold((0usize, 0usize), |(count, shown), search| (count + 1, shown + search.shown.len()));
    // Vectors of length 1, searches in order and as they are shuffled, and the vectors and scores of a step.
    let vectors = corpus.vectors().len().saturating_add(corpus.query_vectors().len());
    let examples = searches.saturating_mul(2 * size_of::<Example>() / size_of::<f32>() + 2).saturating_add(shown);
    let step = params.batch.saturating_mul(params.batch.saturating_add(params.negatives).saturating_add(4 * dim));
    // Weights, AdamW's means, gradients of every part, and the best epoch's.
    let weights = if rank == 0 { dim.saturating_mul(dim) } else { dim.saturating_mul(2 * rank) };
    let numbers =
        vectors.saturating_add(examples).saturating_add(step).saturating_add(weights.saturating_mul(SLICES + 5));
    let needed = numbers.saturating_mul(size_of::<f32>());
    training.require_memory(needed, "vectors and the projection", "a rank above 0 or a smaller batch needs less")
}

/// A training under way.
struct Run<'a> {
    training: &'a Training<'a>,
    params: &'a Params,
    log: &'a Log,
    projection: Projection<Parameter>,
    parameters: Parameters,
    trainer: RowTrainer,
    /// In the order of this epoch.
    examples: Vec<Example>,
    random: SplitMix,
}

impl<'a> Run<'a> {
    fn new(training: &'a Training<'a>, params: &'a Params, log: &'a Log) -> Result<Self> {
        let mut parameters = Parameters::default();
        let projection = Projection::new(&mut parameters, log.items.cols(), params.rank, training.seed)?;
        let options = Options {
            learning_rate: params.learning_rate,
            weight_decay: params.weight_decay,
            beta2: 0.999,
            ..Options::default()
        };
        let trainer = RowTrainer::in_slices(&options, &parameters, SLICES);
        let (examples, random) = (log.learnt.clone(), SplitMix::new(training.seed));
        Ok(Self { training, params, log, projection, parameters, trainer, examples, random })
    }

    /// One pass over what is learnt from, of which `said` is reported. Gives the mean of its weighted losses.
    fn epoch(&mut self, said: &TrainingProgress, start: Instant) -> Result<f64> {
        let mut examples = std::mem::take(&mut self.examples);
        self.random.shuffle(&mut examples);
        let steps = examples.len().div_ceil(self.params.batch) as u64;
        // Of searches that weigh nothing the mean is 0.
        let (mut sum, mut weight) = (0.0, f64::MIN_POSITIVE);
        for (step, batch) in (1..).zip(examples.chunks(self.params.batch)) {
            self.training.control.check()?;
            let of_batch: f32 = batch.iter().map(|example| example.weight).sum();
            sum += self.step(batch, of_batch)?;
            weight += f64::from(of_batch);
            self.report(TrainingProgress { step, steps, loss: Some(sum / weight), ..said.clone() }, start);
        }
        self.examples = examples;
        Ok(sum / weight)
    }

    fn report(&self, now: TrainingProgress, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        let (epochs, epoch) = (self.params.epochs, f64::from(now.epoch - 1));
        let done = epoch + now.step as f64 / now.steps as f64;
        self.training.control.report(TrainingProgress {
            epochs,
            metric: MRR,
            events_per_second: done * self.log.learnt.len() as f64 / seconds.max(1e-9),
            seconds_left: Some(seconds * (f64::from(epochs) - done) / done),
            ..now
        });
    }

    /// One step. Gives the sum of the weighted losses.
    fn step(&mut self, batch: &[Example], weight: f32) -> Result<f64> {
        // Nobody stayed at all.
        if weight <= 0.0 {
            return Ok(0.0);
        }
        let (log, items) = (self.log, self.log.items.rows());
        let mut rows: Vec<u32> = batch.iter().map(|example| example.opened).collect();
        rows.extend((0..self.params.negatives).map(|_| self.random.below(items) as u32));
        let comparison = Comparison {
            log,
            projection: &self.projection,
            examples: batch,
            candidates: &Candidates::new(log, rows)?,
            temperature: self.params.temperature as f32,
            weight,
        };
        let all: Vec<usize> = (0..batch.len()).collect();
        let told = self.trainer.step(&mut self.parameters, &all, self.params.learning_rate, &comparison);
        let loss: f64 = told.iter().sum();
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(Error::Data(format!("family \"{NAME}\": the loss is {loss}: lower learning_rate"))),
        }
    }

    /// The mean reciprocal rank, among all items, of what the searches of the validation led to; 0 below a depth.
    fn reciprocal_rank(&self, projection: &Projection<Tensor>) -> Result<f64> {
        let dim = self.log.items.cols();
        let of = |examples: &[Example]| -> Result<f64> {
            self.training.control.check()?;
            let queries = examples.iter().flat_map(|example| self.log.query(example.query));
            let queries = projection.project(&queries.copied().collect::<Vec<f32>>(), dim);
            let k = vec![DEPTH.min(self.log.items.rows()); examples.len()];
            let lists = Cpu::new().top_k(&queries, &self.log.items, &k, &vec![Filter::default(); examples.len()])?;
            let places = lists
                .iter()
                .zip(examples)
                .map(|(list, example)| list.iter().position(|scored| scored.item == example.opened));
            Ok(places.flatten().map(|place| 1.0 / (place as f64 + 1.0)).sum())
        };
        let sums: Vec<f64> = self.log.validation.par_chunks(RANKED).map(of).collect::<Result<_>>()?;
        Ok(sums.iter().fold(0.0, |sum, part| sum + part) / self.log.validation.len().max(1) as f64)
    }
}
