//! An open index: its pages, its segments, the threads that build for it.

use std::ffi::CStr;

use pgrec_engine::index::Crew;
use pgrec_engine::{Control, Error, Result};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid, Relation};
use rayon::ThreadPool;

use super::definition::Definition;
use super::options::IndexOptions;
use crate::compute;
use crate::error::{SqlError, or_raise};
use crate::pg::pages::IndexPages;
use crate::storage::segments::IndexSegments;

/// An index that somebody has opened and locked for us.
pub struct OpenIndex {
    relation: Relation,
    /// Its pages.
    pub pages: IndexPages,
    /// Its segments.
    pub segments: IndexSegments,
}

impl OpenIndex {
    /// # Safety
    /// The relation is an index of this access method, open and locked as long as this value is used.
    pub unsafe fn new(relation: Relation) -> Self {
        // SAFETY: the caller's; rd_rel is there as long as the relation is open.
        unsafe {
            let index = (*relation).rd_id.to_u32();
            let temporary = (*(*relation).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP;
            Self { relation, pages: IndexPages::new(relation), segments: IndexSegments { index, temporary } }
        }
    }

    /// What it is of.
    pub fn definition(&self) -> Definition {
        // SAFETY: as `new` asks for.
        or_raise(unsafe { Definition::of(self.relation) })
    }

    /// What `WITH (…)` says now.
    pub fn options(&self) -> IndexOptions {
        // SAFETY: as `new` asks for.
        unsafe { IndexOptions::of(self.relation) }
    }

    /// Raises what the engine says of this index.
    pub fn or_raise<T>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| self.error(error).raise())
    }

    /// What an error of the engine is to somebody who uses this index.
    fn error(&self, error: Error) -> SqlError {
        let Error::Malformed(why) = error else {
            return error.into();
        };
        // SAFETY: rd_rel is there as long as the relation is open; a name ends with a zero.
        let name = unsafe { CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()) }.to_string_lossy();
        SqlError::new(PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" cannot be read"))
            .detail(why)
            .hint(format!("REINDEX INDEX \"{name}\" builds it anew from the table."))
    }
}

/// An index that this value has opened and locked.
pub struct LockedIndex {
    relation: Relation,
    mode: pg_sys::LOCKMODE,
}

impl LockedIndex {
    /// None where there is no index of this access method with that oid.
    pub fn attempt(index: Oid, mode: pg_sys::LOCKMODE) -> Option<Self> {
        // SAFETY: locks and opens the relation if there is one of this oid; its description is there while it is open.
        unsafe {
            let relation = pg_sys::try_relation_open(index, mode);
            if relation.is_null() {
                return None;
            }
            let locked = Self { relation, mode };
            let method = pg_sys::get_index_am_oid(c"usearch".as_ptr(), true);
            let description = (*relation).rd_rel;
            let has_pages = (*description).relkind as u8 == pg_sys::RELKIND_INDEX;
            (has_pages && (*description).relam == method).then_some(locked)
        }
    }

    /// Its pages and segments.
    pub fn open(&self) -> OpenIndex {
        // SAFETY: open and locked as long as this value is, which callers keep for the while.
        unsafe { OpenIndex::new(self.relation) }
    }

    /// Whether somebody waits for a lock that this one is in the way of; false for weak locks, which Postgres does not
    /// look up (`EligibleForRelationFastPath`).
    pub fn is_wanted(&self) -> bool {
        let strong = self.mode >= pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: open, and locked in this mode, which is in the shared lock table.
        strong && unsafe { pg_sys::LockHasWaitersRelation(self.relation, self.mode) }
    }
}

impl Drop for LockedIndex {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened above. The lock stays until the end of the transaction.
            unsafe { pg_sys::relation_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

/// Threads of this process, while the main one stays open to cancels.
pub struct Threads<'a> {
    pool: ThreadPool,
    /// Whose error ends their work early.
    watch: Option<&'a dyn Fn() -> crate::error::Result<()>>,
}

impl<'a> Threads<'a> {
    /// So many, at least one.
    pub fn new(threads: usize) -> Self {
        Self { pool: or_raise(compute::pool(threads.max(1), 0)), watch: None }
    }

    /// So many, which stop when `watch` fails.
    pub fn that_give_way(threads: usize, watch: &'a dyn Fn() -> crate::error::Result<()>) -> Self {
        Self { watch: Some(watch), ..Self::new(threads) }
    }

    /// As many as `max_parallel_maintenance_workers` says.
    pub fn of_maintenance() -> Self {
        Self::new(maintenance_workers())
    }
}

/// `max_parallel_maintenance_workers`.
pub fn maintenance_workers() -> usize {
    // SAFETY: a setting of this process.
    usize::try_from(unsafe { pg_sys::max_parallel_maintenance_workers }).unwrap_or(0)
}

/// `maintenance_work_mem`, in bytes.
pub fn maintenance_memory() -> usize {
    // SAFETY: a setting of this process, in kB.
    usize::try_from(unsafe { pg_sys::maintenance_work_mem }).unwrap_or(0) << 10
}

impl Crew for Threads<'_> {
    fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn run(&self, work: &(dyn Fn(&Control) -> Result<()> + Sync)) -> Result<()> {
        let all = |control: &Control| rayon::broadcast(|_| work(control)).into_iter().collect();
        compute::run_on(&self.pool, all, |_| self.watch.map_or(Ok(()), |watch| watch())).map_err(|error| error.raise())
    }
}
