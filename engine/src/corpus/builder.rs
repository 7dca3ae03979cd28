//! Filling a [`Corpus`] from a stream of rows.

use serde_json::Value;

use super::bag::Vocabulary;
use super::column::{Column, Spills};
use super::contents::Descriptions;
use super::dictionary::{Dictionary, ItemKey};
use super::searches::{Asked, SearchRow};
use super::{Corpus, Histories, tokens};
use crate::catalogue::IdKind;
use crate::{Error, Result};

/// Builds a [`Corpus`] from rows in one pass: 4 bytes an event (8 more with times, 4 with outcomes) and 8 a user, which
/// go to files once they are too many for memory, beside one entry an item, which stays there.
///
/// Events and searches come user by user, oldest first: [`CorpusBuilder::user`] begins the next user. Items may be described
/// before, between or after the events that touch them; described items without events are in the catalogue too. Searches
/// stay in memory.
pub struct CorpusBuilder {
    items: Dictionary,
    descriptions: Descriptions,
    /// Words of texts and queries.
    lexicon: Vocabulary,
    asked: Asked,
    offsets: Column<u64>,
    events: Column<u32>,
    times: Column<f64>,
    outcomes: Column<u32>,
    /// Events of the users before the present one.
    begun: usize,
    untimed: bool,
    memory: Memory,
}

/// How much of it the builder may take, and where the rest goes.
struct Memory {
    bound: usize,
    /// Taken when the histories go to files.
    spills: Option<Spills>,
    /// About how many bytes came since the bound was looked at.
    grown: usize,
}

/// Memory is measured when it has grown by this much: a thousandth of any bound that makes sense.
const MEASURE: usize = 64 << 10;

impl CorpusBuilder {
    /// A builder for item ids of one kind that keeps everything in memory.
    pub fn new(kind: IdKind) -> Self {
        Self::with_memory(kind, Memory { bound: usize::MAX, spills: None, grown: 0 })
    }

    /// A builder that takes at most `bytes` of memory, give or take a few hundred kilobytes: histories that need more
    /// than half of what the items leave, so that a model can be fitted in the rest, go to files that `spills` makes.
    /// [`Error::Memory`] from any call when what is known of the items does not fit by itself.
    pub fn bounded(kind: IdKind, bytes: usize, spills: Spills) -> Self {
        Self::with_memory(kind, Memory { bound: bytes, spills: Some(spills), grown: 0 })
    }

    fn with_memory(kind: IdKind, memory: Memory) -> Self {
        Self {
            items: Dictionary::new(kind),
            descriptions: Descriptions::default(),
            lexicon: Vocabulary::default(),
            asked: Asked::default(),
            offsets: Column::default(),
            events: Column::default(),
            times: Column::default(),
            outcomes: Column::default(),
            begun: 0,
            untimed: false,
            memory,
        }
    }

    /// Begins the next user: the events that follow are theirs.
    pub fn user(&mut self) -> Result<()> {
        self.offsets.push(self.events.len() as u64)?;
        self.begun = self.events.len();
        self.asked.user();
        self.grow(size_of::<u64>())
    }

    /// The present user touched `item`. `time` is in Unix seconds, and is given for every event or for none, but
    /// see [`CorpusBuilder::forget_times`].
    ///
    /// [`Error::Data`] when no user was begun, when only some events have a time, or when one is not finite.
    pub fn event(&mut self, item: ItemKey<'_>, time: Option<f64>) -> Result<()> {
        if self.offsets.len() == 0 {
            return Err(Error::Data("an event belongs to no user".into()));
        }
        let item = self.items.number(item)?;
        self.time(time.filter(|_| !self.untimed))?;
        self.events.push(item)?;
        self.asked.event();
        self.grow(size_of::<u32>() + size_of::<f64>())
    }

    /// The present user looked for something, after the events that were given so far; before the first user, somebody who
    /// is not known did.
    ///
    /// [`Error::Data`] when its vector's dimension is not that of the others, or a number in it is not finite.
    pub fn search(&mut self, row: &SearchRow<'_>) -> Result<()> {
        self.asked.check(row)?;
        let after = self.events.len() - self.begun;
        self.asked.push(row, after, &mut self.items, &mut self.lexicon)?;
        self.grow((row.words.len() + row.shown.len() + row.vector.map_or(0, <[f32]>::len) + 4) * size_of::<f32>())
    }

    /// What came of the event that was given last: bit t is set where the answer to task t is yes. Given for every event
    /// or for none.
    pub fn outcome(&mut self, outcome: u32) -> Result<()> {
        self.outcomes.push(outcome)?;
        self.grow(size_of::<u32>())
    }

    fn time(&mut self, time: Option<f64>) -> Result<()> {
        let timed = self.times.len() == self.events.len();
        match time {
            Some(time) if timed && time.is_finite() => self.times.push(time),
            Some(time) if timed => Err(Error::Data(format!("an event has the time {time}"))),
            None if self.times.len() == 0 => Ok(()),
            _ => {
                let why = "some events have a time and others have none: fill it, or bind no time column";
                Err(Error::Data(why.into()))
            }
        }
    }

