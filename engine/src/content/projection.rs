//! Content projected into the space of item vectors: row = what is learnt of the item alone + x·W, of a vector x and of
//! attributes with their weights.
//!
//! The table of item vectors holds the sums. Its derivative is that of both parts, so the optimiser steps the table as if it
//! were the first part, and what W's step moves is added to all rows.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, AdamW, Backward, Linear, Operators, Optimizers, Tensor};
use rayon::prelude::*;

use super::{Content, Way};
use crate::Result;
use crate::random::SplitMix;

/// Items that one task projects at a time.
const ROWS: usize = 512;

/// A projection that is learnt.
pub(crate) struct Projection<'a> {
    content: &'a Content,
    dim: usize,
    /// `[numbers of a vector, dim]`
    vectors: Part,
    /// `[attributes, dim]`
    words: Part,
    /// Items with content and events: those that it is learnt from. Ascending.
    learnt: Vec<u32>,
    /// Items with content alone, ascending.
    cold: Vec<u32>,
    step: u64,
}

/// A matrix, AdamW's means of its derivative, and what it was when rows were last moved.
struct Part {
    weights: Vec<f32>,
    mean: Vec<f32>,
    squares: Vec<f32>,
    before: Vec<f32>,
}

impl Part {
    /// Normally distributed numbers.
    fn new(len: usize, deviation: f32, random: &mut SplitMix) -> Self {
        let weights: Vec<f32> = (0..len).map(|_| deviation * random.truncated_normal()).collect();
        Self { mean: vec![0.0; len], squares: vec![0.0; len], before: weights.clone(), weights }
    }

    fn step(&mut self, adamw: &AdamW, gradient: &[f32]) {
        const RANGE: usize = 1 << 15;
        let states = self.mean.par_chunks_mut(RANGE).zip(self.squares.par_chunks_mut(RANGE));
        let numbers = self.weights.par_chunks_mut(RANGE).zip(gradient.par_chunks(RANGE));
        numbers.zip(states).for_each(|((weights, gradient), (mean, squares))| {
            Cpu::new().adamw(adamw, weights, gradient, 1.0, mean, squares);
        });
    }

    /// What it has changed by since this was last asked.
    fn change(&mut self) -> Vec<f32> {
        let change = self.weights.iter().zip(&self.before).map(|(now, before)| now - before).collect();
        self.before.copy_from_slice(&self.weights);
        change
    }
}

impl<'a> Projection<'a> {
    /// One that projects at random, to numbers with this deviation; `counts` says how often each item was touched.
    pub(crate) fn new(content: &'a Content, counts: &[f32], dim: usize, deviation: f32, seed: u64) -> Self {
        let numbers = content.vectors.as_ref().map_or(0, |vectors| vectors.dim);
        let words = content.words.as_ref().map_or(0, |words| words.count());
        let (learnt, cold) = content.parted(counts);
        // Vectors and weights of attributes have length 1.
        let mut random = SplitMix::new(seed);
        let mut part = |rows: usize| Part::new(rows * dim, deviation, &mut random);
        let (vectors, words) = (part(numbers), part(words));
        Self { content, dim, vectors, words, learnt, cold, step: 0 }
    }

    /// Items that nobody has touched and whose content is known.
    pub(crate) fn cold(&self) -> &[u32] {
        &self.cold
    }

    /// Items that it is learnt from.
    pub(crate) fn learnt(&self) -> &[u32] {
        &self.learnt
    }

