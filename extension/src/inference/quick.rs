//! The quick lane: questions of single users, which threads take from the board by themselves.
//!
//! Whoever is free takes what is there, the oldest first, with other questions to the same model: while one batch is
//! computed the next one comes together, so nobody waits in order that a batch becomes larger. A batch is as large as
//! takes some 2 ms, or longer where many wait for longer than that: more questions together take less time each. It never
//! takes what another thread could begin with at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rayon::ThreadPool;

use super::task::{On, Shared, Task};
use crate::compute;
use crate::error::Result;
use crate::pg::board::{Board, Lane, now};
use crate::pg::interrupt::SignalsBlocked;

/// What a batch takes, about, or a part of the time for which the oldest of its questions has waited.
const BATCH: Duration = Duration::from_millis(2);
const PART_OF_WAIT: u32 = 3;
/// A list that takes longer is computed beside the lane, where it keeps no others from a thread; so is the first one of a
/// model, which has to be opened.
const LONG: Duration = Duration::from_millis(20);
/// A question that takes less may be computed on the main thread, which hears nothing meanwhile.
const ON_MAIN: Duration = Duration::from_millis(1);
/// The main thread looks for the next question of a lone session instead of sleeping, where they have followed sooner
/// than this on the mean.
const SOON: Duration = Duration::from_micros(400);
/// So often in a row a question has to come alone before the main thread computes it.
const ALONE: usize = 4;

/// The lane.
pub struct Quick {
    shared: Arc<Shared>,
    /// For questions that turn out to be long.
    long: Arc<ThreadPool>,
    /// How many threads have entered and not begun, and what they are woken by.
    entered: Mutex<usize>,
    arrived: Condvar,
    /// How often in a row the main thread has found one question and no thread at work.
    alone: AtomicUsize,
    /// When it has answered one, and how soon the next one followed on the mean, in nanoseconds.
    answered: AtomicU64,
    pause: AtomicU64,
}

/// Questions to one model, and how long a list of its takes, where that is known.
struct Batch {
    tasks: Vec<Task>,
    time: Option<Duration>,
}

