//! From an id to its rank in about one memory access.
//!
//! Every id has a 64-bit key that sorts as the id does. The span of keys is cut into at most `2·n` buckets of
//! equal width, a power of two, and a table holds the rank of the first id of each. Where ids are dense, as
//! serial columns are, a bucket holds one id and the table is the answer; where they are random, as uuids are, a
//! bucket holds about one; where they are clustered, what is left is a binary search within a bucket.

use super::IdKind;

/// Where the buckets lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    first: u64,
    span: u64,
    shift: u32,
}

impl Buckets {
    /// The cut for `n` ids whose keys run from `first` to `last`.
    pub(super) fn new(n: usize, first: u64, last: u64) -> Self {
        let span = last.saturating_sub(first);
        let most = (n as u64).saturating_mul(2).max(1);
        let mut shift = 0;
        while span >> shift >= most {
            shift += 1;
        }
        Self { first, span, shift }
    }

    /// Numbers in the table: one for each bucket and one for the end.
    pub(super) fn table_len(&self, n: usize) -> usize {
        if n == 0 { 1 } else { (self.span >> self.shift) as usize + 2 }
    }

    /// The bucket of a key, if it lies in the span.
    pub(super) fn of(&self, key: u64) -> Option<usize> {
        let distance = key.checked_sub(self.first)?;
        (distance <= self.span).then_some((distance >> self.shift) as usize)
    }

    /// The table for keys in ascending order.
    pub(super) fn table(&self, keys: impl ExactSizeIterator<Item = u64>) -> Vec<u32> {
        let n = keys.len();
        let mut table = vec![0u32; self.table_len(n)];
        for bucket in keys.filter_map(|key| self.of(key)) {
            table[bucket + 1] += 1;
        }
        for bucket in 1..table.len() {
            table[bucket] += table[bucket - 1];
        }
        table
    }
}

/// Sorts as the signed number does.
pub(super) fn int_key(id: i64) -> u64 {
    (id as u64) ^ (1 << 63)
}

/// The first eight bytes, zero where there are fewer: sorts as the bytes do, up to ties.
pub(super) fn bytes_key(id: &[u8]) -> u64 {
    let mut head = [0u8; 8];
    let n = id.len().min(8);
    head[..n].copy_from_slice(&id[..n]);
    u64::from_be_bytes(head)
}

/// Name of a kind in messages.
pub(super) fn name(kind: IdKind) -> &'static str {
    match kind {
        IdKind::Int => "integer",
        IdKind::Uuid => "uuid",
        IdKind::Text => "text",
    }
}
