//! How a long computation is watched and stopped by the thread that waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// Shared between the thread that computes and the one that waits.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    training: Mutex<Option<TrainingProgress>>,
    phase: Mutex<Option<&'static str>>,
}

/// How far a training by gradients is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingProgress {
    /// Epoch under way, from 1.
    pub epoch: u32,
    /// Epochs at most; early stopping may end before.
    pub epochs: u32,
    /// Steps of this epoch that are done.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Mean loss of this epoch so far.
    pub loss: Option<f64>,
    /// Name of the validation metric.
    pub metric: &'static str,
    /// Its latest value.
    pub validation: Option<f64>,
    /// Its best value; the weights that gave it are kept.
    pub best: Option<f64>,
    /// Interactions trained on in a second, over the whole training.
    pub events_per_second: f64,
    /// Seconds that all epochs would still take.
    pub seconds_left: Option<f64>,
}

impl Control {
    /// Asks the computation to stop; it returns [`Error::Cancelled`] within some 50 ms.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// To be called between slices of at most some 20 ms of work.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Announces how much work there is, in any unit, and starts counting from zero.
    pub fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Begins a phase with a name of its own, which takes the place of what was reported of a training.
    pub fn enter(&self, phase: &'static str, total: u64) {
        *self.training.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some(phase);
        self.begin(total);
    }

    /// The phase entered last, where there was one.
    pub fn phase(&self) -> Option<&'static str> {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts work done, and stops when asked to.
    pub fn advance(&self, amount: u64) -> Result<()> {
        self.done.fetch_add(amount, Ordering::Relaxed);
        self.check()
    }

    /// `(done, total)` of the present phase.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Says how far a training by gradients is; to be called some times a second at most.
    pub fn report(&self, progress: TrainingProgress) {
        *self.training.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// What was reported last; `None` for families that are not trained by gradients.
    pub fn training(&self) -> Option<TrainingProgress> {
        self.training.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
