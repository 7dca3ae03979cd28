//! Serving: histories in, the items whose codes are most likely to follow out.

use std::collections::HashMap;

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Filter, Linear, Operators, Rows, Scored, Sequences, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::NAME;
use super::config::{Config, head};
use super::network::Network;
use super::search::{Beam, Trie, log_softmax};
use crate::families::Model;
use crate::families::semantic_ids::SemanticIds;
use crate::families::sequential::{Architecture, check_known};
use crate::train::Parameters;
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

/// Beams that are told together at most: what their matrices take stays in a core's caches.
const ROWS: usize = 512;

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

    /// One vector a history.
    fn states(&self, queries: &[Query<'_>]) -> Result<Matrix> {
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
        Ok(self.network.encode(&self.config, &self.device, &batch, &coded, Rows::Last))
    }

    /// log p of all codes of a level after each state, `[states, size]`.
    fn log_shares(&self, states: &Matrix, level: usize) -> Vec<f32> {
        let nothing = Sequences::default();
        let size = self.config.codes.sizes[level];
        let chunks: Vec<Vec<f32>> = states
            .as_slice()
            .chunks(ROWS * states.cols())
            .map(|rows| {
                let rows = Matrix::from_slice(rows, states.cols());
                let told = self.network.told(&self.config, &self.device, &rows, &nothing);
                let logits = self.device.linear(&told, &self.heads[level], Activation::Identity);
                let mut logits = logits.as_slice().to_vec();
                log_softmax(&mut logits, size);
                logits
            })
            .collect();
        chunks.concat()
    }

    /// Searches with so many beams for each query, among its trie's items. Gives the beams of the last level, best first.
    fn search(&self, states: &Matrix, tries: &[Trie<'_>], width: usize, control: &Control) -> Result<Vec<Vec<Beam>>> {
        let levels = self.config.levels();
        let mut beams: Vec<Vec<Beam>> = tries.iter().map(|trie| vec![trie.root()]).collect();
        let mut states = Matrix::from_slice(states.as_slice(), states.cols());
        for level in 0..levels {
            control.check()?;
            let log_shares = self.log_shares(&states, level);
            let size = self.config.codes.sizes[level];
            let mut first = 0;
            let (mut parents, mut rows) = (Vec::new(), Vec::new());
            for (trie, beams) in tries.iter().zip(&mut beams) {
                let own = &log_shares[first * size..(first + beams.len()) * size];
                let next = trie.follow(beams, level, own, width);
                for beam in &next {
                    parents.extend_from_slice(states.row(first + beam.parent));
                    rows.push(self.starts[level] + u32::from(beam.code));
                }
                first += beams.len();
                *beams = next;
            }
            if level + 1 < levels {
                let positions = vec![level as u32; rows.len()];
                let offsets: Vec<usize> = (0..=rows.len()).collect();
                let chosen =
                    Sequences { items: &rows, positions: &positions, offsets: &offsets, ..Sequences::default() };
                let parents = Matrix::from_slice(&parents, states.cols());
                states = self.network.chosen(&self.config, &self.device, &parents, &chosen);
            }
        }
        Ok(beams)
    }

    /// The best items of each query by so many beams, at least as many as it wants.
    fn generated(&self, queries: &[Query<'_>], beam: usize, control: &Control) -> Result<Vec<Vec<Scored>>> {
        let states = self.states(queries)?;
        let tries: Vec<Trie<'_>> = queries.iter().map(|query| Trie::new(&self.ids, &query.filter)).collect();
        let width = queries.iter().map(|query| query.k).max().unwrap_or(0).max(beam);
        let beams = self.search(&states, &tries, width, control)?;
        let found = beams.iter().zip(&tries).zip(queries).map(|((beams, trie), query)| {
            let mut found = trie.found(beams);
            found.truncate(query.k);
            found
        });
        Ok(found.collect())
    }

    fn one(&self, query: &Query<'_>) -> Result<Matrix> {
        if query.history.is_empty() {
            return Err(Error::Data("the history holds no item that the model knows".into()));
        }
        self.states(std::slice::from_ref(query))
    }
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
        let lists = self.generated(std::slice::from_ref(query), beam.unwrap_or(self.config.beam), control)?;
        Ok(lists.into_iter().next())
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let mut lists = vec![Vec::new(); queries.len()];
        let asked: Vec<usize> =
            (0..queries.len()).filter(|&q| queries[q].k > 0 && !queries[q].history.is_empty()).collect();
        let slice = (ROWS / self.config.beam).max(1);
        let answer = |asked: &[usize]| -> Result<Vec<(usize, Vec<Scored>)>> {
            let queries: Vec<Query<'_>> = asked.iter().map(|&q| queries[q]).collect();
            let lists = self.generated(&queries, self.config.beam, control)?;
            Ok(asked.iter().copied().zip(lists).collect())
        };
        // A session's call for one user is computed on its own thread, and starts no others.
        let parts = match asked.len() {
            0 => Vec::new(),
            few if few <= slice => answer(&asked)?,
            _ => asked.par_chunks(slice).map(answer).collect::<Result<Vec<_>>>()?.concat(),
        };
        parts.into_iter().for_each(|(query, list)| lists[query] = list);
        Ok(lists)
    }

    /// log p of the items' codes.
    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        check_known(self.ids.catalogue().len(), items)?;
        let states = self.one(query)?;
        let mut candidates = items.to_vec();
        candidates.sort_unstable();
        candidates.dedup();
        let trie = Trie::new(&self.ids, &Filter { exclude: &[], candidates: Some(&candidates) });
        let beams = self.search(&states, std::slice::from_ref(&trie), usize::MAX, &Control::default())?;
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
        Ok(self.one(query)?.as_slice().to_vec())
    }

    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let states = self.one(query)?;
        check_known(self.ids.catalogue().len(), &[item])?;
        let trie = Trie::new(&self.ids, &Filter { exclude: &[], candidates: Some(&[item]) });
        let mut levels = Vec::new();
        let mut beams = vec![trie.root()];
        let mut state = Matrix::from_slice(states.as_slice(), states.cols());
        for level in 0..self.config.levels() {
            let shares = self.log_shares(&state, level);
            let next = trie.follow(&beams, level, &shares, 1);
            let code = next.first().map_or(0, |beam| beam.code);
            levels.push(json!({ "code": code, "probability": shares[usize::from(code)].exp() }));
            if level + 1 < self.config.levels() {
                let rows = [self.starts[level] + u32::from(code)];
                let chosen =
                    Sequences { items: &rows, positions: &[level as u32], offsets: &[0, 1], ..Sequences::default() };
                state = self.network.chosen(&self.config, &self.device, &state, &chosen);
            }
            beams = next;
        }
        Ok(json!({ "levels": levels }))
    }
}
