//! The pages of an index relation: shared buffers, generic WAL, the free space map and page locks.
//!
//! A page of ours is a page header and then bytes: nothing of it is a hole that WAL could leave out. A free page begins
//! with zeros, whatever the free space map says, which a crash can leave behind the truth.

use pgrec_engine::index::{Change, Lock, Pages};
use pgrec_engine::{Error, Result};
use pgrx::pg_sys::{self, BlockNumber, Buffer, ForkNumber, Relation};

use super::interrupt;

/// Bytes before ours.
const HEADER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);
/// Bytes of a page that are ours.
const PAYLOAD: usize = pg_sys::BLCKSZ as usize - HEADER;
/// How a free page begins.
const FREE: [u8; 8] = [0; 8];
/// How a page begins that was allocated and not written yet.
const TAKEN: [u8; 8] = *b"allotted";
/// Pages of one WAL record (`MAX_GENERIC_XLOG_PAGES`).
const MOST_PAGES: usize = 4;

/// One fork of an index relation that its owner has open and locked.
pub struct IndexPages {
    relation: Relation,
    fork: ForkNumber::Type,
}

impl IndexPages {
    /// # Safety
    /// The relation is an index, open and locked as long as this value is used.
    pub unsafe fn new(relation: Relation) -> Self {
        Self { relation, fork: ForkNumber::MAIN_FORKNUM }
    }

    /// The fork that an unlogged index is made of after a crash.
    ///
    /// # Safety
    /// As for [`IndexPages::new`].
    pub unsafe fn initial(relation: Relation) -> Self {
        Self { relation, fork: ForkNumber::INIT_FORKNUM }
    }

    /// Writes all pages of the fork to WAL, whether or not the relation is otherwise logged.
    pub fn log_all(&self) -> Result<()> {
        let pages = self.len()?;
        // SAFETY: the relation is open; the pages exist, and are standard ones without a hole.
        unsafe { pg_sys::log_newpage_range(self.relation, self.fork, 0, pages, true) };
        Ok(())
    }

    /// Lets pages that were freed be found: the map's upper levels do not know of them before.
    pub fn publish_free(&self) {
        // SAFETY: the relation is open.
        unsafe { pg_sys::IndexFreeSpaceMapVacuum(self.relation) };
    }

    /// A page with its content locked in a mode of `LockBuffer`.
    fn locked(&self, block: BlockNumber, mode: u32) -> Result<Buffer> {
        // SAFETY: the relation is open; a block that does not exist is an ERROR, not undefined.
        unsafe {
            let normal = pg_sys::ReadBufferMode::RBM_NORMAL;
            let buffer = pg_sys::ReadBufferExtended(self.relation, self.fork, block, normal, std::ptr::null_mut());
            pg_sys::LockBuffer(buffer, mode as i32);
            Ok(buffer)
        }
    }

    /// A free page, locked: from the free space map if that knows one that is really free, else behind the last.
    fn free_page(&self) -> Result<Buffer> {
        if self.fork == ForkNumber::MAIN_FORKNUM
            && let Some(buffer) = self.known_free_page()?
        {
            return Ok(buffer);
        }
        Ok(self.new_page())
    }

    /// A page behind the last, which nobody else has, locked.
    fn new_page(&self) -> Buffer {
        let to = pg_sys::BufferManagerRelation { rel: self.relation, ..Default::default() };
        let locked = pg_sys::ExtendBufferedFlags::EB_LOCK_FIRST;
        // SAFETY: the relation is open; the new page comes back pinned and locked.
        unsafe { pg_sys::ExtendBufferedRel(to, self.fork, std::ptr::null_mut(), locked) }
    }

    /// A page of the free space map's that is really free, locked.
    fn known_free_page(&self) -> Result<Option<Buffer>> {
        loop {
            // SAFETY: the relation is open. The map may name pages that do not exist or are in use.
            let block = unsafe { pg_sys::GetFreeIndexPage(self.relation) };
            if block == pg_sys::InvalidBlockNumber {
                return Ok(None);
            }
            if block < self.len()? {
                let buffer = self.locked(block, pg_sys::BUFFER_LOCK_EXCLUSIVE)?;
                // SAFETY: pinned and locked by `locked`.
                if unsafe { is_free(buffer) } {
                    return Ok(Some(buffer));
                }
                release(buffer);
            }
        }
    }

