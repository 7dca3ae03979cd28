//! Chains: rows appended one by one, each with its vector as it came.

use super::head::{self, Head, Kind};
use super::meta::{Chain, Meta};
use super::pages::{META, Pages};
use super::{Fault, Reading, Shape};
use crate::{Error, Result};

/// Bytes of a row before its vector: where it is in the table, and whether vacuum removed it.
pub(super) const ROW_HEAD: usize = 8;
/// In a row's head.
const DEAD: u64 = 1 << 63;

/// How many bytes of rows a chain holds at most before it is made into a segment. A scan compares all of them, at some
/// 10 GB/s: about as long as a walk through a graph takes.
const MOST_BYTES: usize = 2 << 20;
/// In a small index a walk takes less: a chain is not more than this part of the segments' bytes, or so many bytes.
const SHARE: u64 = 10;
const FEW_BYTES: usize = 256 << 10;
/// A chain of fewer rows is not made into a segment.
const SEAL_ROWS: usize = 1_000;

/// Rows of a page.
struct Layout {
    row: usize,
    rows: usize,
}

impl Layout {
    fn new(pages: &(impl Pages + ?Sized), meta: &Meta) -> Result<Self> {
        let row = ROW_HEAD + meta.exact()?.vector_bytes();
        let rows = (pages.payload() - head::SIZE) / row;
        if rows == 0 {
            return Err(Error::Parameter(format!("vectors of {row} bytes do not fit into a page")));
        }
        Ok(Self { row, rows })
    }
}

/// Makes an empty index of pages that do not exist yet: the meta page and the first of a chain.
pub fn create(pages: &(impl Pages + ?Sized), shape: &Shape) -> Result<()> {
    let identity = pages.identity()?;
    let mut change = pages.change()?;
    let (meta_page, block) = change.fresh()?;
    if block != META {
        return Err(Error::Data("the index has pages already".into()));
    }
    let (first, head) = change.fresh()?;
    Head::new(Kind::Delta, identity).write(change.bytes(first));
    let mut meta = Meta::new(shape, Chain { identity, head, tail: head, pages: 1 });
    Layout::new(pages, &meta)?;
    meta.write(change.bytes(meta_page))?;
    change.commit()
}

/// What became of an attempt to append to a page.
enum Appended {
    Done,
    Full,
    /// The page is not, or not any more, the last of the live chain.
    Moved,
}

/// Adds a row: its place in the table (below 2⁶³) and its vector, stored in the shape's exact format. Gives whether the
/// chain is so long that it should be sealed.
pub fn insert(pages: &(impl Pages + ?Sized), tid: u64, stored: &[u8]) -> Result<bool> {
    let mut meta = Meta::read(pages)?;
    let layout = Layout::new(pages, &meta)?;
    if stored.len() + ROW_HEAD != layout.row || tid & DEAD != 0 {
        return Err(Error::Parameter("a row that is not of this index".into()));
    }
    loop {
        match append(pages, &meta.live, &layout, tid, stored)? {
            Appended::Done => return Ok(false),
            Appended::Moved => {}
            Appended::Full => {
                if let Some(meta) = append_page(pages, &meta.live, &layout, tid, stored)? {
                    return Ok(is_due(&meta, &layout));
                }
            }
        }
        meta = Meta::read(pages)?;
    }
}

fn is_due(meta: &Meta, layout: &Layout) -> bool {
    let segments: u64 = meta.segments.iter().map(|entry| entry.bytes).sum();
    let most = usize::try_from(segments / SHARE).unwrap_or(MOST_BYTES).clamp(FEW_BYTES, MOST_BYTES);
    let rows = meta.live.pages as usize * layout.rows;
    rows >= SEAL_ROWS && rows * layout.row >= most
}

/// Whether the live chain, or one that was frozen before, should be made into a segment; sooner, where that is
/// `convenient`.
pub(super) fn seal_is_due(pages: &(impl Pages + ?Sized), meta: &Meta, convenient: bool) -> Result<bool> {
    let layout = Layout::new(pages, meta)?;
    let enough = convenient && meta.live.pages as usize * layout.rows >= SEAL_ROWS;
    Ok(!meta.frozen.is_empty() || enough || is_due(meta, &layout))
}

fn write_row(page: &mut [u8], place: usize, row: usize, tid: u64, stored: &[u8]) {
    let at = head::SIZE + place * row;
    page[at..at + ROW_HEAD].copy_from_slice(&tid.to_le_bytes());
    page[at + ROW_HEAD..at + row].copy_from_slice(stored);
}

/// Appends to the chain's last page alone.
fn append(pages: &(impl Pages + ?Sized), chain: &Chain, layout: &Layout, tid: u64, stored: &[u8]) -> Result<Appended> {
    let mut change = pages.change()?;
    let handle = change.page(chain.tail)?;
    let page = change.bytes(handle);
    let mut head = match Head::expect(page, Kind::Delta, chain.identity) {
        Ok(head) if !head.closed && head.next == head::NONE => head,
        _ => return Ok(Appended::Moved),
    };
    let place = head.count as usize;
    if place >= layout.rows {
        return Ok(Appended::Full);
    }
    write_row(page, place, layout.row, tid, stored);
    head.count += 1;
    head.write(page);
    change.commit()?;
    Ok(Appended::Done)
}

