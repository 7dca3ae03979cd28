//! What users looked for, and what came of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::bag::{Bag, Pairs, Vocabulary};
use super::contents::Vectors;
use super::dictionary::{Dictionary, ItemKey};
use crate::{Error, Result};

/// One search as a row gives it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchRow<'a> {
    /// The words of the query, as the search configuration makes them.
    pub words: &'a [&'a str],
    /// A vector of the query.
    pub vector: Option<&'a [f32]>,
    /// The item that was opened or bought.
    pub item: Option<ItemKey<'a>>,
    /// The results that were shown, best first.
    pub shown: &'a [ItemKey<'a>],
    /// How long the opened item was looked at, in seconds.
    pub dwell: Option<f32>,
}

/// One search, in the numbers of a corpus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search<'a> {
    /// The query: [`super::Corpus::query_words`], [`super::Corpus::query_vectors`].
    pub query: u32,
    /// The item that was opened or bought.
    pub item: Option<u32>,
    /// How many of the user's events came before it; all of them where searches and events have no common order.
    pub after: usize,
    /// The results that were shown, best first.
    pub shown: &'a [u32],
    /// How long the opened item was looked at, in seconds.
    pub dwell: Option<f32>,
}

/// In the place of an item where there is none.
const NONE: u32 = u32::MAX;

/// All searches: first those of nobody, then those of each user, in their order.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// How many there are before those of each user; empty as long as there are none.
    begin: Vec<usize>,
    /// Users who began before there were any.
    silent: usize,
    queries: Vec<u32>,
    items: Vec<u32>,
    after: Vec<u32>,
    dwell: Vec<f32>,
    /// How many items were shown up to each search and by it.
    shown_ends: Vec<usize>,
    shown: Vec<u32>,
    /// Whether it is known which events came before a search.
    pub(super) ordered: bool,
    pub(super) words: Bag,
    pub(super) vectors: Vec<f32>,
    pub(super) vector_dim: usize,
    /// Number of different queries.
    pub(super) distinct: usize,
}

impl Searches {
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    fn get(&self, search: usize) -> Search<'_> {
        let shown = search.checked_sub(1).map_or(0, |before| self.shown_ends[before])..self.shown_ends[search];
        Search {
            query: self.queries[search],
            item: Some(self.items[search]).filter(|&item| item != NONE),
            after: self.after[search] as usize,
            shown: &self.shown[shown],
            dwell: Some(self.dwell[search]).filter(|dwell| !dwell.is_nan()),
        }
    }

    /// Those of nobody.
    pub(super) fn anonymous(&self) -> impl Iterator<Item = Search<'_>> {
        (0..self.begin.first().copied().unwrap_or(self.queries.len())).map(|search| self.get(search))
    }

    /// Those of a user, oldest first.
    pub(super) fn of(&self, user: usize) -> impl Iterator<Item = Search<'_>> {
        let begin = self.begin.get(user).copied().unwrap_or(self.queries.len());
        let end = self.begin.get(user + 1).copied().unwrap_or(self.queries.len());
        (begin..end).map(|search| self.get(search))
    }

    /// The next user begins.
    pub(super) fn user(&mut self) {
        match self.is_empty() {
            true => self.silent += 1,
            false => self.begin.push(self.queries.len()),
        }
    }

    /// One more of the present user, or of nobody; `item` and `shown` in the numbers that the others have.
    fn push(
        &mut self,
        query: u32,
        after: u32,
        item: Option<u32>,
        shown: impl Iterator<Item = u32>,
        dwell: Option<f32>,
    ) {
        if self.is_empty() {
            self.begin = vec![0; self.silent];
        }
        self.queries.push(query);
        self.items.push(item.unwrap_or(NONE));
        self.after.push(after);
        self.dwell.push(dwell.unwrap_or(f32::NAN));
        self.shown.extend(shown);
        self.shown_ends.push(self.shown.len());
    }

    /// None at all, of the same queries.
    pub(super) fn without_any(&self) -> Self {
        Self {
            ordered: self.ordered,
            words: self.words.clone(),
            vectors: self.vectors.clone(),
            vector_dim: self.vector_dim,
            distinct: self.distinct,
            ..Self::default()
        }
    }

    /// One more of the present user, whose items have other numbers, or none, and which came after so many events.
    pub(super) fn push_over(&mut self, search: &Search<'_>, after: usize, places: &[Option<u32>]) {
        let place = |item: u32| places[item as usize];
        let shown = search.shown.iter().filter_map(|&item| place(item));
        self.push(search.query, after as u32, search.item.and_then(place), shown, search.dwell);
    }

    /// Bytes that they take.
    pub(super) fn resident(&self) -> usize {
        let columns = 4 * size_of_val(self.queries.as_slice()) + size_of_val(self.shown_ends.as_slice());
        let shown = size_of_val(self.shown.as_slice()) + size_of_val(self.begin.as_slice());
        columns + shown + self.words.resident() + size_of_val(self.vectors.as_slice())
    }
}

