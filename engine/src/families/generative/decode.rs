//! From a history's vector to items: by a beam search, or by the scores of all.

use std::collections::BTreeSet;

use pgrec_kernels::{Activation, Device, Linear, Sequences, Tensor};

use super::Generative;
use super::config::Config;
use super::search::{Beam, Logits, Walk, log_sum};
use crate::train::Order;
use crate::{Control, Result};

/// Code words as what codes are told by.
pub(super) struct Words {
    /// Of all code words, or of every level's; transposed, of length 1 where they are told by cosines, over τ.
    heads: Vec<Linear>,
    /// The first row of every level in the table of code words.
    pub(super) starts: Vec<u32>,
}

/// How wide a search is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Width {
    /// Beams that are kept for each query.
    pub(super) beams: usize,
    /// Beams of all queries that are told together.
    pub(super) rows: usize,
}

/// What is told of beams, a row each.
#[derive(Default)]
struct Told {
    /// What codes are told from.
    states: Vec<f32>,
    logits: Vec<f32>,
}

impl Words {
    /// `words` are the vectors of all code words.
    pub(super) fn new(config: &Config, words: &Tensor) -> Result<Self> {
        let sizes = &config.codes.sizes;
        let starts = sizes.iter().scan(0, |start, &size| Some(std::mem::replace(start, *start + size as u32)));
        let starts: Vec<u32> = starts.collect();
        let dim = words.cols();
        let scale = |row: &[f32]| {
            let length = if config.body.normalized { row.iter().map(|x| x * x).sum::<f32>().sqrt() } else { 1.0 };
            1.0 / (config.temperature as f32 * length.max(1e-12))
        };
        let head = |first: usize, size: usize| -> Result<Linear> {
            let rows = words.as_slice()[first * dim..(first + size) * dim].chunks_exact(dim);
            let mut values = vec![0.0; dim * size];
            for (column, row) in rows.enumerate() {
                let scale = scale(row);
                row.iter().enumerate().for_each(|(at, x)| values[at * size + column] = x * scale);
            }
            Ok(Linear { weight: Tensor::from_vec(values, vec![dim, size])?, bias: None })
        };
        let heads = match config.order {
            Order::Levels => {
                starts.iter().zip(sizes).map(|(&first, &size)| head(first as usize, size)).collect::<Result<_>>()?
            }
            Order::Confidence | Order::Together => vec![head(0, sizes.iter().sum())?],
        };
        Ok(Self { heads, starts })
    }

    /// The code word of a step's first logit.
    fn first(&self, step: usize) -> u32 {
        if self.heads.len() > 1 { self.starts[step] } else { 0 }
    }

    fn of_step(&self, step: usize) -> &Linear {
        self.heads.get(step).unwrap_or(&self.heads[0])
    }
}

impl Generative {
    /// What is told in a step of states and the codes that were chosen there, in none before the first.
    fn told(&self, device: &impl Device, step: usize, states: &[f32], chosen: &[(u32, u32)]) -> Result<Told> {
        let mut state = device.upload(states, self.config.body.dim)?;
        let mut next = None;
        if step > 0 {
            let (levels, rows): (Vec<u32>, Vec<u32>) = chosen.iter().copied().unzip();
            let offsets: Vec<usize> = (0..=rows.len()).collect();
            let batch = Sequences { items: &rows, positions: &levels, offsets: &offsets, ..Sequences::default() };
            state = self.network.chosen(&self.config, device, state, &batch);
            next = Some(device.download(&state)?);
        }
        let told = self.network.told(&self.config, device, &state, &Sequences::default());
        let head = self.words.of_step(step);
        let logits = device.download(&device.linear(&told, head, Activation::Identity))?;
        Ok(Told { states: next.unwrap_or_else(|| states.to_vec()), logits })
    }

    /// Searches each query's walk from its state (`[queries, dim]`), and shows `watch` the beams of every query after
    /// every step.
    pub(super) fn search<W: Walk>(
        &self,
        device: &impl Device,
        states: Vec<f32>,
        walks: &[W],
        width: Width,
        control: &Control,
        mut watch: impl FnMut(&[Vec<W::Beam>]),
    ) -> Result<Vec<Vec<W::Beam>>> {
        let dim = self.config.body.dim;
        let mut beams: Vec<Vec<W::Beam>> = walks.iter().map(Walk::roots).collect();
        // Of every beam that asks: the state that its last code was chosen by, and that code.
        let (mut parents, mut chosen) = (Vec::new(), Vec::new());
        for (state, beams) in states.chunks_exact(dim).zip(&beams) {
            for beam in beams.iter().filter(|beam| beam.asks()) {
                parents.extend_from_slice(state);
                chosen.push(beam.chosen());
            }
        }
        for step in 0..self.config.levels() {
            if chosen.is_empty() {
                break;
            }
            let mut told = Told::default();
            for (parents, chosen) in parents.chunks(width.rows * dim).zip(chosen.chunks(width.rows)) {
                control.check()?;
                let more = self.told(device, step, parents, chosen)?;
                told.states.extend(more.states);
                told.logits.extend(more.logits);
            }
            let cols = told.logits.len() / chosen.len();
            let mut first = 0;
            (parents, chosen) = (Vec::new(), Vec::new());
            for (walk, beams) in walks.iter().zip(&mut beams) {
                let asking = beams.iter().filter(|beam| beam.asks()).count();
                let values = &told.logits[first * cols..(first + asking) * cols];
                let logits = Logits { values, cols, first: self.words.first(step) };
                *beams = walk.follow(std::mem::take(beams), &logits, width.beams);
                for beam in beams.iter().filter(|beam| beam.asks()) {
                    parents.extend_from_slice(&told.states[(first + beam.parent()) * dim..][..dim]);
                    chosen.push(beam.chosen());
                }
                first += asking;
            }
            watch(&beams);
        }
        Ok(beams)
    }

    /// log p of all items of each query where codes are told at once: their logits' sums, so that the items' shares sum
    /// up to 1. `[queries, items]`
    pub(super) fn scores(&self, device: &impl Device, states: &[f32]) -> Result<Vec<f32>> {
        let told = self.told(device, 0, states, &[])?;
        let codes = self.ids.codes();
        let of_query = |logits: &[f32]| {
            let score = |code: &[u16]| -> f32 {
                code.iter()
                    .zip(&self.words.starts)
                    .map(|(&code, &start)| logits[(start + u32::from(code)) as usize])
                    .sum()
            };
            let mut scores: Vec<f32> = codes.of.chunks_exact(codes.levels).map(score).collect();
            let shift = log_sum(scores.iter().copied());
            scores.iter_mut().for_each(|score| *score -= shift);
            scores
        };
        let words = self.config.codes.sizes.iter().sum::<usize>();
        Ok(told.logits.chunks_exact(words.max(1)).flat_map(of_query).collect())
    }

    /// The shares of an item's codes among those that some item has on a level, where codes are told at once.
    pub(super) fn shares(&self, device: &impl Device, state: &[f32], item: u32) -> Result<Vec<f32>> {
        let logits = self.told(device, 0, state, &[])?.logits;
        let (codes, own) = (self.ids.codes(), self.ids.code(item));
        let share = |level: usize| {
            let logit = |code: u16| logits[(self.words.starts[level] + u32::from(code)) as usize];
            let words: BTreeSet<u16> = codes.of.iter().skip(level).step_by(codes.levels).copied().collect();
            (logit(own[level]) - log_sum(words.iter().map(|&word| logit(word)))).exp()
        };
        Ok((0..own.len()).map(share).collect())
    }
}
