//! Filling a [`Corpus`] from a stream of rows.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use serde_json::Value;

use super::{Corpus, tokens};
use crate::catalogue::{IdKind, ItemId, ItemIds};
use crate::{Error, Result};

/// An item id as a row holds it, without a copy of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKey<'a> {
    /// integer and bigint
    Int(i64),
    /// uuid, in network byte order
    Uuid([u8; 16]),
    /// text
    Text(&'a str),
}

impl<'a> From<&'a ItemId> for ItemKey<'a> {
    fn from(id: &'a ItemId) -> Self {
        match id {
            ItemId::Int(id) => Self::Int(*id),
            ItemId::Uuid(id) => Self::Uuid(*id),
            ItemId::Text(id) => Self::Text(id),
        }
    }
}

/// Ids seen so far, numbered as they came.
#[derive(Debug)]
enum Seen {
    Int(HashMap<i64, u32>),
    Uuid(HashMap<[u8; 16], u32>),
    Text(HashMap<String, u32>),
}

/// Builds a [`Corpus`] from rows in one pass: some 4 bytes an event (12 with times) beside one entry an item.
///
/// Events come user by user, oldest first: [`CorpusBuilder::user`] begins the next user. Items may be described
/// before, between or after the events that touch them; described items without events are in the catalogue too.
#[derive(Debug)]
pub struct CorpusBuilder {
    seen: Seen,
    offsets: Vec<usize>,
    events: Vec<u32>,
    times: Vec<f64>,
    vocabulary: HashMap<String, u32>,
    described: Vec<(u32, u32)>,
    vector_items: Vec<u32>,
    vectors: Vec<f32>,
    vector_dim: usize,
}

impl CorpusBuilder {
    /// A builder for item ids of one kind.
    pub fn new(kind: IdKind) -> Self {
        let seen = match kind {
            IdKind::Int => Seen::Int(HashMap::new()),
            IdKind::Uuid => Seen::Uuid(HashMap::new()),
            IdKind::Text => Seen::Text(HashMap::new()),
        };
        Self {
            seen,
            offsets: vec![0],
            events: Vec::new(),
            times: Vec::new(),
            vocabulary: HashMap::new(),
            described: Vec::new(),
            vector_items: Vec::new(),
            vectors: Vec::new(),
            vector_dim: 0,
        }
    }

    /// Begins the next user: the events that follow are theirs.
    pub fn user(&mut self) {
        self.offsets.push(self.events.len());
    }

    /// The present user touched `item`. `time` is in Unix seconds, and is given for every event or for none.
    ///
    /// [`Error::Data`] when no user was begun, when only some events have a time, or when one is not finite.
    pub fn event(&mut self, item: ItemKey<'_>, time: Option<f64>) -> Result<()> {
        if self.offsets.len() < 2 {
            return Err(Error::Data("an event belongs to no user".into()));
        }
        let item = self.intern(item)?;
        let timed = self.times.len() == self.events.len();
        match time {
            Some(time) if timed && time.is_finite() => self.times.push(time),
            Some(time) if timed => return Err(Error::Data(format!("an event has the time {time}"))),
            None if self.times.is_empty() => {}
            _ => {
                let why = "some events have a time and others have none: fill it, or bind no time column";
                return Err(Error::Data(why.into()));
            }
        }
        self.events.push(item);
        Ok(())
    }

    /// Puts an item into the catalogue, whether or not anybody touched it.
    pub fn item(&mut self, item: ItemKey<'_>) -> Result<()> {
        self.intern(item).map(drop)
    }

    /// Gives an item one attribute.
    pub fn attribute(&mut self, item: ItemKey<'_>, token: &str) -> Result<()> {
        let item = self.intern(item)?;
        self.describe(item, token);
        Ok(())
    }

    /// Gives an item the attributes of a JSON value: the elements of an array (nested ones flattened), and
    /// `key=value` for the fields of an object.
    pub fn attributes(&mut self, item: ItemKey<'_>, json: &Value) -> Result<()> {
        let item = self.intern(item)?;
        tokens::each_token(json, &mut |token| self.describe(item, token));
        Ok(())
    }

    /// The same from JSON text. [`Error::Data`] when it is none.
    pub fn attributes_json(&mut self, item: ItemKey<'_>, json: &str) -> Result<()> {
        let json =
            serde_json::from_str(json).map_err(|e| Error::Data(format!("attributes of an item are not JSON: {e}")))?;
        self.attributes(item, &json)
    }

