//! Questions that the worker has taken, and their computing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pgrec_engine::inference::batch;
use pgrec_engine::inference::message::{Asked, Identity, Inability, Reply};
use pgrec_engine::{Control, Error};
use pgrec_kernels::cuda::Cuda;
use rayon::ThreadPool;

use super::models::Models;
use crate::error::SqlError;
use crate::pg::board::{Board, Taken, Watch, now};
use crate::settings;

/// A question that was read.
pub struct Task {
    pub taken: Taken,
    pub asked: Asked,
}

fn reply(taken: Taken, reply: &Reply) {
    let words = reply.encode(taken.room());
    taken.answer(&words);
}

/// A batch that is computed where the main thread can watch it.
struct Running {
    control: Control,
    watches: Vec<Watch>,
}

/// Takes a batch off the list of what is computed, also where that panics.
struct Listed<'a>(&'a Shared, Arc<Running>);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.running.lock().retain(|other| !Arc::ptr_eq(other, &self.1));
    }
}

/// Where a batch is computed.
#[derive(Clone, Copy)]
pub enum On<'a> {
    /// On one thread, as a part of the quick lane: that is how long lists take.
    Quick,
    /// On many threads.
    Many,
    /// On a device.
    Device(&'a Cuda),
}

/// Settings, which only the main thread may read, for all threads.
#[derive(Default)]
pub struct Limits {
    memory: AtomicU64,
    gpu_memory: AtomicU64,
    batch: AtomicUsize,
    delay: AtomicU64,
    history_memory: AtomicUsize,
}

impl Limits {
    /// Main thread: takes the settings as they are now.
    pub fn read(&self) {
        self.memory.store(settings::worker_memory(), Ordering::Relaxed);
        self.gpu_memory.store(settings::gpu_memory(), Ordering::Relaxed);
        self.batch.store(settings::worker_batch(), Ordering::Relaxed);
        self.history_memory.store(settings::history_memory(), Ordering::Relaxed);
        self.delay.store(settings::worker_delay().as_micros() as u64, Ordering::Relaxed);
    }

    /// `rec.gpu_memory`, in bytes.
    pub fn gpu_memory(&self) -> u64 {
        self.gpu_memory.load(Ordering::Relaxed)
    }

    /// `rec.worker_batch`.
    pub fn batch(&self) -> usize {
        self.batch.load(Ordering::Relaxed)
    }

    /// `rec.worker_delay`.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Ordering::Relaxed))
    }
}

/// What all threads of the worker share.
pub struct Shared {
    pub board: &'static Board,
    pub models: Models,
    pub limits: Limits,
    /// Set when the worker is to end and begin anew: a device is broken.
    pub broken: AtomicBool,
    running: Mutex<Vec<Arc<Running>>>,
    /// Batches that were handed to threads of the second pool and are not over.
    handed: AtomicUsize,
    /// Lines for the server's log, which only the main thread may write.
    log: Mutex<Vec<String>>,
}

