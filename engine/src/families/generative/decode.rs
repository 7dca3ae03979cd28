//! From a history's vector to items: by a beam search, or by the scores of all.

use std::collections::BTreeSet;

use pgrec_kernels::{Activation, Device, Linear, Sequences, Tensor};
use rayon::prelude::*;

use super::Generative;
use super::config::Config;
use super::search::{Beam, Search, Walk, log_sum};
use crate::codes::starts;
use crate::families::sequential::unit_rows;
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
    /// Of those, how many of a query are told before it is seen what the others are still needed for.
    pub(super) together: usize,
    /// Beams of all queries that are told together, at most.
    pub(super) rows: usize,
    /// Whether queries go on beside each other: where a device tells the beams of thousands, one thread that looks at what
    /// follows takes longer than the device.
    pub(super) beside: bool,
}

/// Does something with each, beside each other or one after the other.
fn each<T: Send>(beside: bool, all: impl Iterator<Item = T>, work: impl Fn(T) + Send + Sync) {
    match beside {
        true => all.collect::<Vec<_>>().into_par_iter().for_each(work),
        false => all.for_each(work),
    }
}

impl Words {
    /// `words` are the vectors of all code words.
    pub(super) fn new(config: &Config, words: &Tensor) -> Result<Self> {
        let (sizes, dim) = (&config.codes.sizes, words.cols());
        let starts = starts(sizes);
        let words = match config.body.normalized {
            true => unit_rows(words.as_slice(), dim),
            false => words.as_slice().to_vec(),
        };
        let head = |first: usize, size: usize| -> Result<Linear> {
            let rows = words[first * dim..(first + size) * dim].chunks_exact(dim);
            let mut values = vec![0.0; dim * size];
            for (column, row) in rows.enumerate() {
                row.iter().enumerate().for_each(|(at, x)| values[at * size + column] = x / config.temperature as f32);
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
    /// The logits that are told in a step of states and the codes that were chosen there, in none before the first, a row
    /// each; adds what they are told from to `from`.
    fn told<D: Device>(
        &self,
        device: &D,
        step: usize,
        states: &[f32],
        chosen: &[(u32, u32)],
        from: &mut Vec<f32>,
    ) -> Result<D::Matrix> {
        let mut state = device.upload(states, self.config.body.dim)?;
        if step > 0 {
            let (levels, rows): (Vec<u32>, Vec<u32>) = chosen.iter().copied().unzip();
            let offsets: Vec<usize> = (0..=rows.len()).collect();
            let batch = Sequences { items: &rows, positions: &levels, offsets: &offsets, ..Sequences::default() };
            state = self.network.chosen(&self.config, device, state, &batch);
            from.extend_from_slice(&device.download(&state)?);
        } else {
            from.extend_from_slice(states);
        }
        let told = self.network.told(&self.config, device, &state, &Sequences::default());
        Ok(device.linear(&told, self.words.of_step(step), Activation::Identity))
    }

    /// Searches each query's walk from its state (`[queries, dim]`) for as many items as it wants, and shows `watch` the
    /// searches after every step.
    pub(super) fn search<'w, W: Walk>(
        &self,
        device: &impl Device,
        states: &[f32],
        (walks, wanted): (&'w [W], &[usize]),
        width: Width,
        control: &Control,
        mut watch: impl FnMut(&[Search<'w, W>]),
    ) -> Result<Vec<Search<'w, W>>> {
        let dim = self.config.body.dim;
        let mut searches: Vec<Search<'_, W>> =
            walks.iter().zip(wanted).map(|(walk, &wanted)| Search::new(walk, width.beams, wanted)).collect();
        // Of every beam that asks the state that its last code was chosen by, one search after the other.
        let mut parents: Vec<Vec<f32>> = states.chunks_exact(dim).map(<[f32]>::to_vec).collect();
        for step in 0..self.config.levels() {
            let mut told = Vec::new();
            while searches.iter().any(Search::is_due) {
                self.round(device, step, (&mut searches, &parents), width, control, &mut told)?;
            }
            each(width.beside, searches.iter_mut().zip(&mut parents), |(search, parents)| {
                parents.clear();
                search.step().iter().for_each(|beam| parents.extend_from_slice(&told[beam.parent() * dim..][..dim]));
            });
            watch(&searches);
            if parents.iter().all(Vec::is_empty) {
                break;
            }
        }
        Ok(searches)
    }

    /// Tells every search's next beams, and adds what they are told from to `told`.
    fn round<W: Walk>(
        &self,
        device: &impl Device,
        step: usize,
        (searches, parents): (&mut [Search<'_, W>], &[Vec<f32>]),
        width: Width,
        control: &Control,
        told: &mut Vec<f32>,
    ) -> Result<()> {
        let (dim, first) = (self.config.body.dim, self.words.first(step));
        let (mut states, mut chosen, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (search, parents) in searches.iter().zip(parents) {
            let due = search.due(width.together);
            let start = search.told() * dim;
            states.extend_from_slice(&parents[start..start + due.len() * dim]);
            chosen.extend(due.iter().map(Beam::chosen));
            ends.push(chosen.len());
        }
        let (before, mut parts) = (told.len() / dim, Vec::new());
        for (states, chosen) in states.chunks(width.rows * dim).zip(chosen.chunks(width.rows)) {
            control.check()?;
            parts.push(self.told(device, step, states, chosen, told)?);
        }
        let logits = parts.iter().map(|part| Ok(device.download(part)?)).collect::<Result<Vec<_>>>()?;
        let words = logits.iter().map(|part| part.len()).sum::<usize>() / chosen.len().max(1);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        each(width.beside, searches.iter_mut().zip(starts.zip(ends.iter().copied())), |(search, (start, end))| {
            for row in start..end {
                let logits = &logits[row / width.rows][row % width.rows * words..][..words];
                search.tell(|word| logits[(word - first) as usize], before + row);
            }
            search.settle();
        });
        Ok(())
    }

    /// The logits of all code words for each query, where codes are told at once: `[queries, words]`.
    pub(super) fn logits(&self, device: &impl Device, states: &[f32]) -> Result<Vec<f32>> {
        let logits = self.told(device, 0, states, &[], &mut Vec::new())?;
        Ok(device.download(&logits)?.into_owned())
    }

    /// log p of all items by the logits of a query: of their sums, so that the items' shares sum up to 1.
    pub(super) fn scores(&self, logits: &[f32]) -> Vec<f32> {
        let (codes, starts) = (self.ids.codes(), &self.words.starts);
        let score = |code: &[u16]| -> f32 {
            code.iter().zip(starts).map(|(&code, &start)| logits[(start + u32::from(code)) as usize]).sum()
        };
        let mut scores: Vec<f32> = codes.of.chunks_exact(codes.levels).map(score).collect();
        let shift = log_sum(&scores);
        scores.iter_mut().for_each(|score| *score -= shift);
        scores
    }

    /// The shares of an item's codes among those that some item has on a level, where codes are told at once.
    pub(super) fn shares(&self, device: &impl Device, state: &[f32], item: u32) -> Result<Vec<f32>> {
        let logits = self.logits(device, state)?;
        let (codes, own) = (self.ids.codes(), self.ids.code(item));
        let share = |level: usize| {
            let logit = |code: u16| logits[(self.words.starts[level] + u32::from(code)) as usize];
            let words: BTreeSet<u16> = codes.of.iter().skip(level).step_by(codes.levels).copied().collect();
            let logits: Vec<f32> = words.iter().map(|&word| logit(word)).collect();
            (logit(own[level]) - log_sum(&logits)).exp()
        };
        Ok((0..own.len()).map(share).collect())
    }
}
