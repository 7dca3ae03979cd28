//! The thread of the worker that owns a CUDA device: calls of one are made one after the other, so the more questions a
//! call answers, the better.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use pgrec_engine::Error;
use pgrec_engine::inference::message::Place;
use pgrec_kernels::cuda::{Cuda, CudaError, Precision};
use rayon::ThreadPool;

use super::task::{Limits, On, Shared, Task};
use crate::compute;
use crate::error::{Result, SqlError};
use crate::pg::interrupt::SignalsBlocked;
use crate::settings;
use crate::storage::cache;

/// Asks the thread.
pub struct Device {
    tasks: Sender<Task>,
}

impl Device {
    /// Starts the thread. What may be computed elsewhere where there is no device is computed on `others`.
    pub fn start(shared: Arc<Shared>, others: Arc<ThreadPool>) -> Result<Self> {
        let (tasks, queue) = channel();
        // What a family has nothing for on a device is computed in slices, which want threads that nobody else has.
        let slices = compute::pool(settings::worker_threads(), 0)?;
        let owner = Owner { shared, others, slices, open: Vec::new(), missing: None };
        let _signals = SignalsBlocked::all();
        let thread = std::thread::Builder::new().name("pgrec device".into());
        thread.spawn(move || owner.work(&queue)).map_err(compute::no_threads)?;
        Ok(Self { tasks })
    }

    /// Has a question computed.
    pub fn compute(&self, task: Task) {
        // The thread ends with the process; a question that it does not take has failed by being dropped.
        let _ = self.tasks.send(task);
    }
}

struct Owner {
    shared: Arc<Shared>,
    others: Arc<ThreadPool>,
    slices: ThreadPool,
    open: Vec<(Precision, Cuda)>,
    /// Why there is no device, and when that was found.
    missing: Option<(Instant, CudaError)>,
}

impl Owner {
    fn work(mut self, queue: &Receiver<Task>) {
        let mut together = 1;
        while let Ok(first) = queue.recv() {
            let batch = gather(first, queue, together, &self.shared.limits);
            together = batch.len();
            let mut rest = batch;
            while let Some(first) = rest.first() {
                let place = first.asked.place();
                let (own, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|task| task.asked.place() == place);
                self.compute(place, own);
                rest = others;
            }
        }
    }

    fn compute(&mut self, place: Place, tasks: Vec<Task>) {
        let (Place::Cuda(precision) | Place::Auto(precision)) = place else { return self.elsewhere(tasks) };
        let shared = Arc::clone(&self.shared);
        match self.device(precision) {
            Ok(place) => {
                let identities: Vec<_> = tasks.iter().map(|task| task.asked.identity()).collect();
                let cuda = &self.open[place].1;
                self.slices.install(|| shared.compute(tasks, On::Device(cuda)));
                for loaded in identities.iter().filter_map(|&identity| shared.models.known(identity)) {
                    loaded.line.on_device.store(loaded.identity.bytes, Ordering::Relaxed);
                }
                shared.models.fit_device(shared.limits.gpu_memory());
                self.open.iter().for_each(|(_, cuda)| cuda.forget_dropped());
            }
            Err(_) if place == Place::Auto(precision) => self.elsewhere(tasks),
            Err(error) => tasks
                .into_iter()
                .for_each(|task| shared.refuse(task.taken, SqlError::from(Error::Device(error.clone())))),
        }
    }

    fn elsewhere(&self, tasks: Vec<Task>) {
        tasks.into_iter().for_each(|task| self.shared.hand(&self.others, vec![task]));
    }

    /// Where the device with matrices of this precision is. If there is none, it is not looked for again at once.
    fn device(&mut self, precision: Precision) -> std::result::Result<usize, CudaError> {
        if let Some((when, error)) = &self.missing
            && when.elapsed() < AGAIN
        {
            return Err(error.clone());
        }
        if let Some(place) = self.open.iter().position(|(other, _)| *other == precision) {
            return Ok(place);
        }
        match Cuda::open(0, precision, Path::new(cache::FOLDER)) {
            Ok(cuda) => {
                self.missing = None;
                self.open.push((precision, cuda));
                Ok(self.open.len() - 1)
            }
            Err(error) => {
                if self.missing.is_none() {
                    self.shared.say(format!("the inference worker has no CUDA device: {error}"));
                }
                self.missing = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// How long it is believed that there is no device.
const AGAIN: Duration = Duration::from_secs(60);

/// What has come, up to a batch; where questions come in numbers, also what comes within a few hundred microseconds.
fn gather(first: Task, queue: &Receiver<Task>, together: usize, limits: &Limits) -> Vec<Task> {
    let patience = if together > 1 { limits.delay() } else { Duration::ZERO };
    let until = Instant::now() + patience;
    let most = limits.batch();
    let mut lists = first.asked.len();
    let mut batch = vec![first];
    while lists < most {
        match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(task) => {
                lists += task.asked.len();
                batch.push(task);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}
