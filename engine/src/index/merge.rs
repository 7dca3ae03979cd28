//! Making one segment of several, without what vacuum removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrec_kernels::{Segment, SegmentBuilder};

use super::meta::{Meta, SegmentEntry};
use super::pages::{Held, Lock, Pages, Segments};
use super::tombstones::{self, Bitmap};
use super::{Crew, Fault, chunks};
use crate::Result;

/// Segments whose sizes differ by less than this factor are of one tier.
const TIER: u32 = 4;
/// So many segments of one tier are merged.
const MERGE: usize = 4;
/// A segment of which more than this share is removed is written anew.
const DEAD: f64 = 0.2;
/// A meta page holds more segments than this, but a scan goes through each: from here on the smallest are merged,
/// whatever their sizes: as many as fit into memory, or a few that do not.
const MOST_SEGMENTS: usize = 64;
/// Slots that a thread takes at a time.
const SLICE: usize = 64;

/// The segments that should be made into one, if there are any, within so many bytes of memory: a segment with many
/// removed rows, or several of about one size. Every row is rewritten some log₄(rows) times in the life of an index.
pub fn merge_due(meta: &Meta, memory: usize) -> Option<Vec<u64>> {
    let fits = |segments: &[SegmentEntry]| {
        let rows = segments.iter().map(|entry| entry.live() as usize).sum();
        meta.stored().is_ok_and(|format| {
            let options = meta.shape().map(|shape| shape.options).unwrap_or_default();
            SegmentBuilder::memory(&format, &options, rows) <= memory
        })
    };
    let names = |segments: &[SegmentEntry]| Some(segments.iter().map(|entry| entry.identity).collect());
    let mut segments = meta.segments.clone();
    segments.sort_by_key(SegmentEntry::live);
    if is_crowded(meta) {
        let few = (MERGE..MOST_SEGMENTS / 2).take_while(|&count| fits(&segments[..count + 1])).count();
        return names(&segments[..MERGE + few]);
    }
    for (first, smallest) in segments.iter().enumerate() {
        let tier = &segments[first..];
        let tier = &tier[..tier.partition_point(|entry| entry.live() <= smallest.live().max(1).saturating_mul(TIER))];
        if tier.len() >= MERGE && fits(tier) {
            return names(tier);
        }
    }
    let worn = |entry: &&SegmentEntry| f64::from(entry.dead) > DEAD * f64::from(entry.rows);
    segments.iter().find(worn).filter(|entry| fits(&[**entry])).map(|entry| vec![entry.identity])
}

/// Whether there are so many segments that whoever adds one should see to it that some are merged.
pub fn is_crowded(meta: &Meta) -> bool {
    meta.segments.len() >= MOST_SEGMENTS
}

/// A segment that goes into another.
struct Part {
    entry: SegmentEntry,
    segment: Arc<Segment>,
    dead: Bitmap,
}

/// Does one merge that is due; false where none is, or another process does it.
pub fn merge(pages: &(impl Pages + ?Sized), segments: &dyn Segments, crew: &dyn Crew, memory: usize) -> Result<bool> {
    let Some(_merge) = Held::attempt(pages, Lock::Merge)? else {
        return Ok(false);
    };
    let meta = Meta::read(pages)?;
    let Some(names) = merge_due(&meta, memory) else {
        return Ok(false);
    };
    // Only merges remove segments, and this is the only one: what is named stays until it is done.
    let parts = meta.segments.iter().filter(|entry| names.contains(&entry.identity)).map(|entry| {
        let dead = tombstones::read(pages, entry).map_err(Fault::into_error)?;
        let segment = open(pages, segments, entry).map_err(Fault::into_error)?;
        Ok(Part { entry: *entry, segment, dead })
    });
    let parts: Vec<Part> = parts.collect::<Result<_>>()?;
    let bytes: Arc<Vec<u8>> = Arc::new(weave(&meta, crew, &parts)?);
    let merged = Segment::view(bytes.clone())?;
    let mut entry = match merged.is_empty() {
        true => None,
        false => Some(chunks::write(pages, &bytes, merged.len() as u32)?),
    };

    let structure = Held::wait(pages, Lock::Structure)?;
    let now = Meta::read(pages)?;
    if let Some(entry) = &mut entry {
        take_over_dead(pages, &now, &parts, &merged, entry)?;
    }
    let mut change = pages.change()?;
    let (handle, mut now) = Meta::lock(&mut *change)?;
    let (gone, left) = now.segments.iter().partition(|entry| names.contains(&entry.identity));
    now.segments = left;
    now.segments.extend(entry);
    now.write(change.bytes(handle))?;
    change.commit()?;
    drop(structure);
    free(pages, &gone)?;
    Ok(true)
}

