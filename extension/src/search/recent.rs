//! What users looked for lately, read as the caller.

use pgrec_engine::{Asked, Model};

use crate::catalog::recommender::{Recommender, Searches, quoted};
use crate::corpus;
use crate::error::Result;
use crate::history::{self, History};
use crate::ids::{Id, Keys};
use crate::pg::spi::{self, Mode};

/// A user's latest searches, in the words of a model.
#[derive(Debug, Default)]
pub struct Recent {
    words: Vec<u32>,
    ends: Vec<u32>,
    after: Vec<u32>,
}

impl Recent {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// As the engine takes them.
    pub fn asked(&self) -> Asked<'_> {
        Asked { words: &self.words, ends: &self.ends, after: &self.after }
    }

    /// One more, of which the model knows these words.
    pub fn push(&mut self, words: impl Iterator<Item = u32>, after: usize) {
        let before = self.words.len();
        self.words.extend(words);
        if self.words.len() > before {
            self.ends.push(self.words.len() as u32);
            self.after.push(after as u32);
        }
    }
}

/// Whether the times of events are needed to tell which came before a search.
pub fn needs_times(recommender: &Recommender, model: &dyn Model) -> bool {
    let ordered = |searches| corpus::common_order(recommender, searches);
    model.searches() > 0 && recommender.searches.as_ref().is_some_and(ordered)
}

/// Adds to each history what its user looked for lately, as far as the model looks at that.
pub fn read(recommender: &Recommender, users: &[Id], model: &dyn Model, histories: &mut [History]) -> Result<()> {
    let (Some(searches), Some(log)) = (&recommender.searches, recommender.searches_name()?) else { return Ok(()) };
    if model.searches() == 0 || users.is_empty() {
        return Ok(());
    }
    let ordered = corpus::common_order(recommender, searches);
    let keys = Keys::new(users.iter(), recommender.user_type)?;
    let sql = statement(recommender, searches, &log, &keys, model.searches());
    // Latest first.
    let mut found: Vec<Vec<(Vec<String>, Option<f64>)>> = histories.iter().map(|_| Vec::new()).collect();
    spi::each(Mode::Read, &sql, &[keys.arg()], |row| {
        let user: i64 = row.need(0)?;
        let words: Vec<Option<String>> = row.get(1).unwrap_or_default();
        if let Some(found) = found.get_mut(user as usize - 1) {
            found.push((words.into_iter().flatten().collect(), row.get(2)));
        }
        Ok(())
    })?;
    for (history, found) in histories.iter_mut().zip(found) {
        for (words, time) in found.into_iter().rev() {
            let after = match time {
                Some(time) if ordered => history.times.partition_point(|&event| event < time),
                _ => history.items.len(),
            };
            history.searches.push(words.iter().filter_map(|word| model.word(word)), after);
        }
    }
    Ok(())
}

/// The latest searches of each of some users: the user's place, words and time. Where searches have no time, no one is later
/// than another: those whose words come first are taken, so that it is always the same ones.
fn statement(recommender: &Recommender, searches: &Searches, log: &str, keys: &Keys, most: usize) -> String {
    let time = searches.time.as_ref().map_or_else(|| "NULL::float8".to_owned(), |time| history::seconds(time));
    let order = match &searches.time {
        Some(time) => format!("{} DESC NULLS LAST", quoted(time)),
        None => quoted(&searches.query),
    };
    format!(
        "SELECT u.place, s.words, s.time FROM unnest({keys}) WITH ORDINALITY u(id, place) CROSS JOIN LATERAL (\
             SELECT {words} AS words, {time} AS time FROM {log} WHERE {user} = u.id AND {query} IS NOT NULL \
             ORDER BY {order} LIMIT {most}) s",
        keys = keys.array(1),
        words = super::query_words(recommender, searches),
        user = quoted(&searches.user),
        query = quoted(&searches.query),
    )
}
