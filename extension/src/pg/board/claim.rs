//! A session's end: a place is claimed, a question handed over, its answer waited for.

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use pgrec_engine::inference::slots::Outcome;
use pgrx::pg_sys;

use super::{Board, LINGER, Lane, Place, board, now};
use crate::pg::{process, transaction};

thread_local! {
    /// The place that this session holds, for the case that it ends while it waits.
    static HELD: Cell<Option<usize>> = const { Cell::new(None) };
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    /// The place that it had last: its memory is likely to be near.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

fn release_held() {
    if let (Some(number), Some(board)) = (HELD.take(), board()) {
        board.place(number).state.release();
    }
}

/// A place that this session owns, until it is dropped.
pub struct Claim {
    board: &'static Board,
    number: usize,
    /// The worker's life that was asked.
    life: u32,
    /// Whether the worker was waiting for this question alone.
    alone: bool,
    segment: *mut pg_sys::dsm_segment,
    /// Where question and answer lie.
    memory: *mut u32,
    room: usize,
}

impl Claim {
    /// A free place, if there is one.
    fn attempt(board: &'static Board) -> Option<Self> {
        let (places, last) = (board.places(), LAST.get());
        // Before there is something to release: this may fail.
        if !PREPARED.replace(true) {
            transaction::before_exit(release_held);
        }
        let number = (0..places).map(|step| (last + step) % places).find(|&n| board.place(n).state.claim())?;
        HELD.set(Some(number));
        LAST.set(number);
        let life = board.lives();
        let (segment, memory) = (std::ptr::null_mut(), std::ptr::null_mut());
        Some(Self { board, number, life, alone: false, segment, memory, room: 0 })
    }

    /// A free place; where there is none, the next one that becomes free within so long.
    pub fn wait(board: &'static Board, patience: Duration) -> Option<Self> {
        if LAST.get() == 0 {
            // Sessions begin their search at different places.
            LAST.set(process::id() as usize % board.places());
        }
        let first = Self::attempt(board);
        if first.is_some() {
            return first;
        }
        let until = Instant::now() + patience;
        // SAFETY: the pattern of condition_variable.h. An interrupt is raised by the sleep, and the end of the
        // transaction cancels it then.
        unsafe {
            pg_sys::ConditionVariablePrepareToSleep(board.freed.get());
            let claim = loop {
                let claim = Self::attempt(board);
                let left = until.saturating_duration_since(Instant::now());
                if claim.is_some() || left.is_zero() {
                    break claim;
                }
                // What the worker frees for those who went away is not signalled.
                let nap = left.min(Duration::from_millis(20)).as_millis().max(1);
                pg_sys::ConditionVariableTimedSleep(board.freed.get(), nap as c_long, pg_sys::PG_WAIT_EXTENSION);
            };
            pg_sys::ConditionVariableCancelSleep();
            claim
        }
    }

    fn place(&self) -> &Place {
        self.board.place(self.number)
    }

    /// Writes a question, whose answer takes no more than `room` words, and hands it over. False where the server has
    /// no segments left for one that is longer than a place.
    pub fn ask(&mut self, lane: Lane, key: u64, words: &[u32], room: usize) -> bool {
        let board = self.board;
        let place = board.place(self.number);
        let needed = words.len().max(room);
        let mut handle = 0;
        if needed <= self.board.room() {
            (self.memory, self.room) = (self.board.room_of(self.number), self.board.room());
        } else {
            let bytes = needed * size_of::<u32>();
            // SAFETY: an ERROR leaves nothing behind; the segment belongs to the transaction, which detaches it where
            // an ERROR unwinds.
            unsafe {
                self.segment = pg_sys::dsm_create(bytes, pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as c_int);
                if self.segment.is_null() {
                    return false;
                }
                handle = pg_sys::dsm_segment_handle(self.segment);
                self.memory = pg_sys::dsm_segment_address(self.segment).cast();
            }
            self.room = needed;
        }
        // SAFETY: the place is claimed, so that nobody else reads or writes its memory, which has room for all words.
        unsafe { self.memory.copy_from_nonoverlapping(words.as_ptr(), words.len()) };
        place.segment.store(handle, Ordering::Relaxed);
        place.words.store(words.len() as u32, Ordering::Relaxed);
        place.room.store(self.room as u32, Ordering::Relaxed);
        place.key.store(key, Ordering::Relaxed);
        place.done.store(0, Ordering::Relaxed);
        place.total.store(0, Ordering::Relaxed);
        place.asked.store(now(), Ordering::Relaxed);
        place.client.set_own();
        place.state.submit(lane);
        // Either this sees that a thread of the worker went to sleep, or that thread sees the question.
        fence(Ordering::SeqCst);
        let all_busy = self.board.busy.load(Ordering::SeqCst) >= self.board.threads.load(Ordering::Relaxed);
        self.alone = lane == Lane::Quick && self.board.lingering.load(Ordering::SeqCst) != 0;
        if lane != Lane::Quick || !(all_busy || self.alone) {
            self.board.wake_worker();
        }
        true
    }

    /// What came of the question, once something did.
    pub fn outcome(&self) -> Option<Outcome> {
        let outcome = self.place().state.outcome();
        if outcome.is_some() {
            return outcome;
        }
        fence(Ordering::SeqCst);
        let same = self.board.worker().is_some() && self.board.lives() == self.life;
        // Whatever it did before it ended is seen by now.
        if same { None } else { self.place().state.outcome().or(Some(Outcome::Failed)) }
    }

    /// Where the worker has nothing else to do, an answer is there sooner than a process would sleep and be woken: looks
    /// for it for a while.
    pub fn linger(&self) {
        let until = Instant::now() + LINGER;
        while self.alone && self.outcome().is_none() && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    /// The answer, once there is one.
    pub fn answer(&self) -> Vec<u32> {
        let words = (self.place().words.load(Ordering::Relaxed) as usize).min(self.room);
        // SAFETY: the state is one in which the worker has let go of the memory, and holds so many words.
        unsafe { std::slice::from_raw_parts(self.memory, words) }.to_vec()
    }

    /// How far the worker is, of how much; nothing where it has not said.
    pub fn progress(&self) -> (u64, u64) {
        (self.place().done.load(Ordering::Relaxed), self.place().total.load(Ordering::Relaxed))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        HELD.set(None);
        self.place().state.release();
        // While an ERROR unwinds Postgres is not called: the transaction lets go of the segment, and those who wait
        // look for places by themselves now and then.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: attached by this claim; the worker has its own mapping. Signalling wakes one that waits.
        unsafe {
            if !self.segment.is_null() {
                pg_sys::dsm_detach(self.segment);
            }
            pg_sys::ConditionVariableSignal(self.board.freed.get());
        }
    }
}
