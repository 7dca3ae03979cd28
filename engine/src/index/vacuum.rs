//! What vacuum does: removing rows, and finding pages that belong to nobody.

use super::head::Head;
use super::merge::open;
use super::meta::{Meta, SegmentEntry};
use super::pages::{Held, Lock, META, Pages, Segments};
use super::tombstones::{self, Bitmap};
use super::{Fault, delta, head};
use crate::Result;

/// Rows between two looks at interrupts.
const SLICE: u32 = 4_096;

/// What a bulk delete did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Rows removed.
    pub removed: u64,
    /// Rows left.
    pub left: u64,
}

/// Removes the rows for which `dead` holds. When it returns, no scan that begins later finds any of them, so that their
/// places in the table may be used again.
pub fn delete(
    pages: &(impl Pages + ?Sized),
    segments: &dyn Segments,
    dead: &mut dyn FnMut(u64) -> bool,
) -> Result<Deleted> {
    // Nothing is sealed or published by a merge meanwhile, which would carry rows past this.
    let _structure = Held::wait(pages, Lock::Structure)?;
    let meta = Meta::read(pages)?;
    let mut deleted = Deleted::default();
    delete_from_chains(pages, &meta, dead, &mut deleted)?;
    for entry in &meta.segments {
        delete_from_segment(pages, segments, entry, dead, &mut deleted)?;
    }
    Ok(deleted)
}

fn delete_from_chains(
    pages: &(impl Pages + ?Sized),
    meta: &Meta,
    dead: &mut dyn FnMut(u64) -> bool,
    deleted: &mut Deleted,
) -> Result<()> {
    let mut found: Vec<(u32, Vec<usize>)> = Vec::new();
    for chain in meta.chains() {
        let read = delta::each_page(pages, meta, chain, |block, rows| {
            let mut places = Vec::new();
            for (place, tid, _) in rows.live() {
                if dead(tid) {
                    places.push(place);
                } else {
                    deleted.left += 1;
                }
            }
            if !places.is_empty() {
                found.push((block, places));
            }
            Ok(())
        });
        read.map_err(Fault::into_error)?;
    }
    for (block, places) in found {
        pages.interrupts()?;
        delta::set_dead(pages, meta, block, &places)?;
        deleted.removed += places.len() as u64;
    }
    Ok(())
}

fn delete_from_segment(
    pages: &(impl Pages + ?Sized),
    segments: &dyn Segments,
    entry: &SegmentEntry,
    dead: &mut dyn FnMut(u64) -> bool,
    deleted: &mut Deleted,
) -> Result<()> {
    let segment = open(pages, segments, entry).map_err(Fault::into_error)?;
    let former = tombstones::read(pages, entry).map_err(Fault::into_error)?;
    let (mut fresh, mut all) = (Bitmap::of(entry.rows), 0);
    let mut found = 0;
    for slot in 0..entry.rows {
        if slot.is_multiple_of(SLICE) {
            pages.interrupts()?;
        }
        if former.has(slot) {
            all += 1;
        } else if dead(segment.key(slot)) {
            fresh.set(slot);
            found += 1;
            all += 1;
        } else {
            deleted.left += 1;
        }
    }
    if found == 0 && all == entry.dead {
        return Ok(());
    }
    let tombstones = match entry.tombstones {
        head::NONE => tombstones::write(pages, entry.identity, &fresh)?,
        first => {
            tombstones::add(pages, entry, &fresh)?;
            first
        }
    };
    let mut change = pages.change()?;
    let (handle, mut meta) = Meta::lock(&mut *change)?;
    if let Some(entry) = meta.segment(entry.identity) {
        entry.tombstones = tombstones;
        entry.dead = all;
        entry.version += 1;
    }
    meta.write(change.bytes(handle))?;
    change.commit()?;
    deleted.removed += found;
    Ok(())
}

/// What collecting found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Pages of the index.
    pub pages: u32,
    /// Pages that hold nothing.
    pub free: u32,
    /// Those of them that an interrupted seal, merge or delete had left.
    pub leaked: u32,
}

/// Frees pages that belong to nobody. None where a merge is under way, whose pages look like it.
pub fn collect(pages: &(impl Pages + ?Sized)) -> Result<Option<Collected>> {
    let Some(_merge) = Held::attempt(pages, Lock::Merge)? else {
        return Ok(None);
    };
    let _structure = Held::wait(pages, Lock::Structure)?;
    let mut collected = Collected { pages: pages.len()?, ..Collected::default() };
    for block in META + 1..collected.pages {
        pages.interrupts()?;
        let known = owner(pages, block)?;
        if known.is_some_and(|identity| Meta::read(pages).is_ok_and(|meta| meta.knows(identity))) {
            continue;
        }
        // With the meta page locked, no inserter has a page that is not linked yet.
        let mut change = pages.change()?;
        let (_, meta) = Meta::lock(&mut *change)?;
        let known = owner(pages, block)?;
        if known.is_none_or(|identity| !meta.knows(identity)) {
            pages.free(block)?;
            collected.free += 1;
            collected.leaked += u32::from(known.is_some());
        }
    }
    Ok(Some(collected))
}

fn owner(pages: &(impl Pages + ?Sized), block: u32) -> Result<Option<u64>> {
    let mut identity = None;
    pages.read(block, &mut |page| identity = Head::read(page).map(|head| head.identity))?;
    Ok(identity)
}
