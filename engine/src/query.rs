//! One request for recommendations, in dense item indices.

use pgrec_kernels::Filter;

/// What a family needs to answer for one user.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Dense indices of the items touched, oldest first. May be empty, may be longer than the model's window.
    pub history: &'a [u32],
    /// Unix time in seconds of each event, same length as `history`, or empty where the source has no time.
    pub times: &'a [f64],
    /// What came of each event, where the model looks at that ([`crate::Model::tasks`]): bit t is set where the answer
    /// to task t is yes. Same length as `history`, or empty.
    pub outcomes: &'a [u32],
    /// What is wanted now, in words ([`crate::Model::word`]), the most important last. Only models that generate, and those
    /// that answer search queries, look at it.
    pub words: &'a [u32],
    /// What the user looked for lately, oldest first, where the model looks at that ([`crate::Model::searches`]).
    pub searches: Asked<'a>,
    /// Unix time at which the question is asked.
    pub at: f64,
    /// How many items are wanted.
    pub k: usize,
    /// Which items may be returned.
    pub filter: Filter<'a>,
    /// Catalogues up to this size are scored item by item; larger ones by the model's nearest-neighbour
    /// segment, if it has one. The default scores every item.
    pub exact_limit: usize,
    /// Bytes that the model may keep of long histories, so that a question about the same one and an event more need
    /// not compute all of it again; 0: nothing is kept. What is kept is compared with the history before it is used.
    pub remember: usize,
}

/// What a user looked for, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// All words ([`crate::Model::word`]), one search after another.
    pub words: &'a [u32],
    /// Where the words of each search end.
    pub ends: &'a [u32],
    /// How many events of the history came before each search; as many numbers as `ends`.
    pub after: &'a [u32],
}

impl<'a> Asked<'a> {
    /// The words of each search, and how many events of the history came before it.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = (&'a [u32], usize)> + ExactSizeIterator {
        (0..self.ends.len().min(self.after.len())).map(move |search| {
            let end = (self.ends[search] as usize).min(self.words.len());
            let begin = search.checked_sub(1).map_or(0, |before| self.ends[before] as usize).min(end);
            (&self.words[begin..end], self.after[search] as usize)
        })
    }
}

/// Times of events in the order of a history, where none goes back: the order decides, and may come from another column.
pub(crate) fn ascending<'a>(times: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    times.iter().scan(f64::NEG_INFINITY, |latest, &time| {
        *latest = latest.max(time);
        Some(*latest)
    })
}

impl Default for Query<'_> {
    fn default() -> Self {
        Self {
            history: &[],
            times: &[],
            outcomes: &[],
            words: &[],
            searches: Asked::default(),
            at: 0.0,
            k: 0,
            filter: Filter::default(),
            exact_limit: usize::MAX,
            remember: 0,
        }
    }
}
