//! Questions that the worker has taken, and the segments some of them lie in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use pgrec_engine::inference::slots::Outcome;
use pgrx::pg_sys;

use super::{Board, Lane, Place, now};
use crate::error::{Result, SqlError};
use crate::pg::transaction;

/// Set where the process ends: segments are unmapped then, while threads may still compute.
pub(super) static CLOSED: RwLock<bool> = RwLock::new(false);

impl Board {
    /// Takes a quick question, on any thread. Nothing where somebody was faster.
    pub fn take(&'static self, number: usize) -> Option<Taken> {
        self.take_on(number, Lane::Quick)
    }

    fn take_on(&'static self, number: usize, lane: Lane) -> Option<Taken> {
        let place = self.place(number);
        if !place.state.take(lane) {
            return None;
        }
        self.statistics.questions.fetch_add(1, Ordering::Relaxed);
        let room = (place.room.load(Ordering::Relaxed) as usize).min(self.room());
        let asked = place.asked.load(Ordering::Relaxed);
        Some(Taken { board: self, number, memory: self.room_of(number), room, asked, ended: false, mapped: None })
    }

    /// Takes a question of the other lane, on the main thread. A segment stays mapped until [`Mapping::is_over`].
    pub fn take_other(&'static self, number: usize) -> Result<Option<(Taken, Option<Mapping>)>> {
        let Some(mut taken) = self.take_on(number, Lane::Other) else { return Ok(None) };
        let place = self.place(number);
        let handle = place.segment.load(Ordering::Relaxed);
        if handle == 0 {
            return Ok(Some((taken, None)));
        }
        // An ERROR is the question's end, see the drop of what was taken.
        let segment = transaction::attempt(|| {
            // SAFETY: main thread, without a resource owner, so that the mapping stays until it is detached.
            let segment = unsafe { pg_sys::dsm_attach(handle) };
            (!segment.is_null()).then_some(segment).ok_or_else(|| SqlError::state("whoever asked has gone away"))
        })?;
        // SAFETY: attached above.
        let (memory, bytes) =
            unsafe { (pg_sys::dsm_segment_address(segment), pg_sys::dsm_segment_map_length(segment)) };
        let used = Arc::new(());
        taken.memory = memory.cast();
        taken.room = (place.room.load(Ordering::Relaxed) as usize).min(bytes / size_of::<u32>());
        taken.mapped = Some(Arc::clone(&used));
        Ok(Some((taken, Some(Mapping { segment, used }))))
    }
}

/// A segment that the worker has mapped; it belongs to the main thread.
pub struct Mapping {
    segment: *mut pg_sys::dsm_segment,
    used: Arc<()>,
}

impl Mapping {
    /// Whether no thread uses it any more.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.used) == 1
    }

    /// Unmaps it, where it is over.
    pub fn end(self) {
        if self.is_over() {
            // SAFETY: main thread; nobody reads or writes it any more.
            unsafe { pg_sys::dsm_detach(self.segment) };
        }
    }
}

/// A question that the worker has taken. Dropped without an answer it has failed.
pub struct Taken {
    board: &'static Board,
    number: usize,
    memory: *mut u32,
    room: usize,
    asked: u64,
    ended: bool,
    /// Keeps the segment mapped.
    mapped: Option<Arc<()>>,
}

// SAFETY: the memory is this value's alone as long as the place is taken, whichever thread has it.
unsafe impl Send for Taken {}

impl Taken {
    fn place(&self) -> &Place {
        self.board.place(self.number)
    }

    /// The question.
    pub fn question(&self) -> Vec<u32> {
        let words = (self.place().words.load(Ordering::Relaxed) as usize).min(self.room);
        // SAFETY: taken, so that nobody writes it; it holds so many words.
        unsafe { std::slice::from_raw_parts(self.memory, words) }.to_vec()
    }

    /// When it was asked, by [`now`].
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Words that the answer may take.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.place().state.is_abandoned()
    }

    /// Where to watch it from while another thread answers.
    pub fn watch(&self) -> Watch {
        Watch { board: self.board, number: self.number }
    }

    /// Answers, in no more words than there is room for.
    pub fn answer(mut self, words: &[u32]) {
        let closed = CLOSED.read();
        if *closed {
            return;
        }
        let words = &words[..words.len().min(self.room)];
        // SAFETY: taken, so that nobody else reads or writes it, long enough, and mapped: who closes waits.
        unsafe { self.memory.copy_from_nonoverlapping(words.as_ptr(), words.len()) };
        self.place().words.store(words.len() as u32, Ordering::Relaxed);
        self.end(Outcome::Answered);
    }

    /// To be called while it is not closed, or with [`Outcome::Failed`].
    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        let statistics = &self.board.statistics;
        let place = self.place();
        statistics.total.record(now().saturating_sub(self.asked));
        if outcome == Outcome::Failed && !self.is_abandoned() {
            statistics.errors.fetch_add(1, Ordering::Relaxed);
        }
        if place.state.finish(outcome) {
            // If the client is gone by now, somebody wakes for nothing.
            place.client.wake();
        } else {
            statistics.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        if self.mapped.take().is_some() {
            self.board.wake_worker();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.ended && !CLOSED.try_read().is_none_or(|closed| *closed) {
            self.end(Outcome::Failed);
        }
    }
}

/// Looks at a place whose question is being answered.
pub struct Watch {
    board: &'static Board,
    number: usize,
}

impl Watch {
    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.board.place(self.number).state.is_abandoned()
    }

    /// Says how far it is.
    pub fn progress(&self, (done, total): (u64, u64)) {
        let place = self.board.place(self.number);
        place.done.store(done, Ordering::Relaxed);
        place.total.store(total, Ordering::Relaxed);
    }
}
