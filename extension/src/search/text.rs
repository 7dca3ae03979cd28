//! Items whose text has words of a query.
//!
//! A GIN index gives all matches of a word or none: it cannot stop at the best. So what is asked of it is bounded before: the
//! items that have all words, up to so many, and those that have one of the rare words, which are few. What only frequent
//! words would add says little; of that the other lists decide.

use std::collections::HashMap;
use std::rc::Rc;

use pgrec_engine::ItemId;
use pgrec_engine::search::{Bm25, inverse_document_frequency};
use pgrx::pg_sys::Oid;

use super::allowed::{Allowed, Among};
use super::statistics::{self, Statistics};
use crate::catalog::IdType;
use crate::catalog::recommender::{Recommender, quoted};
use crate::error::{Result, SqlError};
use crate::history::{item_expression, item_of};
use crate::ids::Keys;
use crate::pg::spi::{self, Arg, Mode, Row};
use crate::pg::tsvector::TsVector;

/// Of longer queries so many words that say most are looked for.
const WORDS: usize = 32;

/// The words of a query by the recommender's configuration, ascending.
pub fn words(recommender: &Recommender, query: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT pg_catalog.tsvector_to_array(pg_catalog.to_tsvector({}, $1))", recommender.config());
    let words = spi::first(Mode::Read, &sql, &[Arg::Text(query)], |row| row.need::<Vec<Option<String>>>(0))?;
    Ok(words.unwrap_or_default().into_iter().flatten().collect())
}

/// The texts of a recommender's items.
pub struct Texts {
    kind: IdType,
    relation: Oid,
    name: String,
    id: String,
    column: String,
    /// The column's words as a tsvector.
    words: String,
}

/// An item whose text was looked at.
struct Seen {
    item: ItemId,
    length: f64,
    /// How often it has each word of the query.
    times: Vec<u32>,
}

/// What was found of a query.
pub struct Matches {
    words: Vec<String>,
    seen: Vec<Seen>,
    places: HashMap<ItemId, usize>,
    /// About how many texts have each word.
    having: Vec<f64>,
    /// Of the texts that were looked at, how many have each word.
    counts: Vec<u32>,
    texts: f64,
}

impl Texts {
    /// The items' texts; None where none is bound.
    pub fn of(recommender: &Recommender) -> Result<Option<Self>> {
        let (Some(items), Some(name)) = (&recommender.items, recommender.items_name()?) else { return Ok(None) };
        let Some(text) = &items.text else { return Ok(None) };
        Ok(Some(Self {
            kind: recommender.item_type,
            relation: items.relation,
            name,
            id: items.id.clone(),
            column: text.clone(),
            words: recommender.words_of(items.relation, text),
        }))
    }

