//! Semantic IDs: items as short tuples of codes that are learnt from their vectors.
//!
//! [`residual`] and [`product`] learn codebooks of the vectors themselves, [`rq_vae`] and [`mixture`] of what a network
//! makes of them, learnt together with it; [`given`] takes codes that were learnt elsewhere; [`unique`] gives every item a code of its own, [`statistics`] says how
//! well both went.

mod encoder;
pub mod given;
#[cfg(test)]
mod gradient_tests;
mod learnt;
mod means;
pub mod mixture;
mod nearest;
mod network;
pub mod product;
mod quantizer;
pub mod residual;
pub mod rq_vae;
pub mod statistics;
pub mod unique;

pub use encoder::{Encoder, Layer, Network};
pub use learnt::{Decoder, Learnt};
pub use network::Training;
pub use quantizer::{Form, Quantizer};

use std::borrow::Cow;

use crate::{Error, Result};

/// Code words of a level at most: a code is two bytes.
pub const MOST_WORDS: usize = 1 << 16;

/// Levels at most: each is printed as a letter.
pub const MOST_LEVELS: usize = 26;

/// The first row of every level in a table of all code words, level after level, of so many each.
pub(crate) fn starts(sizes: &[usize]) -> Vec<u32> {
    sizes.iter().scan(0, |start, &size| Some(std::mem::replace(start, *start + size as u32))).collect()
}

/// Code words of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    /// How many code words there are.
    pub size: usize,
    /// Numbers of a code word.
    pub dim: usize,
    /// `[size, dim]`, row-major.
    pub words: Vec<f32>,
}

impl Codebook {
    /// Code words that say nothing of a vector: they only tell items apart.
    #[must_use]
    pub fn blank(size: usize, dim: usize) -> Self {
        Self { size, dim, words: vec![0.0; size * dim] }
    }

    /// Code word number `code`.
    #[must_use]
    pub fn word(&self, code: u16) -> &[f32] {
        &self.words[usize::from(code) * self.dim..][..self.dim]
    }

    /// Whether its words say nothing of a vector.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.words.iter().all(|&x| x == 0.0)
    }
}

/// Codes of items, level by level: `[items, levels]`, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes<'a> {
    /// Codes of an item.
    pub levels: usize,
    /// `[items, levels]`
    pub of: Cow<'a, [u16]>,
}

impl Codes<'_> {
    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.len() / self.levels.max(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The codes of one item.
    #[must_use]
    pub fn item(&self, item: usize) -> &[u16] {
        &self.of[item * self.levels..][..self.levels]
    }

    fn item_mut(&mut self, item: usize) -> &mut [u16] {
        &mut self.of.to_mut()[item * self.levels..][..self.levels]
    }

    /// Items in the order of their codes, those of the same code by ascending index.
    #[must_use]
    pub fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|&item| self.item(item as usize));
        order
    }
}

/// How codebooks are learnt.
#[derive(Debug, Clone)]
pub struct Options {
    /// Codes of an item.
    pub levels: usize,
    /// Code words of each level.
    pub size: usize,
    /// Iterations at most.
    pub iterations: usize,
    /// The same seed gives the same code words.
    pub seed: u64,
}

impl Options {
    /// Refuses what makes no codes of vectors of `dim` numbers.
    fn check(&self, vectors: &[f32], dim: usize) -> Result<()> {
        if vectors.is_empty() || dim == 0 {
            return Err(Error::Data("there are no item vectors to learn codes from".into()));
        }
        if !(1..=MOST_LEVELS).contains(&self.levels) {
            return Err(Error::Parameter(format!("levels is {}, not 1 to {MOST_LEVELS}", self.levels)));
        }
        if !(2..=MOST_WORDS).contains(&self.size) {
            return Err(Error::Parameter(format!("codes is {}, not 2 to {MOST_WORDS}", self.size)));
        }
        Ok(())
    }
}