impl Shared {
    pub fn new(board: &'static Board) -> Self {
        let limits = Limits::default();
        limits.read();
        let (broken, handed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (running, log) = (Mutex::default(), Mutex::default());
        Self { board, models: Models::new(board), limits, broken, running, handed, log }
    }

    /// Reads a question; one that cannot be read is answered at once.
    pub fn read(&self, taken: Taken) -> Option<Task> {
        match Asked::decode(taken.question()) {
            Ok(mut asked) => {
                asked.remember(self.limits.history_memory.load(Ordering::Relaxed));
                Some(Task { taken, asked })
            }
            Err(error) => {
                self.refuse(taken, SqlError::from(error));
                None
            }
        }
    }

    /// Has the main thread write a line to the server's log.
    pub fn say(&self, line: String) {
        self.log.lock().push(line);
        self.board.wake_worker();
    }

    /// What is to be written to the server's log.
    pub fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    /// Whether something is being computed that the main thread has to watch.
    pub fn is_watched(&self) -> bool {
        self.handed.load(Ordering::Relaxed) > 0 || !self.running.lock().is_empty()
    }

    /// Stops what nobody waits for any more, and says how far the rest is.
    pub fn watch(&self) {
        for running in self.running.lock().iter() {
            if running.watches.iter().all(Watch::is_abandoned) {
                running.control.cancel();
            }
            let progress = running.control.progress();
            running.watches.iter().for_each(|watch| watch.progress(progress));
        }
    }

    /// Has questions computed by a pool, where the main thread watches them.
    pub fn hand(self: &Arc<Self>, pool: &ThreadPool, tasks: Vec<Task>) {
        let shared = Arc::clone(self);
        self.handed.fetch_add(1, Ordering::Relaxed);
        pool.spawn(move || {
            shared.compute(tasks, On::Many);
            shared.handed.fetch_sub(1, Ordering::Relaxed);
        });
        self.board.wake_worker();
    }

    /// Computes questions, of whichever models, and answers them. Does not panic.
    pub fn compute(&self, tasks: Vec<Task>, on: On<'_>) {
        if catch_unwind(AssertUnwindSafe(|| self.compute_all(tasks, on))).is_err() {
            // A fault of ours. What was not answered has failed by being dropped.
            self.say("a computation of the inference worker panicked".to_owned());
        }
    }

    fn compute_all(&self, tasks: Vec<Task>, on: On<'_>) {
        let started = now();
        let wait = &self.board.statistics.wait;
        let mut rest = tasks;
        // Who went away while the question waited wants no answer.
        rest.retain(|task| !task.taken.is_abandoned());
        rest.iter().for_each(|task| wait.record(started.saturating_sub(task.taken.asked())));
        while let Some(first) = rest.first() {
            let identity = first.asked.identity();
            let (own, others) = rest.into_iter().partition(|task| task.asked.identity() == identity);
            self.compute_model(identity, own, on);
            rest = others;
        }
    }

    fn compute_model(&self, identity: Identity, tasks: Vec<Task>, on: On<'_>) {
        let loaded = match self.models.get(identity, self.limits.memory.load(Ordering::Relaxed)) {
            Ok(loaded) => loaded,
            Err(why) => {
                self.say(format!("model {} of database {} cannot be opened: {why}", identity.model, identity.database));
                self.board.statistics.errors.fetch_add(tasks.len() as u64, Ordering::Relaxed);
                let missing = Reply::Unable(Inability::Missing);
                return tasks.into_iter().for_each(|task| reply(task.taken, &missing));
            }
        };
        let running = Arc::new(Running {
            control: Control::default(),
            watches: tasks.iter().map(|task| task.taken.watch()).collect(),
        });
        self.running.lock().push(Arc::clone(&running));
        let began = Instant::now();
        let asked: Vec<&Asked> = tasks.iter().map(|task| &task.asked).collect();
        let listed = Listed(self, Arc::clone(&running));
        let device = if let On::Device(cuda) = on { Some(cuda) } else { None };
        let answers = batch::answer(loaded.model.as_ref(), device, &asked, &running.control);
        let took = began.elapsed();
        drop(listed);
        self.board.statistics.batch(tasks.len());
        self.board.statistics.compute.record(took.as_nanos() as u64);
        let rows = tasks.iter().map(|task| task.asked.len().max(1)).sum();
        let errors = answers.iter().filter(|answer| answer.is_err()).count();
        loaded.count(tasks.len(), rows, errors, took);
        // What many threads took, or a device, or what was stopped, says nothing of the next list on one thread.
        if errors == 0 && (matches!(on, On::Quick) || tasks.len() == rows && device.is_none()) {
            loaded.note_time(took, rows);
        }
        for (task, answer) in tasks.into_iter().zip(answers) {
            match answer {
                Ok(answer) => reply(task.taken, &answer),
                Err(error) => {
                    self.note_broken(&error);
                    self.refuse(task.taken, SqlError::from(error));
                }
            }
        }
    }

    /// Answers by an error.
    pub fn refuse(&self, taken: Taken, error: SqlError) {
        self.board.statistics.errors.fetch_add(1, Ordering::Relaxed);
        reply(taken, &Reply::Refused(error.to_json().to_string()));
    }

    /// A kernel that a device stopped takes the process' whole context with it.
    fn note_broken(&self, error: &Error) {
        if matches!(error, Error::Device(pgrec_kernels::cuda::CudaError::Driver { .. })) {
            self.broken.store(true, Ordering::Relaxed);
            self.board.wake_worker();
        }
    }
}
