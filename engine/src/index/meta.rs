//! The meta page: the one place that says which chains and segments there are.

use pgrec_kernels::{Format, Metric, Scalar, SegmentOptions};
use serde::{Deserialize, Serialize};

use super::head::{self, Head, Kind};
use super::pages::{Change, META, Pages};
use super::{Fault, Shape};
use crate::artifact::codec;
use crate::{Error, Result};

/// Version of all formats of an index's pages.
const FORMAT: u32 = 1;
/// Versions of usearch write other bytes from one major number to the next.
const USEARCH: u32 = 2;

/// Rows in the order in which they came, in a chain of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Stamp of its pages.
    pub identity: u64,
    /// First page.
    pub head: u32,
    /// Last page.
    pub tail: u32,
    /// How many pages.
    pub pages: u32,
}

/// A segment that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Stamp of its pages, and its name outside of them.
    pub identity: u64,
    /// First page of the list of its pages.
    pub map: u32,
    /// Its bytes.
    pub bytes: u64,
    /// Its vectors.
    pub rows: u32,
    /// CRC32C of its bytes.
    pub crc: u32,
    /// First page of its tombstones, or `u32::MAX`.
    pub tombstones: u32,
    /// How many vectors have one.
    pub dead: u32,
    /// Increased whenever tombstones are set.
    pub version: u32,
}

impl SegmentEntry {
    /// Vectors that are not known to be dead.
    pub fn live(&self) -> u32 {
        self.rows.saturating_sub(self.dead)
    }
}

/// All that the meta page says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    format: u32,
    usearch: u32,
    metric: u8,
    exact: u8,
    scalar: u8,
    dim: u32,
    connectivity: u32,
    expansion_add: u32,
    expansion_search: u32,
    /// Changes whenever the meta page does.
    pub generation: u64,
    /// Where rows are appended.
    pub live: Chain,
    /// Chains that nothing is appended to, until they are sealed.
    pub frozen: Vec<Chain>,
    /// Segments.
    pub segments: Vec<SegmentEntry>,
}

impl Meta {
    pub(super) fn new(shape: &Shape, live: Chain) -> Self {
        let SegmentOptions { connectivity, expansion_add, expansion_search } = shape.options;
        Self {
            format: FORMAT,
            usearch: USEARCH,
            metric: shape.metric.code(),
            exact: shape.exact.code(),
            scalar: shape.scalar.code(),
            dim: shape.dim as u32,
            connectivity: connectivity as u32,
            expansion_add: expansion_add as u32,
            expansion_search: expansion_search as u32,
            generation: 1,
            live,
            frozen: Vec::new(),
            segments: Vec::new(),
        }
    }

    fn decode(page: &[u8]) -> Result<Self> {
        let size = Head::read(page).filter(|head| head.kind == Kind::Meta).map(|head| head.count as usize);
        let Some(bytes) = size.and_then(|size| page.get(head::SIZE..head::SIZE + size)) else {
            return Err(Error::Malformed("the first page of the index is not its meta page".into()));
        };
        let format = bytes.first().copied().map(u32::from);
        if format != Some(FORMAT) {
            let found = format.unwrap_or_default();
            return Err(Error::Malformed(format!("the index has format {found}, this version reads {FORMAT}")));
        }
        let meta: Self = codec::decode(bytes)?;
        if meta.usearch != USEARCH {
            let found = meta.usearch;
            return Err(Error::Malformed(format!("the index was written by usearch {found}, this is {USEARCH}")));
        }
        Ok(meta)
    }

    /// Reads the meta page.
    pub fn read(pages: &(impl Pages + ?Sized)) -> Result<Self> {
        let mut meta = None;
        pages.read(META, &mut |page| meta = Some(Self::decode(page)))?;
        meta.unwrap_or_else(|| Err(Error::Malformed("the index has no meta page".into())))
    }

    /// Locks the meta page and reads it.
    pub(super) fn lock(change: &mut dyn Change) -> Result<(usize, Self)> {
        let handle = change.page(META)?;
        let meta = Self::decode(change.bytes(handle))?;
        Ok((handle, meta))
    }

    /// Writes it into a page that `lock` gave, or a fresh one.
    pub(super) fn write(&mut self, page: &mut [u8]) -> Result<()> {
        self.generation += 1;
        let bytes = codec::encode(self)?;
        let Some(place) = page.get_mut(head::SIZE..head::SIZE + bytes.len()) else {
            return Err(Error::Data(format!(
                "the index has {} segments, more than its meta page holds",
                self.segments.len()
            )));
        };
        place.copy_from_slice(&bytes);
        Head { count: bytes.len() as u32, ..Head::new(Kind::Meta, self.live.identity) }.write(page);
        Ok(())
    }

    /// Dimensions, scalars and metric.
    pub fn shape(&self) -> Result<Shape> {
        let unknown = || Error::Malformed("the index has an unknown metric or scalar".into());
        Ok(Shape {
            metric: Metric::from_code(self.metric).ok_or_else(unknown)?,
            dim: self.dim as usize,
            exact: Scalar::from_code(self.exact).ok_or_else(unknown)?,
            scalar: Scalar::from_code(self.scalar).ok_or_else(unknown)?,
            options: SegmentOptions {
                connectivity: self.connectivity as usize,
                expansion_add: self.expansion_add as usize,
                expansion_search: self.expansion_search as usize,
            },
        })
    }

    /// How rows of chains are stored.
    pub(super) fn exact(&self) -> Result<Format> {
        self.shape()?.exact_format()
    }

    /// How rows of segments are stored.
    pub(super) fn stored(&self) -> Result<Format> {
        self.shape()?.stored_format()
    }

    /// All chains, oldest first.
    pub(super) fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.frozen.iter().chain([&self.live])
    }

    /// The segment of that identity.
    pub(super) fn segment(&mut self, identity: u64) -> Option<&mut SegmentEntry> {
        self.segments.iter_mut().find(|entry| entry.identity == identity)
    }

    /// Whether pages with this stamp are in use.
    pub(super) fn knows(&self, identity: u64) -> bool {
        self.chains().any(|chain| chain.identity == identity)
            || self.segments.iter().any(|entry| entry.identity == identity)
    }
}

/// How often a reader begins again before it takes what it meets for damage.
const ATTEMPTS: usize = 1_000;

/// Reads the meta page and what it leads to; again from the start, where a page that it led to was recycled meanwhile.
///
/// Why this is right without a lock: a scan's snapshot is taken before the meta page is read. A row visible to it was
/// inserted, and is in the index, before that; vacuum removes none that a snapshot sees (on a standby, the WAL of the
/// heap raises the conflict). A row that has taken the place of a removed one is not visible to the snapshot, so
/// finding it under the other's vector does no harm. So any state of the index from then on that is read as a whole
/// gives right answers, and stamps tell whether it was: everything that the meta page leads to is stamped with an
/// identity that is never used again.
pub(super) fn consistently<P: Pages + ?Sized, T>(
    pages: &P,
    mut look: impl FnMut(&Meta) -> std::result::Result<T, Fault>,
) -> Result<T> {
    for _ in 0..ATTEMPTS {
        match look(&Meta::read(pages)?) {
            Ok(found) => return Ok(found),
            Err(Fault::Error(error)) => return Err(error),
            Err(Fault::Recycled) => pages.interrupts()?,
        }
    }
    Err(Error::Malformed("pages of the index do not belong to it".into()))
}
