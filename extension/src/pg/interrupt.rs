//! Cancellation while another thread computes.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use pgrec_engine::Control;
use pgrx::pg_sys;

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

/// Stops the computation when the main thread leaves early, whatever made it leave.
struct CancelOnDrop<'a>(&'a Control);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits for the result of another thread. A cancel, a timeout or a termination stops the computation through
/// `control`, waits for it to let go, and is then raised as Postgres raises it. `tick` runs between polls.
/// None when the other thread ended without a result.
pub fn wait<T>(result: &Receiver<T>, control: &Control, mut tick: impl FnMut()) -> Option<T> {
    let guard = CancelOnDrop(control);
    let value = loop {
        match result.recv_timeout(POLL) {
            Ok(value) => break Some(value),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if must_stop() {
            control.cancel();
        } else {
            check();
            tick();
        }
    };
    std::mem::forget(guard);
    check();
    value
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
