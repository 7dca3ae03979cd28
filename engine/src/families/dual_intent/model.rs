//! What is stored, and what it answers.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Scored, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::graph::Graph;
use super::layers::Layers;
use super::network::{self, Network};
use super::ops::dot;
use super::ranking::{self, ALONE, Ranking, User};
use super::{NAME, Params, Scoring, Shape, weight};
use crate::families::Model;
use crate::families::seen::distinct;
use crate::families::sequential::check_known;
use crate::families::table::most_alike;
use crate::train::Parameters;
use crate::words::Lexicon;
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Corpus, Error, Query, Result};

/// Vectors of words, `[words, dim]`.
const WORD_VECTORS: &str = "words.vectors";
const WORDS: &str = "words";
/// How often each word was looked for, `[words]`.
const WORD_COUNTS: &str = "words.counts";

/// How much the model counts where somebody searches, `[1]`; not there where that was not weighed.
pub(super) const SEARCH_WEIGHT: &str = "search.weight";

/// Words that an explanation names.
const EXPLAINED: usize = 5;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    dim: usize,
    window: usize,
    recent: usize,
    decay: f64,
    scorer: Scoring,
    candidates: usize,
}

/// What was learnt, and what follows from it.
pub(super) struct Learnt<'a> {
    /// `[items, dim]`
    pub(super) own: &'a [f32],
    /// `[words, dim]`
    pub(super) words: &'a [f32],
    /// `[items]`
    pub(super) bias: &'a [f32],
    /// `[queries, dim]`
    pub(super) queries: &'a [f32],
    pub(super) layers: &'a Layers,
    pub(super) parameters: &'a Parameters,
}

/// The model as it is stored.
pub(super) fn artifact(
    params: &Params,
    graph: &Graph,
    learnt: &Learnt<'_>,
    corpus: &Corpus,
    counts: &[f32],
) -> Result<ArtifactBuilder> {
    let &Params { dim, window, recent, decay, scorer, candidates, .. } = params;
    let config = Config { dim, window, recent, decay, scorer, candidates };
    let config = serde_json::to_value(config).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut artifact = ArtifactBuilder::new(NAME, &config, corpus.items(), counts);
    let network = Network::now(learnt.parameters, dim)?;
    network::store(learnt.parameters, &mut artifact);
    let Layers { star, passed, .. } = learnt.layers;
    let (items, first) = (counts.len(), 3 * dim / 2);
    artifact
        .f32(ranking::OWN, &[items, dim], learnt.own.to_vec())
        .f32(ranking::PASSED, &[items, dim], passed.clone())
        .f32(ranking::STAR, &[items, dim + 2], nearness(learnt, scorer.shape(), dim))
        .f32(ranking::SEARCH, &[items, first], through(star, &network.search.item))
        .f32(ranking::RECOMMEND, &[items, first], through(star, &network.recommend.item))
        .f32(ranking::GENERATOR, &[items, 2 * dim], through(learnt.own, &network.generator.item));
    store_queries(graph, learnt.queries, &network, dim, &mut artifact);
    let words = if params.searches { &corpus.lexicon()[..] } else { &[] };
    artifact.texts(WORDS, words);
    artifact.f32(WORD_COUNTS, &[words.len()], graph.word_counts[..words.len()].to_vec());
    artifact.f32(WORD_VECTORS, &[words.len(), dim], learnt.words[..words.len() * dim].to_vec());
    Ok(artifact)
}

/// The queries that some item names, renumbered.
fn store_queries(
    graph: &Graph,
    queries: &[f32],
    network: &Network<Tensor>,
    dim: usize,
    artifact: &mut ArtifactBuilder,
) {
    let mut named: Vec<u32> = graph.top.iter().flatten().copied().collect();
    named.sort_unstable();
    named.dedup();
    let rows: Vec<f32> = named.iter().flat_map(|&query| &queries[query as usize * dim..][..dim]).copied().collect();
    let place = |query: &u32| named.partition_point(|other| other < query) as u32;
    let ends = graph.top.iter().scan(0, |end, top| {
        *end += top.len() as u64;
        Some(*end)
    });
    artifact
        .f32(ranking::ASKED, &[named.len(), 2 * dim], through(&rows, &network.generator.asked))
        .f32(ranking::QUERIES, &[named.len(), dim], rows)
        .u64(ranking::TOP_OFFSETS, std::iter::once(0).chain(ends).collect())
        .u32(ranking::TOP, graph.top.iter().flatten().map(place).collect());
}

