//! The shared memory through which sessions ask the inference worker: a board of places, each with room for a question
//! and its answer, and what the worker says of itself.
//!
//! Who may touch a place is decided by its state alone ([`Slot`]). Ownership of a place is a value here: [`Claim`] is a
//! session's, [`Taken`] the worker's; what makes the memory behind it safe to use is that only they are made where the
//! state says so. A question or an answer that is longer than a place travels in a segment of dynamic shared memory.

mod claim;
mod serve;
mod taken;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub use claim::Claim;
pub use taken::{Mapping, Taken, Watch};

use pgrec_engine::inference::message::Identity;
pub use pgrec_engine::inference::slots::Lane;
use pgrec_engine::inference::slots::Slot;
use pgrec_engine::inference::statistics::Statistics;
use pgrx::pg_sys;

use super::latch::Waker;
use crate::settings;

/// How long two processes that have only each other look for a question or its answer instead of sleeping: to be woken
/// takes some 40 µs.
const LINGER: Duration = Duration::from_micros(400);

/// Models that the board has lines for.
const MODELS: usize = 256;

/// One place.
#[repr(C, align(128))]
struct Place {
    state: Slot,
    /// Words of the question, then of the answer.
    words: AtomicU32,
    /// Words that there is room for.
    room: AtomicU32,
    /// Handle of the segment that holds them, or 0.
    segment: AtomicU32,
    /// Tells models apart before a question is read.
    key: AtomicU64,
    /// When it was asked, in nanoseconds of the machine's clock.
    asked: AtomicU64,
    /// How far the worker is, of how much.
    done: AtomicU64,
    total: AtomicU64,
    client: Waker,
}

/// What the worker says of one model.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ModelLine {
    /// The model's id; 0 where the line is free.
    pub model: AtomicI64,
    /// Its database.
    pub database: AtomicU32,
    /// Its checksum.
    pub checksum: AtomicU32,
    /// Its size.
    pub bytes: AtomicU64,
    /// Whether the worker has it open.
    pub loaded: AtomicU32,
    /// Whether somebody wants it closed.
    pub unwanted: AtomicU32,
    /// Bytes of it on a device.
    pub on_device: AtomicU64,
    /// Questions answered.
    pub questions: AtomicU64,
    /// Users, or lists, of these.
    pub rows: AtomicU64,
    /// Questions answered by an error.
    pub errors: AtomicU64,
    /// Computing time of its batches.
    pub nanoseconds: AtomicU64,
    /// When it was used last, in seconds since 1970.
    pub used: AtomicI64,
}

impl ModelLine {
    /// Of which model the line is; nothing where it is free.
    pub fn identity(&self) -> Option<Identity> {
        let model = self.model.load(Ordering::Acquire);
        (model != 0).then(|| Identity {
            database: self.database.load(Ordering::Relaxed),
            model,
            checksum: self.checksum.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        })
    }

    /// Makes it the line of another model.
    pub fn begin(&self, identity: Identity) {
        self.model.store(0, Ordering::Release);
        let counters = [&self.on_device, &self.questions, &self.rows, &self.errors, &self.nanoseconds];
        counters.into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        self.unwanted.store(0, Ordering::Relaxed);
        self.database.store(identity.database, Ordering::Relaxed);
        self.checksum.store(identity.checksum, Ordering::Relaxed);
        self.bytes.store(identity.bytes, Ordering::Relaxed);
        self.model.store(identity.model, Ordering::Release);
    }
}

/// The head of the shared memory; places and their rooms lie behind it.
#[repr(C)]
pub struct Board {
    /// Process id of the worker that serves; 0 where none does.
    worker: AtomicI32,
    /// How many workers have served.
    lives: AtomicU32,
    /// How many of them in a row ended soon.
    short_lives: AtomicU32,
    /// Threads of the worker that look for questions of the quick lane, and how many may.
    busy: AtomicU32,
    threads: AtomicU32,
    /// Whether the main thread looks for quick questions without a pause.
    lingering: AtomicU32,
    /// When the worker began, in seconds since 1970.
    since: AtomicI64,
    waker: Waker,
    freed: UnsafeCell<pg_sys::ConditionVariable>,
    places: u32,
    room: u32,
    /// What was counted.
    pub statistics: Statistics,
    /// A line for each model that was asked lately.
    pub models: [ModelLine; MODELS],
}

// SAFETY: everything in it is atomic but the condition variable, which Postgres guards by a spinlock of its own, and two
// numbers that are set before any other process can see them.
unsafe impl Sync for Board {}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());