    /// Gives an item its vector. [`Error::Data`] when its dimension is not that of the others or a number in it
    /// is not finite.
    pub fn vector(&mut self, item: ItemKey<'_>, vector: &[f32]) -> Result<()> {
        if self.vector_items.is_empty() {
            self.vector_dim = vector.len();
        }
        if vector.len() != self.vector_dim {
            return Err(Error::Data(format!(
                "an item vector has {} dimensions, others have {}",
                vector.len(),
                self.vector_dim
            )));
        }
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(Error::Data("an item vector holds a number that is not finite".into()));
        }
        let item = self.intern(item)?;
        self.vector_items.push(item);
        self.vectors.extend_from_slice(vector);
        Ok(())
    }

    /// The corpus: ids sorted, every list renumbered by rank. An item's last vector counts; its attributes are
    /// those of all its descriptions.
    pub fn finish(mut self) -> Corpus {
        let (items, rank) = match self.seen {
            Seen::Int(seen) => ranked(seen, ItemIds::Int),
            Seen::Uuid(seen) => ranked(seen, ItemIds::Uuid),
            Seen::Text(seen) => ranked(seen, ItemIds::Text),
        };
        let n = items.len();
        self.events.iter_mut().for_each(|item| *item = rank[*item as usize]);
        // The first user begins at the first event, so what `new` put in front is either that or superfluous.
        if self.offsets.len() > 1 {
            self.offsets.remove(0);
            self.offsets.push(self.events.len());
        }
        let (attribute_offsets, attributes) = attribute_rows(self.vocabulary, &self.described, &rank);
        let mut vectors = vec![0.0; if self.vector_items.is_empty() { 0 } else { n * self.vector_dim }];
        if self.vector_dim > 0 {
            for (&item, vector) in self.vector_items.iter().zip(self.vectors.chunks_exact(self.vector_dim)) {
                let start = rank[item as usize] as usize * self.vector_dim;
                vectors[start..start + self.vector_dim].copy_from_slice(vector);
            }
        }
        Corpus {
            items,
            offsets: self.offsets,
            events: self.events,
            times: self.times,
            attribute_offsets,
            attributes,
            vectors,
            vector_dim: self.vector_dim,
        }
    }

    fn intern(&mut self, item: ItemKey<'_>) -> Result<u32> {
        match (&mut self.seen, item) {
            (Seen::Int(seen), ItemKey::Int(id)) => number(seen, &id),
            (Seen::Uuid(seen), ItemKey::Uuid(id)) => number(seen, &id),
            (Seen::Text(seen), ItemKey::Text(id)) => number(seen, id),
            _ => Err(Error::Data("item ids are not all of the same type".into())),
        }
    }

    fn describe(&mut self, item: u32, token: &str) {
        let next = self.vocabulary.len() as u32;
        let token = match self.vocabulary.get(token) {
            Some(&token) => token,
            None => *self.vocabulary.entry(token.to_owned()).or_insert(next),
        };
        self.described.push((item, token));
    }
}

/// The number of an id, the next free one when it is new.
fn number<T, Q>(seen: &mut HashMap<T, u32>, id: &Q) -> Result<u32>
where
    T: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ToOwned<Owned = T> + ?Sized,
{
    if let Some(&number) = seen.get(id) {
        return Ok(number);
    }
    let number = u32::try_from(seen.len()).map_err(|_| Error::Data("more than 2^32 items".into()))?;
    seen.insert(id.to_owned(), number);
    Ok(number)
}

/// Ids ascending, and the rank of each by the number it had.
fn ranked<T: Ord>(seen: HashMap<T, u32>, wrap: impl FnOnce(Vec<T>) -> ItemIds) -> (ItemIds, Vec<u32>) {
    let mut pairs: Vec<(T, u32)> = seen.into_iter().collect();
    pairs.sort_unstable();
    let mut rank = vec![0u32; pairs.len()];
    for (place, (_, number)) in pairs.iter().enumerate() {
        rank[*number as usize] = place as u32;
    }
    (wrap(pairs.into_iter().map(|(id, _)| id).collect()), rank)
}

