//! Finding the nearest rows, one after the other, as many as somebody wants.

use std::sync::Arc;

use pgrec_kernels::{Found, Query, Segment, Walk};

use super::meta::{Meta, consistently};
use super::pages::{Pages, Segments};
use super::seal::own_error;
use super::tombstones::{Bitmap, Bitmaps};
use super::{Reading, delta, merge};
use crate::{Error, Result};

/// Slots compared between two looks at interrupts.
const SLICE: u32 = 16_384;
/// How many of a long list are sorted at first.
const SORTED: usize = 64;

/// What happens when more rows are wanted than the first search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The scan ends, after as many rows as candidates are kept.
    Off,
    /// It goes on; what is nearer than what was given already is left out.
    Strict,
    /// It goes on; what is found late is given late.
    Relaxed,
}

/// How to search.
#[derive(Debug, Clone, Copy)]
pub struct ScanOptions {
    /// Candidates kept in each segment.
    pub expansion: usize,
    /// What happens after them.
    pub order: Order,
    /// After so many rows all that are left are compared.
    pub max_tuples: usize,
}

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Its place in the table.
    pub tid: u64,
    /// Its distance as SQL knows it; where the scan is not [`Scan::exact`], a lower bound of it.
    pub distance: f64,
}

/// A search under way. It keeps no lock and no page.
pub struct Scan {
    options: ScanOptions,
    exact: bool,
    query: Query,
    /// Rows of chains; then, when all are compared, all rows that were not given.
    rest: Ascending,
    sources: Vec<Walking>,
    /// Whether all rows are in `rest`.
    exhaustive: bool,
    given: usize,
    last: f64,
}

/// A segment that is searched.
struct Walking {
    segment: Arc<Segment>,
    dead: Option<Arc<Bitmap>>,
    walk: Walk,
    batch: std::vec::IntoIter<Found>,
    /// The nearest that was not given.
    head: Option<(Hit, u32)>,
    ended: bool,
    /// Slots that were given.
    given: Vec<u32>,
}

impl Scan {
    /// Searches for the neighbours of a vector in the shape's query format.
    pub fn begin<P: Pages + ?Sized>(
        pages: &P,
        segments: &dyn Segments,
        bitmaps: &mut Bitmaps,
        query: &[u8],
        options: ScanOptions,
    ) -> Result<Self> {
        consistently(pages, |meta| Self::read(pages, segments, bitmaps, meta, query, options))
    }

    fn read<P: Pages + ?Sized>(
        pages: &P,
        segments: &dyn Segments,
        bitmaps: &mut Bitmaps,
        meta: &Meta,
        query: &[u8],
        options: ScanOptions,
    ) -> Reading<Self> {
        let shape = meta.shape()?;
        let (exact, stored, given) = (shape.exact_format()?, shape.stored_format()?, shape.query_format()?);
        if query.len() != given.vector_bytes() {
            return Err(Error::Parameter("a query that is not of this index".into()).into());
        }
        let is_exact = shape.exact == shape.scalar && own_error(&exact) == 0.0;
        let rest = chain_hits(pages, meta, &exact.query_stored(&given, query), is_exact)?;
        let mut sources = Vec::with_capacity(meta.segments.len());
        for entry in meta.segments.iter().filter(|entry| entry.live() > 0) {
            let segment = merge::open(pages, segments, entry)?;
            if segment.format() != stored || segment.len() != entry.rows as usize {
                return Err(Error::Malformed("a segment of the index is not of its shape".into()).into());
            }
            let walk = Walk::new(&segment, options.expansion, options.order != Order::Off);
            let dead = bitmaps.get(pages, entry)?;
            let batch = Vec::new().into_iter();
            sources.push(Walking { segment, dead, walk, batch, head: None, ended: false, given: Vec::new() });
        }
        segments.keep(&meta.segments);
        bitmaps.keep(&meta.segments);
        let query = stored.query_stored(&given, query);
        let last = f64::NEG_INFINITY;
        Ok(Self { options, exact: is_exact, query, rest, sources, exhaustive: false, given: 0, last })
    }

    /// Whether distances are the rows' own, not bounds of them.
    pub fn exact(&self) -> bool {
        self.exact
    }

    /// How many vectors were looked at through graphs.
    pub fn looked_at(&self) -> usize {
        self.sources.iter().map(|source| source.walk.looked_at()).sum()
    }

    /// The next row; `interrupts` is called between slices of the work.
    pub fn next(&mut self, interrupts: &mut dyn FnMut() -> Result<()>) -> Result<Option<Hit>> {
        loop {
            if self.options.order == Order::Off && self.given >= self.options.expansion {
                return Ok(None);
            }
            if !self.exhaustive && self.options.order != Order::Off && self.given >= self.options.max_tuples {
                self.compare_all(interrupts)?;
            }
            let Some(hit) = self.nearest(interrupts)? else {
                // Nodes that no link leads to are only found by looking at all.
                if self.exhaustive || self.options.order == Order::Off {
                    return Ok(None);
                }
                self.compare_all(interrupts)?;
                continue;
            };
            if hit.distance < self.last && self.options.order == Order::Strict {
                continue;
            }
            self.last = hit.distance;
            self.given += 1;
            return Ok(Some(hit));
        }
    }

