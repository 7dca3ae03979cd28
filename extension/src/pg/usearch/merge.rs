//! Merging segments in the background, on the primary.

use pgrec_engine::index;
use pgrx::pg_sys::{self, Oid, Relation};

use super::open::{OpenIndex, Threads, maintenance_memory};
use crate::error::{Result, SqlError};
use crate::pg::{lock, transaction};

/// The lock that inserts take too, so that they go on.
const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// The life of a worker: does the merges that are due, each in a transaction of its own.
pub fn merge_in_background(index: Oid) {
    loop {
        match transaction::run_without_snapshot(|| merge_one(index)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                pgrx::log!("pgrec: segments of index {} stay as they are: {}", index.to_u32(), error.reason());
                return;
            }
        }
    }
}

/// Does one merge, if one is due.
fn merge_one(index: Oid) -> Result<bool> {
    let Some(relation) = Open::attempt(index) else {
        return Ok(false);
    };
    // SAFETY: open and locked until it is dropped.
    let open = unsafe { OpenIndex::new(relation.0) };
    let wanted = || {
        // SAFETY: open, and locked in this mode.
        let waiting = unsafe { pg_sys::LockHasWaitersRelation(relation.0, LOCK) };
        match waiting || lock::database_is_wanted() {
            true => Err(SqlError::state("somebody waits for the index or its database")),
            false => Ok(()),
        }
    };
    let crew = Threads::that_give_way(1, &wanted);
    Ok(open.or_raise(index::merge(&open.pages, &open.segments, &crew, maintenance_memory())))
}

/// An index of this access method, open and locked.
struct Open(Relation);

impl Open {
    /// None where it is gone, or is something else by now.
    fn attempt(index: Oid) -> Option<Self> {
        // SAFETY: locks and opens the relation if there is one of this oid; its description is there while it is open.
        unsafe {
            let relation = pg_sys::try_relation_open(index, LOCK);
            if relation.is_null() {
                return None;
            }
            let open = Self(relation);
            let method = pg_sys::get_index_am_oid(c"usearch".as_ptr(), true);
            ((*(*relation).rd_rel).relam == method).then_some(open)
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened in this mode. The lock stays until the end of the transaction.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}
