//! Everything a family trains on and everything an evaluation reads, in memory.

mod builder;
mod tokens;

pub use builder::{CorpusBuilder, ItemKey};

use crate::catalogue::ItemIds;

/// All histories of a recommender, packed, and what is known of its items.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// The items, ascending by id: dense index = rank of the id.
    pub items: ItemIds,
    /// Start of each user's events in `events`, and the end of the last: `users + 1` numbers.
    pub offsets: Vec<usize>,
    /// Dense item indices, oldest first within each user.
    pub events: Vec<u32>,
    /// Unix seconds of each event, or empty where the source has no time.
    pub times: Vec<f64>,
    /// Attribute tokens of each item as indices into a vocabulary, CSR: `items + 1` offsets; empty when unknown.
    pub attribute_offsets: Vec<usize>,
    /// The tokens, ascending within an item, without repeats.
    pub attributes: Vec<u32>,
    /// Vectors of the items, `[items, dim]` row-major, a row of zeros where an item has none; empty when unknown.
    pub vectors: Vec<f32>,
    /// Dimension of `vectors`.
    pub vector_dim: usize,
}

impl Corpus {
    /// Number of users.
    pub fn users(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// One user's events, oldest first.
    pub fn history(&self, user: usize) -> &[u32] {
        &self.events[self.offsets[user]..self.offsets[user + 1]]
    }

    /// The times of one user's events, or an empty slice.
    pub fn history_times(&self, user: usize) -> &[f64] {
        self.times.get(self.offsets[user]..self.offsets[user + 1]).unwrap_or(&[])
    }

    /// How often each item occurs in the histories.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.items.len()];
        for &item in &self.events {
            counts[item as usize] += 1;
        }
        counts
    }

    /// The same catalogue with at most `most` of the users, evenly spaced.
    pub fn sample(&self, most: usize) -> Self {
        let step = self.users().div_ceil(most.max(1)).max(1);
        let mut part = self.catalogue_only();
        for user in (0..self.users()).step_by(step) {
            part.events.extend_from_slice(self.history(user));
            part.times.extend_from_slice(self.history_times(user));
            part.offsets.push(part.events.len());
        }
        part
    }

    fn catalogue_only(&self) -> Self {
        Self {
            items: self.items.clone(),
            offsets: vec![0],
            attribute_offsets: self.attribute_offsets.clone(),
            attributes: self.attributes.clone(),
            vectors: self.vectors.clone(),
            vector_dim: self.vector_dim,
            ..Self::default()
        }
    }

    /// The same corpus without the last `n` events of every user: the training part of leave-one-out is
    /// `without_last(2)`. The catalogue stays whole.
    pub fn without_last(&self, n: usize) -> Self {
        let mut cut = self.catalogue_only();
        for user in 0..self.users() {
            let start = self.offsets[user];
            let end = self.offsets[user + 1].saturating_sub(n).max(start);
            cut.events.extend_from_slice(&self.events[start..end]);
            if !self.times.is_empty() {
                cut.times.extend_from_slice(&self.times[start..end]);
            }
            cut.offsets.push(cut.events.len());
        }
        cut
    }
}
