//! Making segments: of chains that are long enough, and of rows that come in bulk.

use std::sync::atomic::{AtomicUsize, Ordering};

use pgrec_kernels::{Format, SegmentBuilder};

use super::meta::{Meta, SegmentEntry};
use super::pages::{Held, Lock, Pages};
use super::{Crew, Fault, chunks, delta};
use crate::{Error, Result};

/// Rows that a thread takes at a time: some milliseconds of work.
const SLICE: usize = 64;

/// Makes the chain, if it is long enough, and what an interrupted attempt left, into a segment; a shorter one, where
/// nobody waits for it and that is `convenient`. False where there is nothing to do, or another process does it.
pub fn seal(pages: &(impl Pages + ?Sized), crew: &dyn Crew, convenient: bool) -> Result<bool> {
    let Some(_structure) = Held::attempt(pages, Lock::Structure)? else {
        return Ok(false);
    };
    if !delta::seal_is_due(pages, &Meta::read(pages)?, convenient)? {
        return Ok(false);
    }
    seal_all(pages, crew)?;
    Ok(true)
}

/// Makes all chains into a segment; the caller holds the structure lock.
pub(super) fn seal_all(pages: &(impl Pages + ?Sized), crew: &dyn Crew) -> Result<()> {
    let meta = delta::freeze(pages)?;
    let (rows, blocks) = frozen_rows(pages, &meta)?;
    let entry = match rows.tids.is_empty() {
        true => None,
        false => {
            let bytes = weave(&meta, crew, &rows)?;
            Some(chunks::write(pages, &bytes, rows.tids.len() as u32)?)
        }
    };
    let mut change = pages.change()?;
    let (handle, mut now) = Meta::lock(&mut *change)?;
    now.frozen.retain(|chain| !meta.frozen.contains(chain));
    now.segments.extend(entry);
    now.write(change.bytes(handle))?;
    change.commit()?;
    for block in blocks {
        pages.free(block)?;
    }
    Ok(())
}

/// Rows that are to become a segment.
struct Rows {
    exact: Format,
    tids: Vec<u64>,
    /// Stored exactly, one behind the other.
    vectors: Vec<u8>,
}

/// All live rows of the frozen chains, which nobody changes while the structure lock is held; and their pages.
fn frozen_rows(pages: &(impl Pages + ?Sized), meta: &Meta) -> Result<(Rows, Vec<u32>)> {
    let mut rows = Rows { exact: meta.exact()?, tids: Vec::new(), vectors: Vec::new() };
    let mut blocks = Vec::new();
    for chain in &meta.frozen {
        let read = delta::each_page(pages, meta, chain, |_, page| {
            for (_, tid, stored) in page.live() {
                rows.tids.push(tid);
                rows.vectors.extend_from_slice(stored);
            }
            Ok(())
        });
        blocks.extend(read.map_err(Fault::into_error)?);
    }
    Ok((rows, blocks))
}

fn weave(meta: &Meta, crew: &dyn Crew, rows: &Rows) -> Result<Vec<u8>> {
    let (format, options) = (meta.stored()?, meta.shape()?.options);
    let builder = SegmentBuilder::new(format, &options, rows.tids.len(), crew.threads())?;
    let (size, next) = (rows.exact.vector_bytes(), AtomicUsize::new(0));
    crew.run(&|control| {
        let mut stored = Vec::new();
        loop {
            let first = next.fetch_add(SLICE, Ordering::Relaxed);
            for row in first..(first + SLICE).min(rows.tids.len()) {
                control.check()?;
                stored.clear();
                let error = format.convert(&rows.exact, &rows.vectors[row * size..(row + 1) * size], &mut stored);
                builder.add(rows.tids[row], &stored, error + own_error(&rows.exact))?;
            }
            if first >= rows.tids.len() {
                return Ok(());
            }
        }
    })?;
    Ok(builder.finish()?)
}

/// What was lost when vectors of length 1 were stored as the column's halves.
pub(super) fn own_error(exact: &Format) -> f32 {
    match exact.metric() {
        pgrec_kernels::Metric::Cosine => exact.rounding(),
        _ => 0.0,
    }
}

/// Adds a finished segment of so many rows to an index.
pub fn publish(pages: &(impl Pages + ?Sized), bytes: &[u8], rows: u32) -> Result<SegmentEntry> {
    let _structure = Held::wait(pages, Lock::Structure)?;
    let entry = chunks::write(pages, bytes, rows)?;
    let mut change = pages.change()?;
    let (handle, mut meta) = Meta::lock(&mut *change)?;
    meta.segments.push(entry);
    meta.write(change.bytes(handle))?;
    change.commit()?;
    Ok(entry)
}

impl Fault {
    /// What it is to somebody who holds the lock under which pages are recycled.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Recycled => Error::Malformed("pages of the index do not belong to it".into()),
        }
    }
}
