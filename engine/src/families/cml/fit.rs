//! The loop: epochs of steps, validation, early stopping.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Params;
use super::batch::{self, Event, History};
use super::model;
use super::space::{Space, Sums};
use crate::control::TrainingProgress;
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::train::{Histories, Metrics, Validation};
use crate::{Error, Result};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);

pub(super) fn fit(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    let learnt = training.corpus.without_last(training.leave_last);
    check_memory(training, params)?;
    let (histories, validation) = Validation::split(training, &learnt, params.validation_users, Metrics::RANKING);
    let seen = Seen::new(&histories);
    let events = events(&histories, params);
    if events.is_empty() {
        return Err(Error::Data("no history has the two interactions that one learns an item from".into()));
    }
    let mut random = SplitMix::new(training.seed);
    let space = Space::new(params, learnt.items().len(), &mut random)?;
    let counts = learnt.counts().into_iter().map(|count| count as f32).collect();
    let mut run = Run {
        training,
        params,
        histories,
        seen,
        events,
        counts,
        sums: space.sums(),
        space,
        random,
        best: None,
        curve: Vec::new(),
        done: 0,
        started: Instant::now(),
        reported: Instant::now(),
        progress: TrainingProgress {
            epochs: params.epochs,
            metric: Metrics::RANKING.labels[0],
            ..TrainingProgress::default()
        },
    };
    run.epochs(&validation)?;
    run.finish()
}

/// The distinct items of each user, ascending.
struct Seen {
    items: Vec<u32>,
    /// Where each user's end.
    ends: Vec<usize>,
}

impl Seen {
    fn new(histories: &Histories<'_>) -> Self {
        let (mut items, mut ends) = (Vec::with_capacity(histories.corpus.interactions()), Vec::new());
        for user in 0..histories.corpus.users() {
            let mut own = histories.of(user).to_vec();
            own.sort_unstable();
            own.dedup();
            items.extend(own);
            ends.push(items.len());
        }
        Self { items, ends }
    }

    fn of(&self, user: u32) -> &[u32] {
        let start = if user == 0 { 0 } else { self.ends[user as usize - 1] };
        &self.items[start..self.ends[user as usize]]
    }
}

/// What is learnt once an epoch: every event that others of its user tell something of.
fn events(histories: &Histories<'_>, params: &Params) -> Vec<Event> {
    let of_user = |user: usize| {
        let events = histories.of(user).len();
        let first = if params.ordered || events < 2 { 1 } else { 0 };
        (first..events).map(move |place| Event { user: user as u32, place: place as u32 })
    };
    (0..histories.corpus.users()).flat_map(of_user).collect()
}

fn check_memory(training: &Training<'_>, params: &Params) -> Result<()> {
    let items = training.corpus.items().len();
    // The points, the best of them, AdaGrad's sums, and what is measured of them; the events, and what users have seen.
    let points = items.saturating_mul(params.dim + 2).saturating_mul(4 * size_of::<f32>());
    let events = training.corpus.interactions().saturating_mul(size_of::<Event>() + size_of::<u32>());
    let batch = params.batch.saturating_mul(3 * params.dim + 8 * params.window).saturating_mul(2 * size_of::<f32>());
    let needed = points.saturating_add(events).saturating_add(batch);
    if needed <= training.memory {
        return Ok(());
    }
    let mb = |bytes: usize| bytes.div_ceil(1 << 20);
    Err(Error::Memory(format!(
        "out of training memory: {} MB for points, events and gradients, the bound is {} MB; a smaller dim or batch needs less",
        mb(needed),
        mb(training.memory)
    )))
}

/// A training under way.
struct Run<'a> {
    training: &'a Training<'a>,
    params: &'a Params,
    histories: Histories<'a>,
    seen: Seen,
    events: Vec<Event>,
    counts: Vec<f32>,
    space: Space,
    sums: Sums,
    random: SplitMix,
    best: Option<(f64, Space)>,
    curve: Vec<Value>,
    /// Events that have been learnt from.
    done: u64,
    started: Instant,
    reported: Instant,
    progress: TrainingProgress,
}

impl Run<'_> {
    fn epochs(&mut self, validation: &Validation) -> Result<()> {
        let &Params { epochs, patience, .. } = self.params;
        let mut without_gain = 0;
        for epoch in 1..=epochs {
            let loss = self.epoch(epoch)?;
            let mut point = json!({ "epoch": epoch, "loss": loss });
            let artifact = model::artifact(self.params, &self.space, self.training.corpus.items(), &self.counts)?;
            if let Some(figures) = validation.measure(&artifact, self.training.control)? {
                for (label, figure) in Metrics::RANKING.labels.into_iter().zip(figures) {
                    point[label] = json!(figure);
                }
                let better = self.best.as_ref().is_none_or(|(best, _)| figures[0] > *best);
                if better {
                    self.best = Some((figures[0], self.space.clone()));
                }
                without_gain = if better { 0 } else { without_gain + 1 };
                self.progress.validation = Some(figures[0]);
                self.progress.best = self.best.as_ref().map(|(best, _)| *best);
            }
            point["seconds"] = json!(self.started.elapsed().as_secs_f64());
            self.curve.push(point);
            self.report(true);
            if patience > 0 && without_gain >= patience {
                break;
            }
        }
        Ok(())
    }

    /// One pass over the events; their mean loss.
    fn epoch(&mut self, epoch: u32) -> Result<f64> {
        let mut events = std::mem::take(&mut self.events);
        self.random.shuffle(&mut events);
        let steps = events.len().div_ceil(self.params.batch) as u64;
        self.progress = TrainingProgress { epoch, step: 0, steps, loss: None, ..self.progress.clone() };
        let (mut sum, mut seen) = (0.0, 0);
        for batch in events.chunks(self.params.batch) {
            sum += self.step(batch)?;
            seen += batch.len();
            self.done += batch.len() as u64;
            self.progress.step += 1;
            self.progress.loss = Some(sum / seen as f64);
            self.report(false);
        }
        self.events = events;
        Ok(sum / seen as f64)
    }

    fn step(&mut self, batch: &[Event]) -> Result<f64> {
        let (histories, seen, control) = (&self.histories, &self.seen, self.training.control);
        let history = |user: u32| History { events: histories.of(user as usize), seen: seen.of(user) };
        let told = batch::gradient(&self.space, self.params, history, batch, self.random.next(), control)?;
        if !told.loss.is_finite() {
            return Err(Error::Data(format!("the loss is {}: lower learning_rate", told.loss)));
        }
        let rate = self.params.learning_rate as f32;
        self.space.step(&mut self.sums, rate, &told.shares, &told.directions, &told.recency);
        Ok(told.loss)
    }

    fn report(&mut self, always: bool) {
        if !always && self.reported.elapsed() < REPORT {
            return;
        }
        self.reported = Instant::now();
        let seconds = self.started.elapsed().as_secs_f64();
        let progress = &mut self.progress;
        progress.events_per_second = self.done as f64 / seconds.max(1e-9);
        let done = f64::from(progress.epoch - 1) + progress.step as f64 / progress.steps.max(1) as f64;
        progress.seconds_left = (done > 0.0).then(|| seconds * (f64::from(progress.epochs) - done) / done);
        self.training.control.report(progress.clone());
    }

    fn finish(self) -> Result<Fitted> {
        let space = self.best.map_or(self.space, |(_, best)| best);
        let artifact = model::artifact(self.params, &space, self.training.corpus.items(), &self.counts)?;
        Ok(Fitted { artifact, curve: self.curve, metrics: Map::new() })
    }
}
