//! The training that this process must not leave without a word when it is told to end.

use std::cell::Cell;

use crate::catalog::training;
use crate::error::SqlError;
use crate::pg::transaction;

/// What this process is to a training.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// It computes.
    Worker,
    /// It waits.
    Waiter,
}

thread_local! {
    static DUTY: Cell<Option<(i64, Part)>> = const { Cell::new(None) };
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

/// Says which training it is, until [`release`].
pub fn assume(id: i64, part: Part) {
    if !PREPARED.replace(true) {
        transaction::before_exit(discharge);
    }
    DUTY.set(Some((id, part)));
}

/// The training has ended, or its end is written elsewhere.
pub fn release() {
    DUTY.set(None);
}

/// A failure here is reported as the process' last words and costs nothing: what stays behind is seen by its locks.
fn discharge() {
    let Some((id, part)) = DUTY.take() else { return };
    let reason = match part {
        Part::Worker => SqlError::state("interrupted: its worker was ended, by an administrator or with the server"),
        Part::Waiter => training::forsaken(),
    };
    let _ = transaction::run(|| training::abandon(id, &reason));
}
