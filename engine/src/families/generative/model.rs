//! Serving: histories in, the items whose codes are most likely to follow out.

use std::collections::HashMap;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::cuda::Cuda;
use pgrec_kernels::{Activation, Device, Filter, Linear, Rows, Scored, Sequences, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::NAME;
use super::config::{Config, head};
use super::network::Network;
use super::search::{Beam, Trie};
use crate::families::Model;
use crate::families::semantic_ids::SemanticIds;
use crate::families::sequential::{Architecture, check_known};
use crate::train::Parameters;
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

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
) -> Result<ArtifactBuilder> {
    let about = serde_json::to_value(config).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut builder = ArtifactBuilder::new(NAME, &about, &ids.catalogue().to_ids(), counts);
    for (name, tensor) in parameters.iter() {
        builder.f32(name, tensor.shape(), tensor.as_slice().to_vec());
    }
    ids.store(&mut builder);
    Ok(builder)
}

/// An open model.
pub struct Generative {
    config: Config,
    network: Network<Tensor>,
    /// Of every level: from what is told to logits.
    heads: Vec<Linear>,
    ids: SemanticIds,
    /// The first row of every level.
    starts: Vec<u32>,
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
        for weight in config.weights() {
            artifact.tensor_of(&weight.name, &weight.shape)?;
        }
        let weight = |name: &str| artifact.has(name).then(|| artifact.tensor(name)).transpose();
        let network = Network::new(&config, &weight)?;
        let ids = SemanticIds::open_as(artifact, config.codes.clone())?;
        let heads =
            (0..config.levels()).map(|level| transposed(&artifact.tensor(&head(level))?)).collect::<Result<_>>()?;
        let starts = config.codes.sizes.iter();
        let starts = starts.scan(0, |start, &size| Some(std::mem::replace(start, *start + size as u32))).collect();
        Ok(Self { config, network, heads, ids, starts, device: Cpu::new() })
    }

    fn window(&self) -> usize {
        self.config.body.window
    }

    /// One vector a history, `[queries, dim]`.
    fn states(&self, device: &impl Device, queries: &[Query<'_>]) -> Result<Vec<f32>> {
        let (mut items, mut positions, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        for query in queries {
            let latest = &query.history[query.history.len().saturating_sub(self.window())..];
            check_known(self.ids.catalogue().len(), latest)?;
            items.extend_from_slice(latest);
            positions.extend(self.config.body.position_rows(latest.len()));
            offsets.push(items.len());
        }
        let rows = |level: usize| -> Vec<u32> {
            items.iter().map(|&item| self.starts[level] + u32::from(self.ids.code(item)[level])).collect()
        };
        let rows: Vec<Vec<u32>> = (0..self.config.levels()).map(rows).collect();
        let levels: Vec<Vec<u32>> = (0..self.config.levels()).map(|level| vec![level as u32; items.len()]).collect();
        let coded: Vec<Sequences<'_>> = rows
            .iter()
            .zip(&levels)
            .enumerate()
            .map(|(level, (rows, levels))| Sequences {
                items: rows,
                positions: if level == 0 { &positions } else { levels },
                offsets: &offsets,
                ..Sequences::default()
            })
            .collect();
        let batch = Sequences { items: &items, positions: &positions, offsets: &offsets, ..Sequences::default() };
        Ok(device.download(&self.network.encode(&self.config, device, &batch, &coded, Rows::Last))?)
    }

    /// What is told of a level, from the states of the level before and the codes chosen there.
    fn told(&self, device: &impl Device, level: usize, states: &[f32], chosen: &[u16]) -> Result<Told> {
        let nothing = Sequences::default();
        let mut state = device.upload(states, self.config.body.dim)?;
        let mut next = Vec::new();
        if let Some(before) = level.checked_sub(1) {
            let rows: Vec<u32> = chosen.iter().map(|&code| self.starts[before] + u32::from(code)).collect();
            let positions = vec![before as u32; rows.len()];
            let offsets: Vec<usize> = (0..=rows.len()).collect();
            let batch = Sequences { items: &rows, positions: &positions, offsets: &offsets, ..Sequences::default() };
            state = self.network.chosen(&self.config, device, &state, &batch);
            next = device.download(&state)?;
        }
        let told = self.network.told(&self.config, device, &state, &nothing);
        let logits = device.download(&device.linear(&told, &self.heads[level], Activation::Identity))?;
        Ok(Told { states: if level == 0 { states.to_vec() } else { next }, logits })
    }

    /// Searches with so many beams for each query, among its trie's items, with up to `rows` beams told together. Gives
    /// the beams of the last level, best first.
    fn search(
        &self,
        device: &impl Device,
        states: Vec<f32>,
        tries: &[Trie<'_>],
        [width, rows]: [usize; 2],
        control: &Control,
    ) -> Result<Vec<Vec<Beam>>> {
        let dim = self.config.body.dim;
        let mut beams: Vec<Vec<Beam>> = tries.iter().map(|trie| vec![trie.root()]).collect();
        // Of every beam: the state that its last code was chosen by, and that code.
        let (mut parents, mut chosen) = (states, vec![0; tries.len()]);
        for level in 0..self.config.levels() {
            let mut told = Told::default();
            for (parents, chosen) in parents.chunks(rows * dim).zip(chosen.chunks(rows)) {
                control.check()?;
                let more = self.told(device, level, parents, chosen)?;
                told.states.extend(more.states);
                told.logits.extend(more.logits);
            }
            let size = self.config.codes.sizes[level];
            let mut first = 0;
            (parents, chosen) = (Vec::new(), Vec::new());
            for (trie, beams) in tries.iter().zip(&mut beams) {
                let own = &told.logits[first * size..(first + beams.len()) * size];
                let next = trie.follow(beams, level, own, width);
                for beam in &next {
                    parents.extend_from_slice(&told.states[(first + beam.parent) * dim..][..dim]);
                    chosen.push(beam.code);
                }
                first += beams.len();
                *beams = next;
            }
        }
        Ok(beams)
    }

    /// The best items of each query by so many beams, at least as many as it wants.
    fn generated(
        &self,
        device: &impl Device,
        queries: &[Query<'_>],
        [beam, rows]: [usize; 2],
        control: &Control,
    ) -> Result<Vec<Vec<Scored>>> {
        let states = self.states(device, queries)?;
        let tries: Vec<Trie<'_>> = queries.iter().map(|query| Trie::new(&self.ids, &query.filter)).collect();
        let width = queries.iter().map(|query| query.k).max().unwrap_or(0).max(beam);
        let beams = self.search(device, states, &tries, [width, rows], control)?;
        let found = beams.iter().zip(&tries).zip(queries).map(|((beams, trie), query)| {
            let mut found = trie.found(beams);
            found.truncate(query.k);
            found
        });
        Ok(found.collect())
    }

    /// Answers queries in slices that are told `rows` beams together, one slice after the other or, by `together`, at the
    /// same time.
    fn answer(
        &self,
        device: &impl Device,
        queries: &[Query<'_>],
        rows: usize,
        together: bool,
        control: &Control,
    ) -> Result<Vec<Vec<Scored>>> {
        let mut lists = vec![Vec::new(); queries.len()];
        let asked: Vec<usize> =
            (0..queries.len()).filter(|&q| queries[q].k > 0 && !queries[q].history.is_empty()).collect();
        let slice = (rows / self.config.beam).max(1);
        let answer = |asked: &[usize]| -> Result<Vec<(usize, Vec<Scored>)>> {
            let queries: Vec<Query<'_>> = asked.iter().map(|&q| queries[q]).collect();
            let lists = self.generated(device, &queries, [self.config.beam, rows], control)?;
            Ok(asked.iter().copied().zip(lists).collect())
        };
        // A session's call for one user is computed on its own thread, and starts no others.
        let parts = if together && asked.len() > slice {
            asked.par_chunks(slice).map(answer).collect::<Result<Vec<_>>>()?
        } else {
            asked.chunks(slice).map(answer).collect::<Result<Vec<_>>>()?
        };
        parts.into_iter().flatten().for_each(|(query, list)| lists[query] = list);
        Ok(lists)
    }

    fn one(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        if query.history.is_empty() {
            return Err(Error::Data("the history holds no item that the model knows".into()));
        }
        self.states(&self.device, std::slice::from_ref(query))
    }
}

/// What is told of a level, a row a beam.
#[derive(Default)]
struct Told {
    /// What the level is told from.
    states: Vec<f32>,
    /// Of all its codes.
    logits: Vec<f32>,
}

/// A table of words as a layer whose outputs are products with them.
fn transposed(words: &Tensor) -> Result<Linear> {
    let (rows, cols) = (words.rows(), words.cols());
    let values = (0..rows * cols).map(|at| words.as_slice()[at % rows * cols + at / rows]).collect();
    Ok(Linear { weight: Tensor::from_vec(values, vec![cols, rows])?, bias: None })
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

    fn generate(&self, query: &Query<'_>, beam: Option<usize>, control: &Control) -> Result<Option<Vec<Scored>>> {
        if query.history.is_empty() || query.k == 0 {
            return Ok(Some(Vec::new()));
        }
        let beam = beam.unwrap_or(self.config.beam);
        let lists = self.generated(&self.device, std::slice::from_ref(query), [beam, ROWS], control)?;
        Ok(lists.into_iter().next())
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.answer(&self.device, queries, ROWS, true, control)
    }

    fn recommend_on(&self, device: &Cuda, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.answer(device, queries, DEVICE_ROWS, false, control)
    }

    /// log p of the items' codes.
    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        check_known(self.ids.catalogue().len(), items)?;
        let states = self.one(query)?;
        let mut candidates = items.to_vec();
        candidates.sort_unstable();
        candidates.dedup();
        let trie = Trie::new(&self.ids, &Filter { exclude: &[], candidates: Some(&candidates) });
        let tries = std::slice::from_ref(&trie);
        let beams = self.search(&self.device, states, tries, [usize::MAX, ROWS], &Control::default())?;
        let scores: HashMap<u32, f32> =
            beams.iter().flat_map(|beams| trie.found(beams)).map(|found| (found.item, found.score)).collect();
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
        let mut states = self.one(query)?;
        check_known(self.ids.catalogue().len(), &[item])?;
        let trie = Trie::new(&self.ids, &Filter { exclude: &[], candidates: Some(&[item]) });
        let (mut levels, mut beams, mut code) = (Vec::new(), vec![trie.root()], 0);
        for level in 0..self.config.levels() {
            let told = self.told(&self.device, level, &states, &[code])?;
            let before = beams[0].score;
            beams = trie.follow(&beams, level, &told.logits, 1);
            // The item is one of those that may be found.
            code = beams[0].code;
            levels.push(json!({ "code": code, "probability": (beams[0].score - before).exp() }));
            states = told.states;
        }
        Ok(json!({ "levels": levels }))
    }
}