/// Frees the pages of segments that are not published any more; the caller holds the merge lock.
fn free(pages: &(impl Pages + ?Sized), gone: &[SegmentEntry]) -> Result<()> {
    for entry in gone {
        let (maps, chunks) = chunks::blocks(pages, entry).map_err(Fault::into_error)?;
        let tombstones = tombstones::blocks(pages, entry).map_err(Fault::into_error)?;
        for block in chunks.into_iter().chain(tombstones).chain(maps) {
            pages.interrupts()?;
            pages.free(block)?;
        }
    }
    Ok(())
}

/// Opens a segment whose bytes are in the pages.
pub(super) fn open(
    pages: &(impl Pages + ?Sized),
    segments: &dyn Segments,
    entry: &SegmentEntry,
) -> std::result::Result<Arc<Segment>, Fault> {
    let mut recycled = false;
    let opened = segments.open(entry, &mut |take| match chunks::read(pages, entry, take) {
        Ok(()) => Ok(()),
        Err(fault) => {
            recycled = matches!(fault, Fault::Recycled);
            Err(fault.into_error())
        }
    });
    opened.map_err(|error| if recycled { Fault::Recycled } else { Fault::Error(error) })
}

fn weave(meta: &Meta, crew: &dyn Crew, parts: &[Part]) -> Result<Vec<u8>> {
    let rows = parts.iter().map(|part| part.entry.live() as usize).sum();
    let builder = SegmentBuilder::new(meta.stored()?, &meta.shape()?.options, rows, crew.threads())?;
    // The largest first: what comes first is what the others find their places in.
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.entry.rows));
    let (all, next) = (parts.iter().map(|part| part.segment.len()).sum::<usize>(), AtomicUsize::new(0));
    crew.run(&|control| {
        loop {
            let first = next.fetch_add(SLICE, Ordering::Relaxed);
            for place in first..(first + SLICE).min(all) {
                control.check()?;
                let mut slot = place;
                for part in &parts {
                    if slot >= part.segment.len() {
                        slot -= part.segment.len();
                        continue;
                    }
                    let (segment, slot) = (&part.segment, slot as u32);
                    if !part.dead.has(slot) {
                        builder.add(segment.key(slot), segment.vector(slot), segment.error())?;
                    }
                    break;
                }
            }
            if first >= all {
                return Ok(());
            }
        }
    })?;
    Ok(builder.finish()?)
}

/// Rows that vacuum removed from the parts while they were merged are removed from the new segment as well: vacuum has
/// been told that they are, and their places in the table may hold other rows by now. The caller holds the structure
/// lock, so that none is removed until the new segment is what vacuum sees.
fn take_over_dead(
    pages: &(impl Pages + ?Sized),
    now: &Meta,
    parts: &[Part],
    merged: &Segment,
    entry: &mut SegmentEntry,
) -> Result<()> {
    let mut tids = Vec::new();
    for part in parts {
        let Some(current) = now.segments.iter().find(|entry| entry.identity == part.entry.identity) else {
            continue;
        };
        if current.version != part.entry.version {
            let dead = tombstones::read(pages, current).map_err(Fault::into_error)?;
            let fresh = (0..current.rows).filter(|&slot| dead.has(slot) && !part.dead.has(slot));
            tids.extend(fresh.map(|slot| part.segment.key(slot)));
        }
    }
    if tids.is_empty() {
        return Ok(());
    }
    let slots: HashMap<u64, u32> = (0..merged.len() as u32).map(|slot| (merged.key(slot), slot)).collect();
    let mut bitmap = Bitmap::of(entry.rows);
    for slot in tids.iter().filter_map(|tid| slots.get(tid)) {
        entry.dead += u32::from(bitmap.set(*slot));
    }
    entry.tombstones = tombstones::write(pages, entry.identity, &bitmap)?;
    entry.version = 1;
    Ok(())
}
