//! Immutable nearest-neighbour segments: a usearch graph, read in place from shared bytes.
//!
//! usearch weaves the graph and lays it out; the bytes are searched by a walk of our own ([`Walk`]). A view of usearch's
//! own takes 45 to 60 bytes a vector of private memory and milliseconds for every 10,000 vectors to open, its search
//! can neither be interrupted nor go on after its end. There is no checksum: whoever stores the bytes has one.

mod builder;
mod entries;
mod format;
mod items;
mod layout;
mod order;
mod query;
mod repair;
mod walk;

use std::ops::Range;

use crate::{Bytes, KernelError};
use entries::Entries;
use layout::{HEADER, Header, Layout};

pub use builder::SegmentBuilder;
pub use format::{Format, Metric, Scalar, normalise};
pub use order::near_together;
pub use query::Query;
pub use walk::Walk;

/// How densely the graph is woven and how widely it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Neighbours a vector keeps in each layer; twice as many in the lowest.
    pub connectivity: usize,
    /// Candidates kept while a vector is inserted.
    pub expansion_add: usize,
    /// Candidates kept while searching.
    pub expansion_search: usize,
}

/// A vector that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The distance that [`Query`] computes.
    pub distance: f32,
    /// Where the vector is in the segment.
    pub slot: u32,
}

/// An immutable index of stored vectors, each with a key.
pub struct Segment {
    header: Header,
    /// None without vectors.
    layout: Option<Layout>,
    bytes: Bytes,
}

impl Segment {
    /// Opens a segment where its bytes lie, at any alignment. Damaged bytes give wrong answers or an error, never
    /// a panic: check their CRC before.
    pub fn view(bytes: Bytes) -> Result<Self, KernelError> {
        let all = (*bytes).as_ref();
        let header = Header::read(all)?;
        let layout = match header.len {
            0 if all.len() == HEADER => None,
            0 => return Err(KernelError::Segment("bytes after an empty index".to_owned())),
            _ => Some(Layout::read(&header, all)?),
        };
        Ok(Self { header, layout, bytes })
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.header.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.header.len == 0
    }

    /// How the vectors are stored and compared.
    pub fn format(&self) -> Format {
        self.header.format
    }

    /// The most that rounding lost of a vector's length.
    pub fn error(&self) -> f32 {
        self.header.error
    }

    /// Length of the longest vector.
    pub fn longest(&self) -> f32 {
        self.header.longest
    }

    /// How it was woven, and how widely it is searched by default.
    pub fn options(&self) -> SegmentOptions {
        self.header.options
    }

    /// The key of a slot; 0 for a slot that does not exist.
    pub fn key(&self, slot: u32) -> u64 {
        self.layout.as_ref().map_or(0, |layout| layout.key(self.all(), slot))
    }

    /// The stored vector of a slot; empty for a slot that does not exist.
    pub fn vector(&self, slot: u32) -> &[u8] {
        self.layout.as_ref().map_or(&[], |layout| layout.vector(self.all(), slot))
    }

    /// Appends the distances of all vectors in a range of slots.
    pub fn scan(&self, query: &Query, slots: Range<u32>, out: &mut Vec<Found>) {
        let Some((layout, bytes)) = self.graph() else {
            return;
        };
        let (size, first) = (self.header.format.vector_bytes(), slots.start);
        let mut distances = Vec::new();
        query.distances_strided(layout.vectors(bytes, slots), size, 0, &mut distances);
        out.extend(distances.into_iter().zip(first..).map(|(distance, slot)| Found { distance, slot }));
    }

    fn all(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    fn graph(&self) -> Option<(&Layout, &[u8])> {
        Some((self.layout.as_ref()?, self.all()))
    }

    /// Where walks may begin.
    fn entries(&self) -> Option<Entries<'_>> {
        let bytes = self.all().get(self.layout.as_ref()?.end()..)?;
        Some(Entries::read(&self.header.format, bytes, self.header.entries))
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment[{}, {:?}]", self.header.len, self.header.format)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
