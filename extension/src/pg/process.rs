//! What a process is to the operating system, and what other processes of the server can do to it.

use pgrx::pg_sys;

/// Wakes a process that waits ([`super::interrupt::sleep`]); nothing happens to one that is no backend any more.
pub fn wake(pid: i32) {
    signal(pid, libc::SIGUSR1);
}

/// Cancels what a process is doing, as `pg_cancel_backend` does.
pub fn cancel(pid: i32) {
    signal(pid, libc::SIGINT);
}

/// Every backend handles both signals; SIGUSR1 without a reason only sets its latch.
fn signal(pid: i32, signal: i32) {
    // SAFETY: looks the process up among the server's own, then sends it a signal; no memory is touched.
    unsafe {
        if pid > 0 && !pg_sys::BackendPidGetProc(pid).is_null() {
            libc::kill(pid, signal);
        }
    }
}

/// This process.
pub fn id() -> i32 {
    // SAFETY: a global set at the start of the backend.
    unsafe { pg_sys::MyProcPid }
}

/// Makes the calling thread `niceness` nicer than others (0 to 19). On Linux niceness belongs to a thread.
pub fn be_nice(niceness: i32) {
    // SAFETY: plain system call; being refused changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
}

/// Processor seconds that this process has used, all its threads together.
pub fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in the value it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Says in `pg_stat_activity` what this process does.
pub fn show_activity(what: &str) {
    if let Ok(text) = std::ffi::CString::new(what) {
        // SAFETY: the text is copied.
        unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) };
    }
}

/// Version of the server, such as `16.14`.
pub fn server_version() -> String {
    String::from_utf8_lossy(pg_sys::PG_VERSION.to_bytes()).into_owned()
}
