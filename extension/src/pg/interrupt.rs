//! Cancellation while another thread computes, or while nothing is to be done.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pgrec_engine::Control;
use pgrx::pg_sys;

use crate::error::Result;

/// How long the main thread sleeps between looks at its interrupt flags.
const POLL: Duration = Duration::from_millis(5);

/// Raises a pending cancel or termination, if there is one.
pub fn check() {
    // SAFETY: main thread of a backend; what it raises is an ordinary ERROR.
    unsafe {
        if (&raw const pg_sys::InterruptPending).read_volatile() != 0 {
            pg_sys::ProcessInterrupts();
        }
    }
}

fn must_stop() -> bool {
    // SAFETY: sig_atomic_t flags set by signal handlers of this process.
    unsafe {
        (&raw const pg_sys::QueryCancelPending).read_volatile() != 0
            || (&raw const pg_sys::ProcDiePending).read_volatile() != 0
    }
}

fn must_end() -> bool {
    // SAFETY: as above.
    unsafe { (&raw const pg_sys::ProcDiePending).read_volatile() != 0 }
}

/// Stops the computation when the main thread leaves early, whatever made it leave.
struct CancelOnDrop<'a>(&'a Control);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How long a computation may take to let go of a process that has been told to end.
const GRACE: Duration = Duration::from_millis(500);

/// Waits for the result of another thread. A cancel, a timeout or a termination stops the computation through
/// `control`, waits for it to let go, and is then raised as Postgres raises it. `tick` runs between polls; its error
/// stops the computation too, and comes back. None when the other thread ended without a result.
pub fn wait<T>(result: &Receiver<T>, control: &Control, mut tick: impl FnMut() -> Result<()>) -> Result<Option<T>> {
    let guard = CancelOnDrop(control);
    let mut told = None;
    let mut failed = None;
    let value = loop {
        match result.recv_timeout(POLL) {
            Ok(value) => break Some(value),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if must_stop() {
            control.cancel();
            // The end of the process ends its threads as well, and what they borrow from this one lives as long.
            if must_end() && told.get_or_insert_with(Instant::now).elapsed() > GRACE {
                check();
            }
        } else if failed.is_none() {
            check();
            if let Err(error) = tick() {
                control.cancel();
                failed = Some(error);
            }
        }
    };
    std::mem::forget(guard);
    check();
    failed.map_or(Ok(value), Err)
}

/// Sleeps until something happens to this process or the time is over, and raises what is pending. Ends the process
/// when the server is gone.
pub fn sleep(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the pattern of latch.h, with the latch that belongs to this process.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            time.as_millis() as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check();
}

/// Ends the session when its client has gone away, which else nobody would notice before something is sent to it.
pub fn end_without_client() {
    // SAFETY: asks the kernel about the client's socket, which only a process with a port has: a procedure may as well
    // be called in a background worker. What is set makes ProcessInterrupts say that the connection
    // is lost, which it does when client_connection_check_interval finds the same.
    unsafe {
        let port = (&raw const pg_sys::MyProcPort).read();
        if !port.is_null() && !pg_sys::ffi::pg_guard_ffi_boundary(|| pq_check_connection()) {
            pg_sys::ClientConnectionLost = 1;
            pg_sys::InterruptPending = 1;
        }
    }
    check();
}

unsafe extern "C-unwind" {
    fn pq_check_connection() -> bool;
}

/// All signals blocked on this thread while it lives; threads started meanwhile inherit the mask, so that
/// Postgres' handlers run on the main thread only.
pub struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    /// Blocks them.
    pub fn all() -> Self {
        // SAFETY: both sets are plain values that the calls fill in.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut former: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut former);
            Self(former)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `all` read.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}
