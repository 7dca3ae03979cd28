//! Counting, and what is stored.

use serde_json::{Map, json};

use super::graph::{Counts, Graph, touched};
use super::{Params, adjacency, model};
use crate::families::{Fitted, Training};
use crate::{Error, Result};

pub(super) fn fit(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    let (corpus, control) = (&training.corpus.without_last(training.leave_last), training.control);
    if corpus.lexicon().is_empty() {
        let why = "there are no words: bind title_column of the items, or searches";
        return Err(Error::Data(why.into()));
    }
    let touched = touched(corpus);
    let counts = Counts::new(corpus, &touched, control)?;
    let words = counts.keywords(params.keywords);
    if words.is_empty() {
        return Err(Error::Data("no word is of two users: there is nothing to tell one from another by".into()));
    }
    check_memory(training, params, &counts, &words)?;
    let graph = Graph::new(corpus, touched, &counts, &words, control)?;
    let rows = adjacency::rows(&graph, params, control)?;
    let entries: usize = rows.iter().map(Vec::len).sum();
    let artifact = model::artifact(params, corpus, &words, graph, rows);
    let metrics = json!({ "words": words.len(), "entries": entries });
    Ok(Fitted { artifact, curve: Vec::new(), metrics: Map::from_iter([("keywords".to_owned(), metrics)]) })
}

fn check_memory(training: &Training<'_>, params: &Params, counts: &Counts, words: &[u32]) -> Result<()> {
    let corpus = training.corpus;
    // Of a row no more is kept than is touched, or said.
    let items = corpus.items().len();
    let (mut having, mut kept) = (0usize, 0usize);
    for &word in words {
        having += counts.users[word as usize] as usize;
        kept += params.keep.min(items).min(counts.events[word as usize] as usize);
    }
    let said: usize = (0..items).map(|item| corpus.words_of(item).len()).sum();
    // Users of keywords as they are filled in, and as they are; texts from both sides; what queries led to, as pairs and as
    // lists; histories without repeats.
    let lists = having.saturating_add(said).saturating_mul(2).saturating_add(counts.led.saturating_mul(3));
    let lists = lists.saturating_add(corpus.interactions());
    // Rows as they are computed, put together, and stored, which also holds what only texts say.
    let rows = kept.saturating_add(said.min(words.len().saturating_mul(params.keep))).saturating_mul(6);
    // Of every thread what it sums up.
    let sums = items.saturating_mul(rayon::current_num_threads()).saturating_mul(2);
    let numbers = lists.saturating_add(rows).saturating_add(sums).saturating_add(corpus.lexicon().len() * 4);
    let needed = numbers.saturating_mul(size_of::<f32>());
    training.require_memory(needed, "keywords and what goes with them", "a smaller keep or keywords needs less")
}