    fn logged(&self) -> Logged<'_> {
        // SAFETY: the relation is open.
        Logged { pages: self, state: unsafe { pg_sys::GenericXLogStart(self.relation) }, taken: Vec::new() }
    }
}

/// # Safety
/// The buffer is pinned and locked.
unsafe fn is_free(buffer: Buffer) -> bool {
    // SAFETY: a pinned buffer's page is BLCKSZ bytes.
    unsafe {
        let page = pg_sys::BufferGetPage(buffer);
        is_new(page) || std::slice::from_raw_parts(page.cast::<u8>().add(HEADER), FREE.len()) == FREE
    }
}

/// Whether a page is one that nobody has written to: zeros, header included.
///
/// # Safety
/// `page` is BLCKSZ readable bytes.
unsafe fn is_new(page: pg_sys::Page) -> bool {
    // SAFETY: the caller's.
    unsafe { (*page.cast::<pg_sys::PageHeaderData>()).pd_upper == 0 }
}

fn release(buffer: Buffer) {
    // SAFETY: called once for each buffer that was read and locked.
    unsafe { pg_sys::UnlockReleaseBuffer(buffer) };
}

/// Our bytes of a page.
///
/// # Safety
/// `page` is BLCKSZ bytes that nobody else writes while the slice lives.
unsafe fn payload<'a>(page: pg_sys::Page) -> &'a mut [u8] {
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts_mut(page.cast::<u8>().add(HEADER), PAYLOAD) }
}

/// Makes an empty page, all of which WAL takes for used.
///
/// # Safety
/// `page` is BLCKSZ writable bytes.
unsafe fn clear(page: pg_sys::Page) {
    // SAFETY: the caller's; PageInit zeroes it and writes the header.
    unsafe {
        pg_sys::PageInit(page, pg_sys::BLCKSZ as pg_sys::Size, 0);
        let header = page.cast::<pg_sys::PageHeaderData>();
        (*header).pd_lower = (*header).pd_upper;
    }
}

impl Pages for IndexPages {
    fn payload(&self) -> usize {
        PAYLOAD
    }

    fn len(&self) -> Result<u32> {
        // SAFETY: the relation is open.
        Ok(unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, self.fork) })
    }

    fn read(&self, block: u32, look: &mut dyn FnMut(&[u8])) -> Result<()> {
        let buffer = self.locked(block, pg_sys::BUFFER_LOCK_SHARE)?;
        // SAFETY: pinned, and nobody writes while the share lock is held. A new page has only zeros.
        look(unsafe { payload(pg_sys::BufferGetPage(buffer)) });
        release(buffer);
        Ok(())
    }

    fn change(&self) -> Result<Box<dyn Change + '_>> {
        Ok(Box::new(self.logged()))
    }

    fn allocate(&self) -> Result<u32> {
        let Some(buffer) = self.known_free_page()? else {
            let buffer = self.new_page();
            // SAFETY: pinned.
            let block = unsafe { pg_sys::BufferGetBlockNumber(buffer) };
            release(buffer);
            return Ok(block);
        };
        // The map may give two processes the same page: under its lock, the first makes it look taken.
        let mut change = self.logged();
        // SAFETY: pinned and locked. WAL cannot describe a change of a page that was never written.
        let (block, fresh) = unsafe { (pg_sys::BufferGetBlockNumber(buffer), is_new(pg_sys::BufferGetPage(buffer))) };
        let handle = change.take(buffer, fresh);
        change.bytes(handle)[..TAKEN.len()].copy_from_slice(&TAKEN);
        Box::new(change).commit()?;
        Ok(block)
    }

    fn write(&self, block: u32, bytes: &[u8]) -> Result<()> {
        let mut change = self.logged();
        let handle = change.take(self.locked(block, pg_sys::BUFFER_LOCK_EXCLUSIVE)?, true);
        let page = change.bytes(handle);
        let size = bytes.len().min(page.len());
        page[..size].copy_from_slice(&bytes[..size]);
        Box::new(change).commit()
    }

    fn free(&self, block: u32) -> Result<()> {
        let buffer = self.locked(block, pg_sys::BUFFER_LOCK_EXCLUSIVE)?;
        // SAFETY: pinned and locked by `locked`.
        if unsafe { is_free(buffer) } {
            release(buffer);
        } else {
            let mut change = self.logged();
            let handle = change.take(buffer, false);
            change.bytes(handle)[..FREE.len()].fill(0);
            Box::new(change).commit()?;
        }
        // SAFETY: the relation is open.
        unsafe { pg_sys::RecordFreeIndexPage(self.relation, block) };
        Ok(())
    }

    fn lock(&self, lock: Lock, wait: bool) -> Result<bool> {
        let (mode, block) = (pg_sys::ExclusiveLock as pg_sys::LOCKMODE, place(lock));
        // SAFETY: the relation is open; what is taken is released by `unlock`, or by the end of the transaction.
        let taken = unsafe {
            if wait {
                pg_sys::LockPage(self.relation, block, mode);
                true
            } else {
                pg_sys::ConditionalLockPage(self.relation, block, mode)
            }
        };
        Ok(taken)
    }

    fn unlock(&self, lock: Lock) {
        // SAFETY: the relation is open, and the lock was taken by `lock`.
        unsafe { pg_sys::UnlockPage(self.relation, place(lock), pg_sys::ExclusiveLock as pg_sys::LOCKMODE) };
    }

    fn identity(&self) -> Result<u64> {
        let mut bytes = [0u8; 8];
        // SAFETY: writes as many bytes as it is told.
        if unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) } {
            Ok(u64::from_le_bytes(bytes))
        } else {
            Err(Error::Data("the system has no random numbers".into()))
        }
    }

    fn interrupts(&self) -> Result<()> {
        interrupt::check();
        Ok(())
    }
}

