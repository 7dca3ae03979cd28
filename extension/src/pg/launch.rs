//! Background workers of this library: starting one, and being one.

use std::ffi::{CStr, c_char};

#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::pg_sys::{self, Datum, Oid};

use crate::worker;

/// `pg_stat_activity.backend_type` and the process title.
const NAME: &CStr = c"pgrec training";

/// Asks the postmaster for a worker that trains what is queued in this database; false when it has no slot left
/// (`max_worker_processes`). Raises nothing, so it may be called after a commit.
pub fn training_worker() -> bool {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        // SAFETY: a global set at the start of the backend.
        bgw_main_arg: Datum::from(unsafe { pg_sys::MyDatabaseId }),
        ..Default::default()
    };
    fill(&mut worker.bgw_name, NAME);
    fill(&mut worker.bgw_type, NAME);
    fill(&mut worker.bgw_library_name, c"pgrec");
    fill(&mut worker.bgw_function_name, c"pgrec_training_worker");
    // SAFETY: the value is copied into shared memory; without a handle nothing is allocated.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, std::ptr::null_mut()) }
}

/// Copies a name that is shorter than the field.
fn fill(field: &mut [c_char], name: &CStr) {
    for (slot, byte) in field.iter_mut().zip(name.to_bytes()) {
        *slot = *byte as c_char;
    }
}

// Postgres' own handlers, as they are: a wrapper of pgrx does more than a signal handler should. Both set flags and the
// latch, and raise nothing.
unsafe extern "C-unwind" {
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

/// Where such a worker starts.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_training_worker(database: Datum) {
    // SAFETY: the pattern of a worker's main function (bgworker.c, worker_spi): handlers first, then signals, then the
    // database. No user is named: the session is the installer's whether or not that role may log in.
    unsafe {
        pqsignal(libc::SIGTERM, Some(die));
        pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(Oid::from(database.value() as u32), Oid::INVALID, 0);
    }
    for (name, value) in SETTINGS {
        // SAFETY: both are C strings; an option that this version does not have is left alone.
        unsafe {
            if !pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() {
                pg_sys::SetConfigOption(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_SUSET,
                    pg_sys::GucSource::PGC_S_OVERRIDE,
                );
            }
        }
    }
    worker::main();
}

/// What a database's settings must not do to a worker, as in AutoVacWorkerMain.
const SETTINGS: [(&CStr, &CStr); 9] = [
    (c"application_name", NAME),
    (c"search_path", c""),
    (c"statement_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"lock_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
];

/// Reads the configuration again, if that was asked for.
pub fn reload_if_asked() {
    // SAFETY: main loop of a background worker, outside any transaction, where Postgres' own workers do this.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}