/// e*, and what an item counts for by itself, for a known intent and for the mean of its own.
fn nearness(learnt: &Learnt<'_>, shape: Shape, dim: usize) -> Vec<f32> {
    let shape = if shape.product > 0.0 { shape } else { ALONE };
    let rows = learnt.layers.star.chunks_exact(dim).zip(learnt.layers.intent.chunks_exact(dim));
    let mut all = Vec::with_capacity(learnt.bias.len() * (dim + 2));
    for ((star, intent), bias) in rows.zip(learnt.bias) {
        let alone = bias - shape.square * dot(star, star);
        all.extend_from_slice(star);
        all.extend([alone, alone + shape.product * dot(star, intent)]);
    }
    all
}

/// What a layer makes of rows.
fn through(rows: &[f32], layer: &Linear) -> Vec<f32> {
    const ROWS: usize = 256;
    let inputs = layer.weight.rows();
    let part = |rows: &[f32]| {
        Cpu::new().linear(&Matrix::from_slice(rows, inputs), layer, Activation::Identity).as_slice().to_vec()
    };
    rows.par_chunks(ROWS * inputs).map(part).collect::<Vec<_>>().concat()
}

fn search_weight(artifact: &Artifact) -> Result<f64> {
    if !artifact.has(SEARCH_WEIGHT) {
        return Ok(1.0);
    }
    match artifact.tensor_of(SEARCH_WEIGHT, &[1])?.as_slice() {
        &[weight] if weight.is_finite() && weight >= 0.0 => Ok(f64::from(weight)),
        other => Err(Error::Malformed(format!("{NAME}: {other:?} is no weight of a search"))),
    }
}

/// An open model.
pub(super) struct DualIntent {
    config: Config,
    catalogue: Catalogue,
    ranking: Ranking,
    words: Lexicon,
    word_counts: Tensor,
    word_vectors: Tensor,
    search_weight: f64,
}

impl DualIntent {
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        if config.dim == 0 || config.window == 0 || !config.dim.is_multiple_of(4) {
            return Err(Error::Malformed(format!("{NAME}: there are no vectors of {} numbers", config.dim)));
        }
        let words = Lexicon::open(artifact, WORDS)?;
        Ok(Self {
            ranking: Ranking::open(artifact, config.dim, config.scorer.shape(), config.candidates)?,
            word_counts: artifact.tensor_of(WORD_COUNTS, &[words.len()])?,
            word_vectors: artifact.tensor_of(WORD_VECTORS, &[words.len(), config.dim])?,
            words,
            search_weight: search_weight(artifact)?,
            catalogue: artifact.catalogue().clone(),
            config,
        })
    }

    /// The events that count.
    fn events<'a>(&self, history: &'a [u32]) -> Result<&'a [u32]> {
        let events = &history[history.len().saturating_sub(self.config.window)..];
        check_known(self.catalogue.len(), events)?;
        Ok(events)
    }

    fn check_words(&self, words: &[u32]) -> Result<()> {
        match words.iter().find(|&&word| word as usize >= self.words.len()) {
            Some(word) => Err(Error::Parameter(format!("word {word} is not below {}", self.words.len()))),
            None => Ok(()),
        }
    }

    /// The vector of a query: the mean of its words'.
    fn intent(&self, words: &[u32]) -> Result<Vec<f32>> {
        self.check_words(words)?;
        let mut words = words.to_vec();
        words.sort_unstable();
        words.dedup();
        let (mut mean, share) = (vec![0.0; self.config.dim], 1.0 / words.len().max(1) as f32);
        Cpu::new().add_weighted(&mut mean, words.iter().map(|&word| (share, self.word_vectors.row(word as usize))));
        Ok(mean)
    }

    /// The vector of what is asked for in words, where it is.
    fn asked(&self, query: &Query<'_>) -> Result<Option<Vec<f32>>> {
        (!query.words.is_empty()).then(|| self.intent(query.words)).transpose()
    }

    /// The user of a query.
    fn user(&self, query: &Query<'_>) -> Result<User> {
        let items = distinct(self.events(query.history)?, self.config.window);
        let (cpu, share, dim) = (Cpu::new(), 1.0 / items.len().max(1) as f32, self.config.dim);
        let mean = |of: &Tensor| {
            let mut mean = vec![0.0; dim];
            cpu.add_weighted(&mut mean, items.iter().map(|&item| (share, of.row(item as usize))));
            mean
        };
        let mut wanted = vec![0.0; dim];
        for (later, (words, after)) in query.searches.iter().rev().take(self.config.recent).enumerate() {
            let since = query.history.len().saturating_sub(after) + later;
            cpu.add_scaled(&mut wanted, weight(self.config.decay, since), &self.intent(words)?);
        }
        Ok(User { star: mean(&self.ranking.passed), own: mean(&self.ranking.own), wanted })
    }

    /// Whether anything is known of the user, or of what is wanted.
    fn is_told(&self, query: &Query<'_>) -> bool {
        let lately = query.searches.iter().rev().take(self.config.recent).any(|(words, _)| !words.is_empty());
        !query.history.is_empty() || !query.words.is_empty() || lately
    }

    fn answer(&self, query: &Query<'_>, control: &Control) -> Result<Vec<Scored>> {
        check_known(self.catalogue.len(), query.filter.candidates.unwrap_or(&[]))?;
        if query.k == 0 || !self.is_told(query) {
            return Ok(Vec::new());
        }
        self.ranking.best(&self.user(query)?, self.asked(query)?.as_deref(), query, control)
    }

    /// How often a word was looked for in what was learnt from.
    fn count(&self, word: u32) -> f32 {
        self.word_counts.as_slice()[word as usize]
    }

    fn was_asked(&self, word: u32) -> bool {
        self.count(word) > 0.0
    }

    /// The words nearest to a vector, and how near they are.
    fn nearest_words(&self, vector: &[f32], count: usize) -> Vec<(u32, f32)> {
        let length = |x: &[f32]| dot(x, x).sqrt().max(f32::MIN_POSITIVE);
        let near = |word: u32| {
            let row = self.word_vectors.row(word as usize);
            (word, (dot(row, vector) / length(row) / length(vector)).clamp(0.0, 1.0))
        };
        let asked = (0..self.words.len() as u32).filter(|&word| self.was_asked(word));
        let mut all: Vec<(u32, f32)> = asked.map(near).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(count);
        all
    }
}

