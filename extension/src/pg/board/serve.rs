//! The worker's end: who serves, and which places have a question.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::taken::CLOSED;
use super::{Board, LINGER, Lane, unix_seconds};
use crate::pg::process;

impl Board {
    /// To be called before anything else in a worker's life, which it begins. How long it has to wait before it serves:
    /// workers that end soon after another wait longer and longer.
    pub fn rise(&self) -> Duration {
        const SHORT: i64 = 60;
        let since = self.since.swap(unix_seconds(), Ordering::Relaxed);
        if since != 0 && unix_seconds() - since < SHORT {
            let short = self.short_lives.fetch_add(1, Ordering::Relaxed);
            return Duration::from_secs(((1 << short.min(6)) - 1).min(SHORT as u64));
        }
        self.short_lives.store(0, Ordering::Relaxed);
        Duration::ZERO
    }

    /// Begins to serve with so many threads. What a worker before this one had taken has failed.
    pub fn open(&self, threads: usize) {
        for number in 0..self.places() {
            let place = self.place(number);
            if place.state.recover() {
                place.client.wake();
            }
        }
        self.models.iter().for_each(|line| {
            line.loaded.store(0, Ordering::Relaxed);
            line.on_device.store(0, Ordering::Relaxed);
            line.unwanted.store(0, Ordering::Relaxed);
        });
        self.busy.store(0, Ordering::Relaxed);
        self.lingering.store(0, Ordering::Relaxed);
        self.threads.store(threads as u32, Ordering::Relaxed);
        self.since.store(unix_seconds(), Ordering::Relaxed);
        self.waker.set_own();
        self.lives.fetch_add(1, Ordering::SeqCst);
        self.worker.store(process::id(), Ordering::SeqCst);
    }

    /// Ends to serve. What was taken stays so until the next worker opens: threads of this one answer nothing any more.
    pub fn close(&self) {
        *CLOSED.write() = true;
        self.worker.store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        for number in 0..self.places() {
            let place = self.place(number);
            if !place.state.is_free() {
                place.client.wake();
            }
        }
    }

    /// Enters one more thread that looks for quick questions, if one more may.
    pub fn enter(&self) -> bool {
        let threads = self.threads.load(Ordering::Relaxed);
        let more = |busy| (busy < threads).then_some(busy + 1);
        self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Ends one thread's looking. It has to look once more afterwards, and to enter again where there is something.
    pub fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Main thread: looks for quick questions for a while without sleeping, so that whoever asks need not wake it.
    /// Whether there is one.
    pub fn linger(&self) -> bool {
        self.lingering.store(1, Ordering::SeqCst);
        let until = Instant::now() + LINGER;
        let any = || self.ready(Lane::Quick).next().is_some();
        let mut found = any();
        while !found && Instant::now() < until {
            // Whoever has something to do goes first.
            std::thread::yield_now();
            found = any();
        }
        self.lingering.store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        found || any()
    }

    /// How many threads look for quick questions, and how many may.
    pub fn threads(&self) -> (usize, usize) {
        (self.busy.load(Ordering::Relaxed) as usize, self.threads.load(Ordering::Relaxed) as usize)
    }

    /// Places with a question on this lane.
    pub fn ready(&self, lane: Lane) -> impl Iterator<Item = usize> {
        (0..self.places()).filter(move |&number| self.place(number).state.is_ready(lane))
    }

    /// When the question was asked, by [`now`](super::now).
    pub fn asked(&self, number: usize) -> u64 {
        self.place(number).asked.load(Ordering::Relaxed)
    }

    /// What tells the model of a question from others.
    pub fn key(&self, number: usize) -> u64 {
        self.place(number).key.load(Ordering::Relaxed)
    }
}
