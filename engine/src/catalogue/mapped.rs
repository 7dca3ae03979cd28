//! The items of an artifact, used where they lie in its bytes.

use std::cmp::Ordering;

use safetensors::Dtype;

use super::buckets::{Buckets, bytes_key, int_key, name};
use super::{IdKind, ItemId, ItemIds};
use crate::artifact::{File, Payload, Shared, Texts};
use crate::{Error, Result};

const IDS: &str = "ids";
const OFFSETS: &str = "ids.offsets";
const BUCKETS: &str = "ids.buckets";
const COUNTS: &str = "counts";
const BY_COUNT: &str = "by_count";

/// Item ids, their dense indices, and how often each was touched in training. Shares the artifact's bytes.
#[derive(Debug, Clone)]
pub struct Catalogue {
    len: usize,
    ids: Ids,
    buckets: Buckets,
    table: Shared<u32>,
    counts: Shared<f32>,
    by_count: Shared<u32>,
}

#[derive(Debug, Clone)]
enum Ids {
    Int(Shared<i64>),
    Uuid(Shared<[u8; 16]>),
    Text(Texts),
}

impl Ids {
    fn key(&self, index: usize) -> u64 {
        match self {
            Self::Int(ids) => int_key(ids[index]),
            Self::Uuid(ids) => bytes_key(&ids[index]),
            Self::Text(ids) => bytes_key(ids.get(index)),
        }
    }
}