    /// One step of AdamW, given the derivative of the loss by rows of some items, those it is not learnt from passed over.
    pub(crate) fn step<'g>(
        &mut self,
        rate: f64,
        decay: f64,
        items: &[u32],
        gradient: impl Fn(usize) -> &'g [f32] + Sync,
    ) -> Result<()> {
        let of = |&place: &usize| self.learnt.binary_search(&items[place]).is_ok();
        let places: Vec<usize> = (0..items.len()).filter(of).collect();
        let (vectors, words) = self.derivative(items, &places, gradient)?;
        self.step += 1;
        let (rate, decay) = (rate as f32, decay as f32);
        let adamw = AdamW { rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay, step: self.step };
        self.vectors.step(&adamw, &vectors);
        self.words.step(&adamw, &words);
        Ok(())
    }

    /// The derivative by both parts.
    fn derivative<'g>(
        &self,
        items: &[u32],
        places: &[usize],
        gradient: impl Fn(usize) -> &'g [f32] + Sync,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let (content, dim) = (self.content, self.dim);
        let mut of_vectors = vec![0.0; self.vectors.weights.len()];
        if let Some(vectors) = &content.vectors {
            let layer = self.layer(&self.vectors.weights, vectors.dim)?;
            let part = |places: &[usize]| {
                let cpu = Cpu::new();
                let x: Vec<f32> = places.iter().flat_map(|&at| vectors.row(items[at] as usize)).copied().collect();
                let dy: Vec<f32> = places.iter().flat_map(|&at| gradient(at)).copied().collect();
                let mut dweight = cpu.zeros(vectors.dim, dim);
                let (x, dy) = (Matrix::from_slice(&x, vectors.dim), Matrix::from_slice(&dy, dim));
                cpu.linear_backward(&x, &layer, &dy, &mut dweight, None);
                dweight
            };
            let parts: Vec<Matrix> = places.par_chunks(ROWS).map(part).collect();
            parts.iter().for_each(|part| Cpu::new().accumulate(&mut of_vectors, part.as_slice()));
        }
        let mut of_words = vec![0.0; self.words.weights.len()];
        if let Some(words) = &content.words {
            for &at in places {
                let (tokens, weights) = words.of(items[at] as usize);
                for (&token, &by) in tokens.iter().zip(weights) {
                    let sum = &mut of_words[token as usize * dim..][..dim];
                    sum.iter_mut().zip(gradient(at)).for_each(|(sum, x)| *sum += by * x);
                }
            }
        }
        Ok((of_vectors, of_words))
    }

    fn layer(&self, weights: &[f32], inputs: usize) -> Result<Linear> {
        Ok(Linear { weight: Tensor::from_vec(weights.to_vec(), vec![inputs, self.dim])?, bias: None })
    }

    /// Moves the rows of all items it is learnt from by what the steps since the last call have changed.
    pub(crate) fn move_rows(&mut self, table: &mut [f32]) -> Result<()> {
        let (vectors, words) = (self.vectors.change(), self.words.change());
        let dim = self.dim;
        let moved = self.projected(&self.learnt, &vectors, &words)?;
        for (&item, by) in self.learnt.iter().zip(moved.chunks_exact(dim)) {
            table[item as usize * dim..][..dim].iter_mut().zip(by).for_each(|(x, by)| *x += by);
        }
        Ok(())
    }

    /// x·W of some items, `[items, dim]`.
    pub(crate) fn of(&self, items: &[u32]) -> Result<Vec<f32>> {
        self.projected(items, &self.vectors.weights, &self.words.weights)
    }

    /// The projection as it is now, for a model to keep.
    pub(crate) fn way(&self) -> Result<Way> {
        let table = |weights: &[f32]| Tensor::from_vec(weights.to_vec(), vec![weights.len() / self.dim, self.dim]);
        let vectors = match &self.content.vectors {
            Some(known) => Some(self.layer(&self.vectors.weights, known.dim)?),
            None => None,
        };
        let words = self.content.words.as_ref().map(|_| table(&self.words.weights)).transpose()?;
        Ok(Way::new(self.content, vectors, words, None, 0.0))
    }

    fn projected(&self, items: &[u32], vectors: &[f32], words: &[f32]) -> Result<Vec<f32>> {
        let (content, dim) = (self.content, self.dim);
        let layer = match &content.vectors {
            Some(known) => Some((known, self.layer(vectors, known.dim)?)),
            None => None,
        };
        let part = |items: &[u32]| {
            let mut rows = match &layer {
                Some((known, layer)) => {
                    let x: Vec<f32> = items.iter().flat_map(|&item| known.row(item as usize)).copied().collect();
                    let x = Matrix::from_slice(&x, known.dim);
                    Cpu::new().linear(&x, layer, Activation::Identity).as_slice().to_vec()
                }
                None => vec![0.0; items.len() * dim],
            };
            if let Some(known) = &content.words {
                for (row, &item) in rows.chunks_exact_mut(dim).zip(items) {
                    let (tokens, weights) = known.of(item as usize);
                    for (&token, &by) in tokens.iter().zip(weights) {
                        let word = &words[token as usize * dim..][..dim];
                        row.iter_mut().zip(word).for_each(|(x, word)| *x += by * word);
                    }
                }
            }
            rows
        };
        Ok(items.par_chunks(ROWS).map(part).collect::<Vec<_>>().concat())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::content::Use;
    use crate::testing;

    const DIM: usize = 3;

    fn counts(corpus: &crate::Corpus) -> Vec<f32> {
        corpus.counts().into_iter().map(|count| count as f32).collect()
    }

    #[test]
    fn the_derivative_is_that_of_what_is_projected() {
        let seed = testing::fresh_seed();
        let corpus = testing::random_corpus(seed, 40, 700);
        let mut random = SplitMix::new(seed);
        for wanted in [Use::Embedding, Use::Attributes, Use::Both] {
            let content = Content::of(&corpus, wanted).unwrap().unwrap();
            let mut projection = Projection::new(&content, &counts(&corpus), DIM, 0.5, seed);
            assert!(!projection.learnt.is_empty() && !projection.cold.is_empty());
            // Some items, in no order, cold ones and unknown ones among them.
            let mut items: Vec<u32> = (0..700).collect();
            random.shuffle(&mut items);
            items.truncate(600);
            let dy: Vec<f32> = (0..items.len() * DIM).map(|_| random.truncated_normal()).collect();
            let learnt: Vec<usize> =
                (0..items.len()).filter(|&at| projection.learnt.binary_search(&items[at]).is_ok()).collect();
            let row = |at: usize| &dy[at * DIM..][..DIM];
            let (vectors, words) = projection.derivative(&items, &learnt, row).unwrap();
            // The projection is linear: a difference of any length is the derivative.
            let loss = |projection: &Projection<'_>| -> f64 {
                let of: Vec<u32> = learnt.iter().map(|&at| items[at]).collect();
                let placed = projection.of(&of).unwrap();
                let products = placed.chunks(DIM).zip(&learnt).flat_map(|(x, &at)| x.iter().zip(row(at)));
                products.map(|(x, dy)| f64::from(*x) * f64::from(*dy)).sum()
            };
            for (of_words, derivative) in [(false, vectors), (true, words)] {
                for (place, found) in derivative.into_iter().enumerate() {
                    let before = loss(&projection);
                    let part = if of_words { &mut projection.words } else { &mut projection.vectors };
                    part.weights[place] += 1.0;
                    let right = loss(&projection) - before;
                    let part = if of_words { &mut projection.words } else { &mut projection.vectors };
                    part.weights[place] -= 1.0;
                    assert!(
                        (f64::from(found) - right).abs() < 1e-3 * (1.0 + right.abs()),
                        "{wanted:?} {found} {right}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_move_with_their_projection_and_cold_ones_have_nothing_else() {
        let seed = testing::fresh_seed();
        let corpus = testing::random_corpus(seed, 40, 60);
        let mut random = SplitMix::new(seed);
        let content = Content::of(&corpus, Use::Both).unwrap().unwrap();
        let mut projection = Projection::new(&content, &counts(&corpus), DIM, 0.5, seed);
        let mut table: Vec<f32> = (0..60 * DIM).map(|_| random.truncated_normal()).collect();
        let own = |table: &[f32], projection: &Projection<'_>| -> Vec<f32> {
            let placed = projection.of(&projection.learnt).unwrap();
            let rows = projection.learnt.iter().flat_map(|&item| &table[item as usize * DIM..][..DIM]);
            rows.zip(&placed).map(|(x, place)| x - place).collect()
        };
        let (before, start) = (own(&table, &projection), table.clone());
        let all: Vec<u32> = (0..60).collect();
        for step in 1..=7 {
            let dy: Vec<f32> = (0..60 * DIM).map(|_| random.truncated_normal()).collect();
            projection.step(0.1, 0.0, &all, |at| &dy[at * DIM..][..DIM]).unwrap();
            if step % 2 == 0 || step == 7 {
                projection.move_rows(&mut table).unwrap();
            }
        }
        let after = own(&table, &projection);
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-4));
        let moved = |item: u32| table[item as usize * DIM..][..DIM] != start[item as usize * DIM..][..DIM];
        assert!(projection.learnt().iter().all(|&item| moved(item)));
        assert!(projection.cold().iter().all(|&item| !moved(item)));
    }
}
