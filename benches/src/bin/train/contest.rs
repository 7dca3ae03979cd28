//! Two sides that train the same in turns, so that noise hits both.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xtask::Progress;
use xtask::progress::grouped;

use crate::Loss;
use crate::histories::HistoriesFile;

/// What one training in a process of its own tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds of single steps, where they were measured.
    pub steps: Vec<f64>,
    /// Seconds of epochs.
    pub epochs: Vec<f64>,
    /// From how many events a next item was learnt in an epoch.
    pub inputs: usize,
    /// Bytes of the process before it trained, data included, where the system tells.
    pub memory_before: Option<u64>,
    /// The most it ever had.
    pub memory_peak: Option<u64>,
}

/// Somebody who can train.
pub trait Side {
    /// What to call them in names of results.
    fn name(&self) -> &str;
    /// Trains.
    fn train(&self, loss: Loss, histories: &HistoriesFile) -> Result<Measured>;
}

/// One loss on one file.
pub struct Contest<'a> {
    /// What is minimised.
    pub loss: Loss,
    /// On what.
    pub histories: &'a HistoriesFile,
    /// How often everybody has a turn.
    pub rounds: usize,
}

/// What one side measured in its turns.
pub struct Turns {
    /// Its name.
    pub side: String,
    /// One a round.
    pub rounds: Vec<Measured>,
}

impl Contest<'_> {
    /// Everybody once a round, in an order that changes.
    pub fn run(&self, sides: &[&dyn Side], progress: &Progress) -> Result<Vec<Turns>> {
        let mut turns: Vec<Turns> =
            sides.iter().map(|side| Turns { side: side.name().to_owned(), rounds: Vec::new() }).collect();
        for round in 0..self.rounds {
            let mut order: Vec<usize> = (0..sides.len()).collect();
            order.rotate_left(round % sides.len());
            for place in order {
                let name = sides[place].name();
                let what = format!("{} {}, round {}: {name}", self.loss.name(), self.histories.name, round + 1);
                turns[place].rounds.push(progress.step(&what, |_| self.turn(sides[place]))?);
            }
        }
        Ok(turns)
    }

    fn turn(&self, side: &dyn Side) -> Result<Measured> {
        let measured = side.train(self.loss, self.histories)?;
        let (theirs, right) = (measured.inputs, self.histories.inputs);
        ensure!(theirs == right, "{} learnt from {} events, not {}", side.name(), grouped(theirs), grouped(right));
        Ok(measured)
    }
}

/// The line of JSON that a process printed last.
pub fn last_line<T: for<'de> Deserialize<'de>>(output: &str) -> Result<T> {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("reading \"{line}\""))
}
