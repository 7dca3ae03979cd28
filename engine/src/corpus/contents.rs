//! What is known of the items besides the events on them.

use std::sync::Arc;

use super::bag::{Bag, Pairs, Vocabulary};
use crate::catalogue::ItemIds;
use crate::{Error, Result};

/// Everything a corpus knows of its items.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) items: ItemIds,
    pub(super) attributes: Bag,
    /// The texts of the attributes, ascending.
    pub(super) vocabulary: Arc<[String]>,
    /// The words of the items' texts.
    pub(super) words: Bag,
    /// The words of all texts and queries, ascending.
    pub(super) lexicon: Arc<[String]>,
    pub(super) vectors: Vec<f32>,
    pub(super) vector_dim: usize,
}

/// Attributes, words and vectors as rows give them, items by the number they have so far.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    vocabulary: Vocabulary,
    attributes: Pairs,
    words: Pairs,
    vectors: Vectors,
}

/// Vectors of rows, by the number that the rows have so far.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    rows: Vec<u32>,
    numbers: Vec<f32>,
    dim: usize,
}

impl Vectors {
    /// Whether a vector of `what` may stand beside those that are there.
    pub(super) fn check(&self, vector: &[f32], what: &str) -> Result<()> {
        if !self.rows.is_empty() && vector.len() != self.dim {
            let (dim, others) = (vector.len(), self.dim);
            return Err(Error::Data(format!("{what} vector has {dim} dimensions, others have {others}")));
        }
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(Error::Data(format!("{what} vector holds a number that is not finite")));
        }
        Ok(())
    }

    /// Keeps a vector that was checked.
    pub(super) fn push(&mut self, row: u32, vector: &[f32]) {
        self.dim = vector.len();
        self.rows.push(row);
        self.numbers.extend_from_slice(vector);
    }

    /// Bytes that they take, and will take beside themselves while they are put in order.
    pub(super) fn resident(&self) -> usize {
        2 * size_of_val(self.numbers.as_slice()) + size_of_val(self.rows.as_slice())
    }

    /// `[rows, dim]`, a row of zeros where there is none, and dim; a row's last vector counts.
    pub(super) fn finish(self, rows: usize, row: impl Fn(u32) -> u32) -> (Vec<f32>, usize) {
        let mut vectors = vec![0.0; if self.rows.is_empty() { 0 } else { rows * self.dim }];
        if self.dim > 0 {
            for (&number, vector) in self.rows.iter().zip(self.numbers.chunks_exact(self.dim)) {
                let start = row(number) as usize * self.dim;
                vectors[start..start + self.dim].copy_from_slice(vector);
            }
        }
        (vectors, self.dim)
    }
}

impl Descriptions {
    /// Bytes that they take, and will take beside themselves while they are put in order.
    pub(super) fn resident(&self) -> usize {
        self.vocabulary.resident() + self.attributes.resident() + self.words.resident() + self.vectors.resident()
    }

    pub(super) fn attribute(&mut self, item: u32, token: &str) {
        let token = self.vocabulary.number(token);
        self.attributes.push(item, token);
    }

    /// `word` by the number it has in the lexicon so far.
    pub(super) fn word(&mut self, item: u32, word: u32) {
        self.words.push(item, word);
    }

    /// Whether a vector may stand beside those that are there.
    pub(super) fn check(&self, vector: &[f32]) -> Result<()> {
        self.vectors.check(vector, "an item")
    }

    /// Keeps a vector that was checked.
    pub(super) fn vector(&mut self, item: u32, vector: &[f32]) {
        self.vectors.push(item, vector);
    }

    /// The same by rank. An item's last vector counts; its attributes are those of all its descriptions. `lexicon`: the
    /// words of all texts in their order, and the place of each.
    pub(super) fn finish(self, items: ItemIds, rank: &[u32], lexicon: (Arc<[String]>, &[u32])) -> Contents {
        let (n, ranked) = (items.len(), |item: u32| rank[item as usize]);
        let (vocabulary, tokens) = self.vocabulary.in_order();
        let (vectors, vector_dim) = self.vectors.finish(n, ranked);
        let (lexicon, words) = lexicon;
        Contents {
            attributes: self.attributes.finish(n, ranked, &tokens),
            words: self.words.finish(n, ranked, words),
            items,
            vocabulary,
            lexicon,
            vectors,
            vector_dim,
        }
    }
}

impl Contents {
    /// Attributes and words of the items of another catalogue, where these have the places `places`, which ascend as these
    /// do.
    pub(super) fn over(&self, items: ItemIds, places: &[Option<u32>]) -> Self {
        let (attributes, words) = (self.attributes.at(items.len(), places), self.words.at(items.len(), places));
        let (vocabulary, lexicon) = (Arc::clone(&self.vocabulary), Arc::clone(&self.lexicon));
        Self { items, attributes, words, vocabulary, lexicon, ..Self::default() }
    }

    /// Bytes of attributes and words.
    pub(super) fn resident(&self) -> usize {
        let texts = self.vocabulary.iter().chain(&*self.lexicon);
        let texts: usize = texts.map(|text| size_of::<String>() + text.len()).sum();
        self.attributes.resident() + self.words.resident() + texts
    }
}
