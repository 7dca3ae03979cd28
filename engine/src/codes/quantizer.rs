//! Codebooks and how they make a vector together.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::nearest::{nearest, squared};
use super::{Codebook, Codes};
use crate::{Control, Result};

/// How the code words of an item make its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Their sum: each level codes what the levels before have left.
    Residual,
    /// One after the other: each level codes a part of its own.
    Parallel,
}

/// Codebooks of all levels.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantizer {
    /// How they make a vector.
    pub form: Form,
    /// One a level.
    pub codebooks: Vec<Codebook>,
}

impl Quantizer {
    /// Codes of an item.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.codebooks.len()
    }

    /// Code words of every level.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.codebooks.iter().map(|codebook| codebook.size).collect()
    }

    /// How many codes there are.
    #[must_use]
    pub fn room(&self) -> u128 {
        self.codebooks.iter().fold(1, |product, codebook| product.saturating_mul(codebook.size as u128))
    }

    /// Numbers of a vector that is coded.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self.form {
            Form::Residual => self.codebooks.first().map_or(0, |codebook| codebook.dim),
            Form::Parallel => self.codebooks.iter().map(|codebook| codebook.dim).sum(),
        }
    }

    /// The vector that a code, or the beginning of one, stands for.
    #[must_use]
    pub fn decode(&self, code: &[u16]) -> Vec<f32> {
        let mut vector = vec![0.0; self.dim()];
        let mut start = 0;
        for (codebook, &code) in self.codebooks.iter().zip(code) {
            vector[start..].iter_mut().zip(codebook.word(code)).for_each(|(x, word)| *x += word);
            start += if self.form == Form::Parallel { codebook.dim } else { 0 };
        }
        vector
    }

    /// Squared distance of a vector to what its code stands for.
    #[must_use]
    pub fn error(&self, vector: &[f32], code: &[u16]) -> f32 {
        self.decode(code).iter().zip(vector).map(|(word, x)| (x - word) * (x - word)).sum()
    }

    /// What the level after `prefix` has to code of a vector.
    fn rest<'a>(&self, vector: &'a [f32], prefix: &[u16]) -> Cow<'a, [f32]> {
        match self.form {
            Form::Residual => self.decode(prefix).iter().zip(vector).map(|(word, x)| x - word).collect(),
            Form::Parallel => {
                let start = self.codebooks[..prefix.len()].iter().map(|codebook| codebook.dim).sum();
                Cow::Borrowed(&vector[start..][..self.codebooks[prefix.len()].dim])
            }
        }
    }

    /// Squared distances of what is left after `prefix` to all words of the next level.
    pub(super) fn distances(&self, vector: &[f32], prefix: &[u16]) -> Vec<f64> {
        let codebook = &self.codebooks[prefix.len()];
        let rest = self.rest(vector, prefix);
        let own = f64::from(squared(&rest));
        let distance = |word: usize| {
            let word = codebook.word(word as u16);
            let product: f32 = rest.iter().zip(word).map(|(x, y)| x * y).sum();
            own - 2.0 * f64::from(product) + f64::from(squared(word))
        };
        (0..codebook.size).map(distance).collect()
    }

    /// Greedy codes of `vectors` (`[n, dim]`): at each level the word nearest to what is left.
    ///
    /// # Errors
    /// Where it is cancelled.
    pub fn encode(&self, vectors: &[f32], control: &Control) -> Result<Codes<'static>> {
        let (dim, levels) = (self.dim(), self.levels());
        let count = vectors.len() / dim.max(1);
        let mut of = vec![0; count * levels];
        let mut put = |level: usize, codes: Vec<u16>| {
            codes.into_iter().enumerate().for_each(|(item, code)| of[item * levels + level] = code);
        };
        match self.form {
            Form::Residual => {
                let mut rest = vectors.to_vec();
                for (level, codebook) in self.codebooks.iter().enumerate() {
                    put(level, subtract(&mut rest, codebook, control)?);
                }
            }
            Form::Parallel => {
                let mut start = 0;
                for (level, codebook) in self.codebooks.iter().enumerate().filter(|(_, codebook)| codebook.dim > 0) {
                    let part = columns(vectors, dim, start, codebook.dim);
                    put(level, nearest(&part, codebook, control)?.into_iter().map(|(code, _)| code).collect());
                    start += codebook.dim;
                }
            }
        }
        Ok(Codes { levels, of: of.into() })
    }

    /// The free code that greedy steps lead to: at each level the nearest word below which one is free. `taken` gives, for
    /// all levels but the last, which codes of the last are taken. None where all codes are.
    ///
    /// # Errors
    /// Those of `taken`.
    pub fn nearest_free<E, F>(&self, vector: &[f32], taken: &mut F) -> std::result::Result<Option<Vec<u16>>, E>
    where
        F: FnMut(&[u16]) -> std::result::Result<HashSet<u16>, E>,
    {
        let mut code = Vec::with_capacity(self.levels());
        Ok(self.descend(vector, &mut code, taken)?.then_some(code))
    }

    fn descend<E, F>(&self, vector: &[f32], code: &mut Vec<u16>, taken: &mut F) -> std::result::Result<bool, E>
    where
        F: FnMut(&[u16]) -> std::result::Result<HashSet<u16>, E>,
    {
        let is_last = code.len() + 1 == self.levels();
        let gone = if is_last { taken(code)? } else { HashSet::new() };
        if gone.len() >= self.codebooks[code.len()].size {
            return Ok(false);
        }
        let mut words: Vec<(f64, u16)> = self.distances(vector, code).into_iter().zip(0..=u16::MAX).collect();
        words.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, word) in words.into_iter().filter(|(_, word)| !gone.contains(word)) {
            code.push(word);
            if is_last || self.descend(vector, code, taken)? {
                return Ok(true);
            }
            code.pop();
        }
        Ok(false)
    }
}

/// Takes the nearest word off every row, and gives which it was.
pub(super) fn subtract(rows: &mut [f32], codebook: &Codebook, control: &Control) -> Result<Vec<u16>> {
    let codes: Vec<u16> = nearest(rows, codebook, control)?.into_iter().map(|(code, _)| code).collect();
    for (row, &code) in rows.chunks_exact_mut(codebook.dim).zip(&codes) {
        row.iter_mut().zip(codebook.word(code)).for_each(|(x, word)| *x -= word);
    }
    Ok(codes)
}

/// Some columns of a matrix.
pub(super) fn columns(rows: &[f32], dim: usize, start: usize, width: usize) -> Vec<f32> {
    rows.chunks_exact(dim).flat_map(|row| &row[start..start + width]).copied().collect()
}
