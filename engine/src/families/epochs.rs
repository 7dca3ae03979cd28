//! The loop of families that step rows by themselves: epochs, validation, early stopping.

use std::time::{Duration, Instant};

use serde_json::{Map, json};

use super::{Fitted, Training};
use crate::control::TrainingProgress;
use crate::train::{Metrics, Validation};
use crate::{ArtifactBuilder, Control, Result};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);

/// What is learnt.
pub(crate) trait Learner {
    /// Steps of an epoch.
    fn steps(&self) -> u64;

    /// One pass over the events, every step reported. Gives their mean loss.
    fn epoch(&mut self, epoch: u32, progress: &mut Progress<'_>) -> Result<f64>;

    /// The model as it stands.
    fn artifact(&self) -> Result<ArtifactBuilder>;

    /// What a model of it is chosen by; None where no history is long enough to tell.
    fn figures(
        &self,
        artifact: &ArtifactBuilder,
        validation: &Validation,
        control: &Control,
    ) -> Result<Option<[f64; 2]>> {
        validation.measure(artifact, control)
    }
}

/// How far a training is.
pub(crate) struct Progress<'a> {
    training: &'a Training<'a>,
    now: TrainingProgress,
    /// Events that have been learnt from, in all and in this epoch, and the sum of their losses in this epoch.
    events: u64,
    events_now: u64,
    loss: f64,
    started: Instant,
    reported: Instant,
}

impl Progress<'_> {
    /// A step of so many events, whose losses add up to `loss`.
    pub(crate) fn step(&mut self, events: usize, loss: f64) {
        self.events += events as u64;
        self.events_now += events as u64;
        self.loss += loss;
        self.now.step += 1;
        self.now.loss = Some(self.mean());
        self.report(false);
    }

    /// The mean loss of this epoch's events so far.
    pub(crate) fn mean(&self) -> f64 {
        self.loss / (self.events_now as f64).max(1.0)
    }

    fn begin(&mut self, epoch: u32, steps: u64) {
        (self.events_now, self.loss) = (0, 0.0);
        self.now = TrainingProgress { epoch, step: 0, steps, loss: None, ..self.now.clone() };
    }

    fn report(&mut self, always: bool) {
        if !always && self.reported.elapsed() < REPORT {
            return;
        }
        self.reported = Instant::now();
        let seconds = self.started.elapsed().as_secs_f64();
        let now = &mut self.now;
        now.events_per_second = self.events as f64 / seconds.max(1e-9);
        let done = f64::from(now.epoch - 1) + now.step as f64 / now.steps.max(1) as f64;
        now.seconds_left = (done > 0.0).then(|| seconds * (f64::from(now.epochs) - done) / done);
        self.training.control.report(now.clone());
    }
}

/// How long is learnt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    /// Passes over the events, at most.
    pub(crate) epochs: u32,
    /// Passes without a better validation figure after which learning ends; 0: never.
    pub(crate) patience: u32,
    /// Passes between two validations.
    pub(crate) every: u32,
}

/// Learns, and gives the model that was best by what is validated.
pub(crate) fn fit(
    mut learner: impl Learner,
    training: &Training<'_>,
    validation: &Validation,
    length: Length,
) -> Result<Fitted> {
    let Length { epochs, patience, every } = length;
    let now = Instant::now();
    let metric = Metrics::RANKING.labels[0];
    let mut progress = Progress {
        training,
        now: TrainingProgress { epochs, metric, ..TrainingProgress::default() },
        events: 0,
        events_now: 0,
        loss: 0.0,
        started: now,
        reported: now,
    };
    let (mut best, mut curve, mut without_gain) = (None, Vec::new(), 0);
    for epoch in 1..=epochs {
        progress.begin(epoch, learner.steps());
        let loss = learner.epoch(epoch, &mut progress)?;
        let mut point = json!({ "epoch": epoch, "loss": loss });
        let due = epoch.is_multiple_of(every) || epoch == epochs;
        let artifact = if due { Some(learner.artifact()?) } else { None };
        if let Some(artifact) = artifact
            && let Some(figures) = learner.figures(&artifact, validation, training.control)?
        {
            for (label, figure) in Metrics::RANKING.labels.into_iter().zip(figures) {
                point[label] = json!(figure);
            }
            let better = best.as_ref().is_none_or(|(figure, _)| figures[0] > *figure);
            if better {
                best = Some((figures[0], artifact));
            }
            without_gain = if better { 0 } else { without_gain + every };
            progress.now.validation = Some(figures[0]);
            progress.now.best = best.as_ref().map(|(figure, _)| *figure);
        }
        point["seconds"] = json!(progress.started.elapsed().as_secs_f64());
        curve.push(point);
        progress.report(true);
        if patience > 0 && without_gain >= patience {
            break;
        }
    }
    let artifact = match best {
        Some((_, artifact)) => artifact,
        None => learner.artifact()?,
    };
    Ok(Fitted { artifact, curve, metrics: Map::new() })
}
