//! What is learnt from, and its steps.

use super::contrast::{Comparison, Others, Pair};
use super::graph::{Graph, Layers};
use super::model;
use super::placing::{self, Placing, SLICES};
use super::{Params, Use};
use crate::content::{Content, Form};
use crate::families::epochs::{self, Learner, Length, Progress};
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::train::{Metrics, Validation};
use crate::{ArtifactBuilder, Error, Result};

pub(super) fn fit(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    let start = training.start.as_deref();
    let form = placing::form(params, start)?;
    check_memory(training, params, form)?;
    let learnt = training.corpus.without_last(training.leave_last);
    let Some(content) = Content::of(training.corpus, params.features.into())? else {
        return Err(Error::Data("nothing is known of the items".into()));
    };
    let (histories, validation) = Validation::split(training, &learnt, params.validation_users, Metrics::RANKING);
    let items = learnt.items().len();
    // Where nothing is learnt nothing is validated, and nothing has to be kept back for that.
    let graph = match params.epochs {
        0 => Graph::new(learnt.histories(), params.window, items),
        _ => Graph::new((0..learnt.users()).map(|user| histories.of(user)), params.window, items),
    };
    let touched = graph.touched();
    let known: Vec<u32> = (0..items as u32).filter(|&item| content.knows(item as usize)).collect();
    let placed: Vec<u32> = touched.iter().copied().filter(|&item| content.knows(item as usize)).collect();
    if params.epochs > 0 && placed.is_empty() {
        return Err(Error::Data("nothing is known of any item that somebody has touched".into()));
    }
    // Of whom one item is known nothing is left without it.
    let tells = |pair: &Pair| !params.leave_out || graph.touched_by(pair.0) > 1;
    let pairs: Vec<Pair> = if params.epochs > 0 { graph.pairs().filter(tells).collect() } else { Vec::new() };
    if params.epochs > 0 && pairs.is_empty() {
        return Err(Error::Data("no history has the two items that one learns one from".into()));
    }
    let run = Run {
        training,
        params,
        form,
        placing: Placing::new(params, form, &content, start, training.seed)?,
        pairs,
        graph,
        touched,
        placed,
        known,
        counts: learnt.counts().into_iter().map(|count| count as f32).collect(),
        random: SplitMix::new(training.seed),
    };
    epochs::fit(run, training, &validation, Length { epochs: params.epochs, patience: params.patience, every: 1 })
}

fn check_memory(training: &Training<'_>, params: &Params, form: Form) -> Result<()> {
    let (users, items) = (training.corpus.users(), training.corpus.items().len());
    let wanted: Use = params.features.into();
    // Of users and items three sums of layers, as many derivatives by them, and those under way; of items where content
    // places them, the rows by which they are ranked, and what is stored of them now and of the best epoch.
    let places = users.saturating_mul(10).saturating_add(items.saturating_mul(20)).saturating_mul(form.dim);
    let compared = params.batch.saturating_mul(4 * form.dim).saturating_add(params.negatives.saturating_mul(form.dim));
    // The graph from both sides, and its pairs.
    let events = training.corpus.interactions().saturating_mul(4);
    // Weights, AdamW's means, what the model to continue has, and derivatives.
    let network = form.weights(Content::inputs(training.corpus, wanted)).saturating_mul(4 + SLICES);
    let numbers = places.saturating_add(compared).saturating_add(events).saturating_add(network);
    let needed = numbers.saturating_mul(size_of::<f32>()).saturating_add(Content::bytes(training.corpus, wanted));
    training.require_memory(needed, "content, places and the network", "a smaller dim or hidden needs less")
}

/// A training under way.
struct Run<'a> {
    training: &'a Training<'a>,
    params: &'a Params,
    form: Form,
    placing: Placing<'a>,
    graph: Graph,
    pairs: Vec<Pair>,
    /// Items that somebody has touched: those that are drawn to compare with.
    touched: Vec<u32>,
    /// Those of them that something is known of.
    placed: Vec<u32>,
    /// All items that something is known of.
    known: Vec<u32>,
    counts: Vec<f32>,
    random: SplitMix,
}

impl Learner for Run<'_> {
    fn steps(&self) -> u64 {
        self.pairs.len().div_ceil(self.params.batch) as u64
    }

    fn epoch(&mut self, _: u32, progress: &mut Progress<'_>) -> Result<f64> {
        let mut pairs = std::mem::take(&mut self.pairs);
        self.random.shuffle(&mut pairs);
        for batch in pairs.chunks(self.params.batch) {
            progress.step(batch.len(), self.step(batch)?);
        }
        self.pairs = pairs;
        Ok(progress.mean())
    }

    fn artifact(&self) -> Result<ArtifactBuilder> {
        let (layers, dim, control) = (self.params.layers, self.form.dim, self.training.control);
        let own = self.placing.places(&self.known, self.counts.len(), control)?;
        let Layers { begun, before, passed } = self.graph.forward(own, layers, dim, control)?;
        let sum = begun.items.iter().zip(&passed.items).map(|(a, b)| a + b).collect();
        // What a user gets of an item is of all layers but the last, an item of all.
        let mut passed = before.items;
        let rows = passed.chunks_exact_mut(dim).enumerate();
        rows.for_each(|(item, row)| row.iter_mut().for_each(|x| *x *= self.graph.root(item)));
        let places = model::Places { own: begun.items, passed, sum };
        let (way, ids) = (self.placing.way(), self.training.corpus.items());
        model::artifact(self.params, self.form, &way, places, ids, &self.counts)
    }
}

impl Run<'_> {
    /// One step by some pairs. Gives the sum of their losses.
    fn step(&mut self, batch: &[Pair]) -> Result<f64> {
        let (layers, dim, control) = (self.params.layers, self.form.dim, self.training.control);
        let own = self.placing.places(&self.placed, self.counts.len(), control)?;
        let spread = self.graph.forward(own, layers, dim, control)?;
        let others = Others { pool: &self.touched, count: self.params.negatives, key: self.random.next() };
        let comparison = Comparison {
            graph: &self.graph,
            layers: &spread,
            dim,
            others,
            temperature: self.params.temperature as f32,
            leave_out: self.params.leave_out,
        };
        let told = comparison.tell(batch, control)?;
        if !told.loss.is_finite() {
            return Err(Error::Data(format!("the loss is {}: lower learning_rate", told.loss)));
        }
        let derivative = self.graph.backward(told.gradient, layers, dim, control)?;
        self.placing.step(&self.placed, &derivative, control)?;
        Ok(told.loss)
    }
}