/// Searches as rows give them, items by the number they have so far.
#[derive(Debug, Default)]
pub(super) struct Asked {
    searches: Searches,
    /// Queries by their words, and by a hash of their vectors.
    distinct: HashMap<(Vec<u32>, u64), u32>,
    /// Bytes of these words.
    keys: usize,
    words: Pairs,
    vectors: Vectors,
}

impl Asked {
    /// The next user begins.
    pub(super) fn user(&mut self) {
        self.searches.user();
    }

    /// An event of the present user: what was searched before came before it.
    pub(super) fn event(&mut self) {
        let Searches { begin, queries, ordered, .. } = &mut self.searches;
        *ordered |= begin.last().is_some_and(|&begin| begin < queries.len());
    }

    /// Whether a search can be kept.
    pub(super) fn check(&self, row: &SearchRow<'_>) -> Result<()> {
        row.vector.map_or(Ok(()), |vector| self.vectors.check(vector, "a query"))?;
        match row.dwell {
            Some(dwell) if !dwell.is_finite() || dwell < 0.0 => {
                Err(Error::Data(format!("a search has a dwell of {dwell} seconds")))
            }
            _ => Ok(()),
        }
    }

    /// Keeps a search that was checked, which came after so many events of the present user.
    pub(super) fn push(
        &mut self,
        row: &SearchRow<'_>,
        after: usize,
        items: &mut Dictionary,
        lexicon: &mut Vocabulary,
    ) -> Result<()> {
        let query = self.query(row, lexicon);
        if let Some(vector) = row.vector {
            self.vectors.push(query, vector);
        }
        let item = row.item.map(|item| items.number(item)).transpose()?;
        let shown = row.shown.iter().map(|&item| items.number(item)).collect::<Result<Vec<u32>>>()?;
        let after = u32::try_from(after).map_err(|_| Error::Data("a user has more than 2^32 events".into()))?;
        self.searches.push(query, after, item, shown.into_iter(), row.dwell);
        Ok(())
    }

    /// The number of a query: of the same words in another order, with the same vector, it is the same.
    fn query(&mut self, row: &SearchRow<'_>, lexicon: &mut Vocabulary) -> u32 {
        let mut key: Vec<u32> = row.words.iter().map(|word| lexicon.number(word)).collect();
        key.sort_unstable();
        key.dedup();
        let mut hash = DefaultHasher::new();
        row.vector.iter().for_each(|vector| vector.iter().for_each(|x| x.to_bits().hash(&mut hash)));
        let key = (key, hash.finish());
        if let Some(&query) = self.distinct.get(&key) {
            return query;
        }
        let query = self.distinct.len() as u32;
        key.0.iter().for_each(|&word| self.words.push(query, word));
        self.keys += size_of_val(key.0.as_slice());
        self.distinct.insert(key, query);
        query
    }

    /// Bytes that they take, and will take beside themselves while they are put in order.
    pub(super) fn resident(&self) -> usize {
        let queries = self.distinct.capacity() * (size_of::<(Vec<u32>, u64, u32)>() + 1) + self.keys;
        queries + self.searches.resident() + self.words.resident() + self.vectors.resident()
    }

    /// The same in the numbers of a corpus: `rank` of an item, `words` of a word.
    pub(super) fn finish(self, rank: &[u32], words: &[u32]) -> Searches {
        let Self { mut searches, distinct, words: pairs, vectors, .. } = self;
        searches.items.iter_mut().filter(|item| **item != NONE).for_each(|item| *item = rank[*item as usize]);
        searches.shown.iter_mut().for_each(|item| *item = rank[*item as usize]);
        let (vectors, vector_dim) = vectors.finish(distinct.len(), |query| query);
        let words = pairs.finish(distinct.len(), |query| query, words);
        Searches { distinct: distinct.len(), words, vectors, vector_dim, ..searches }
    }
}