/// Attributes as CSR; tokens numbered in the order of their text, so that the order of the rows does not matter.
fn attribute_rows(vocabulary: HashMap<String, u32>, described: &[(u32, u32)], rank: &[u32]) -> (Vec<usize>, Vec<u32>) {
    if vocabulary.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut words: Vec<(String, u32)> = vocabulary.into_iter().collect();
    words.sort_unstable();
    let mut word_rank = vec![0u32; words.len()];
    for (place, (_, number)) in words.iter().enumerate() {
        word_rank[*number as usize] = place as u32;
    }
    let mut pairs: Vec<(u32, u32)> =
        described.iter().map(|&(i, t)| (rank[i as usize], word_rank[t as usize])).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut offsets = vec![0usize; rank.len() + 1];
    for &(item, _) in &pairs {
        offsets[item as usize + 1] += 1;
    }
    for item in 0..rank.len() {
        offsets[item + 1] += offsets[item];
    }
    (offsets, pairs.into_iter().map(|(_, token)| token).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_ranks_whatever_the_order_of_rows() {
        let mut b = CorpusBuilder::new(IdKind::Text);
        for history in [&["pear", "apple"][..], &[], &["zoo", "pear", "pear"]] {
            b.user();
            for item in history {
                b.event(ItemKey::Text(item), None).unwrap();
            }
        }
        b.attributes_json(ItemKey::Text("kiwi"), r#"["green", "fruit", "green"]"#).unwrap();
        b.attribute(ItemKey::Text("apple"), "fruit").unwrap();
        b.vector(ItemKey::Text("zoo"), &[1.0, 2.0]).unwrap();
        let c = b.finish();
        assert_eq!(c.items, ItemIds::Text(["apple", "kiwi", "pear", "zoo"].map(String::from).to_vec()));
        assert_eq!(c.users(), 3);
        assert_eq!((c.history(0), c.history(1), c.history(2)), (&[2, 0][..], &[][..], &[3, 2, 2][..]));
        assert_eq!(c.attribute_offsets, [0, 1, 3, 3, 3]);
        assert_eq!(c.attributes, [0, 0, 1]);
        assert_eq!(c.vectors, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(c.counts(), [1, 0, 3, 1]);
        let cut = c.without_last(2);
        assert_eq!((cut.history(0).len(), cut.history(2)), (0, &[3][..]));
    }

    #[test]
    fn no_rows_give_an_empty_corpus_of_the_right_kind() {
        let c = CorpusBuilder::new(IdKind::Uuid).finish();
        assert_eq!((c.users(), c.items.kind()), (0, IdKind::Uuid));
        let mut b = CorpusBuilder::new(IdKind::Int);
        b.item(ItemKey::Int(-3)).unwrap();
        let c = b.finish();
        assert_eq!((c.users(), c.items.len(), c.attribute_offsets.len(), c.vectors.len()), (0, 1, 0, 0));
    }

    #[test]
    fn half_timed_events_and_mixed_ids_are_refused() {
        let mut b = CorpusBuilder::new(IdKind::Int);
        assert!(matches!(b.event(ItemKey::Int(1), None), Err(Error::Data(_))));
        b.user();
        b.event(ItemKey::Int(1), Some(5.0)).unwrap();
        assert!(matches!(b.event(ItemKey::Int(1), None), Err(Error::Data(_))));
        assert!(matches!(b.event(ItemKey::Int(1), Some(f64::INFINITY)), Err(Error::Data(_))));
        assert!(matches!(b.event(ItemKey::Text("1"), Some(6.0)), Err(Error::Data(_))));
        b.event(ItemKey::Int(2), Some(6.0)).unwrap();
        assert!(matches!(b.vector(ItemKey::Int(1), &[f32::NAN]), Err(Error::Data(_))));
        let mut untimed = CorpusBuilder::new(IdKind::Int);
        untimed.user();
        untimed.event(ItemKey::Int(1), None).unwrap();
        assert!(matches!(untimed.event(ItemKey::Int(1), Some(5.0)), Err(Error::Data(_))));
    }

    #[test]
    fn vectors_of_two_dimensions_are_refused() {
        let mut b = CorpusBuilder::new(IdKind::Int);
        b.vector(ItemKey::Int(1), &[1.0, 0.0]).unwrap();
        assert!(matches!(b.vector(ItemKey::Int(2), &[1.0]), Err(Error::Data(_))));
    }
}
