//! Everything a family trains on and everything an evaluation reads: packed histories, in memory or mapped.

mod bag;
mod builder;
mod column;
mod contents;
mod dictionary;
mod searches;
mod tokens;

use std::sync::Arc;

pub use builder::{CorpusBuilder, attribute_tokens};
pub use column::{Spill, Spills};
pub use dictionary::ItemKey;
pub use searches::{Search, SearchRow};

use crate::catalogue::ItemIds;
use column::Stored;
use contents::Contents;
use searches::Searches;

/// All histories of a recommender, packed, and what is known of its items.
///
/// Immutable and shared: a clone, a sample and a cut ([`Corpus::sample`], [`Corpus::without_last`]) refer to the
/// same events and to the same catalogue.
#[derive(Clone, Default)]
pub struct Corpus {
    contents: Arc<Contents>,
    histories: Arc<Histories>,
    searches: Arc<Searches>,
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

    /// All events of a user.
    fn of(&self, user: usize) -> &[u32] {
        let offsets = self.offsets.as_slice();
        &self.events.as_slice()[offsets[user] as usize..offsets[user + 1] as usize]
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
    fn new(contents: Contents, histories: Histories, searches: Searches) -> Self {
        Self {
            interactions: histories.events.as_slice().len(),
            contents: Arc::new(contents),
            histories: Arc::new(histories),
            searches: Arc::new(searches),
            sample: None,
            cut: 0,
        }
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
        &self.contents.attributes.offsets
    }

    /// The tokens, ascending within an item, without repeats.
    pub fn attributes(&self) -> &[u32] {
        &self.contents.attributes.words
    }

    /// The attributes of one item.
    pub fn attributes_of(&self, item: usize) -> &[u32] {
        self.contents.attributes.row(item)
    }

    /// The texts of the tokens, ascending.
    pub fn vocabulary(&self) -> &Arc<[String]> {
        &self.contents.vocabulary
    }

    /// All words of items' texts and of queries, ascending.
    pub fn lexicon(&self) -> &Arc<[String]> {
        &self.contents.lexicon
    }

    /// The words of an item's text as indices into the lexicon, ascending, without repeats.
    pub fn words_of(&self, item: usize) -> &[u32] {
        self.contents.words.row(item)
    }

    /// Whether it is known what anybody looked for.
    pub fn has_searches(&self) -> bool {
        !self.searches.is_empty()
    }

    /// What a user looked for, oldest first.
    ///
    /// Of what is cut off nothing is told: where searches and events have a common order, only searches that an event
    /// followed that is not cut off; and none that led to an item that the user touched only in what is cut off. Where there
    /// is no order, none that led to an item of what is cut off, or to none.
    pub fn searches(&self, user: usize) -> impl Iterator<Item = Search<'_>> {
        let stored = self.stored_user(user);
        let all = self.histories.of(stored);
        let (kept, ordered) = (all.len().saturating_sub(self.cut), self.searches.ordered);
        let (kept, gone) = all.split_at(kept);
        let told = move |search: &Search<'_>| {
            let later = search.item.is_some_and(|item| gone.contains(&item) && !(ordered && kept.contains(&item)));
            let known = if ordered { search.after < kept.len() } else { search.item.is_some() };
            gone.is_empty() || known && !later
        };
        self.searches.of(stored).filter(told)
    }

    /// What a user looked for that led to the event which is `back` from the end of this corpus: searches for its item after
    /// the user had last touched that, and before the event.
    pub fn searches_for(&self, user: usize, back: usize) -> impl Iterator<Item = Search<'_>> {
        let stored = self.stored_user(user);
        let history = self.history(user);
        let place = history.len().checked_sub(back);
        let item = place.and_then(|place| history.get(place)).copied();
        let place = place.unwrap_or(0);
        let before = history[..place].iter().rposition(|&other| Some(other) == item).map_or(0, |place| place + 1);
        let ordered = self.searches.ordered;
        let led = move |search: &Search<'_>| {
            item.is_some() && search.item == item && (!ordered || (before..=place).contains(&search.after))
        };
        self.searches.of(stored).filter(led)
    }

    /// What was looked for by nobody who is known.
    pub fn anonymous_searches(&self) -> impl Iterator<Item = Search<'_>> {
        self.searches.anonymous()
    }

    /// Number of different queries.
    pub fn queries(&self) -> usize {
        self.searches.distinct
    }

    /// The words of a query as indices into the lexicon, ascending, without repeats.
    pub fn query_words(&self, query: u32) -> &[u32] {
        self.searches.words.row(query as usize)
    }

    /// The vectors of the queries, `[queries, query_dim]` row-major, a row of zeros where one has none; empty when none has.
    pub fn query_vectors(&self) -> &[f32] {
        &self.searches.vectors
    }

    /// Numbers in a query's vector.
    pub fn query_dim(&self) -> usize {
        self.searches.vector_dim
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

    /// Bytes of histories, attributes, words and searches in memory of the process; mapped ones count nothing, since the
    /// system takes their pages back when it needs them.
    pub fn resident(&self) -> usize {
        let Histories { offsets, events, times, outcomes } = &*self.histories;
        let histories = offsets.resident() + events.resident() + times.resident() + outcomes.resident();
        histories + self.contents.resident() + self.searches.resident()
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
    /// their attributes and words here, but no vectors.
    pub fn over(&self, items: ItemIds) -> Self {
        let own = self.items();
        let places: Vec<Option<u32>> = (0..own.len()).map(|item| items.index_of(&own.get(item))).collect();
        let (mut offsets, mut events, mut times, mut outcomes) = (vec![0u64], Vec::new(), Vec::new(), Vec::new());
        let mut searches = self.searches.without_any();
        self.anonymous_searches().for_each(|search| searches.push_over(&search, 0, &places));
        for user in 0..self.users() {
            searches.user();
            for search in self.searches(user) {
                let before = &self.history(user)[..search.after.min(self.history(user).len())];
                let known = before.iter().filter(|&&item| places[item as usize].is_some());
                searches.push_over(&search, known.count(), &places);
            }
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
        Self::new(self.contents.over(items, &places), histories, searches)
    }

    /// The same over those items alone that somebody has touched, or found by a search; None where that is all of them.
    pub fn of_touched(&self) -> Option<Self> {
        let mut touched = vec![false; self.items().len()];
        self.histories().flatten().for_each(|&item| touched[item as usize] = true);
        let searches = (0..self.users()).flat_map(|user| self.searches(user)).chain(self.anonymous_searches());
        searches.filter_map(|search| search.item).for_each(|item| touched[item as usize] = true);
        let all = touched.iter().all(|&touched| touched);
        (!all).then(|| self.over(self.items().filtered(|item| touched[item])))
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
