//! Where things are in a segment's bytes.
//!
//! ```text
//! offset  bytes
//!      0  8     "pgrecseg"
//!      8  4     format version
//!     12  4     numbers a vector
//!     16  8     vectors
//!     24  4     length of the longest vector, f32
//!     28  4     length of the most that rounding lost of a vector, f32
//!     32  12    connectivity, expansion_add, expansion_search
//!     44  2     metric, scalar
//!     48  8     bytes of the usearch index
//!     56  4     entries
//!     60  60    zero
//!    120        the usearch index (of "i8" vectors: bytes that it does not look into); absent without vectors
//!               8 bytes, the vectors, 64 bytes of its header, 40 of its graph's, 2 a node (its level), the nodes:
//!               key (8), level (2), then for each level from 0 a count (4) and room for as many slots (4 each)
//!         …     4 bytes a node: the sum of the levels of the nodes before it
//!         …     the entries: their slots (4 bytes each), factors, squares, rows of bytes (`entries.rs`)
//! ```
//! All numbers are little-endian. usearch puts 8 bytes before its vectors, which therefore begin at a multiple of 128.
//! The table of levels is what says where a node begins, so that nothing has to be computed to open a segment.

use std::ops::Range;

use super::SegmentOptions;
use super::entries::entry_bytes;
use super::format::{Format, Metric, Scalar};
use crate::KernelError;

const MAGIC: &[u8; 8] = b"pgrecseg";
const VERSION: u32 = 3;
/// Bytes before the usearch index.
pub(super) const HEADER: usize = 120;
/// usearch's numbers of rows and bytes a row.
const MATRIX_HEAD: usize = 8;
/// usearch's header of an index.
const INDEX_HEAD: usize = 64;
/// usearch's header of a graph.
const GRAPH_HEAD: usize = 40;
/// A node's key and level.
const NODE_HEAD: usize = 10;

/// The header's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub format: Format,
    pub len: usize,
    pub longest: f32,
    pub error: f32,
    pub options: SegmentOptions,
    pub index_bytes: usize,
    pub entries: usize,
}