/// The page whose heavyweight lock stands for one of ours; page locks are used by no one else on such an index.
fn place(lock: Lock) -> BlockNumber {
    match lock {
        Lock::Structure => 0,
        Lock::Merge => 1,
    }
}

/// Pages under exclusive locks, and the one WAL record that their changes will be.
struct Logged<'a> {
    pages: &'a IndexPages,
    state: *mut pg_sys::GenericXLogState,
    taken: Vec<(Buffer, pg_sys::Page)>,
}

impl Logged<'_> {
    /// Puts a page that is pinned and locked into the record; cleared, if nothing of it is to stay.
    fn take(&mut self, buffer: Buffer, cleared: bool) -> usize {
        let flags = if cleared { pg_sys::GENERIC_XLOG_FULL_IMAGE as i32 } else { 0 };
        // SAFETY: the buffer is pinned and locked exclusively; the state is live, and gives a copy of the page.
        unsafe {
            let page = pg_sys::GenericXLogRegisterBuffer(self.state, buffer, flags);
            if cleared {
                clear(page);
            }
            self.taken.push((buffer, page));
        }
        self.taken.len() - 1
    }

    fn check_room(&self) -> Result<()> {
        match self.taken.len() < MOST_PAGES {
            true => Ok(()),
            false => Err(Error::Data(format!("a record of more than {MOST_PAGES} pages"))),
        }
    }
}

impl Change for Logged<'_> {
    fn page(&mut self, block: u32) -> Result<usize> {
        self.check_room()?;
        let buffer = self.pages.locked(block, pg_sys::BUFFER_LOCK_EXCLUSIVE)?;
        Ok(self.take(buffer, false))
    }

    fn fresh(&mut self) -> Result<(usize, u32)> {
        self.check_room()?;
        let buffer = self.pages.free_page()?;
        // SAFETY: pinned.
        let block = unsafe { pg_sys::BufferGetBlockNumber(buffer) };
        Ok((self.take(buffer, true), block))
    }

    fn bytes(&mut self, handle: usize) -> &mut [u8] {
        // SAFETY: the copy that the state keeps until it is finished or aborted, which takes `self`.
        unsafe { payload(self.taken[handle].1) }
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        // SAFETY: the state is live until here; without it, `drop` does nothing.
        unsafe { pg_sys::GenericXLogFinish(std::mem::replace(&mut self.state, std::ptr::null_mut())) };
        for (buffer, _) in self.taken.drain(..) {
            release(buffer);
        }
        Ok(())
    }
}

impl Drop for Logged<'_> {
    /// Nothing happened. Where a panic unwinds, the end of the transaction releases everything.
    fn drop(&mut self) {
        if !self.state.is_null() && !std::thread::panicking() {
            // SAFETY: the state is live, and the buffers are ours.
            unsafe { pg_sys::GenericXLogAbort(self.state) };
            for (buffer, _) in self.taken.drain(..) {
                release(buffer);
            }
        }
    }
}
