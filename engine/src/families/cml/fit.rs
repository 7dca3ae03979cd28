//! What is learnt from, and its steps.

use std::borrow::Cow;

use super::batch::{self, Event, History, Pool};
use super::model;
use super::placing::{Placing, Told};
use super::space::{Space, Sums};
use super::{Params, calibration};
use crate::content::Content;
use crate::families::epochs::{self, Learner, Length, Progress};
use crate::families::seen::Seen;
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::train::{Histories, Metrics, Validation};
use crate::{ArtifactBuilder, Error, Result};

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
    let mut space = Space::new(params, learnt.items().len(), &mut random)?;
    let counts: Vec<f32> = learnt.counts().into_iter().map(|count| count as f32).collect();
    let content = Content::of(training.corpus, params.features)?;
    let placing = match &content {
        Some(content) => Some(Placing::new(params, content, &counts, &mut space, training.seed)?),
        None => None,
    };
    // What nobody has touched is not known to be wanted by nobody, once there is something else to tell it by.
    let touched = placing.as_ref().map(|_| {
        let items = 0..counts.len() as u32;
        items.filter(|&item| counts[item as usize] > 0.0).collect()
    });
    let sums = space.sums();
    let counted = counts.clone();
    let run = Run { training, params, histories, seen, events, counts, sums, space, placing, touched, random };
    let length = Length { epochs: params.epochs, patience: params.patience, every: 1 };
    let mut fitted = epochs::fit(run, training, &validation, length)?;
    let artifact = &mut fitted.artifact;
    let figures = calibration::calibrate(training, params, &validation, content.as_ref(), &counted, artifact)?;
    fitted.metrics.insert("calibration".into(), figures.into());
    Ok(fitted)
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
    let needed = points.saturating_add(events).saturating_add(batch).saturating_add(placing(training, params));
    training.require_memory(needed, "points, events and gradients", "a smaller dim or batch needs less")
}

/// Bytes of what items are placed by: their content, and the network with its gradients and AdamW's means.
fn placing(training: &Training<'_>, params: &Params) -> usize {
    let numbers = Content::inputs(training.corpus, params.features).saturating_mul(params.content_hidden);
    let network = numbers.saturating_mul(3 + rayon::current_num_threads()).saturating_mul(size_of::<f32>());
    Content::bytes(training.corpus, params.features).saturating_add(network)
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
    placing: Option<Placing<'a>>,
    /// The items among which others are drawn, where those are not all.
    touched: Option<Vec<u32>>,
    random: SplitMix,
}

impl Learner for Run<'_> {
    fn steps(&self) -> u64 {
        self.events.len().div_ceil(self.params.batch) as u64
    }

    fn epoch(&mut self, _: u32, progress: &mut Progress<'_>) -> Result<f64> {
        let mut events = std::mem::take(&mut self.events);
        self.random.shuffle(&mut events);
        for batch in events.chunks(self.params.batch) {
            progress.step(batch.len(), self.step(batch)?);
        }
        self.events = events;
        Ok(progress.mean())
    }

    /// The points, with those of items that are only known by their content.
    fn artifact(&self) -> Result<ArtifactBuilder> {
        let space = match &self.placing {
            Some(placing) => Cow::Owned(placing.completed(&self.space)),
            None => Cow::Borrowed(&self.space),
        };
        let mut artifact = model::artifact(self.params, &space, self.training.corpus.items(), &self.counts)?;
        if let Some(placing) = &self.placing {
            placing.way().store(&mut artifact);
        }
        Ok(artifact)
    }
}

impl Run<'_> {
    fn step(&mut self, batch: &[Event]) -> Result<f64> {
        let (histories, seen, control) = (&self.histories, &self.seen, self.training.control);
        let history = |user: u32| History { events: histories.of(user as usize), seen: seen.of(user) };
        let pool = self.touched.as_deref().map_or(Pool::All(self.counts.len()), Pool::Some);
        let told = batch::gradient(&self.space, self.params, pool, history, batch, self.random.next(), control)?;
        if !told.loss.is_finite() {
            return Err(Error::Data(format!("the loss is {}: lower learning_rate", told.loss)));
        }
        let rate = self.params.learning_rate as f32;
        let placed = self.placing.as_mut().map(|placing| placing.step(&told, &self.space));
        let drawn = placed.as_ref().map(Told::drawn);
        self.space.step(&mut self.sums, rate, &told, drawn);
        Ok(told.loss)
    }
}