/// A thread that has entered, which leaves also where it panics.
struct Entered(&'static Board);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Quick {
    /// Starts so many threads, which wait for questions.
    pub fn start(shared: Arc<Shared>, long: Arc<ThreadPool>, threads: usize) -> Result<Arc<Self>> {
        let alone = AtomicUsize::new(0);
        let [answered, pause] = [const { AtomicU64::new(0) }; 2];
        let (entered, arrived) = (Mutex::new(0), Condvar::new());
        let lane = Arc::new(Self { shared, long, entered, arrived, alone, answered, pause });
        let _signals = SignalsBlocked::all();
        for number in 0..threads {
            let lane = Arc::clone(&lane);
            let thread = std::thread::Builder::new().name(format!("pgrec quick {number}"));
            thread.spawn(move || lane.live()).map_err(compute::no_threads)?;
        }
        Ok(lane)
    }

    /// The life of a thread. What it computes in slices it computes alone: a thread of a pool that waits for a slice
    /// which another has taken would begin with other questions meanwhile.
    fn live(&self) {
        let _alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        loop {
            let mut entered = self.entered.lock();
            self.arrived.wait_while(&mut entered, |entered| *entered == 0);
            *entered -= 1;
            drop(entered);
            if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
                self.shared.say("a thread of the inference worker panicked".to_owned());
            }
        }
    }

    /// Main thread: sees to it that all questions on the board are looked at. One that comes alone, as those of a
    /// single session do, is computed at once: to wake another thread for it takes about as long as computing it.
    pub fn attend(&self) {
        let board = self.shared.board;
        let mut ready = board.ready(Lane::Quick).count();
        if ready == 0 {
            return;
        }
        let (busy, threads) = board.threads();
        if ready == 1 && busy == 0 {
            let alone = self.alone.fetch_add(1, Ordering::Relaxed);
            if alone >= ALONE && board.enter() {
                let entered = Entered(board);
                if let Some(batch) = self.batch(1) {
                    self.note_pause(&batch.tasks);
                    self.compute(batch, true);
                    self.answered.store(now(), Ordering::Relaxed);
                }
                drop(entered);
                ready = board.ready(Lane::Quick).count();
                if ready > 0 {
                    self.alone.store(0, Ordering::Relaxed);
                }
            }
        } else {
            self.alone.store(0, Ordering::Relaxed);
        }
        for _ in 0..ready.min(threads.saturating_sub(busy)) {
            if !board.enter() {
                break;
            }
            *self.entered.lock() += 1;
            self.arrived.notify_one();
        }
    }

    /// Main thread, before it sleeps: whether another question comes soon after one that it has computed itself.
    pub fn linger(&self) -> bool {
        let alone = self.alone.load(Ordering::Relaxed) > ALONE;
        let soon = u128::from(self.pause.load(Ordering::Relaxed)) < SOON.as_nanos();
        alone && soon && self.shared.board.linger()
    }

    fn note_pause(&self, batch: &[Task]) {
        let asked = batch.iter().map(|task| task.taken.asked()).min().unwrap_or(0);
        let pause = asked.saturating_sub(self.answered.load(Ordering::Relaxed));
        let mean = self.pause.load(Ordering::Relaxed);
        self.pause.store(mean - mean / 8 + pause / 8, Ordering::Relaxed);
    }

    /// What a thread does that has entered: all there is.
    fn work(&self) {
        let board = self.shared.board;
        loop {
            let entered = Entered(board);
            while let Some(batch) = self.batch(usize::MAX) {
                self.compute(batch, false);
            }
            drop(entered);
            // A question that came after the last look and before leaving woke nobody.
            if board.ready(Lane::Quick).next().is_none() || !board.enter() {
                return;
            }
        }
    }

    /// Takes the question that waits longest, and of those to the same model as many as make a batch.
    fn batch(&self, most: usize) -> Option<Batch> {
        let board = self.shared.board;
        let mut ready: Vec<usize> = board.ready(Lane::Quick).collect();
        ready.sort_by_cached_key(|&number| board.asked(number));
        let (_, threads) = board.threads();
        // What there is is everybody's.
        let mut most = most.min(ready.len().div_ceil(threads.max(1))).min(self.shared.limits.batch());
        let mut batch: Vec<Task> = Vec::new();
        let (mut key, mut time) = (0, None);
        for number in ready {
            if batch.len() >= most {
                break;
            }
            if !batch.is_empty() && board.key(number) != key {
                continue;
            }
            let Some(taken) = board.take(number) else { continue };
            let Some(task) = self.shared.read(taken) else { continue };
            if batch.is_empty() {
                key = board.key(number);
                let known = self.shared.models.known(task.asked.identity());
                time = known.and_then(|loaded| loaded.time());
                // Of an unknown model one question at a time, to see how long it takes.
                let waited = Duration::from_nanos(now().saturating_sub(task.taken.asked()));
                let budget = BATCH.max(waited / PART_OF_WAIT);
                let fits = time.map_or(1, |time| (budget.as_nanos() / time.as_nanos().max(1)).max(1) as usize);
                most = most.min(fits);
            }
            batch.push(task);
        }
        (!batch.is_empty()).then_some(Batch { tasks: batch, time })
    }

    /// Computes a batch here, or where long ones are computed.
    fn compute(&self, Batch { tasks, time }: Batch, on_main: bool) {
        let long = time.is_none_or(|time| time > LONG);
        let short = tasks.iter().all(|task| task.asked.len() <= 1) && time.is_some_and(|time| time <= ON_MAIN);
        if long || on_main && !short {
            self.shared.hand(&self.long, tasks);
        } else {
            self.shared.compute(tasks, On::Quick);
        }
    }
}