/// The board, where the library was preloaded and a worker is wanted.
pub fn board() -> Option<&'static Board> {
    let board = NonNull::new(BOARD.load(Ordering::Acquire))?;
    // SAFETY: set by `start_up` to memory that lives as long as this process.
    Some(unsafe { board.as_ref() })
}

/// Where places begin: on a boundary of theirs.
const PLACES: usize = size_of::<Board>().next_multiple_of(align_of::<Place>());

fn wanted() -> (usize, usize) {
    (settings::worker_slots(), settings::worker_slot_bytes() / size_of::<u32>())
}

fn bytes() -> usize {
    let (places, words) = wanted();
    // A boundary of places may lie behind the address that Postgres gives.
    align_of::<Place>() + PLACES + places * (size_of::<Place>() + words * size_of::<u32>())
}

/// Asks for the memory: to be called in _PG_init where the postmaster loads the library.
pub fn register() {
    if settings::worker_slots() == 0 {
        return;
    }
    // SAFETY: the pattern of a preloaded library (pg_stat_statements): the hooks that were there are called first.
    unsafe {
        FORMER_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        FORMER_START_UP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(start_up);
    }
}

static mut FORMER_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut FORMER_START_UP: pg_sys::shmem_startup_hook_type = None;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster while it counts the memory it needs; the statics were set in _PG_init.
    unsafe {
        if let Some(former) = FORMER_REQUEST {
            pg_sys::ffi::pg_guard_ffi_boundary(|| former());
        }
        pg_sys::RequestAddinShmemSpace(bytes());
    }
}

/// Called by the postmaster alone, when it starts and when it starts again after a crash of one of its processes: all
/// others are forked from it afterwards.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn start_up() {
    // SAFETY: ShmemInitStruct gives as many bytes as are asked for, which nobody else uses. Zeros are an empty board:
    // atomics, null pointers, free slots.
    unsafe {
        if let Some(former) = FORMER_START_UP {
            pg_sys::ffi::pg_guard_ffi_boundary(|| former());
        }
        let mut found = false;
        let memory = pg_sys::ShmemInitStruct(c"pgrec inference".as_ptr(), bytes(), &mut found).cast::<u8>();
        memory.write_bytes(0, bytes());
        let board = memory.add(memory.align_offset(align_of::<Place>())).cast::<Board>();
        let (places, room) = wanted();
        (*board).places = places as u32;
        (*board).room = room as u32;
        pg_sys::ConditionVariableInit((*board).freed.get());
        BOARD.store(board, Ordering::Release);
    }
}

/// Nanoseconds of a clock that all processes of the machine share.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in the value it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Seconds since 1970.
pub fn unix_seconds() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// What both sides see.
impl Board {
    fn place(&self, number: usize) -> &Place {
        debug_assert!(number < self.places());
        // SAFETY: the board is followed by its places, see `bytes`; callers keep to their number.
        unsafe { &*std::ptr::from_ref(self).cast::<u8>().add(PLACES).cast::<Place>().add(number) }
    }

    /// Where the room of a place begins.
    fn room_of(&self, number: usize) -> *mut u32 {
        let places = self.places();
        debug_assert!(number < places);
        let words = number * self.room as usize;
        // SAFETY: the places are followed by their rooms, see `bytes`.
        unsafe {
            let rooms = std::ptr::from_ref(self.place(0)).add(places).cast::<u32>();
            rooms.add(words).cast_mut()
        }
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.places as usize
    }

    /// Words of a place.
    pub fn room(&self) -> usize {
        self.room as usize
    }

    /// Process id of the worker that serves, and since when, in seconds since 1970.
    pub fn worker(&self) -> Option<(i32, i64)> {
        let pid = self.worker.load(Ordering::SeqCst);
        (pid != 0).then(|| (pid, self.since.load(Ordering::Relaxed)))
    }

    /// How many workers have served since the server started.
    pub fn lives(&self) -> u32 {
        self.lives.load(Ordering::SeqCst)
    }

    /// Questions that wait, questions that are computed, and places that are taken in all.
    pub fn load(&self) -> (usize, usize, usize) {
        let states = || (0..self.places()).map(|number| &self.place(number).state);
        let is_ready = |slot: &Slot| slot.is_ready(Lane::Quick) || slot.is_ready(Lane::Other);
        let count = |what: fn(&Slot) -> bool| states().filter(|&slot| what(slot)).count();
        (count(is_ready), count(Slot::is_taken), states().filter(|slot| !slot.is_free()).count())
    }

    /// Wakes the worker.
    pub fn wake_worker(&self) {
        self.waker.wake();
    }
}
