//! Merging segments in the background, on the primary.

use pgrec_engine::index;
use pgrx::pg_sys::{self, Oid};

use super::open::{LockedIndex, Threads, maintenance_memory};
use crate::error::{Result, SqlError};
use crate::pg::{lock, transaction};

/// Scans, inserts and VACUUM go on beside it. It is none of those that Postgres keeps out of its lock table as long as
/// nobody is in their way, in which `LockedIndex::is_wanted` could not look it up.
const LOCK: pg_sys::LOCKMODE = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;

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
    let Some(locked) = LockedIndex::attempt(index, LOCK) else {
        return Ok(false);
    };
    let open = locked.open();
    let wanted = || match locked.is_wanted() || lock::database_is_wanted() {
        true => Err(SqlError::state("somebody waits for the index or its database")),
        false => Ok(()),
    };
    let crew = Threads::that_give_way(1, &wanted);
    let merged = open.or_raise(index::merge(&open.pages, &open.segments, &crew, maintenance_memory()));
    open.pages.publish_free();
    Ok(merged)
}