impl Catalogue {
    /// Finds the catalogue of an artifact and checks it: ids ascending, the table of buckets and the order by
    /// count consistent with them.
    pub(crate) fn open(kind: IdKind, items: u64, file: &File<'_>) -> Result<Self> {
        let malformed = |what: &str| Error::Malformed(format!("items of the artifact: {what}"));
        let len = u32::try_from(items).map_err(|_| malformed("more than 2^32"))? as usize;
        let (ids, found) = match kind {
            IdKind::Int => {
                let ids: Shared<i64> = file.numbers(IDS, Dtype::I64)?;
                let found = ids.len();
                (Ids::Int(ids), found)
            }
            IdKind::Uuid => {
                let ids: Shared<[u8; 16]> = file.numbers(IDS, Dtype::U8)?;
                let found = ids.len();
                (Ids::Uuid(ids), found)
            }
            IdKind::Text => {
                let (bytes, offsets) = (file.numbers(IDS, Dtype::U8)?, file.numbers(OFFSETS, Dtype::U64)?);
                let ids = Texts::new(bytes, offsets).map_err(malformed)?;
                let found = ids.len();
                (Ids::Text(ids), found)
            }
        };
        if found != len {
            return Err(malformed("their number is not the header's"));
        }
        let ascending = match &ids {
            Ids::Int(ids) => ids.is_sorted_by(|a, b| a < b),
            Ids::Uuid(ids) => ids.is_sorted_by(|a, b| a < b),
            Ids::Text(ids) => ids.is_ascending(),
        };
        if !ascending {
            return Err(malformed("ids are not in ascending order"));
        }
        let buckets = if len == 0 { Buckets::new(0, 0, 0) } else { Buckets::new(len, ids.key(0), ids.key(len - 1)) };
        let table: Shared<u32> = file.numbers(BUCKETS, Dtype::U32)?;
        let holds = |index: usize| {
            let bucket = buckets.of(ids.key(index))?;
            Some((table[bucket] as usize..table[bucket + 1] as usize).contains(&index))
        };
        let complete =
            table.len() == buckets.table_len(len) && table.is_sorted() && table.last() == Some(&(len as u32));
        if !complete || !(0..len).all(|index| holds(index) == Some(true)) {
            return Err(malformed("the lookup table does not match the ids"));
        }
        let counts: Shared<f32> = file.numbers(COUNTS, Dtype::F32)?;
        if counts.len() != len || !counts.iter().all(|&c| c >= 0.0 && c.is_finite()) {
            return Err(malformed("their counts are not one finite number an item"));
        }
        let by_count: Shared<u32> = file.numbers(BY_COUNT, Dtype::U32)?;
        // Strictly ordered, in range and complete: a permutation, without a list of those seen.
        let ordered = by_count.len() == len
            && by_count.iter().all(|&i| (i as usize) < len)
            && by_count.is_sorted_by(|&a, &b| by_count_then_index(&counts, a, b) == Ordering::Less);
        if !ordered {
            return Err(malformed("the order by count does not match the counts"));
        }
        Ok(Self { len, ids, buckets, table, counts, by_count })
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Kind of the ids.
    pub fn kind(&self) -> IdKind {
        match &self.ids {
            Ids::Int(_) => IdKind::Int,
            Ids::Uuid(_) => IdKind::Uuid,
            Ids::Text(_) => IdKind::Text,
        }
    }

    /// The dense index of an id; `None` for an item unknown to the model or an id of another kind.
    pub fn index_of(&self, id: &ItemId) -> Option<u32> {
        match (&self.ids, id) {
            (Ids::Int(_), ItemId::Int(id)) => self.index_of_int(*id),
            (Ids::Uuid(ids), ItemId::Uuid(id)) => {
                let (start, end) = self.bucket(bytes_key(id))?;
                found(start, ids.get(start..end)?.binary_search(id))
            }
            (Ids::Text(_), ItemId::Text(id)) => self.index_of_text(id),
            _ => None,
        }
    }

    /// The dense index of an integer id.
    #[inline]
    pub fn index_of_int(&self, id: i64) -> Option<u32> {
        let Ids::Int(ids) = &self.ids else { return None };
        let (start, end) = self.bucket(int_key(id))?;
        found(start, ids.get(start..end)?.binary_search(&id))
    }

    /// The dense index of a text id.
    pub fn index_of_text(&self, id: &str) -> Option<u32> {
        let Ids::Text(ids) = &self.ids else { return None };
        let (start, end) = self.bucket(bytes_key(id.as_bytes()))?;
        ids.find(id, start..end)
    }

    /// The id of a dense index. Panics when `index` is not below [`Catalogue::len`].
    pub fn id(&self, index: u32) -> ItemId {
        let index = index as usize;
        match &self.ids {
            Ids::Int(ids) => ItemId::Int(ids[index]),
            Ids::Uuid(ids) => ItemId::Uuid(ids[index]),
            Ids::Text(ids) => ItemId::Text(ids.text(index)),
        }
    }

    /// A copy of all ids.
    pub fn to_ids(&self) -> ItemIds {
        match &self.ids {
            Ids::Int(ids) => ItemIds::Int(ids.to_vec()),
            Ids::Uuid(ids) => ItemIds::Uuid(ids.to_vec()),
            Ids::Text(ids) => ItemIds::Text((0..self.len).map(|index| ids.text(index)).collect()),
        }
    }

    /// Whether the items are those of another catalogue, one by one.
    pub(crate) fn has_items_of(&self, other: &Self) -> bool {
        match (&self.ids, &other.ids) {
            (Ids::Int(own), Ids::Int(other)) => **own == **other,
            (Ids::Uuid(own), Ids::Uuid(other)) => **own == **other,
            (Ids::Text(own), Ids::Text(other)) => own == other,
            _ => false,
        }
    }

    /// How often each item was touched in training; zeros when the model's importer did not say.
    pub fn counts(&self) -> &[f32] {
        &self.counts
    }

    /// All items by descending count, ties by ascending index.
    pub fn by_count(&self) -> &[u32] {
        &self.by_count
    }

    fn bucket(&self, key: u64) -> Option<(usize, usize)> {
        let bucket = self.buckets.of(key)?;
        let bounds = self.table.get(bucket..bucket + 2)?;
        Some((bounds[0] as usize, bounds[1] as usize))
    }
}

fn found(start: usize, place: std::result::Result<usize, usize>) -> Option<u32> {
    place.ok().map(|place| (start + place) as u32)
}

fn by_count_then_index(counts: &[f32], a: u32, b: u32) -> Ordering {
    counts[b as usize].total_cmp(&counts[a as usize]).then(a.cmp(&b))
}

/// The tensors of a catalogue.
pub(crate) fn encode(ids: &ItemIds, counts: &[f32]) -> Result<Vec<(&'static str, Payload)>> {
    let n = ids.len();
    let refuse = |what: &str| Error::Parameter(format!("{} item ids: {what}", name(ids.kind())));
    if u32::try_from(n).is_err() {
        return Err(refuse("more than 2^32"));
    }
    let sorted = match ids {
        ItemIds::Int(ids) => ids.is_sorted_by(|a, b| a < b),
        ItemIds::Uuid(ids) => ids.is_sorted_by(|a, b| a < b),
        ItemIds::Text(ids) => ids.is_sorted_by(|a, b| a < b),
    };
    if !sorted {
        return Err(refuse("not ascending, or repeated"));
    }
    if counts.len() != n || !counts.iter().all(|&c| c >= 0.0 && c.is_finite()) {
        return Err(refuse("their counts must be one finite number an item"));
    }
    // −0 would sort after 0 and break the tie by index.
    let counts: Vec<f32> = counts.iter().map(|&c| c + 0.0).collect();
    let mut by_count: Vec<u32> = (0..n as u32).collect();
    by_count.sort_unstable_by(|&a, &b| by_count_then_index(&counts, a, b));

    let keys: Vec<u64> = match ids {
        ItemIds::Int(ids) => ids.iter().map(|&id| int_key(id)).collect(),
        ItemIds::Uuid(ids) => ids.iter().map(|id| bytes_key(id)).collect(),
        ItemIds::Text(ids) => ids.iter().map(|id| bytes_key(id.as_bytes())).collect(),
    };
    let buckets = Buckets::new(n, keys.first().copied().unwrap_or(0), keys.last().copied().unwrap_or(0));
    let mut tensors = vec![
        (BUCKETS, Payload::u32(buckets.table(keys.into_iter()))),
        (COUNTS, Payload::f32(&[n], counts)),
        (BY_COUNT, Payload::u32(by_count)),
    ];
    match ids {
        ItemIds::Int(ids) => tensors.push((IDS, Payload::i64(ids.clone()))),
        ItemIds::Uuid(ids) => tensors.push((IDS, Payload::u8(&[n, 16], ids.concat()))),
        ItemIds::Text(ids) => {
            let (bytes, offsets) = Texts::laid_out(ids);
            tensors.push((OFFSETS, Payload::u64(offsets)));
            tensors.push((IDS, Payload::u8(&[bytes.len()], bytes)));
        }
    }
    Ok(tensors)
}
