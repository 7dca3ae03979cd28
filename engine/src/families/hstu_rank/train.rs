//! Training: parameters and their defaults.

use serde::Deserialize;
use serde_json::Value;

use super::config::Config;
use crate::families::hstu;
use crate::families::sequential::{Own, Weight};
use crate::train::Options;
use crate::{Corpus, Error, Result, Task, task};

/// The family's own parameters. Absent: the defaults, or what the model that training starts from has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::families) struct Params {
    /// What is predicted of events.
    tasks: Option<Vec<Task>>,
    /// Width of the layer between states and logits; absent: that of the vectors.
    hidden: Option<usize>,
    /// The others are those of `hstu`, with narrower vectors where there are few events.
    dim: Option<usize>,
    blocks: Option<usize>,
    heads: Option<usize>,
    query_dim: Option<usize>,
    value_dim: Option<usize>,
    window: Option<usize>,
    times: Option<bool>,
}

/// The tasks that parameters give.
pub(super) fn tasks(params: &Value) -> Result<Vec<Task>> {
    let Some(given) = params.get("tasks") else { return Ok(Vec::new()) };
    let tasks: Vec<Task> = serde_json::from_value(given.clone())
        .map_err(|why| Error::Parameter(format!("parameters of family \"{}\": tasks: {why}", super::NAME)))?;
    task::check(&tasks)?;
    Ok(tasks)
}

/// An answer says less of an item than who touched it, and vectors that are too long learn it by heart: on ml-100k 16
/// numbers have .815 AUC by validation, 64 have .799.
fn dim_for(corpus: &Corpus) -> usize {
    if corpus.interactions() < 1_000_000 { 16 } else { 64 }
}

/// Rows of a window of so many events: each and what came of it, and the candidate.
fn rows(window: usize) -> usize {
    window.saturating_mul(2).saturating_add(1)
}

impl Params {
    fn body(&self) -> hstu::Params {
        let &Self { dim, blocks, heads, query_dim, value_dim, window, times, .. } = self;
        hstu::Params { dim, blocks, heads, query_dim, value_dim, window: window.map(rows), times }
    }
}

impl Own for Params {
    type Architecture = Config;

    fn architecture(&self, corpus: &Corpus, options: &Options) -> Config {
        let window = Some(rows(self.window.unwrap_or(200)));
        let body = hstu::Params { dim: Some(self.dim.unwrap_or(dim_for(corpus))), window, ..self.body() };
        let body = body.architecture(corpus, options);
        Config { tasks: self.tasks.clone().unwrap_or_default(), hidden: self.hidden.unwrap_or(body.dim), body }
    }

    fn defaults(options: Options) -> Options {
        Options { dropout: Some(0.5), ..options }
    }

    fn has(&self, _weight: &Weight) -> bool {
        true
    }

    fn differs(&self, from: &Config) -> bool {
        self.tasks.as_ref().is_some_and(|tasks| *tasks != from.tasks)
            || self.hidden.is_some_and(|hidden| hidden != from.hidden)
            || self.body().differs(&from.body)
    }
}
