//! Trainings: the background worker that does them, and the session that waits for one.
//!
//! A training is a row of `rec.training` beside its model's, in state `queued`. A worker of the database takes the
//! first of the queue when the server has room for it ([`queue`]), does it ([`job`]) and goes on until the queue is
//! empty. What happens is written to both rows in short transactions; nothing else is shared, so it works without
//! `shared_preload_libraries`, and every process that dies leaves rows from which the others see it.

pub mod compare;
mod duty;
pub mod job;
pub mod order;
pub mod queue;
pub mod request;
pub mod schedules;
pub mod wait;

use crate::catalog::training::{self, Head};
use crate::error::Result;
use crate::pg::{lock, transaction};

/// The life of a worker: to be called once, in its process.
pub fn main() {
    if let Err(error) = work_through_queue() {
        pgrx::log!("pgrec: a training worker ends early: {}", error.reason());
    }
}

fn work_through_queue() -> Result<()> {
    loop {
        let Some(place) = queue::place() else { return Ok(()) };
        transaction::run(training::sweep)?;
        while transaction::run(training::any_queued)? {
            if lock::database_is_wanted() {
                return Ok(());
            }
            let slot = queue::slot()?;
            match transaction::run(training::claim)? {
                Head::Task(task, alive) => job::run(&task, alive),
                Head::Forsaken => {}
                Head::Nothing => {
                    drop(slot);
                    queue::pause()?;
                }
            }
        }
        drop(place);
        // Whoever found no place while this worker still had one has left its training to it.
        if !transaction::run(training::any_queued)? {
            return Ok(());
        }
    }
}
