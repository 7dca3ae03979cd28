//! How good searching is: what `rec_evaluate(task => 'search')` asks, by each source and by all.

use std::time::Instant;

use pgrec_engine::corpus::Search as Asked;
use pgrec_engine::evaluate::{SearchCase, SearchSpec, Searcher, evaluate_search};
use pgrec_engine::{Control, Corpus, ItemId};

use super::lists::{self, Search, Sources};
use super::recent::Recent;
use crate::compute;
use crate::error::{Result, SqlError};
use crate::history::History;

/// A way to search: its name, which sources are asked, and whether it is known who asks.
type Way = (&'static str, Sources, bool);

const TEXT: Way = ("text", Sources { text: true, vectors: false, model: false }, false);
const VECTOR: Way = ("vector", Sources { text: false, vectors: true, model: false }, false);
const HYBRID: Way = ("hybrid", Sources { text: true, vectors: true, model: false }, false);
const MODEL_ALONE: Way = ("model", Sources { text: false, vectors: false, model: true }, true);
const WITHOUT_USER: Way = ("all without user", Sources { text: true, vectors: true, model: true }, false);
const ALL: Way = ("all", Sources { text: true, vectors: true, model: true }, true);

/// Asks the searches of a corpus as `rec_search` would.
struct Judge<'a> {
    search: Search,
    corpus: &'a Corpus,
    names: Vec<&'static str>,
    ways: Vec<Way>,
    /// Items of the corpus as the model numbers them.
    known: Vec<Option<u32>>,
    failed: Option<SqlError>,
    begun: Instant,
    said: Instant,
    asked: u64,
}

/// Measures every way to search that a recommender has.
pub fn judge(search: Search, corpus: &Corpus, spec: &SearchSpec<'_>) -> Result<pgrec_engine::evaluate::Report> {
    let (text, vectors) = (search.has_texts(), !corpus.query_vectors().is_empty());
    let ways: Vec<Way> = [
        (TEXT, text),
        (VECTOR, vectors),
        (HYBRID, text && vectors),
        (MODEL_ALONE, search.model.is_some()),
        (WITHOUT_USER, search.model.is_some()),
        (ALL, search.model.is_some()),
    ]
    .into_iter()
    .filter_map(|(way, there)| there.then_some(way))
    .collect();
    let known = match &search.model {
        Some(session) => {
            let catalogue = session.open.model.catalogue();
            (0..corpus.items().len()).map(|item| catalogue.index_of(&corpus.items().get(item))).collect()
        }
        None => Vec::new(),
    };
    let now = Instant::now();
    let names = ways.iter().map(|(name, ..)| *name).collect();
    let mut judge = Judge { search, corpus, names, ways, known, failed: None, begun: now, said: now, asked: 0 };
    let report = evaluate_search(&mut judge, corpus, spec, &Control::default());
    match judge.failed {
        Some(error) => Err(error),
        None => Ok(report?),
    }
}

impl Searcher for Judge<'_> {
    fn ways(&self) -> &[&'static str] {
        &self.names
    }

    fn ranked(&mut self, way: usize, case: &SearchCase<'_>, _: usize) -> pgrec_engine::Result<Vec<u32>> {
        self.report();
        match self.listed(self.ways[way], case) {
            Ok(list) => Ok(list),
            Err(error) => {
                self.failed = Some(error);
                Err(pgrec_engine::Error::Cancelled)
            }
        }
    }
}

impl Judge<'_> {
    fn listed(&self, (_, sources, personal): Way, case: &SearchCase<'_>) -> Result<Vec<u32>> {
        let history = if personal { self.history(case) } else { History::default() };
        let asked = lists::Asked {
            words: self.words(case.search).map(str::to_owned).collect(),
            embedding: self.vector(case.search.query),
            history: &history,
            sources,
        };
        let list = self.search.list(&asked)?;
        Ok(list.iter().filter_map(|item| self.index(&item.id)).collect())
    }

    fn index(&self, item: &ItemId) -> Option<u32> {
        self.corpus.items().index_of(item)
    }

    fn words<'b>(&'b self, search: Asked<'_>) -> impl Iterator<Item = &'b str> {
        self.corpus.query_words(search.query).iter().map(|&word| self.corpus.lexicon()[word as usize].as_str())
    }

    /// The vector of a query; None of one that has none.
    fn vector(&self, query: u32) -> Option<Vec<f32>> {
        let dim = self.corpus.query_dim();
        let vector = self.corpus.query_vectors().get(query as usize * dim..(query as usize + 1) * dim)?;
        vector.iter().any(|&x| x != 0.0).then(|| vector.to_vec())
    }

    /// What had come before, as the model is told.
    fn history(&self, case: &SearchCase<'_>) -> History {
        let Some(session) = &self.search.model else { return History::default() };
        let model = &*session.open.model;
        let known = |item: &u32| self.known.get(*item as usize).copied().flatten();
        let mut searches = Recent::default();
        let latest = case.earlier.len().saturating_sub(model.searches());
        for search in &case.earlier[latest..] {
            let before = &case.history[..search.after.min(case.history.len())];
            let after = before.iter().filter_map(known).count();
            searches.push(self.words(*search).filter_map(|word| model.word(word)), after);
        }
        History { items: case.history.iter().filter_map(known).collect(), searches, ..History::default() }
    }

    /// Says how far it is, every now and then.
    fn report(&mut self) {
        self.asked += 1;
        if self.said.elapsed() >= compute::REPORT {
            self.said = Instant::now();
            let (asked, ways, seconds) = (self.asked, self.ways.len() as u64, self.begun.elapsed().as_secs());
            pgrx::notice!("rec_evaluate: {} searches in {ways} ways, {seconds} s", asked / ways.max(1));
        }
    }
}
