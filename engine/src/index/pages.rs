//! What the index needs from whoever stores its pages.

use std::sync::Arc;

use pgrec_kernels::Segment;

use super::meta::SegmentEntry;
use crate::Result;

/// Block of the meta page.
pub const META: u32 = 0;

/// Locks that outlive single pages. Each is held by one process at a time, and by its end released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// To change which chains and segments there are, or what vacuum has removed from them.
    Structure,
    /// To merge segments, or to collect pages that belong to nobody.
    Merge,
}

/// The pages of one index: an array that grows, each page with a reader-writer lock of its own.
///
/// A page that is free begins with 8 zero bytes, so that no reader takes it for anything else.
pub trait Pages {
    /// Bytes of a page.
    fn payload(&self) -> usize;
    /// How many pages there are.
    fn len(&self) -> Result<u32>;
    /// Whether there are none.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Looks at a page while nobody can change it.
    fn read(&self, block: u32, look: &mut dyn FnMut(&[u8])) -> Result<()>;
    /// Begins a change of at most 4 pages that happens as a whole or not at all, also in a crash.
    fn change(&self) -> Result<Box<dyn Change + '_>>;
    /// A page that was free or is new, and known to nobody else.
    fn allocate(&self) -> Result<u32>;
    /// Writes an allocated page: `bytes`, then zeros.
    fn write(&self, block: u32, bytes: &[u8]) -> Result<()>;
    /// Clears a page and lets it be allocated again.
    fn free(&self, block: u32) -> Result<()>;
    /// Takes a lock; false where it was not to `wait` and another process holds it.
    fn lock(&self, lock: Lock, wait: bool) -> Result<bool>;
    /// Releases it.
    fn unlock(&self, lock: Lock);
    /// A random number that nobody had before.
    fn identity(&self) -> Result<u64>;
    /// To be called between slices of some milliseconds of work: where a cancel is heard.
    fn interrupts(&self) -> Result<()>;
}

/// A change under way. Dropped before it is committed, it did not happen.
///
/// Pages are locked in this order, so that nobody waits in a circle: the meta page, pages that others know, fresh ones.
pub trait Change {
    /// Locks a page against all others; gives a handle.
    fn page(&mut self, block: u32) -> Result<usize>;
    /// A page that was free or is new, of zeros; its handle and block.
    fn fresh(&mut self) -> Result<(usize, u32)>;
    /// The bytes of a page as they will be.
    fn bytes(&mut self, handle: usize) -> &mut [u8];
    /// Makes it happen.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// Reads the bytes of a segment in pieces.
pub type Source<'a> = dyn FnMut(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + 'a;

/// Segments that are open. They are immutable and named by random identities, so one that is open is never stale.
pub trait Segments {
    /// The segment of an entry; `source` gives its bytes where they are not at hand.
    fn open(&self, entry: &SegmentEntry, source: &mut Source<'_>) -> Result<Arc<Segment>>;
    /// Told which segments there are: others need not be kept open.
    fn keep(&self, entries: &[SegmentEntry]);
}

/// A lock that is released when this is dropped.
pub(super) struct Held<'a, P: Pages + ?Sized>(&'a P, Lock);

impl<'a, P: Pages + ?Sized> Held<'a, P> {
    /// Waits for it.
    pub(super) fn wait(pages: &'a P, lock: Lock) -> Result<Self> {
        pages.lock(lock, true)?;
        Ok(Self(pages, lock))
    }

    /// Takes it if it is free.
    pub(super) fn attempt(pages: &'a P, lock: Lock) -> Result<Option<Self>> {
        // Not `then_some`: dropping what was not taken would release another's lock.
        Ok(pages.lock(lock, false)?.then(|| Self(pages, lock)))
    }
}

impl<P: Pages + ?Sized> Drop for Held<'_, P> {
    fn drop(&mut self) {
        // What unwinds ends the transaction, which releases it.
        if !std::thread::panicking() {
            self.0.unlock(self.1);
        }
    }
}
