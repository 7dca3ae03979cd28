//! VACUUM: removing rows, then tidying up.

use std::ffi::c_void;

use pgrec_engine::index;
use pgrx::pg_guard;
use pgrx::pg_sys::{IndexBulkDeleteCallback, IndexBulkDeleteResult, IndexVacuumInfo, palloc0};

use super::insert::place_of;
use super::open::{OpenIndex, Threads, maintenance_memory};

/// `ambulkdelete`: what the callback names is not found any more.
#[pg_guard]
pub unsafe extern "C-unwind" fn bulk_delete(
    info: *mut IndexVacuumInfo,
    stats: *mut IndexBulkDeleteResult,
    callback: IndexBulkDeleteCallback,
    state: *mut c_void,
) -> *mut IndexBulkDeleteResult {
    // SAFETY: the index is open and locked during the call.
    let open = unsafe { OpenIndex::new((*info).index) };
    let Some(callback) = callback else {
        return stats;
    };
    let deleted = open.or_raise(index::delete(&open.pages, &open.segments, &mut |tid| {
        let mut place = place_of(tid);
        // SAFETY: the callback looks at the place and at its own state.
        unsafe { callback(&mut place, state) }
    }));
    // SAFETY: either the caller's, or allocated for it.
    unsafe {
        let stats = allocated(stats);
        (*stats).tuples_removed += deleted.removed as f64;
        (*stats).num_index_tuples = deleted.left as f64;
        stats
    }
}

/// `amvacuumcleanup`: frees pages that belong to nobody, and merges segments.
#[pg_guard]
pub unsafe extern "C-unwind" fn cleanup(
    info: *mut IndexVacuumInfo,
    stats: *mut IndexBulkDeleteResult,
) -> *mut IndexBulkDeleteResult {
    // SAFETY: the index is open and locked during the call.
    let (open, analyze_only) = unsafe { (OpenIndex::new((*info).index), (*info).analyze_only) };
    if analyze_only {
        return stats;
    }
    open.or_raise(index::seal(&open.pages, &Threads::new(1), true));
    let memory = maintenance_memory();
    let due = || open.or_raise(index::Meta::read(&open.pages).map(|meta| index::merge_due(&meta, memory).is_some()));
    while due() && open.or_raise(index::merge(&open.pages, &open.segments, &Threads::of_maintenance(), memory)) {}
    let collected = open.or_raise(index::collect(&open.pages));
    open.pages.publish_free();
    let found = open.or_raise(index::stats(&open.pages));
    // SAFETY: either the caller's, or allocated for it.
    unsafe {
        let fresh = stats.is_null();
        let stats = allocated(stats);
        if fresh {
            (*stats).num_index_tuples =
                found.chain_rows as f64 + found.meta.segments.iter().map(|entry| f64::from(entry.live())).sum::<f64>();
        }
        (*stats).num_pages = found.pages;
        (*stats).pages_free = collected.map_or(0, |collected| collected.free);
        stats
    }
}

/// # Safety
/// Null, or the result of an earlier call.
unsafe fn allocated(stats: *mut IndexBulkDeleteResult) -> *mut IndexBulkDeleteResult {
    if stats.is_null() {
        // SAFETY: zeros are a value of it.
        unsafe { palloc0(size_of::<IndexBulkDeleteResult>()).cast() }
    } else {
        stats
    }
}