impl Model for DualIntent {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.config.window
    }

    fn item_vector(&self, item: u32) -> Option<&[f32]> {
        ((item as usize) < self.catalogue.len()).then(|| self.ranking.star(item))
    }

    /// Words that only stand in texts are not known: nobody has shown what they lead to.
    fn word(&self, word: &str) -> Option<u32> {
        self.words.number(word).filter(|&word| self.was_asked(word))
    }

    fn word_text(&self, word: u32) -> Option<String> {
        self.words.text(word)
    }

    fn nearest_word(&self, word: &str) -> Option<u32> {
        // What stands in a text is no slip.
        match self.words.number(word) {
            Some(_) => None,
            None => self.words.nearest(word, |word| self.count(word)).filter(|&word| self.was_asked(word)),
        }
    }

    fn answers_queries(&self) -> bool {
        self.words.len() > 0
    }

    fn search_weight(&self) -> f64 {
        self.search_weight
    }

    fn searches(&self) -> usize {
        if self.words.len() > 0 { self.config.recent } else { 0 }
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        // A session's call for one user is computed on its own thread.
        match queries {
            [query] => Ok(vec![self.answer(query, control)?]),
            _ => queries.par_iter().map(|query| self.answer(query, control)).collect(),
        }
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        check_known(self.catalogue.len(), items)?;
        if !self.is_told(query) {
            return Err(Error::Data("there is neither a history nor a search".into()));
        }
        self.ranking.scores(&self.user(query)?, self.asked(query)?.as_deref(), items, &Control::default())
    }

    /// The items whose vectors are nearest.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        check_known(self.catalogue.len(), &[item])?;
        check_known(self.catalogue.len(), query.filter.candidates.unwrap_or(&[]))?;
        Ok(self.ranking.alike(item, query))
    }

    /// e* of the user.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        match query.history {
            [] => Err(Error::Data("the history holds no item that the model knows".into())),
            _ => Ok(self.user(query)?.star),
        }
    }

    /// By what the user is likely to want of the item, whatever they ask for now.
    fn demand(&self, query: &Query<'_>, item: u32) -> Result<Option<Vec<(u32, f32)>>> {
        check_known(self.catalogue.len(), &[item])?;
        if self.words.len() == 0 {
            return Ok(None);
        }
        if !self.is_told(query) {
            return Ok(Some(Vec::new()));
        }
        let intents = self.ranking.intents(&self.user(query)?, &[item]);
        Ok(Some(self.nearest_words(intents.row(0), query.k)))
    }

    /// What is scored, the words nearest to what is wanted of the item, and the events most like it.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let score = self.score(query, &[item])?[0];
        let task = if query.words.is_empty() { "recommendation" } else { "search" };
        let wanted = self.demand(&Query { k: EXPLAINED, ..*query }, item)?.unwrap_or_default();
        let wanted: Vec<Value> = wanted
            .into_iter()
            .filter_map(|(word, weight)| Some(json!({ "word": self.words.text(word)?, "weight": weight })))
            .collect();
        let events = self.events(query.history)?;
        let star = |item: u32| self.ranking.star(item);
        let length = |x: &[f32]| dot(x, x).sqrt().max(f32::MIN_POSITIVE);
        let cosine = |event: u32| dot(star(event), star(item)) / length(star(event)) / length(star(item));
        let searches = query.searches.iter().len().min(self.config.recent);
        Ok(json!({
            "score": score,
            "task": task,
            "events_used": events.len(),
            "searches_used": searches,
            "wanted": wanted,
            "alike": most_alike(events, cosine),
        }))
    }
}
