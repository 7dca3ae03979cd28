//! Item ids in memory.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One item id as SQL knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ItemId {
    /// integer and bigint
    Int(i64),
    /// uuid, in network byte order
    Uuid([u8; 16]),
    /// text
    Text(String),
}

impl ItemId {
    /// Its kind.
    pub fn kind(&self) -> IdKind {
        match self {
            Self::Int(_) => IdKind::Int,
            Self::Uuid(_) => IdKind::Uuid,
            Self::Text(_) => IdKind::Text,
        }
    }
}

impl std::fmt::Display for ItemId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(id) => write!(f, "{id}"),
            Self::Text(id) => f.write_str(id),
            Self::Uuid(id) => {
                for (place, byte) in id.iter().enumerate() {
                    let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// What ids are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IdKind {
    /// integer and bigint
    Int,
    /// uuid
    Uuid,
    /// text
    Text,
}

/// Ids of one kind, ascending (text by bytes), without repeats: the dense index of an id is its rank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ItemIds {
    /// integer and bigint
    Int(Vec<i64>),
    /// uuid
    Uuid(Vec<[u8; 16]>),
    /// text
    Text(Vec<String>),
}

impl Default for ItemIds {
    fn default() -> Self {
        Self::Int(Vec::new())
    }
}

fn sorted<T: Ord>(mut ids: Vec<T>) -> Vec<T> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl From<Vec<i64>> for ItemIds {
    fn from(ids: Vec<i64>) -> Self {
        Self::Int(sorted(ids))
    }
}

impl From<Vec<[u8; 16]>> for ItemIds {
    fn from(ids: Vec<[u8; 16]>) -> Self {
        Self::Uuid(sorted(ids))
    }
}

impl From<Vec<String>> for ItemIds {
    fn from(ids: Vec<String>) -> Self {
        Self::Text(sorted(ids))
    }
}

impl ItemIds {
    /// Sorts and removes repeats.
    pub fn from_unsorted(ids: impl Into<Self>) -> Self {
        match ids.into() {
            Self::Int(ids) => ids.into(),
            Self::Uuid(ids) => ids.into(),
            Self::Text(ids) => ids.into(),
        }
    }

    /// Sorts ids that must be of one kind and removes repeats.
    pub fn from_ids(ids: Vec<ItemId>) -> Result<Self> {
        let kind = ids.first().map_or(IdKind::Int, ItemId::kind);
        let mut all = match kind {
            IdKind::Int => Self::Int(Vec::new()),
            IdKind::Uuid => Self::Uuid(Vec::new()),
            IdKind::Text => Self::Text(Vec::new()),
        };
        for id in ids {
            match (&mut all, id) {
                (Self::Int(all), ItemId::Int(id)) => all.push(id),
                (Self::Uuid(all), ItemId::Uuid(id)) => all.push(id),
                (Self::Text(all), ItemId::Text(id)) => all.push(id),
                (_, id) => return Err(Error::Parameter(format!("item id {id} is not of the same type as the first"))),
            }
        }
        Ok(Self::from_unsorted(all))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(ids) => ids.len(),
            Self::Uuid(ids) => ids.len(),
            Self::Text(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their kind.
    pub fn kind(&self) -> IdKind {
        match self {
            Self::Int(_) => IdKind::Int,
            Self::Uuid(_) => IdKind::Uuid,
            Self::Text(_) => IdKind::Text,
        }
    }

    /// Those whose dense indices are wanted.
    pub fn filtered(&self, wanted: impl Fn(usize) -> bool) -> Self {
        fn some<T: Clone>(ids: &[T], wanted: impl Fn(usize) -> bool) -> Vec<T> {
            ids.iter().enumerate().filter(|&(index, _)| wanted(index)).map(|(_, id)| id.clone()).collect()
        }
        match self {
            Self::Int(ids) => Self::Int(some(ids, wanted)),
            Self::Uuid(ids) => Self::Uuid(some(ids, wanted)),
            Self::Text(ids) => Self::Text(some(ids, wanted)),
        }
    }

    /// The id of a dense index. Panics when `index` is not below [`ItemIds::len`].
    pub fn get(&self, index: usize) -> ItemId {
        match self {
            Self::Int(ids) => ItemId::Int(ids[index]),
            Self::Uuid(ids) => ItemId::Uuid(ids[index]),
            Self::Text(ids) => ItemId::Text(ids[index].clone()),
        }
    }

    /// The dense index of an id.
    pub fn index_of(&self, id: &ItemId) -> Option<u32> {
        let rank = match (self, id) {
            (Self::Int(ids), ItemId::Int(id)) => ids.binary_search(id),
            (Self::Uuid(ids), ItemId::Uuid(id)) => ids.binary_search(id),
            (Self::Text(ids), ItemId::Text(id)) => ids.binary_search(id),
            _ => return None,
        };
        rank.ok().and_then(|rank| u32::try_from(rank).ok())
    }
}
