//! Sizes of an index, and of what this session keeps for it.

use pgrec_engine::index::{self, Stats};
use pgrx::pg_sys::{self, Oid};

use super::open::LockedIndex;
use super::scan;
use crate::storage::segments;

/// What an index is made of.
pub struct Sizes {
    /// What its pages say.
    pub stats: Stats,
    /// Bytes of segments that this session has mapped, shared with all others; a temporary table's are its own.
    pub mapped: u64,
    /// Bytes that this session alone keeps.
    pub private: u64,
}

/// Looks at an index; None where it is none of this access method.
pub fn sizes(oid: Oid) -> Option<Sizes> {
    let locked = LockedIndex::attempt(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE)?;
    let open = locked.open();
    let stats = open.or_raise(index::stats(&open.pages));
    let private = scan::private_bytes(open.segments.index) as u64;
    Some(Sizes { stats, mapped: segments::open_bytes(open.segments.index), private })
}