/// Appends a page with the row in it; None where the chain has changed meanwhile.
fn append_page(
    pages: &(impl Pages + ?Sized),
    chain: &Chain,
    layout: &Layout,
    tid: u64,
    stored: &[u8],
) -> Result<Option<Meta>> {
    let mut change = pages.change()?;
    let (meta_page, mut meta) = Meta::lock(&mut *change)?;
    if meta.live.identity != chain.identity || meta.live.tail != chain.tail {
        return Ok(None);
    }
    let tail = change.page(meta.live.tail)?;
    // Pages for chains are taken while the meta page is locked, so that vacuum, which looks at pages under the same
    // lock, never meets one that is taken and not linked yet.
    let (fresh, block) = change.fresh()?;
    let page = change.bytes(fresh);
    Head { count: 1, ..Head::new(Kind::Delta, meta.live.identity) }.write(page);
    write_row(page, 0, layout.row, tid, stored);
    set_next(change.bytes(tail), meta.live.identity, block)?;
    meta.live.tail = block;
    meta.live.pages += 1;
    meta.write(change.bytes(meta_page))?;
    change.commit()?;
    Ok(Some(meta))
}

fn set_next(page: &mut [u8], identity: u64, next: u32) -> Result<()> {
    let head = Head::expect(page, Kind::Delta, identity).map_err(|_| damaged())?;
    Head { next, ..head }.write(page);
    Ok(())
}

fn damaged() -> Error {
    Error::Malformed("a page of the index's chain is not the chain's".into())
}

/// Ends the live chain and begins another; the caller holds the structure lock. Nothing happens to an empty one.
pub(super) fn freeze(pages: &(impl Pages + ?Sized)) -> Result<Meta> {
    let identity = pages.identity()?;
    let mut change = pages.change()?;
    let (meta_page, mut meta) = Meta::lock(&mut *change)?;
    let tail = change.page(meta.live.tail)?;
    let page = change.bytes(tail);
    let head = Head::expect(page, Kind::Delta, meta.live.identity).map_err(|_| damaged())?;
    if meta.live.pages == 1 && head.count == 0 {
        return Ok(meta);
    }
    Head { closed: true, ..head }.write(page);
    let (fresh, block) = change.fresh()?;
    Head::new(Kind::Delta, identity).write(change.bytes(fresh));
    meta.frozen.push(meta.live);
    meta.live = Chain { identity, head: block, tail: block, pages: 1 };
    meta.write(change.bytes(meta_page))?;
    change.commit()?;
    Ok(meta)
}

/// Rows of one page of a chain.
pub(super) struct Rows<'a> {
    /// All rows, one behind the other.
    pub bytes: &'a [u8],
    /// Bytes of a row.
    pub row: usize,
}

impl<'a> Rows<'a> {
    /// Table places and vectors of rows that are not dead; with their numbers in the page.
    pub(super) fn live(&self) -> impl Iterator<Item = (usize, u64, &'a [u8])> + use<'a> {
        self.bytes.chunks_exact(self.row).enumerate().filter_map(|(place, row)| {
            let (head, stored) = row.split_at_checked(ROW_HEAD)?;
            let tid = u64::from_le_bytes(*head.first_chunk()?);
            (tid & DEAD == 0).then_some((place, tid, stored))
        })
    }
}

/// Looks at the pages of a chain, in order; gives their blocks.
pub(super) fn each_page(
    pages: &(impl Pages + ?Sized),
    meta: &Meta,
    chain: &Chain,
    mut look: impl FnMut(u32, &Rows<'_>) -> Result<()>,
) -> Reading<Vec<u32>> {
    let layout = Layout::new(pages, meta)?;
    let (mut blocks, mut block) = (Vec::with_capacity(chain.pages as usize), chain.head);
    while block != head::NONE {
        if blocks.len() > chain.pages as usize && blocks.len() as u64 > u64::from(pages.len()?) {
            return Err(Fault::Error(damaged()));
        }
        let mut outcome = Err(Fault::Recycled);
        pages.read(block, &mut |page| {
            outcome = Head::expect(page, Kind::Delta, chain.identity).and_then(|head| {
                let end = head::SIZE + head.count as usize * layout.row;
                let bytes = page.get(head::SIZE..end).ok_or_else(|| Fault::Error(damaged()))?;
                look(block, &Rows { bytes, row: layout.row })?;
                Ok(head.next)
            });
        })?;
        blocks.push(block);
        block = outcome?;
    }
    Ok(blocks)
}

/// Marks rows of a page as removed.
pub(super) fn set_dead(pages: &(impl Pages + ?Sized), meta: &Meta, block: u32, places: &[usize]) -> Result<()> {
    let layout = Layout::new(pages, meta)?;
    let mut change = pages.change()?;
    let handle = change.page(block)?;
    let page = change.bytes(handle);
    for &place in places {
        let at = head::SIZE + place * layout.row + ROW_HEAD - 1;
        let high = page.get_mut(at).ok_or_else(damaged)?;
        *high |= (DEAD >> 56) as u8;
    }
    change.commit()
}
