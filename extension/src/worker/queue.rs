//! How many train at a time.
//!
//! Everything is a lock that ends with its holder, so a killed worker blocks nobody. A *slot* is the right to train,
//! and the whole server has `rec.max_training_workers` of them. Whoever wants one first waits for the *gate*, first
//! come first served; only its holder looks for a free slot, so that any number of waiting workers poll no more than
//! one. A *place* is the right to be a worker of this database: a worker goes through the database's queue, and no
//! more of them are of use than there are slots.

use std::time::Duration;

use crate::catalog::training;
use crate::error::Result;
use crate::pg::lock::{Held, Lock};
use crate::pg::{interrupt, launch, transaction};
use crate::settings;

/// `pgrp`, `pgrg` and `pgrs` in ASCII.
const PLACE: i32 = 0x7067_7270;
const GATE: i32 = 0x7067_7267;
const SLOT: i32 = 0x7067_7273;

/// How often the holder of the gate looks for a slot.
const LOOK: Duration = Duration::from_millis(100);

/// A place for a worker of this database, if one is free.
pub fn place() -> Option<Held> {
    (0..settings::max_training_workers()).find_map(|n| Lock::of_database(PLACE, n).try_hold())
}

/// Waits for the right to train.
pub fn slot() -> Result<Held> {
    // Inside a transaction, without a snapshot that anybody would notice: it has no data to see yet.
    let _gate = transaction::run_without_snapshot(|| Ok(Lock::of_server(GATE, 0).hold()))?;
    loop {
        launch::reload_if_asked();
        let free = (0..settings::max_training_workers()).find_map(|n| Lock::of_server(SLOT, n).try_hold());
        if let Some(slot) = free {
            return Ok(slot);
        }
        pause()?;
    }
}

/// Waits a moment for something to change.
pub fn pause() -> Result<()> {
    transaction::attempt(|| {
        interrupt::sleep(LOOK);
        Ok(())
    })
}

/// Starts a worker for this database unless it has all that are of use; false when the server has no room for one.
pub fn start_worker() -> bool {
    let room = (0..settings::max_training_workers()).any(|n| Lock::of_database(PLACE, n).is_free());
    !room || launch::training_worker()
}

/// Starts a worker when this transaction commits.
pub fn start_worker_after_commit() {
    transaction::after_commit(|| {
        if !launch::training_worker() {
            pgrx::warning!("the training stays queued: {NO_ROOM}");
        }
    });
}

/// Why a training that could start does not.
pub const NO_ROOM: &str = "no background worker is free (max_worker_processes)";

/// Starts a worker if something is queued and none is at it.
pub fn resume() -> Result<()> {
    if !transaction::is_read_only() && training::any_queued()? {
        start_worker();
    }
    Ok(())
}
