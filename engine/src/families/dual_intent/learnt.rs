//! What is learnt besides the network: vectors of items and words, and a number of each item.

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{AdamW, Optimizers};
use rayon::prelude::*;

use super::Params;
use crate::Result;
use crate::content::{Content, Projection};
use crate::random::SplitMix;

/// Numbers that one task steps.
const RANGE: usize = 1 << 15;
/// The deviation of vectors at first.
const DEVIATION: f32 = 0.1;

/// Numbers, and AdamW's means.
pub(super) struct Learnt {
    pub(super) weights: Vec<f32>,
    mean: Vec<f32>,
    squares: Vec<f32>,
}

impl Learnt {
    pub(super) fn new(weights: Vec<f32>) -> Self {
        Self { mean: vec![0.0; weights.len()], squares: vec![0.0; weights.len()], weights }
    }

    /// Rows at random.
    pub(super) fn random(len: usize, random: &mut SplitMix) -> Self {
        Self::new((0..len).map(|_| DEVIATION * random.truncated_normal()).collect())
    }

    pub(super) fn step(&mut self, adamw: &AdamW, gradient: &[f32]) {
        let states = self.mean.par_chunks_mut(RANGE).zip(self.squares.par_chunks_mut(RANGE));
        let numbers = self.weights.par_chunks_mut(RANGE).zip(gradient.par_chunks(RANGE));
        numbers.zip(states).for_each(|((weights, gradient), (mean, squares))| {
            Cpu::new().adamw(adamw, weights, gradient, 1.0, mean, squares);
        });
    }
}

/// The part of items' vectors that is their content's.
pub(super) struct ByContent<'a> {
    projection: Projection<'a>,
    rate: f64,
    decay: f64,
}

impl<'a> ByContent<'a> {
    /// A projection at random, as large as the vectors are, which begin as it.
    pub(super) fn new(
        params: &Params,
        content: &'a Content,
        counts: &[f32],
        items: &mut Learnt,
        seed: u64,
    ) -> Result<Self> {
        let projection = Projection::new(content, counts, params.dim, DEVIATION, seed);
        put(&mut items.weights, params.dim, projection.learnt(), &projection.of(projection.learnt())?);
        Ok(Self { projection, rate: params.learning_rate * params.content_rate, decay: params.weight_decay })
    }

    /// One step, given the derivative by the vectors, which are moved along.
    pub(super) fn step(&mut self, items: &mut [f32], gradient: &[f32], dim: usize) -> Result<()> {
        let all: Vec<u32> = (0..(items.len() / dim) as u32).collect();
        self.projection.step(self.rate, self.decay, &all, |at| &gradient[at * dim..][..dim])?;
        self.projection.move_rows(items)
    }

    /// Puts items that nobody has touched where their content places them.
    pub(super) fn complete(&self, items: &mut [f32], dim: usize) -> Result<()> {
        let cold = self.projection.cold();
        put(items, dim, cold, &self.projection.of(cold)?);
        Ok(())
    }
}

fn put(rows: &mut [f32], dim: usize, items: &[u32], places: &[f32]) {
    for (&item, place) in items.iter().zip(places.chunks_exact(dim)) {
        rows[item as usize * dim..][..dim].copy_from_slice(place);
    }
}
