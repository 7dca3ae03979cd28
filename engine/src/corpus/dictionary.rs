//! From item ids to numbers while rows are read, and to ranks at the end.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

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
pub(super) struct Dictionary {
    seen: Seen,
    /// Bytes of the ids' texts on the heap.
    text: usize,
}

enum Seen {
    Int(HashMap<i64, u32>),
    Uuid(HashMap<[u8; 16], u32>),
    Text(HashMap<String, u32>),
}

impl Dictionary {
    pub(super) fn new(kind: IdKind) -> Self {
        let seen = match kind {
            IdKind::Int => Seen::Int(HashMap::new()),
            IdKind::Uuid => Seen::Uuid(HashMap::new()),
            IdKind::Text => Seen::Text(HashMap::new()),
        };
        Self { seen, text: 0 }
    }

    pub(super) fn len(&self) -> usize {
        match &self.seen {
            Seen::Int(seen) => seen.len(),
            Seen::Uuid(seen) => seen.len(),
            Seen::Text(seen) => seen.len(),
        }
    }

    /// Bytes that it takes, and will take beside itself while ids are ranked.
    pub(super) fn resident(&self) -> usize {
        match &self.seen {
            Seen::Int(seen) => table(seen),
            Seen::Uuid(seen) => table(seen),
            Seen::Text(seen) => table(seen) + self.text,
        }
    }

    /// The number of an id, the next free one when it is new.
    pub(super) fn number(&mut self, item: ItemKey<'_>) -> Result<u32> {
        match (&mut self.seen, item) {
            (Seen::Int(seen), ItemKey::Int(id)) => number(seen, &id),
            (Seen::Uuid(seen), ItemKey::Uuid(id)) => number(seen, &id),
            (Seen::Text(seen), ItemKey::Text(id)) => {
                let known = seen.len();
                let number = number(seen, id)?;
                self.text += if seen.len() > known { id.len() } else { 0 };
                Ok(number)
            }
            _ => Err(Error::Data("item ids are not all of the same type".into())),
        }
    }

    /// Ids ascending, and the rank of each by the number it had.
    pub(super) fn ranked(self) -> (ItemIds, Vec<u32>) {
        match self.seen {
            Seen::Int(seen) => ranked(seen, ItemIds::Int),
            Seen::Uuid(seen) => ranked(seen, ItemIds::Uuid),
            Seen::Text(seen) => ranked(seen, ItemIds::Text),
        }
    }
}

/// A hash table with one control byte an entry; then the pairs that are sorted, the ids and the ranks.
fn table<T>(seen: &HashMap<T, u32>) -> usize {
    let entry = size_of::<(T, u32)>();
    seen.capacity() * (entry + 1) + seen.len() * (entry + size_of::<T>() + size_of::<u32>())
}

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

fn ranked<T: Ord>(seen: HashMap<T, u32>, wrap: impl FnOnce(Vec<T>) -> ItemIds) -> (ItemIds, Vec<u32>) {
    let mut pairs: Vec<(T, u32)> = seen.into_iter().collect();
    pairs.sort_unstable();
    let mut rank = vec![0u32; pairs.len()];
    for (place, (_, number)) in pairs.iter().enumerate() {
        rank[*number as usize] = place as u32;
    }
    (wrap(pairs.into_iter().map(|(id, _)| id).collect()), rank)
}