    /// Takes the nearest of what the sources have.
    fn nearest(&mut self, interrupts: &mut dyn FnMut() -> Result<()>) -> Result<Option<Hit>> {
        let (mut best, mut from) = (self.rest.peek(), None);
        if !self.exhaustive {
            for (place, source) in self.sources.iter_mut().enumerate() {
                source.fill(&self.query, self.exact, self.options.order, interrupts)?;
                if let Some((hit, _)) = source.head
                    && best.is_none_or(|best| hit.distance < best.distance)
                {
                    (best, from) = (Some(hit), Some(place));
                }
            }
        }
        match from {
            None => self.rest.advance(),
            Some(place) => {
                let source = &mut self.sources[place];
                source.given.extend(source.head.take().map(|(_, slot)| slot));
            }
        }
        Ok(best)
    }

    /// Compares the query with all rows that were not given.
    fn compare_all(&mut self, interrupts: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut hits = self.rest.remaining();
        let mut found = Vec::new();
        for source in &mut self.sources {
            let mut given = Bitmap::of(source.segment.len() as u32);
            for &slot in &source.given {
                given.set(slot);
            }
            let slots = source.segment.len() as u32;
            for first in (0..slots).step_by(SLICE as usize) {
                interrupts()?;
                found.clear();
                source.segment.scan(&self.query, first..(first + SLICE).min(slots), &mut found);
                for found in &found {
                    if !given.has(found.slot) && source.is_live(found.slot) {
                        hits.push(source.hit(&self.query, self.exact, *found));
                    }
                }
            }
        }
        self.rest = Ascending::new(hits);
        self.exhaustive = true;
        Ok(())
    }
}

impl Walking {
    fn is_live(&self, slot: u32) -> bool {
        self.dead.as_ref().is_none_or(|dead| !dead.has(slot))
    }

    fn hit(&self, query: &Query, exact: bool, found: Found) -> Hit {
        let (format, segment) = (self.segment.format(), &self.segment);
        let distance = if exact {
            format.sql_distance(found.distance)
        } else {
            format.bound(query, found.distance, segment.error(), || segment.longest())
        };
        Hit { tid: segment.key(found.slot), distance }
    }

    /// Sees to it that the head is the nearest that was not given, if there is any.
    fn fill(
        &mut self,
        query: &Query,
        exact: bool,
        order: Order,
        interrupts: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        while self.head.is_none() && !self.ended {
            match self.batch.next() {
                Some(found) => self.head = Some((self.hit(query, exact, found), found.slot)),
                None if order == Order::Off && self.walk.looked_at() > 0 => self.ended = true,
                None => {
                    interrupts()?;
                    let dead = self.dead.clone();
                    let live = move |slot| dead.as_ref().is_none_or(|dead| !dead.has(slot));
                    let batch = self.walk.next(&self.segment, query, &live);
                    self.ended = batch.is_empty();
                    self.batch = batch.into_iter();
                }
            }
        }
        Ok(())
    }
}

/// The rows of all chains, compared one by one.
fn chain_hits(pages: &(impl Pages + ?Sized), meta: &Meta, query: &Query, exact: bool) -> Reading<Ascending> {
    let format = query.format();
    let error = own_error(&format);
    let (mut hits, mut distances) = (Vec::new(), Vec::new());
    for chain in meta.chains() {
        delta::each_page(pages, meta, chain, |_, rows| {
            distances.clear();
            query.distances_strided(rows.bytes, rows.row, delta::ROW_HEAD, &mut distances);
            for (place, tid, stored) in rows.live() {
                let Some(&distance) = distances.get(place) else {
                    break;
                };
                let distance = if exact {
                    format.sql_distance(distance)
                } else {
                    format.bound(query, distance, error, || format.length(stored))
                };
                hits.push(Hit { tid, distance });
            }
            Ok(())
        })?;
    }
    Ok(Ascending::new(hits))
}

/// Hits in ascending order, sorted only as far as they are asked for.
struct Ascending {
    hits: Vec<Hit>,
    at: usize,
    sorted: usize,
}

impl Ascending {
    fn new(hits: Vec<Hit>) -> Self {
        Self { hits, at: 0, sorted: 0 }
    }

    fn peek(&mut self) -> Option<Hit> {
        if self.at == self.sorted && self.at < self.hits.len() {
            let more = self.sorted.max(SORTED).min(self.hits.len() - self.at);
            let rest = &mut self.hits[self.at..];
            let compare = |a: &Hit, b: &Hit| a.distance.total_cmp(&b.distance);
            if more < rest.len() {
                rest.select_nth_unstable_by(more, compare);
            }
            rest[..more].sort_unstable_by(compare);
            self.sorted += more;
        }
        self.hits.get(self.at).copied()
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.hits.len());
    }

    fn remaining(&mut self) -> Vec<Hit> {
        let mut hits = std::mem::take(&mut self.hits);
        hits.drain(..self.at);
        (self.at, self.sorted) = (0, 0);
        hits
    }
}
