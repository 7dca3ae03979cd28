//! What vacuum removed from segments: a bitmap a segment, in pages of its own.

use std::sync::Arc;

use super::head::{self, Head, Kind};
use super::meta::SegmentEntry;
use super::pages::Pages;
use super::{Fault, Reading};
use crate::{Error, Result};

/// One bit a slot, set where the vector is removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bitmap(Vec<u64>);

impl Bitmap {
    pub(super) fn of(slots: u32) -> Self {
        Self(vec![0; (slots as usize).div_ceil(64)])
    }

    /// Whether a slot's vector is removed.
    #[inline]
    pub(super) fn has(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Whether it was not set before.
    pub(super) fn set(&mut self, slot: u32) -> bool {
        let Some(word) = self.0.get_mut(slot as usize / 64) else {
            return false;
        };
        let fresh = *word >> (slot % 64) & 1 == 0;
        *word |= 1 << (slot % 64);
        fresh
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Bitmaps as they were read last, for the scans of one process.
#[derive(Debug, Default)]
pub struct Bitmaps(Vec<(u64, u32, Arc<Bitmap>)>);

impl Bitmaps {
    /// The bitmap of a segment: none without tombstones.
    pub(super) fn get(&mut self, pages: &(impl Pages + ?Sized), entry: &SegmentEntry) -> Reading<Option<Arc<Bitmap>>> {
        if entry.dead == 0 {
            return Ok(None);
        }
        let known = self.0.iter().position(|(identity, ..)| *identity == entry.identity);
        if let Some(place) = known {
            if self.0[place].1 == entry.version {
                return Ok(Some(Arc::clone(&self.0[place].2)));
            }
            self.0.swap_remove(place);
        }
        let bitmap = Arc::new(read(pages, entry)?);
        self.0.push((entry.identity, entry.version, Arc::clone(&bitmap)));
        Ok(Some(bitmap))
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(.., bitmap)| bitmap.0.len() * size_of::<u64>()).sum()
    }

    /// Forgets all but those of the segments given.
    pub(super) fn keep(&mut self, segments: &[SegmentEntry]) {
        self.0.retain(|(identity, ..)| segments.iter().any(|entry| entry.identity == *identity));
    }
}

/// Pages of a segment's bitmap, in order.
pub(super) fn blocks(pages: &(impl Pages + ?Sized), entry: &SegmentEntry) -> Reading<Vec<u32>> {
    let mut blocks = Vec::new();
    each(pages, entry, |block, _| blocks.push(block))?;
    Ok(blocks)
}

fn each(pages: &(impl Pages + ?Sized), entry: &SegmentEntry, mut look: impl FnMut(u32, &[u8])) -> Reading<()> {
    let (mut next, mut seen) = (entry.tombstones, 0);
    while next != head::NONE {
        let mut found = Err(Fault::Recycled);
        pages.read(next, &mut |page| {
            found = Head::expect(page, Kind::Tombstones, entry.identity);
            if found.is_ok() {
                look(next, &page[head::SIZE..]);
            }
        })?;
        seen += 1;
        if seen > entry.rows {
            return Err(Fault::Error(damaged()));
        }
        next = found?.next;
    }
    Ok(())
}

fn damaged() -> Error {
    Error::Malformed("the tombstones of the index are damaged".into())
}

/// Reads a segment's bitmap.
pub(super) fn read(pages: &(impl Pages + ?Sized), entry: &SegmentEntry) -> Reading<Bitmap> {
    let mut bitmap = Bitmap(Vec::with_capacity((entry.rows as usize).div_ceil(64)));
    each(pages, entry, |_, bytes| {
        bitmap.0.extend(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
    })?;
    bitmap.0.resize((entry.rows as usize).div_ceil(64), 0);
    Ok(bitmap)
}

/// Writes a bitmap for a segment that has none; gives its first page. Nobody sees it before the meta page names it.
pub(super) fn write(pages: &(impl Pages + ?Sized), identity: u64, bitmap: &Bitmap) -> Result<u32> {
    let (bytes, room) = (bitmap.bytes(), room(pages));
    let mut next = head::NONE;
    for part in bytes.chunks(room).rev() {
        let mut page = vec![0; head::SIZE];
        page.extend_from_slice(part);
        Head { next, ..Head::new(Kind::Tombstones, identity) }.write(&mut page);
        let block = pages.allocate()?;
        pages.write(block, &page)?;
        next = block;
    }
    Ok(next)
}

/// Sets bits in the pages of a bitmap that there is: those of `bitmap` in addition to what they have.
pub(super) fn add(pages: &(impl Pages + ?Sized), entry: &SegmentEntry, bitmap: &Bitmap) -> Result<()> {
    let blocks = blocks(pages, entry).map_err(|_| damaged())?;
    let bytes = bitmap.bytes();
    for (block, part) in blocks.into_iter().zip(bytes.chunks(room(pages))) {
        if part.iter().all(|&byte| byte == 0) {
            continue;
        }
        let mut change = pages.change()?;
        let handle = change.page(block)?;
        let page = change.bytes(handle);
        for (byte, more) in page[head::SIZE..].iter_mut().zip(part) {
            *byte |= more;
        }
        change.commit()?;
    }
    Ok(())
}

/// Bytes of a bitmap on a page: whole words.
fn room(pages: &(impl Pages + ?Sized)) -> usize {
    (pages.payload() - head::SIZE) / 8 * 8
}