fn wrong(what: &str) -> KernelError {
    KernelError::Segment(what.to_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}

const METRICS: [Metric; 4] = [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::Hamming];
const SCALARS: [Scalar; 5] = [Scalar::F32, Scalar::F16, Scalar::BF16, Scalar::I8, Scalar::Bit];

impl Metric {
    /// Its number in stored bytes.
    pub fn code(self) -> u8 {
        METRICS.iter().position(|&metric| metric == self).unwrap_or(0) as u8
    }

    /// The metric of a number in stored bytes.
    pub fn from_code(code: u8) -> Option<Self> {
        METRICS.get(usize::from(code)).copied()
    }
}

impl Scalar {
    /// Its number in stored bytes.
    pub fn code(self) -> u8 {
        SCALARS.iter().position(|&scalar| scalar == self).unwrap_or(0) as u8
    }

    /// The scalar of a number in stored bytes.
    pub fn from_code(code: u8) -> Option<Self> {
        SCALARS.get(usize::from(code)).copied()
    }
}

impl Header {
    pub(super) fn write(&self, to: &mut [u8]) -> Result<(), KernelError> {
        let small = |n: usize| u32::try_from(n).map_err(|_| KernelError::Segment(format!("{n} is too large")));
        to[..8].copy_from_slice(MAGIC);
        to[8..12].copy_from_slice(&VERSION.to_le_bytes());
        to[12..16].copy_from_slice(&small(self.format.dim())?.to_le_bytes());
        to[16..24].copy_from_slice(&(self.len as u64).to_le_bytes());
        to[24..28].copy_from_slice(&self.longest.to_le_bytes());
        to[28..32].copy_from_slice(&self.error.to_le_bytes());
        let SegmentOptions { connectivity, expansion_add, expansion_search } = self.options;
        to[32..36].copy_from_slice(&small(connectivity)?.to_le_bytes());
        to[36..40].copy_from_slice(&small(expansion_add)?.to_le_bytes());
        to[40..44].copy_from_slice(&small(expansion_search)?.to_le_bytes());
        to[44] = self.format.metric().code();
        to[45] = self.format.scalar().code();
        to[48..56].copy_from_slice(&(self.index_bytes as u64).to_le_bytes());
        to[56..60].copy_from_slice(&small(self.entries)?.to_le_bytes());
        Ok(())
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, KernelError> {
        let header = bytes.get(..HEADER).ok_or_else(|| wrong("shorter than its header"))?;
        if &header[..8] != MAGIC {
            return Err(wrong("not a segment"));
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(8) != VERSION {
            return Err(KernelError::Segment(format!("format version {}, not {VERSION}", word(8))));
        }
        let metric = Metric::from_code(header[44]).ok_or_else(|| wrong("unknown metric"))?;
        let scalar = Scalar::from_code(header[45]).ok_or_else(|| wrong("unknown scalar"))?;
        let header = Self {
            format: Format::new(metric, scalar, word(12) as usize)?,
            len: usize_at(header, 16).ok_or_else(|| wrong("too many vectors"))?,
            longest: f32::from_bits(word(24)),
            error: f32::from_bits(word(28)),
            options: SegmentOptions {
                connectivity: word(32) as usize,
                expansion_add: word(36) as usize,
                expansion_search: word(40) as usize,
            },
            index_bytes: usize_at(header, 48).ok_or_else(|| wrong("too large"))?,
            entries: word(56) as usize,
        };
        if header.len > u32::MAX as usize || !header.longest.is_finite() || !header.error.is_finite() {
            return Err(wrong("damaged header"));
        }
        Ok(header)
    }
}

/// Places in the bytes of a segment that has vectors.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    len: u32,
    vector_bytes: usize,
    vectors: usize,
    nodes: usize,
    /// Where the table of levels is.
    levels: usize,
    /// Bytes of a node that is in the lowest level alone, and of each level more.
    node_bytes: usize,
    level_bytes: usize,
    entry: u32,
    top: usize,
}

impl Layout {
    /// Checks that everything that the walk relies on is inside `bytes`.
    pub(super) fn read(header: &Header, bytes: &[u8]) -> Result<Self, KernelError> {
        let layout = Self::places(header, bytes).ok_or_else(|| wrong("the header and the index disagree"))?;
        let last = layout.node(bytes, layout.len - 1).ok_or_else(|| wrong("its last node is missing"))?;
        let entry = layout.node(bytes, layout.entry).ok_or_else(|| wrong("its entry is missing"))?;
        let reached = layout.node_bytes + layout.top.saturating_mul(layout.level_bytes);
        if entry.len() != reached || last.end != layout.levels {
            return Err(wrong("its nodes do not fit"));
        }
        Ok(layout)
    }

    fn places(header: &Header, bytes: &[u8]) -> Option<Self> {
        let vector_bytes = header.format.vector_bytes();
        let vectors = HEADER.checked_add(MATRIX_HEAD)?;
        let index_head = vectors.checked_add(header.len.checked_mul(vector_bytes)?)?;
        let graph_head = index_head.checked_add(INDEX_HEAD)?;
        let node_levels = graph_head.checked_add(GRAPH_HEAD)?;
        let nodes = node_levels.checked_add(header.len.checked_mul(2)?)?;
        let levels = HEADER.checked_add(header.index_bytes)?;
        let end = levels.checked_add(header.len.checked_mul(4)?)?;
        let connectivity = usize_at(bytes, graph_head + 8)?;
        let base = usize_at(bytes, graph_head + 16)?;
        let fits = u32_at(bytes, HEADER)? as usize == header.len
            && u32_at(bytes, HEADER + 4)? as usize == vector_bytes
            && bytes.get(index_head..index_head + 7)? == b"usearch"
            && usize_at(bytes, graph_head)? == header.len
            && connectivity.max(base) < 1 << 20
            && nodes <= levels
            && bytes.len() == end.checked_add(entry_bytes(&header.format).checked_mul(header.entries)?)?;
        fits.then_some(Self {
            len: header.len as u32,
            vector_bytes,
            vectors,
            nodes,
            levels,
            node_bytes: NODE_HEAD + 4 + 4 * base,
            level_bytes: 4 + 4 * connectivity,
            top: usize_at(bytes, graph_head + 24)?,
            entry: u32::try_from(u64_at(bytes, graph_head + 32)?)
                .ok()
                .filter(|&entry| (entry as usize) < header.len)?,
        })
    }

    /// The node of the highest level.
    pub(super) fn entry(&self) -> u32 {
        self.entry
    }

    /// The highest level that a node is in.
    pub(super) fn level(&self, bytes: &[u8], slot: u32) -> usize {
        self.node(bytes, slot).map_or(0, |node| (node.len() - self.node_bytes) / self.level_bytes)
    }

    /// Where the table of levels ends.
    pub(super) fn end(&self) -> usize {
        self.levels + 4 * self.len as usize
    }

    /// The stored vector of a slot; empty for a slot that does not exist.
    #[inline]
    pub(super) fn vector<'b>(&self, bytes: &'b [u8], slot: u32) -> &'b [u8] {
        let at = self.vectors + slot as usize * self.vector_bytes;
        if slot < self.len { bytes.get(at..at + self.vector_bytes).unwrap_or(&[]) } else { &[] }
    }

    /// The bytes of all vectors, by slot.
    pub(super) fn vectors<'b>(&self, bytes: &'b [u8], slots: Range<u32>) -> &'b [u8] {
        let at = |slot: u32| self.vectors + slot.min(self.len) as usize * self.vector_bytes;
        bytes.get(at(slots.start)..at(slots.end)).unwrap_or(&[])
    }

    #[inline]
    fn node(&self, bytes: &[u8], slot: u32) -> Option<Range<usize>> {
        let at = self.levels + slot as usize * 4;
        let before = u32_at(bytes, at)? as usize;
        let start = self.nodes + slot as usize * self.node_bytes + before * self.level_bytes;
        let level = u16::from_le_bytes(*bytes.get(start + 8..)?.first_chunk()?) as usize;
        let end = start + self.node_bytes + level * self.level_bytes;
        (slot < self.len && end <= self.levels).then_some(start..end)
    }

    /// The key of a slot; 0 for a slot that does not exist.
    pub(super) fn key(&self, bytes: &[u8], slot: u32) -> u64 {
        self.node(bytes, slot).and_then(|node| u64_at(bytes, node.start)).unwrap_or(0)
    }

    /// The slots that a node is linked to in the lowest level, 4 bytes each.
    #[inline]
    pub(super) fn neighbours<'b>(&self, bytes: &'b [u8], slot: u32) -> &'b [[u8; 4]] {
        let list = || {
            let node = self.node(bytes, slot)?;
            let list = bytes.get(node.start + NODE_HEAD..node.start + self.node_bytes)?;
            let count = u32_at(list, 0)? as usize;
            list.get(4..4 + 4 * count).map(|slots| slots.as_chunks().0)
        };
        list().unwrap_or(&[])
    }

    /// Adds a link of the lowest level; false where the list is full.
    pub(super) fn link(&self, bytes: &mut [u8], from: u32, to: u32) -> bool {
        let Some(node) = self.node(bytes, from) else {
            return false;
        };
        let list = node.start + NODE_HEAD..node.start + self.node_bytes;
        let Some(count) = u32_at(bytes, list.start) else {
            return false;
        };
        let (list, place) = (&mut bytes[list], 4 + 4 * count as usize);
        let Some(room) = list.get_mut(place..place + 4) else {
            return false;
        };
        room.copy_from_slice(&to.to_le_bytes());
        list[..4].copy_from_slice(&(count + 1).to_le_bytes());
        true
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }
}

/// The table at the end, from the usearch index's bytes: for each node the sum of the levels before it.
pub(super) fn write_levels(index: &[u8], len: usize, vector_bytes: usize, to: &mut [u8]) -> Result<(), KernelError> {
    let start = MATRIX_HEAD + len * vector_bytes + INDEX_HEAD + GRAPH_HEAD;
    let levels = index.get(start..start + 2 * len).ok_or_else(|| wrong("shorter than its levels"))?;
    let mut sum = 0u32;
    for (level, to) in levels.as_chunks::<2>().0.iter().zip(to.as_chunks_mut::<4>().0) {
        *to = sum.to_le_bytes();
        sum += u32::from(u16::from_le_bytes(*level));
    }
    Ok(())
}
