//! What is known of the items besides the events on them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalogue::ItemIds;
use crate::{Error, Result};

/// Everything a corpus knows of its items.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) items: ItemIds,
    pub(super) attribute_offsets: Vec<usize>,
    pub(super) attributes: Vec<u32>,
    /// The texts of the attributes, ascending.
    pub(super) vocabulary: Arc<[String]>,
    pub(super) vectors: Vec<f32>,
    pub(super) vector_dim: usize,
}

/// Attributes and vectors as rows give them, items by the number they have so far.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    vocabulary: HashMap<String, u32>,
    /// Bytes of the vocabulary's texts.
    text: usize,
    described: Vec<(u32, u32)>,
    vector_items: Vec<u32>,
    vectors: Vec<f32>,
    vector_dim: usize,
}

impl Descriptions {
    /// Bytes that they take, and will take beside themselves while they are put in order.
    pub(super) fn resident(&self) -> usize {
        let words = self.vocabulary.capacity() * (size_of::<(String, u32)>() + 1) + self.text;
        let pairs = size_of_val(self.described.as_slice());
        words + 2 * pairs + 2 * size_of_val(self.vectors.as_slice()) + size_of_val(self.vector_items.as_slice())
    }

    pub(super) fn attribute(&mut self, item: u32, token: &str) {
        let next = self.vocabulary.len() as u32;
        let token = match self.vocabulary.get(token) {
            Some(&token) => token,
            None => {
                self.text += token.len();
                *self.vocabulary.entry(token.to_owned()).or_insert(next)
            }
        };
        self.described.push((item, token));
    }

    /// Whether a vector may stand beside those that are there.
    pub(super) fn check(&self, vector: &[f32]) -> Result<()> {
        if !self.vector_items.is_empty() && vector.len() != self.vector_dim {
            let (dim, others) = (vector.len(), self.vector_dim);
            return Err(Error::Data(format!("an item vector has {dim} dimensions, others have {others}")));
        }
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(Error::Data("an item vector holds a number that is not finite".into()));
        }
        Ok(())
    }

    /// Keeps a vector that was checked.
    pub(super) fn vector(&mut self, item: u32, vector: &[f32]) {
        self.vector_dim = vector.len();
        self.vector_items.push(item);
        self.vectors.extend_from_slice(vector);
    }

    /// The same by rank. An item's last vector counts; its attributes are those of all its descriptions.
    pub(super) fn finish(self, items: ItemIds, rank: &[u32]) -> Contents {
        let (n, dim) = (items.len(), self.vector_dim);
        let mut vectors = vec![0.0; if self.vector_items.is_empty() { 0 } else { n * dim }];
        if dim > 0 {
            for (&item, vector) in self.vector_items.iter().zip(self.vectors.chunks_exact(dim)) {
                let start = rank[item as usize] as usize * dim;
                vectors[start..start + dim].copy_from_slice(vector);
            }
        }
        let (vocabulary, words) = in_order(self.vocabulary);
        let described = self.described.iter().map(|&(item, word)| (rank[item as usize], words[word as usize]));
        let (attribute_offsets, attributes) = attribute_rows(n, described.collect());
        Contents { items, attribute_offsets, attributes, vocabulary: vocabulary.into(), vectors, vector_dim: dim }
    }
}

impl Contents {
    /// The attributes of the items of another catalogue, where these have the places `places`, which ascend as these do.
    pub(super) fn attributes_over(&self, items: ItemIds, places: &[Option<u32>]) -> Self {
        let (mut offsets, mut attributes) = (Vec::new(), Vec::new());
        if !self.attributes.is_empty() {
            offsets.resize(items.len() + 1, 0);
            for (bounds, place) in self.attribute_offsets.windows(2).zip(places) {
                let Some(place) = *place else { continue };
                attributes.extend_from_slice(&self.attributes[bounds[0]..bounds[1]]);
                offsets[place as usize + 1] = attributes.len();
            }
            // Items in between have none.
            for item in 0..items.len() {
                offsets[item + 1] = offsets[item + 1].max(offsets[item]);
            }
        }
        let vocabulary = Arc::clone(&self.vocabulary);
        Self { items, attribute_offsets: offsets, attributes, vocabulary, ..Self::default() }
    }

    /// Bytes of the attributes.
    pub(super) fn resident(&self) -> usize {
        let words: usize = self.vocabulary.iter().map(|word| size_of::<String>() + word.len()).sum();
        size_of_val(self.attribute_offsets.as_slice()) + size_of_val(self.attributes.as_slice()) + words
    }
}

/// Texts in their order, so that the order of the rows does not matter, and the place of each by the number it had.
fn in_order(vocabulary: HashMap<String, u32>) -> (Vec<String>, Vec<u32>) {
    let mut words: Vec<(String, u32)> = vocabulary.into_iter().collect();
    words.sort_unstable();
    let mut places = vec![0u32; words.len()];
    for (place, (_, number)) in words.iter().enumerate() {
        places[*number as usize] = place as u32;
    }
    (words.into_iter().map(|(word, _)| word).collect(), places)
}

/// Attributes of so many items as CSR.
fn attribute_rows(items: usize, mut described: Vec<(u32, u32)>) -> (Vec<usize>, Vec<u32>) {
    if described.is_empty() {
        return (Vec::new(), Vec::new());
    }
    described.sort_unstable();
    described.dedup();
    let mut offsets = vec![0usize; items + 1];
    for &(item, _) in &described {
        offsets[item as usize + 1] += 1;
    }
    for item in 0..items {
        offsets[item + 1] += offsets[item];
    }
    (offsets, described.into_iter().map(|(_, word)| word).collect())
}
