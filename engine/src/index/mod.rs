//! A nearest-neighbour index in pages: rows are appended to a chain of pages, which becomes an immutable segment when
//! it is long enough; segments are merged when there are many (O'Neil et al. 1996, "The log-structured merge-tree").
//!
//! ```text
//! meta page ─┬─ live chain:     pages of rows (tid, vector), appended to, compared one by one
//!            ├─ frozen chains:  the same, while they are made into a segment
//!            └─ segments:       a list of pages, which hold the bytes of a graph, and bitmaps of what vacuum removed
//! ```
//! Every change is one atomic change of at most 4 pages. What is not reachable from the meta page does not exist: a
//! crash leaves pages that belong to nobody, and [`collect`] finds them. How readers need no lock is said at
//! `meta::consistently`.
//!
//! The pages are somebody else's ([`Pages`]): shared buffers and WAL of Postgres, or memory in tests.

mod chunks;
mod delta;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod double;
mod head;
mod merge;
mod meta;
mod pages;
mod scan;
mod seal;
mod stats;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tombstones;
mod vacuum;

use pgrec_kernels::{Format, Metric, Scalar, SegmentOptions};

use crate::{Control, Error, Result};

pub use delta::{create, insert};
pub use merge::{is_crowded, merge, merge_due};
pub use meta::{Chain, Meta, SegmentEntry};
pub use pages::{Change, Lock, META, Pages, Segments, Source};
pub use scan::{Hit, Order, Scan, ScanOptions};
pub use seal::{publish, seal};
pub use stats::{Stats, stats};
pub use tombstones::Bitmaps;
pub use vacuum::{Collected, Deleted, collect, delete};

/// Vectors of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How they are compared.
    pub metric: Metric,
    /// Numbers of a vector.
    pub dim: usize,
    /// What the column's numbers are.
    pub exact: Scalar,
    /// What numbers in segments are.
    pub scalar: Scalar,
    /// How segments are woven.
    pub options: SegmentOptions,
}

impl Shape {
    /// How vectors come in, and lie in chains: at length 1 for the cosine.
    pub fn exact_format(&self) -> Result<Format> {
        Ok(Format::new(self.metric, self.exact, self.dim)?)
    }

    /// How a vector that is searched for comes in: as it is, not rounded to what the column holds.
    pub fn query_format(&self) -> Result<Format> {
        let scalar = if self.exact == Scalar::Bit { Scalar::Bit } else { Scalar::F32 };
        Ok(Format::new(self.metric, scalar, self.dim)?)
    }

    /// How vectors lie in segments.
    pub fn stored_format(&self) -> Result<Format> {
        Ok(Format::new(self.metric, self.scalar, self.dim)?)
    }
}

/// Threads that build a graph, while the calling one stays open to cancels.
pub trait Crew {
    /// How many there are.
    fn threads(&self) -> usize;
    /// Runs `work` on each of them, until all have returned; the first error, if there is one, and a cancel, which
    /// `work` sees in its control.
    fn run(&self, work: &(dyn Fn(&Control) -> Result<()> + Sync)) -> Result<()>;
}

/// Why a page could not be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It belongs to something else by now.
    Recycled,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A result of reading pages.
type Reading<T> = std::result::Result<T, Fault>;
