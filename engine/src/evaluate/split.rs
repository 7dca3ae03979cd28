//! Histories and targets, in the items of the model.

use pgrec_kernels::Filter;

use super::Protocol;
use crate::{Asked, Catalogue, Corpus, Model, Query};

/// The users that can be measured.
pub(crate) struct Cases<'a> {
    corpus: &'a Corpus,
    /// What comes before the targets.
    before: Corpus,
    back: usize,
    /// Users of the corpus with enough events.
    pub(crate) users: Vec<usize>,
    /// How many have too few.
    pub(super) skipped: u64,
}

impl<'a> Cases<'a> {
    pub(crate) fn of(corpus: &'a Corpus, protocol: Protocol) -> Self {
        let back = protocol.back();
        let users: Vec<usize> = (0..corpus.users()).filter(|&user| corpus.history(user).len() > back).collect();
        let skipped = (corpus.users() - users.len()) as u64;
        Self { corpus, before: corpus.without_last(back), back, users, skipped }
    }

    /// What the user had touched before the target, in items of the corpus.
    pub(super) fn history(&self, user: usize) -> &'a [u32] {
        let events = self.corpus.history(user);
        &events[..events.len().saturating_sub(self.back)]
    }

    /// The target, in items of the corpus.
    pub(super) fn target(&self, user: usize) -> u32 {
        let events = self.corpus.history(user);
        events[events.len() - self.back]
    }
}

/// All items there are: those of the model under their own index, then those that only the corpus has.
pub(crate) struct Space {
    model_items: usize,
    /// By item of the corpus.
    index: Vec<u32>,
    /// How many users had touched each item before their target: what popularity means here, whatever the model
    /// was trained on, so that figures of two models can be compared.
    pub(super) touched_by: Vec<u32>,
    /// How many users that is out of.
    pub(super) users: usize,
    /// The model's number of each word of the corpus, and how many of the latest searches it looks at.
    words: Vec<Option<u32>>,
    searches: usize,
}

impl Space {
    pub(crate) fn new(catalogue: &Catalogue, corpus: &Corpus, cases: &Cases<'_>) -> Self {
        let model_items = catalogue.len();
        let mut next = model_items as u32;
        let index: Vec<u32> = (0..corpus.items().len())
            .map(|item| {
                catalogue.index_of(&corpus.items().get(item)).unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        let mut touched_by = vec![0u32; next as usize];
        let mut last = vec![usize::MAX; corpus.items().len()];
        for &user in &cases.users {
            for &item in cases.history(user) {
                if std::mem::replace(&mut last[item as usize], user) != user {
                    touched_by[index[item as usize] as usize] += 1;
                }
            }
        }
        Self { model_items, index, touched_by, users: cases.users.len(), words: Vec::new(), searches: 0 }
    }

    /// The same, where the model is told what users looked for, if it looks at that.
    pub(super) fn with_searches(self, model: &dyn Model, corpus: &Corpus) -> Self {
        match model.searches() {
            0 => self,
            searches => {
                let words = corpus.lexicon().iter().map(|word| model.word(word)).collect();
                Self { words, searches, ..self }
            }
        }
    }

    /// Number of items.
    pub(super) fn len(&self) -> usize {
        self.touched_by.len()
    }

    /// Index of an item of the corpus.
    pub(super) fn index(&self, item: u32) -> u32 {
        self.index[item as usize]
    }

    /// Whether the model knows the item.
    pub(crate) fn known(&self, item: u32) -> bool {
        (item as usize) < self.model_items
    }

    /// All items by descending popularity, ties by ascending index.
    pub(super) fn by_popularity(&self) -> Vec<u32> {
        let mut items: Vec<u32> = (0..self.len() as u32).collect();
        items.sort_by_key(|&item| std::cmp::Reverse(self.touched_by[item as usize]));
        items
    }

    /// Histories without the items that the model does not know, and what must not be recommended.
    pub(crate) fn prepare<'a>(&self, cases: &Cases<'a>, users: &[usize], exclude_seen: bool) -> Vec<Case> {
        let prepare = |&user: &usize| {
            let (times, outcomes) = (cases.corpus.history_times(user), cases.corpus.history_outcomes(user));
            let target = self.index(cases.target(user));
            let (mut history, mut known_times, mut known_outcomes) = (Vec::new(), Vec::new(), Vec::new());
            for (place, &item) in cases.history(user).iter().enumerate() {
                if self.known(self.index(item)) {
                    history.push(self.index(item));
                    known_times.extend(times.get(place));
                    known_outcomes.extend(outcomes.get(place));
                }
            }
            let mut exclude = if exclude_seen { history.clone() } else { Vec::new() };
            exclude.sort_unstable();
            exclude.dedup();
            exclude.retain(|&item| item != target);
            // The question is asked when the target happens.
            let at = times.len().checked_sub(cases.back).map_or(0.0, |place| times[place]);
            let outcome = outcomes.len().checked_sub(cases.back).map_or(0, |place| outcomes[place]);
            let searches = self.searches(cases, user);
            Case { history, times: known_times, outcomes: known_outcomes, searches, at, exclude, target, outcome }
        };
        users.iter().map(prepare).collect()
    }

    /// What a user looked for before the target, as far as the model looks at it.
    fn searches(&self, cases: &Cases<'_>, user: usize) -> Searches {
        let mut searches = Searches::default();
        if self.searches == 0 {
            return searches;
        }
        let all: Vec<_> = cases.before.searches(user).collect();
        for search in &all[all.len().saturating_sub(self.searches)..] {
            let words = cases.before.query_words(search.query).iter();
            searches.words.extend(words.filter_map(|&word| self.words[word as usize]));
            searches.ends.push(searches.words.len() as u32);
            let events = &cases.history(user)[..search.after.min(cases.history(user).len())];
            searches.after.push(events.iter().filter(|&&item| self.known(self.index(item))).count() as u32);
        }
        searches
    }
}

/// As [`Asked`].
#[derive(Default)]
struct Searches {
    words: Vec<u32>,
    ends: Vec<u32>,
    after: Vec<u32>,
}

/// One user, ready to be asked about.
pub(crate) struct Case {
    history: Vec<u32>,
    times: Vec<f64>,
    outcomes: Vec<u32>,
    searches: Searches,
    at: f64,
    exclude: Vec<u32>,
    /// The target in [`Space`].
    pub(crate) target: u32,
    /// What came of it.
    pub(super) outcome: u32,
}

impl Case {
    /// Whether nothing that the model knows was touched before the target.
    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// The question, but for its k.
    pub(crate) fn query(&self) -> Query<'_> {
        Query {
            history: &self.history,
            times: &self.times,
            outcomes: &self.outcomes,
            searches: Asked { words: &self.searches.words, ends: &self.searches.ends, after: &self.searches.after },
            at: self.at,
            filter: Filter { exclude: &self.exclude, candidates: None },
            ..Query::default()
        }
    }
}
