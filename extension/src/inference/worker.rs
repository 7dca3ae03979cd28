//! The life of the worker's main thread: it wakes threads for what is asked, and does what only it may do, which is
//! everything that calls Postgres.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrec_engine::inference::message::Place;
use rayon::ThreadPool;

use super::device::Device;
use super::quick::Quick;
use super::task::Shared;
use crate::compute;
use crate::error::Result;
use crate::pg::board::{self, Board, Lane, Mapping};
use crate::pg::{interrupt, launch, transaction};
use crate::settings;

/// How often the worker looks after what is long under way, and after models that are not wanted any more.
const WATCH: Duration = Duration::from_millis(10);
const SWEEP: Duration = Duration::from_secs(10);

/// The life of the worker: to be called once, in its process.
pub fn main() {
    let Some(board) = board::board() else { return };
    let until = Instant::now() + board.rise();
    while Instant::now() < until {
        interrupt::sleep(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
    }
    match Worker::start(board) {
        Ok(worker) => worker.serve(),
        Err(error) => pgrx::log!("pgrec: the inference worker cannot start: {}", error.reason()),
    }
    // Not 0, with which a worker is not started again.
    launch::exit_to_be_restarted();
}

struct Worker {
    board: &'static Board,
    shared: Arc<Shared>,
    quick: Arc<Quick>,
    /// Where questions of many users, and such as take long, are computed beside the quick ones.
    many: Arc<ThreadPool>,
    device: Option<Device>,
    mappings: Vec<Mapping>,
}

impl Worker {
    fn start(board: &'static Board) -> Result<Self> {
        let many = Arc::new(compute::pool(settings::worker_threads(), 0)?);
        let threads = many.current_num_threads();
        let shared = Arc::new(Shared::new(board));
        let quick = Quick::start(Arc::clone(&shared), Arc::clone(&many), threads)?;
        transaction::before_exit(close);
        board.open(threads);
        Ok(Self { board, shared, quick, many, device: None, mappings: Vec::new() })
    }

    fn serve(mut self) {
        let mut swept = Instant::now();
        while !self.shared.broken.load(Ordering::Relaxed) {
            // Whoever drops a database waits for all processes to come by here.
            interrupt::check();
            launch::reload_if_asked();
            self.shared.limits.read();
            self.quick.attend();
            let others: Vec<usize> = self.board.ready(Lane::Other).collect();
            for number in others {
                // Whoever asked is told that it has failed.
                if let Err(error) = self.take(number) {
                    pgrx::log!("pgrec: the inference worker cannot take a question: {}", error.reason());
                }
            }
            let (over, mapped) = std::mem::take(&mut self.mappings).into_iter().partition(Mapping::is_over);
            self.mappings = mapped;
            Vec::into_iter(over).for_each(Mapping::end);
            self.shared.watch();
            if swept.elapsed() >= SWEEP || self.board.models.iter().any(|m| m.unwanted.load(Ordering::Relaxed) != 0) {
                swept = Instant::now();
                self.shared.models.sweep();
            }
            for line in self.shared.said() {
                pgrx::log!("pgrec: {line}");
            }
            if self.quick.linger() {
                continue;
            }
            interrupt::sleep(if self.shared.is_watched() { WATCH } else { SWEEP });
        }
        pgrx::log!("pgrec: a CUDA device stopped, and the inference worker starts again");
    }

    /// Takes a question that threads do not take by themselves.
    fn take(&mut self, number: usize) -> Result<()> {
        let Some((taken, mapping)) = self.board.take_other(number)? else { return Ok(()) };
        self.mappings.extend(mapping);
        let Some(task) = self.shared.read(taken) else { return Ok(()) };
        if task.asked.place() == Place::Cpu {
            self.shared.hand(&self.many, vec![task]);
        } else {
            self.device()?.compute(task);
        }
        Ok(())
    }

    fn device(&mut self) -> Result<&Device> {
        if self.device.is_none() {
            self.device = Some(Device::start(Arc::clone(&self.shared), Arc::clone(&self.many))?);
        }
        self.device.as_ref().ok_or_else(|| crate::error::SqlError::corrupted("a device that was started is not there"))
    }
}

/// Called when the process ends by itself or is told to.
fn close() {
    if let Some(board) = board::board() {
        board.close();
    }
}
