//! What several statements see.

use pgrx::pg_sys;

/// Runs `work` with an active snapshot, the caller's where it has one, so that all its read-only statements see the
/// same data.
pub fn under_one<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction, as all SQL is. Should `work` raise, the end of the (sub)transaction pops what
    // is pushed here.
    unsafe {
        if pg_sys::ActiveSnapshotSet() {
            return work();
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let result = work();
    // SAFETY: what `work` pushed it has popped: the innermost snapshot is the one from above.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}
