//! The bytes of a segment, in pages: a list of the pages that hold them (the map), and those.

use super::head::{self, Head, Kind};
use super::meta::SegmentEntry;
use super::pages::Pages;
use super::{Fault, Reading};
use crate::{Error, Result};

/// Bytes of a block's number in a map.
const NUMBER: usize = 4;

/// Writes a segment that nobody knows of yet.
pub(super) fn write(pages: &(impl Pages + ?Sized), bytes: &[u8], rows: u32) -> Result<SegmentEntry> {
    let identity = pages.identity()?;
    let room = pages.payload() - head::SIZE;
    let mut page = vec![0; pages.payload()];
    let mut blocks = Vec::with_capacity(bytes.len().div_ceil(room));
    for chunk in bytes.chunks(room) {
        pages.interrupts()?;
        let block = pages.allocate()?;
        let crc = crc32c::crc32c(chunk);
        Head { count: chunk.len() as u32, crc, ..Head::new(Kind::Chunk, identity) }.write(&mut page);
        page[head::SIZE..head::SIZE + chunk.len()].copy_from_slice(chunk);
        pages.write(block, &page[..head::SIZE + chunk.len()])?;
        blocks.push(block);
    }
    let map = write_map(pages, identity, &blocks)?;
    Ok(SegmentEntry {
        identity,
        map,
        bytes: bytes.len() as u64,
        rows,
        crc: crc32c::crc32c(bytes),
        tombstones: head::NONE,
        dead: 0,
        version: 0,
    })
}

/// From the last page to the first, so that each knows the one behind it.
fn write_map(pages: &(impl Pages + ?Sized), identity: u64, blocks: &[u32]) -> Result<u32> {
    let room = (pages.payload() - head::SIZE) / NUMBER;
    let mut next = head::NONE;
    let mut page = Vec::with_capacity(pages.payload());
    for blocks in blocks.chunks(room).rev() {
        page.clear();
        page.resize(head::SIZE, 0);
        page.extend(blocks.iter().flat_map(|block| block.to_le_bytes()));
        let crc = crc32c::crc32c(&page[head::SIZE..]);
        let head = Head { count: blocks.len() as u32, next, crc, ..Head::new(Kind::Map, identity) };
        head.write(&mut page[..]);
        let block = pages.allocate()?;
        pages.write(block, &page)?;
        next = block;
    }
    Ok(next)
}

/// What follows a head that says how many bytes there are and their CRC.
fn checked(page: &[u8], head: &Head, size: usize) -> Reading<Vec<u8>> {
    let bytes = page.get(head::SIZE..head::SIZE + size);
    let bytes = bytes.filter(|bytes| crc32c::crc32c(bytes) == head.crc);
    bytes
        .map(<[u8]>::to_vec)
        .ok_or_else(|| Fault::Error(Error::Malformed("a page of the index is damaged (CRC)".into())))
}

fn page_of(pages: &(impl Pages + ?Sized), block: u32, kind: Kind, identity: u64) -> Reading<(Head, Vec<u8>)> {
    let mut found = Err(Fault::Recycled);
    pages.read(block, &mut |page| {
        found = Head::expect(page, kind, identity).and_then(|head| {
            let unit = if kind == Kind::Map { NUMBER } else { 1 };
            Ok((head, checked(page, &head, head.count as usize * unit)?))
        });
    })?;
    found
}

/// Pages of the map and of the bytes, in order.
pub(super) fn blocks(pages: &(impl Pages + ?Sized), entry: &SegmentEntry) -> Reading<(Vec<u32>, Vec<u32>)> {
    let (mut maps, mut chunks, mut next) = (Vec::new(), Vec::new(), entry.map);
    while next != head::NONE {
        let (head, bytes) = page_of(pages, next, Kind::Map, entry.identity)?;
        maps.push(next);
        chunks.extend(bytes.as_chunks::<NUMBER>().0.iter().map(|number| u32::from_le_bytes(*number)));
        if maps.len() as u64 > entry.bytes {
            return Err(Fault::Error(Error::Malformed("the list of a segment's pages has no end".into())));
        }
        next = head.next;
    }
    Ok((maps, chunks))
}

/// Gives the bytes to `take`, piece by piece, and checks their CRC.
pub(super) fn read(
    pages: &(impl Pages + ?Sized),
    entry: &SegmentEntry,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Reading<()> {
    let (mut crc, mut size) = (0, 0);
    for block in blocks(pages, entry)?.1 {
        pages.interrupts()?;
        let (_, bytes) = page_of(pages, block, Kind::Chunk, entry.identity)?;
        crc = crc32c::crc32c_append(crc, &bytes);
        size += bytes.len() as u64;
        take(&bytes)?;
    }
    if crc != entry.crc || size != entry.bytes {
        return Err(Fault::Error(Error::Malformed("a segment of the index is damaged (CRC)".into())));
    }
    Ok(())
}
