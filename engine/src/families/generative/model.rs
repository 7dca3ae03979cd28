//! Serving: histories in, the items whose codes are most likely to follow out.

use std::collections::HashMap;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::cuda::Cuda;
use pgrec_kernels::{Device, Filter, Rows, Scored, Sequences, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::NAME;
use super::confidence::{Index, Sets};
use super::config::{CODES, Config};
use super::decode::{Width, Words};
use super::levels::{Descent, Trie};
use super::network::Network;
use super::search::{Beam, Generated, Search, Walk};
use super::vocabulary::Vocabulary;
use crate::families::Model;
use crate::families::semantic_ids::SemanticIds;
use crate::families::sequential::{Architecture, ITEMS, SCORED, allowed, best, check_known, unit_rows};
use crate::train::{EventRows, Order, Parameters};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

/// Beams of all queries that are told before it is seen what others are needed for: enough that products of matrices pay.
const TOGETHER: usize = 16;
/// Of each query, at least.
const LEAST: usize = 10;
/// Beams that are told together at most: what their matrices take stays in a core's caches.
const ROWS: usize = 512;
/// On a CUDA device: long enough that starting kernels does not count.
const DEVICE_ROWS: usize = 1 << 16;

/// The model with these weights, as it is stored.
pub(super) fn artifact(
    config: &Config,
    parameters: &Parameters,
    ids: &SemanticIds,
    counts: &[f32],
    words: &[String],
) -> Result<ArtifactBuilder> {
    let about = serde_json::to_value(config).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut builder = ArtifactBuilder::new(NAME, &about, &ids.catalogue().to_ids(), counts);
    for (name, tensor) in parameters.iter() {
        builder.f32(name, tensor.shape(), tensor.as_slice().to_vec());
    }
    if let Some(items) = parameters.find(ITEMS) {
        let items = parameters.tensor(items);
        builder.f32(SCORED, items.shape(), unit_rows(items.as_slice(), items.cols()));
    }
    Vocabulary::store(words, &mut builder);
    ids.store(&mut builder);
    Trie::store(ids, &mut builder);
    Ok(builder)
}

/// An open model.
pub struct Generative {
    pub(super) config: Config,
    pub(super) network: Network<Tensor>,
    pub(super) words: Words,
    /// Vectors of the items themselves, of length 1.
    items: Option<Tensor>,
    pub(super) ids: SemanticIds,
    vocabulary: Vocabulary,
    /// By which rows events are looked up.
    rows: EventRows,
    trie: Trie,
    index: Index,
    device: Cpu,
}

impl Generative {
    /// Opens an artifact of this family.
    ///
    /// # Errors
    /// [`Error::Malformed`] where its tensors do not fit together.
    pub fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        config.check()?;
        for weight in config.weights(artifact.catalogue().len()) {
            artifact.tensor_of(&weight.name, &weight.shape)?;
        }
        let weight = |name: &str| artifact.has(name).then(|| artifact.tensor(name)).transpose();
        let network = Network::new(&config, &weight)?;
        let ids = SemanticIds::open_as(artifact, config.codes.clone())?;
        let shape = [artifact.catalogue().len(), config.body.dim];
        let items = config.is_fused().then(|| artifact.tensor_of(SCORED, &shape)).transpose()?;
        let words = Words::new(&config, &artifact.tensor(CODES)?)?;
        let trie = Trie::open(artifact, &config.codes.sizes, ids.ordered().len())?;
        let index = Index::new(config.levels());
        let vocabulary = Vocabulary::open(artifact, &config)?;
        let rows = EventRows::new(&config.codes.sizes, ids.catalogue().len(), config.words);
        Ok(Self { config, network, words, items, ids, vocabulary, rows, trie, index, device: Cpu::new() })
    }

    fn window(&self) -> usize {
        self.config.body.window
    }

    /// One vector a history, `[queries, dim]`.
    fn states(&self, device: &impl Device, queries: &[Query<'_>]) -> Result<Vec<f32>> {
        let (mut items, mut positions, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        for query in queries {
            let words = latest(query.words, self.window());
            let events = latest(query.history, self.window() - words.len());
            check_known(self.ids.catalogue().len(), events)?;
            check_known(self.config.words, words)?;
            items.extend_from_slice(events);
            items.extend(words.iter().map(|&word| self.rows.event(word)));
            positions.extend(self.config.body.position_rows(events.len() + words.len()));
            offsets.push(items.len());
        }
        let row = |event: u32, level: usize| self.rows.row(event, level, |item| self.ids.code(item)[level]);
        let rows = |level| -> Vec<u32> { items.iter().map(|&event| row(event, level)).collect() };
        let rows: Vec<Vec<u32>> = (0..self.config.levels()).map(rows).collect();
        let levels: Vec<Vec<u32>> = (0..self.config.levels()).map(|level| vec![level as u32; items.len()]).collect();
        let coded = rows.iter().zip(&levels).enumerate().map(|(level, (rows, levels))| Sequences {
            items: rows,
            positions: if level == 0 { &positions } else { levels },
            offsets: &offsets,
            ..Sequences::default()
        });
        let nought = vec![0; items.len()];
        let own = Sequences { items: &items, positions: &nought, offsets: &offsets, ..Sequences::default() };
        let coded: Vec<Sequences<'_>> = coded.chain(self.items.is_some().then_some(own)).collect();
        let batch = Sequences { items: &items, positions: &positions, offsets: &offsets, ..Sequences::default() };
        let states = self.network.encode(&self.config, device, &batch, &coded, Rows::Last);
        Ok(device.download(&states)?.into_owned())
    }

    fn walked<W: Walk>(
        &self,
        device: &impl Device,
        states: &[f32],
        walks: &[W],
        wanted: &[usize],
        width: Width,
        control: &Control,
    ) -> Result<Vec<Vec<Generated>>> {
        let searches = self.search(device, states, (walks, wanted), width, control, |_| ())?;
        Ok(searches.iter().map(Search::found).collect())
    }

    /// How wide searches are on the CPU.
    fn width(&self) -> Width {
        Width { beams: self.config.beam, together: TOGETHER, rows: ROWS, beside: false }
    }

    fn descent(&self, query: &Query<'_>) -> Descent<'_> {
        Descent::new(&self.ids, &self.trie, &self.words.starts, &query.filter)
    }

    fn sets<'a>(&'a self, query: &Query<'a>) -> Sets<'a> {
        Sets::new(&self.ids, &self.index, &self.words.starts, query.filter, self.config.consistency as f32)
    }

    /// The best items of each query by their codes; a search keeps at least as many beams as it wants.
    pub(super) fn ranked(
        &self,
        device: &impl Device,
        states: &[f32],
        queries: &[Query<'_>],
        mut width: Width,
        control: &Control,
    ) -> Result<Vec<Vec<Generated>>> {
        let wanted: Vec<usize> = queries.iter().map(|query| query.k).collect();
        width.beams = wanted.iter().copied().max().unwrap_or(0).max(width.beams);
        let mut found = match self.config.order {
            Order::Levels => {
                let walks: Vec<Descent<'_>> = queries.iter().map(|query| self.descent(query)).collect();
                self.walked(device, states, &walks, &wanted, width, control)?
            }
            Order::Confidence => {
                let walks: Vec<Sets<'_>> = queries.iter().map(|query| self.sets(query)).collect();
                self.walked(device, states, &walks, &wanted, width, control)?
            }
            Order::Together => {
                let items = self.ids.catalogue().len();
                let list = |(logits, query): (&[f32], &Query<'_>)| {
                    let scores = self.scores(logits);
                    let scored = |item: u32| Scored { item, score: scores[item as usize] };
                    let found = best(allowed(items, query).map(scored).collect(), query.k);
                    found.into_iter().map(|found| Generated { found, agreement: None, kept: true }).collect()
                };
                let words: usize = self.config.codes.sizes.iter().sum();
                self.logits(device, states)?.chunks_exact(words.max(1)).zip(queries).map(list).collect()
            }
        };
        found.iter_mut().zip(queries).for_each(|(found, query)| found.truncate(query.k));
        Ok(found)
    }

    /// Answers queries in slices of which so many beams are told together, one slice after the other. `most.together` is of
    /// all queries of a slice.
    fn answer(
        &self,
        device: &impl Device,
        queries: &[Query<'_>],
        asked: &[usize],
        most: Width,
        control: &Control,
    ) -> Result<Vec<(usize, Vec<Scored>)>> {
        let mut answers = Vec::with_capacity(asked.len());
        for asked in asked.chunks((most.rows / most.beams).max(1)) {
            let width = Width { together: (most.together / asked.len()).max(LEAST), ..most };
            let queries: Vec<Query<'_>> = asked.iter().map(|&q| queries[q]).collect();
            let states = self.states(device, &queries)?;
            let lists = match &self.items {
                Some(items) => self.fused(device, (items, &states), &queries, width, control)?,
                None => {
                    let lists = self.ranked(device, &states, &queries, width, control)?.into_iter();
                    lists.map(|list| list.into_iter().map(|item| item.found).collect()).collect()
                }
            };
            answers.extend(asked.iter().copied().zip(lists));
        }
        Ok(answers)
    }

    fn one(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        if is_silent(query) {
            return Err(Error::Data("the history holds no item that the model knows".into()));
        }
        self.states(&self.device, std::slice::from_ref(query))
    }
}

/// Places of the queries that there is something to answer.
fn asked(queries: &[Query<'_>]) -> Vec<usize> {
    (0..queries.len()).filter(|&q| queries[q].k > 0 && !is_silent(&queries[q])).collect()
}

/// Whether neither a history nor words say anything.
fn is_silent(query: &Query<'_>) -> bool {
    query.history.is_empty() && query.words.is_empty()
}

/// The last of them, at most so many.
fn latest(events: &[u32], most: usize) -> &[u32] {
    &events[events.len().saturating_sub(most)..]
}

/// An answer to every query: those that there are, by their places.
fn lists(queries: usize, answers: impl IntoIterator<Item = (usize, Vec<Scored>)>) -> Vec<Vec<Scored>> {
    let mut lists = vec![Vec::new(); queries];
    answers.into_iter().for_each(|(query, list)| lists[query] = list);
    lists
}

impl Model for Generative {
    fn catalogue(&self) -> &Catalogue {
        self.ids.catalogue()
    }

    fn window(&self) -> usize {
        self.config.body.window
    }

    fn semantic_ids(&self) -> Option<&SemanticIds> {
        Some(&self.ids)
    }

    fn knows_words(&self) -> bool {
        self.config.words > 0
    }

    fn word(&self, word: &str) -> Option<u32> {
        self.vocabulary.number(word)
    }

    fn beam(&self) -> Option<usize> {
        Some(self.config.beam)
    }

    fn generate(&self, query: &Query<'_>, beam: Option<usize>, control: &Control) -> Result<Option<Vec<Generated>>> {
        if is_silent(query) || query.k == 0 {
            return Ok(Some(Vec::new()));
        }
        let width = Width { beams: beam.unwrap_or(self.config.beam), ..self.width() };
        let states = self.one(query)?;
        let lists = self.ranked(&self.device, &states, std::slice::from_ref(query), width, control)?;
        Ok(lists.into_iter().next())
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let asked = asked(queries);
        let slice = (ROWS / self.config.beam).max(1);
        let answer = |asked: &[usize]| self.answer(&self.device, queries, asked, self.width(), control);
        // A session's call for one user is computed on its own thread, and starts no others.
        let answers = match asked.len() > slice {
            true => asked.par_chunks(slice).map(answer).collect::<Result<Vec<_>>>()?.concat(),
            false => answer(&asked)?,
        };
        Ok(lists(queries.len(), answers))
    }

    fn recommend_on(&self, device: &Cuda, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let width = Width { together: usize::MAX, rows: DEVICE_ROWS, beside: true, ..self.width() };
        let answers = self.answer(device, queries, &asked(queries), width, control)?;
        Ok(lists(queries.len(), answers))
    }

    /// log p of the items' codes, and where they have vectors of their own what those add.
    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        check_known(self.ids.catalogue().len(), items)?;
        let states = self.one(query)?;
        let mut wanted = items.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let (device, wanted) = (&self.device, [wanted]);
        let codes = self.by_codes(device, &states, &wanted, self.width(), &Control::default())?;
        let mut scores: HashMap<u32, f32> = codes.into_iter().flatten().collect();
        if let Some(table) = &self.items {
            let vectors = self.vectors(device, &states)?;
            for own in self.by_vectors(device, (table, &vectors), &wanted)?.into_iter().flatten() {
                *scores.entry(own.item).or_default() += own.score;
            }
        }
        Ok(items.iter().map(|item| scores.get(item).copied().unwrap_or(f32::NEG_INFINITY)).collect())
    }

    /// As the codes have it.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        self.ids.similar(item, query)
    }

    /// What the decoder begins with.
    fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        self.one(query)
    }

    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let states = self.one(query)?;
        check_known(self.ids.catalogue().len(), &[item])?;
        let among = Query { filter: Filter { exclude: &[], candidates: Some(&[item]) }, ..*query };
        let told = match self.config.order {
            Order::Levels => self.steps(&states, &self.descent(&among))?,
            Order::Confidence => self.steps(&states, &self.sets(&among))?,
            Order::Together => {
                let scored = self.shares(&self.device, &states, item)?;
                scored.into_iter().enumerate().collect()
            }
        };
        let code = self.ids.code(item);
        // Those that are not told follow from the others.
        let rest =
            (0..code.len()).filter(|level| told.iter().all(|(other, _)| other != level)).map(|level| (level, 1.0));
        let levels = told.iter().copied().chain(rest);
        let levels = levels.map(|(level, share)| json!({ "level": level, "code": code[level], "probability": share }));
        Ok(json!({ "levels": levels.collect::<Vec<_>>() }))
    }
}

impl Generative {
    /// The levels that are told on the way to the one item that a walk may find, and the share of its code on each.
    fn steps<W: Walk>(&self, states: &[f32], walk: &W) -> Result<Vec<(usize, f32)>> {
        let (mut steps, mut before) = (Vec::new(), 0.0);
        let watch = |searches: &[Search<'_, W>]| {
            for beam in searches.iter().filter_map(Search::best) {
                steps.push((beam.chosen().0 as usize, (beam.score() - before).exp()));
                before = beam.score();
            }
        };
        let (width, walks) = (Width { beams: 1, ..self.width() }, std::slice::from_ref(walk));
        self.search(&self.device, states, (walks, &[1]), width, &Control::default(), watch)?;
        Ok(steps)
    }
}