    /// Leaves out the times of all events, those that were given and those that will be.
    pub fn forget_times(&mut self) {
        self.times = Column::default();
        self.untimed = true;
    }

    /// Puts an item into the catalogue, whether or not anybody touched it.
    pub fn item(&mut self, item: ItemKey<'_>) -> Result<()> {
        self.items.number(item)?;
        self.grow(size_of::<ItemKey<'_>>())
    }

    /// Gives an item one attribute.
    pub fn attribute(&mut self, item: ItemKey<'_>, token: &str) -> Result<()> {
        let item = self.items.number(item)?;
        self.descriptions.attribute(item, token);
        self.grow(size_of::<ItemKey<'_>>() + token.len())
    }

    /// Gives an item the words of its text, as the search configuration makes them.
    pub fn words<'a>(&mut self, item: ItemKey<'_>, words: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let (item, mut length) = (self.items.number(item)?, size_of::<ItemKey<'_>>());
        for word in words {
            let number = self.lexicon.number(word);
            self.descriptions.word(item, number);
            length += word.len();
        }
        self.grow(length)
    }

    /// Gives an item the attributes of a JSON value: the elements of an array (nested ones flattened), and
    /// `key=value` for the fields of an object.
    pub fn attributes(&mut self, item: ItemKey<'_>, json: &Value) -> Result<()> {
        let (item, mut length) = (self.items.number(item)?, size_of::<ItemKey<'_>>());
        tokens::each_token(json, &mut |token| {
            self.descriptions.attribute(item, token);
            length += token.len();
        });
        self.grow(length)
    }

    /// The same from JSON text. [`Error::Data`] when it is none.
    pub fn attributes_json(&mut self, item: ItemKey<'_>, json: &str) -> Result<()> {
        self.attributes(item, &parsed(json)?)
    }

    /// Gives an item its vector. [`Error::Data`] when its dimension is not that of the others or a number in it
    /// is not finite.
    pub fn vector(&mut self, item: ItemKey<'_>, vector: &[f32]) -> Result<()> {
        self.descriptions.check(vector)?;
        let item = self.items.number(item)?;
        self.descriptions.vector(item, vector);
        self.grow(size_of::<ItemKey<'_>>() + size_of_val(vector))
    }

    /// The corpus: ids sorted, every list renumbered by rank. An item's last vector counts; its attributes are
    /// those of all its descriptions.
    pub fn finish(mut self) -> Result<Corpus> {
        self.keep_within_bound()?;
        if self.offsets.len() > 0 {
            self.offsets.push(self.events.len() as u64)?;
        }
        if self.outcomes.len() > 0 && self.outcomes.len() != self.events.len() {
            return Err(Error::Data("what came of some events is known, and not of others".into()));
        }
        let (items, rank) = self.items.ranked();
        self.events.rename(&rank)?;
        let histories = Histories {
            offsets: self.offsets.finish()?,
            events: self.events.finish()?,
            times: self.times.finish()?,
            outcomes: self.outcomes.finish()?,
        };
        let (lexicon, words) = self.lexicon.in_order();
        let searches = self.asked.finish(&rank, &words);
        Ok(Corpus::new(self.descriptions.finish(items, &rank, (lexicon, &words)), histories, searches))
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.memory.grown += bytes;
        if self.memory.grown < MEASURE { Ok(()) } else { self.keep_within_bound() }
    }

    fn keep_within_bound(&mut self) -> Result<()> {
        self.memory.grown = 0;
        let said = self.lexicon.resident() + self.asked.resident();
        let items = self.items.resident() + self.descriptions.resident() + said;
        if items > self.memory.bound {
            let megabytes = |bytes: usize| bytes.div_ceil(1 << 20);
            return Err(Error::Memory(format!(
                "out of training memory: ids and contents of {} items, and searches, need at least {} MB, {} MB are allowed",
                self.items.len(),
                megabytes(items),
                megabytes(self.memory.bound),
            )));
        }
        let events = self.events.resident() + self.times.resident() + self.outcomes.resident();
        let histories = self.offsets.resident() + events;
        if histories > (self.memory.bound - items) / 2
            && let Some(mut create) = self.memory.spills.take()
        {
            self.offsets.spill(create()?)?;
            self.events.spill(create()?)?;
            self.times.spill(create()?)?;
            self.outcomes.spill(create()?)?;
        }
        Ok(())
    }
}

/// The attributes that JSON text describes an item by, as [`CorpusBuilder::attributes`] reads them. [`Error::Data`] when it
/// is none.
pub fn attribute_tokens(json: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    tokens::each_token(&parsed(json)?, &mut |token| all.push(token.to_owned()));
    Ok(all)
}

fn parsed(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| Error::Data(format!("attributes of an item are not JSON: {e}")))
}