    /// The items whose texts match best: `k`, if there are, and at most about `most` of each kind of match. Words
    /// that no text has are taken for what they were most likely meant to be: what `nearest` says, else a frequent word.
    pub fn matching(
        &self,
        words: Vec<String>,
        (k, most): (usize, usize),
        allowed: &Allowed,
        nearest: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Matches> {
        let statistics = statistics::of(self.relation, &self.column)?;
        let matches = self.matches(words, (k, most), allowed, &statistics)?;
        let mut known = Vec::new();
        let mut meant = Vec::new();
        for (word, &having) in matches.words.iter().zip(&matches.having) {
            match having > 0.0 || self.exists(word)? {
                true => known.push(word.clone()),
                false => meant.extend(nearest(word).or_else(|| statistics.nearest(word))),
            }
        }
        if meant.is_empty() {
            return Ok(matches);
        }
        known.extend(meant);
        known.sort_unstable();
        known.dedup();
        self.matches(known, (k, most), allowed, &statistics)
    }

    /// Whether any text has a word.
    fn exists(&self, word: &str) -> Result<bool> {
        // A plan for any word would look for a row that has it one after the other.
        let sql = format!("SELECT FROM {} AS i WHERE {} @@ $1::pg_catalog.tsquery LIMIT 1", self.name, self.words);
        Ok(spi::each_planned(Mode::Read, &sql, &[Arg::Text(&lexeme(word))], |_| Ok(()))? > 0)
    }

    fn matches(
        &self,
        mut words: Vec<String>,
        (k, most): (usize, usize),
        allowed: &Allowed,
        statistics: &Rc<Statistics>,
    ) -> Result<Matches> {
        words.sort_by(|a, b| statistics.having(a).total_cmp(&statistics.having(b)));
        words.truncate(WORDS);
        let having: Vec<f64> = words.iter().map(|word| statistics.having(word)).collect();
        // What is in few texts, or is not known to be in many; where there is no such word, the rarest.
        let rare = having.iter().take_while(|&&having| having <= most as f64).count();
        let counts = vec![0; words.len()];
        let mut matches =
            Matches { words, seen: Vec::new(), places: HashMap::new(), having, counts, texts: statistics.texts };
        if matches.words.len() > rare.max(1) {
            self.find(&mut matches, " & ", usize::MAX, most, allowed)?;
            if rare == 0 && matches.seen.len() >= k {
                return Ok(matches);
            }
        }
        let rare = rare.max(1);
        matches.counts.fill(0);
        if self.find(&mut matches, " | ", rare, most, allowed)? {
            // All that have a rare word were seen: they can be counted.
            let counts = matches.having.iter_mut().zip(&matches.counts).take(rare);
            counts.for_each(|(having, &count)| *having = f64::from(count));
        }
        matches.texts = matches.texts.max(matches.seen.len() as f64);
        Ok(matches)
    }

    /// Adds items that have all, or any, of the first words; gives whether there are no more of them.
    fn find(
        &self,
        matches: &mut Matches,
        operator: &str,
        words: usize,
        most: usize,
        allowed: &Allowed,
    ) -> Result<bool> {
        let query: Vec<String> = matches.words.iter().take(words).map(|word| lexeme(word)).collect();
        let query = query.join(operator);
        let mut found = |among: Among| -> Result<bool> {
            let conditions = allowed.conditions(&quoted(&self.id), 2, among);
            let condition = format!("{} @@ $1::pg_catalog.tsquery{conditions}", self.words);
            let args: Vec<Arg<'_>> = [Arg::Text(&query)].into_iter().chain(allowed.args(among)).collect();
            // How it is best found depends on how frequent the words are.
            let sql = format!("{} LIMIT {most}", self.statement(&condition));
            let found = spi::each_planned(Mode::Read, &sql, &args, |row| {
                self.see(matches, row, allowed);
                Ok(())
            })?;
            Ok((found as usize) < most)
        };
        if allowed.few() {
            return found(Among::Candidates);
        }
        let all = found(Among::All)?;
        if !all && allowed.many().is_some() {
            found(Among::Candidates)?;
        }
        Ok(all)
    }

    /// Looks at the texts of items that others have found; items that do not exist, or may not be found, are not seen.
    pub fn see_items(&self, matches: &mut Matches, items: &[ItemId], allowed: &Allowed) -> Result<()> {
        let unseen = items.iter().filter(|item| !matches.places.contains_key(item) && allowed.is_candidate(item));
        let keys = Keys::of_items(unseen, self.kind);
        let conditions = allowed.conditions(&quoted(&self.id), 2, Among::All);
        let condition = format!("i.{} = {}{conditions}", quoted(&self.id), keys.any(1));
        let args: Vec<Arg<'_>> = [keys.arg()].into_iter().chain(allowed.args(Among::All)).collect();
        spi::each(Mode::Read, &self.statement(&condition), &args, |row| {
            self.see(matches, row, allowed);
            Ok(())
        })?;
        Ok(())
    }

    /// How ids and words of items under a condition are selected.
    fn statement(&self, condition: &str) -> String {
        let id = item_expression(&self.id, self.kind);
        format!("SELECT {id}, {} FROM {} AS i WHERE {condition}", self.words, self.name)
    }

    fn see(&self, matches: &mut Matches, row: &Row, allowed: &Allowed) {
        let Some(item) = item_of(row, 0, self.kind) else { return };
        let text: Option<TsVector> = row.get(1);
        let times = |word: &String| text.as_ref().map_or(0, |text| text.times(word)) as u32;
        let times: Vec<u32> = matches.words.iter().map(times).collect();
        matches.counts.iter_mut().zip(&times).for_each(|(count, &times)| *count += u32::from(times > 0));
        if allowed.is_candidate(&item) && !matches.places.contains_key(&item) {
            matches.places.insert(item.clone(), matches.seen.len());
            let length = text.as_ref().map_or(0, TsVector::length);
            matches.seen.push(Seen { item, length: length as f64, times });
        }
    }
}

impl Matches {
    /// No words.
    pub fn none() -> Self {
        Self {
            words: Vec::new(),
            seen: Vec::new(),
            places: HashMap::new(),
            having: Vec::new(),
            counts: Vec::new(),
            texts: 0.0,
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The items that have words of the query, best first, with their scores.
    pub fn ranked(&self) -> Vec<(ItemId, f64)> {
        let count = self.seen.len().max(1) as f64;
        let bm25 = Bm25 { mean_length: self.seen.iter().map(|seen| seen.length).sum::<f64>() / count };
        let says: Vec<f64> =
            self.having.iter().map(|&having| inverse_document_frequency(having.max(1.0), self.texts)).collect();
        let score = |seen: &Seen| {
            let matched = seen.times.iter().zip(&says).filter(|(times, _)| **times > 0);
            bm25.score(seen.length, matched.map(|(&times, &says)| (says, f64::from(times))))
        };
        let mut ranked: Vec<(ItemId, f64)> =
            self.seen.iter().map(|seen| (seen.item.clone(), score(seen))).filter(|(_, score)| *score > 0.0).collect();
        // Equal texts in the order of their ids, so that the same question has the same answer.
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ranked
    }
}

/// A word as a tsquery writes it.
fn lexeme(word: &str) -> String {
    format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"))
}

/// What a search without texts says.
pub fn no_texts(recommender: &Recommender) -> SqlError {
    SqlError::state(format!("recommender \"{}\" has no texts of items to be searched", recommender.name))
        .detail("No items relation with a text_column or a title_column is bound.")
        .hint("Bind them with rec_create(…, items => '…', title_column => '…'), give a query vector (embedding => …), or deploy a model of family \"dual_intent\".")
}
