//! Everything a family trains on and everything an evaluation reads: packed histories, in memory or mapped.

mod builder;
mod column;
mod contents;
mod dictionary;
mod tokens;

use std::sync::Arc;

pub use builder::{CorpusBuilder, attribute_tokens};
pub use column::{Spill, Spills};
pub use dictionary::ItemKey;

use crate::catalogue::ItemIds;
use column::Stored;
use contents::Contents;

/// All histories of a recommender, packed, and what is known of its items.
///
/// Immutable and shared: a clone, a sample and a cut ([`Corpus::sample`], [`Corpus::without_last`]) refer to the
/// same events and to the same catalogue.
#[derive(Clone, Default)]
pub struct Corpus {
    contents: Arc<Contents>,
    histories: Arc<Histories>,
    /// Users of the histories that are in this corpus, `None` for all.
    sample: Option<Arc<[usize]>>,
    /// How many of the last events of every user are left out.
    cut: usize,
    interactions: usize,
}

/// The events of all users, one history after another.
#[derive(Default)]
struct Histories {
    /// Start of each user's events, and the end of the last: `users + 1` numbers, or none.
    offsets: Stored<u64>,
    events: Stored<u32>,
    /// As long as `events`, or empty.
    times: Stored<f64>,
    /// As long as `events`, or empty.
    outcomes: Stored<u32>,
}

impl Histories {
    fn users(&self) -> usize {
        self.offsets.as_slice().len().saturating_sub(1)
    }
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Corpus")
            .field("users", &self.users())
            .field("interactions", &self.interactions)
            .field("items", &self.items().len())
            .finish_non_exhaustive()
    }
}

impl Corpus {
    fn new(contents: Contents, histories: Histories) -> Self {
        let interactions = histories.events.as_slice().len();
        Self { contents: Arc::new(contents), histories: Arc::new(histories), sample: None, cut: 0, interactions }
    }

    /// The items, ascending by id: dense index = rank of the id.
    pub fn items(&self) -> &ItemIds {
        &self.contents.items
    }

    /// Number of users, those without events included.
    pub fn users(&self) -> usize {
        self.sample.as_ref().map_or_else(|| self.histories.users(), |users| users.len())
    }

    /// Number of events in all histories.
    pub fn interactions(&self) -> usize {
        self.interactions
    }

    /// One user's events as dense item indices, oldest first.
    pub fn history(&self, user: usize) -> &[u32] {
        &self.histories.events.as_slice()[self.range(user)]
    }

    /// Every user's events, in the order of the users.
    pub fn histories(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.users()).map(|user| self.history(user))
    }

    /// Whether the events have times.
    pub fn has_times(&self) -> bool {
        !self.histories.times.as_slice().is_empty()
    }

    /// The times of one user's events in Unix seconds, or an empty slice where they have none.
    pub fn history_times(&self, user: usize) -> &[f64] {
        self.histories.times.as_slice().get(self.range(user)).unwrap_or(&[])
    }

    /// Whether it is known what came of the events.
    pub fn has_outcomes(&self) -> bool {
        !self.histories.outcomes.as_slice().is_empty()
    }

    /// What came of one user's events, or an empty slice where that is not known: bit t is set where the answer to task
    /// t is yes.
    pub fn history_outcomes(&self, user: usize) -> &[u32] {
        self.histories.outcomes.as_slice().get(self.range(user)).unwrap_or(&[])
    }

    /// Attribute tokens of the items as indices into a vocabulary, CSR: where each item's begin in
    /// [`Corpus::attributes`], and the end of the last (`items + 1` numbers); empty when nothing is known.
    pub fn attribute_offsets(&self) -> &[usize] {
        &self.contents.attribute_offsets
    }

    /// The tokens, ascending within an item, without repeats.
    pub fn attributes(&self) -> &[u32] {
        &self.contents.attributes
    }

    /// The attributes of one item.
    pub fn attributes_of(&self, item: usize) -> &[u32] {
        let bounds = self.attribute_offsets().get(item..item + 2);
        bounds.map_or(&[], |bounds| &self.attributes()[bounds[0]..bounds[1]])
    }

    /// The texts of the tokens, ascending.
    pub fn vocabulary(&self) -> &Arc<[String]> {
        &self.contents.vocabulary
    }

    /// Vectors of the items, `[items, vector_dim]` row-major, a row of zeros where an item has none; empty when
    /// nothing is known.
    pub fn vectors(&self) -> &[f32] {
        &self.contents.vectors
    }

    /// Numbers in a vector.
    pub fn vector_dim(&self) -> usize {
        self.contents.vector_dim
    }

    /// How often each item occurs in the histories.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.items().len()];
        self.histories().flatten().for_each(|&item| counts[item as usize] += 1);
        counts
    }

    /// Bytes of histories and attributes in memory of the process; mapped ones count nothing, since the system takes their
    /// pages back when it needs them.
    pub fn resident(&self) -> usize {
        let Histories { offsets, events, times, outcomes } = &*self.histories;
        let histories = offsets.resident() + events.resident() + times.resident() + outcomes.resident();
        histories + self.contents.resident()
    }

    /// Of so many users [`Corpus::sample`] takes the first.
    pub fn sampled_every(&self, most: usize) -> usize {
        self.users().div_ceil(most.max(1)).max(1)
    }

    /// The same catalogue with at most `most` of the users, evenly spaced.
    pub fn sample(&self, most: usize) -> Self {
        let users = (0..self.users()).step_by(self.sampled_every(most)).map(|user| self.stored_user(user)).collect();
        Self { sample: Some(users), ..self.clone() }.counted()
    }

    /// The same corpus without the last `n` events of every user: the training part of leave-one-out is
    /// `without_last(2)`. The catalogue stays whole. Copies nothing.
    pub fn without_last(&self, n: usize) -> Self {
        Self { cut: self.cut.saturating_add(n), ..self.clone() }.counted()
    }

    /// The same histories over another catalogue: events on items that it does not have are left out. Its items have
    /// their attributes here, but no vectors.
    pub fn over(&self, items: ItemIds) -> Self {
        let own = self.items();
        let places: Vec<Option<u32>> = (0..own.len()).map(|item| items.index_of(&own.get(item))).collect();
        let (mut offsets, mut events, mut times, mut outcomes) = (vec![0u64], Vec::new(), Vec::new(), Vec::new());
        for user in 0..self.users() {
            let (history, at, came) = (self.history(user), self.history_times(user), self.history_outcomes(user));
            for (event, item) in history.iter().enumerate() {
                let Some(place) = places[*item as usize] else { continue };
                events.push(place);
                times.extend(at.get(event));
                outcomes.extend(came.get(event));
            }
            offsets.push(events.len() as u64);
        }
        let histories = Histories {
            offsets: Stored::Own(offsets),
            events: Stored::Own(events),
            times: Stored::Own(times),
            outcomes: Stored::Own(outcomes),
        };
        Self::new(self.contents.attributes_over(items, &places), histories)
    }

    fn counted(self) -> Self {
        Self { interactions: (0..self.users()).map(|user| self.range(user).len()).sum(), ..self }
    }

    /// Place of a user in the shared histories.
    fn stored_user(&self, user: usize) -> usize {
        self.sample.as_ref().map_or(user, |users| users[user])
    }

    /// Where a user's events are.
    fn range(&self, user: usize) -> std::ops::Range<usize> {
        let (offsets, user) = (self.histories.offsets.as_slice(), self.stored_user(user));
        let (start, end) = (offsets[user] as usize, offsets[user + 1] as usize);
        start..end.saturating_sub(self.cut).max(start)
    }
}

#[cfg(test)]
mod tests;
