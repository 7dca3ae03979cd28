//! Background workers of this library: starting one, and being one.

use std::ffi::{CStr, c_char};

#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::pg_sys::{self, Datum, Oid};

use super::usearch;
use crate::worker::{self, schedules};
use crate::{inference, settings};

/// What `pg_stat_activity.backend_type` and the process titles say.
const TRAINING: &CStr = c"pgrec training";
const LAUNCHER: &CStr = c"pgrec launcher";
const SCHEDULES: &CStr = c"pgrec schedules";
const INDEX: &CStr = c"pgrec index";
const INFERENCE: &CStr = c"pgrec inference";

/// Seconds after which a launcher that failed is started again.
const LAUNCHER_RESTART: i32 = 60;
/// The same of the inference worker, which waits longer by itself where it fails again and again.
const INFERENCE_RESTART: i32 = 1;

/// Asks the postmaster for a worker that trains what is queued in this database; false when it has no slot left
/// (`max_worker_processes`). Raises nothing, so it may be called after a commit.
pub fn training_worker() -> bool {
    // SAFETY: a global set at the start of the backend.
    let database = unsafe { pg_sys::MyDatabaseId };
    let mut worker = described(TRAINING, c"pgrec_training_worker", database);
    // SAFETY: the value is copied into shared memory; without a handle nothing is allocated.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, std::ptr::null_mut()) }
}

/// Asks the postmaster for a worker that merges the segments of an index of this database; false when it has no slot
/// left: a later insert or VACUUM asks again. An index that only this transaction knows is left to them, too.
pub fn index_worker(index: u32) -> bool {
    // SAFETY: a global set at the start of the backend.
    let database = unsafe { pg_sys::MyDatabaseId };
    let mut worker = described(INDEX, c"pgrec_index_worker", database);
    worker.bgw_main_arg = Datum::from(u64::from(database.to_u32()) << 32 | u64::from(index));
    // SAFETY: the value is copied into shared memory; without a handle nothing is allocated.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, std::ptr::null_mut()) }
}

/// Whether the postmaster is loading this library (`shared_preload_libraries`).
pub fn is_preloading() -> bool {
    // SAFETY: reads a global.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Has launcher and inference worker started with the server; to be called in _PG_init where [`is_preloading`].
pub fn register() {
    // SAFETY: _PG_init is where a library registers its workers.
    unsafe {
        let mut launcher = described(LAUNCHER, c"pgrec_launcher", Oid::INVALID);
        launcher.bgw_restart_time = LAUNCHER_RESTART;
        pg_sys::RegisterBackgroundWorker(&mut launcher);
        if settings::worker_slots() > 0 {
            let mut inference = described(INFERENCE, c"pgrec_inference", Oid::INVALID);
            inference.bgw_restart_time = INFERENCE_RESTART;
            // On a standby as soon as it answers queries.
            inference.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState;
            pg_sys::RegisterBackgroundWorker(&mut inference);
        }
    }
}

/// Sends a process into a database that starts the trainings which are due, and waits until it has ended. Nothing
/// happens where no slot is left: the next round comes by.
pub fn visit(database: Oid) {
    let mut worker = described(SCHEDULES, c"pgrec_schedules", database);
    // SAFETY: a global set at the start of the process.
    worker.bgw_notify_pid = unsafe { pg_sys::MyProcPid };
    let mut handle = std::ptr::null_mut();
    // SAFETY: the value is copied; the handle is allocated in the current context and freed here.
    unsafe {
        if pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle) {
            pg_sys::WaitForBackgroundWorkerShutdown(handle);
            pg_sys::pfree(handle.cast());
        }
    }
}

fn described(name: &CStr, function: &CStr, database: Oid) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        bgw_main_arg: Datum::from(database),
        ..Default::default()
    };
    fill(&mut worker.bgw_name, name);
    fill(&mut worker.bgw_type, name);
    fill(&mut worker.bgw_library_name, c"pgrec");
    fill(&mut worker.bgw_function_name, function);
    worker
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

/// Where a worker that trains starts.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_training_worker(database: Datum) {
    begin(TRAINING, Some(Oid::from(database.value() as u32)));
    worker::main();
}

/// Where the launcher starts.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_launcher(_nothing: Datum) {
    begin(LAUNCHER, None);
    schedules::launcher_main();
}

/// Where the inference worker starts.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_inference(_nothing: Datum) {
    begin(INFERENCE, None);
    inference::main();
}

/// Ends this process in such a way that the postmaster starts it again.
pub fn exit_to_be_restarted() {
    // SAFETY: main thread of a background worker, outside any transaction. It does not return.
    unsafe { pg_sys::proc_exit(1) };
}

/// Where a process of the launcher's starts.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_schedules(database: Datum) {
    begin(SCHEDULES, Some(Oid::from(database.value() as u32)));
    schedules::visitor_main();
}

/// Where a worker that merges starts.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_index_worker(database_and_index: Datum) {
    let both = database_and_index.value() as u64;
    begin(INDEX, Some(Oid::from((both >> 32) as u32)));
    usearch::merge_in_background(Oid::from(both as u32));
}

/// Makes this process a backend of a database, or of none, that no setting of the database stops.
fn begin(name: &CStr, database: Option<Oid>) {
    // SAFETY: the pattern of a worker's main function (bgworker.c, worker_spi): handlers first, then signals, then the
    // database. No user is named: the session is the installer's whether or not that role may log in. Without a
    // database only what all of them share can be read, and none is kept from being dropped.
    unsafe {
        pqsignal(libc::SIGTERM, Some(die));
        pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
        match database {
            Some(database) => pg_sys::BackgroundWorkerInitializeConnectionByOid(database, Oid::INVALID, 0),
            None => pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0),
        }
    }
    for (name, value) in SETTINGS.iter().copied().chain([(c"application_name", name)]) {
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
}

/// What a database's settings must not do to a worker, as in AutoVacWorkerMain.
const SETTINGS: [(&CStr, &CStr); 8] = [
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
