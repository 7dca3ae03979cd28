//! Latches: what a process sleeps on. Any thread may wake one.

use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    // pgrx' own declaration panics where it is called off the main thread.
    fn SetLatch(latch: *mut pg_sys::Latch);
}

/// A place in shared memory for the latch of whoever wants to be woken.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Waker(AtomicPtr<pg_sys::Latch>);

impl Waker {
    /// This process wants to be woken.
    pub fn set_own(&self) {
        // SAFETY: reads a global of the main thread, which points into shared memory once a process has a PGPROC.
        self.0.store(unsafe { pg_sys::MyLatch }, Ordering::Release);
    }

    /// Wakes the process, if there is one. It may have been another one for a while, which wakes for nothing then.
    pub fn wake(&self) {
        let latch = self.0.load(Ordering::Acquire);
        if !latch.is_null() {
            // SAFETY: the latch of a PGPROC, whose memory lives as long as the server's and is mapped at one address in
            // all of its processes. SetLatch (latch.c) sets a flag and sends a signal; it neither allocates nor
            // raises, and reads nothing that only the main thread may, so it may be called on any.
            unsafe { SetLatch(latch) };
        }
    }
}
