//! Transactions of a process that has no client, and what is done at the end of one.

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::{self, Datum};

use super::procedure::{Failure, describe};
use crate::error::{Result, SqlError};

/// Runs `work` in a transaction of its own under one snapshot. Not for a session: there the client's statement is
/// the transaction. When it fails, by `Err` or by an ERROR of Postgres, everything it wrote is undone.
pub fn run<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    run_without_snapshot(|| {
        // SAFETY: the pattern of a background worker's transaction (src/test/modules/worker_spi); an abort pops the
        // snapshot, and what `work` pushed it has popped.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        let value = work()?;
        // SAFETY: as above.
        unsafe { pg_sys::PopActiveSnapshot() };
        Ok(value)
    })
}

/// As [`run`], with settings that hold for this transaction.
pub fn run_with<T>(settings: &[(&CStr, &CStr)], work: impl FnOnce() -> Result<T>) -> Result<T> {
    run(|| {
        for (name, value) in settings {
            // SAFETY: as SET LOCAL does; both are C strings.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_LOCAL,
                    true,
                    0,
                    false,
                );
            }
        }
        work()
    })
}

/// As [`run`], for work that reads no table: it may last without holding back vacuum.
pub fn run_without_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = attempt(|| {
        // SAFETY: outside any transaction, which is where a worker's loop is.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
        }
        let value = work()?;
        // SAFETY: the transaction started above.
        unsafe { pg_sys::CommitTransactionCommand() };
        Ok(value)
    });
    // SAFETY: aborting is right in every state a transaction can be in, and does nothing where there is none. What
    // comes next allocates where nothing is freed meanwhile, which is why callers keep their values in Rust.
    unsafe {
        if outcome.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::pgstat_report_stat(true);
    }
    outcome
}

/// Runs `work` and gives an ERROR of Postgres as a value. Outside a transaction, or with [`run`] around it, only:
/// nothing that the failed work held is let go here.
pub fn attempt<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    pgrx::PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Failure::Own)))
        .catch_others(|error| Err(Failure::Caught(Box::new(error))))
        .catch_rust_panic(|error| Err(Failure::Caught(Box::new(error))))
        .execute()
        .map_err(SqlError::from)
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Own(error) => error,
            Failure::Caught(error) => describe(*error),
        }
    }
}

/// Runs `work` once this transaction has committed. It must not fail and not ask the database anything: the
/// transaction is over.
pub fn after_commit(work: impl FnOnce() + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static) {
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, work);
}

/// Calls `work` when this process ends by itself or is told to, outside any transaction but with the database still
/// there. A process that is killed does not come by.
pub fn before_exit(work: fn()) {
    // SAFETY: the function stays valid as long as the library is loaded, which is until the process ends.
    unsafe { pg_sys::before_shmem_exit(Some(leave), Datum::from(work as usize)) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: std::ffi::c_int, work: Datum) {
    // SAFETY: as RemoveTempRelationsCallback does before its own transaction; the datum is the pointer that
    // `before_exit` was given.
    let work = unsafe {
        pg_sys::AbortOutOfAnyTransaction();
        std::mem::transmute::<usize, fn()>(work.value())
    };
    work();
}

/// Whether this server, or this transaction, may not write.
pub fn is_read_only() -> bool {
    // SAFETY: reads globals.
    unsafe { pg_sys::RecoveryInProgress() || pg_sys::XactReadOnly }
}

/// Whether this transaction has changed something, which others do not see yet.
pub fn has_written() -> bool {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::GetCurrentTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}
