//! The session that waits for a training: what `CALL rec_train` does once the training is queued.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::duty::{self, Part};
use super::queue;
use crate::catalog::progress::{self, Progress, Standing};
use crate::catalog::training;
use crate::error::{Result, SqlError};
use crate::pg::{interrupt, procedure, spi};
use crate::settings;

/// How long it sleeps when nobody wakes it.
const LOOK: Duration = Duration::from_millis(500);

/// How often a NOTICE tells how far the training is.
const REPORT: Duration = Duration::from_secs(2);

/// How long a training may be queued before that is worth a NOTICE.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until a training has ended and gives its metrics, or raises its failure. Holds neither snapshot nor lock
/// meanwhile. A cancel, a timeout, or the end of this session stops the training.
pub fn until_ended(id: i64, name: &str) -> Result<Value> {
    duty::assume(id, Part::Waiter);
    let mut watch = Watch { id, name, since: Instant::now(), reported: Instant::now(), queued: None };
    let outcome = watch.run();
    if let Err(Stop::Here(error)) = &outcome {
        let reason = training::cancelled(format!("cancelled by the session that waited for it: {}", error.message()));
        // What cannot be written now, the worker writes when it finds that nobody waits any more.
        let _ = guarded(|| training::stop(id, &reason));
        spi::commit();
    }
    duty::release();
    outcome.map_err(|stop| match stop {
        Stop::Here(error) | Stop::There(error) => error,
    })
}

/// Why there is nothing more to wait for.
enum Stop {
    /// Something happened to this session.
    Here(SqlError),
    /// The training failed.
    There(SqlError),
}

struct Watch<'a> {
    id: i64,
    name: &'a str,
    since: Instant,
    reported: Instant,
    /// What a queued training was said to wait for.
    queued: Option<&'static str>,
}

impl Watch<'_> {
    fn run(&mut self) -> std::result::Result<Value, Stop> {
        loop {
            let standing = guarded(|| self.look()).map_err(Stop::Here)?;
            spi::commit();
            match standing {
                Standing::Ready(metrics) => return Ok(metrics),
                Standing::Failed(error) => return Err(Stop::There(error)),
                Standing::Gone => {
                    return Err(Stop::There(SqlError::state(format!(
                        "model \"{}\" was dropped while it was trained",
                        self.name
                    ))));
                }
                Standing::Queued => guarded(|| self.queued()).map_err(Stop::Here)?,
                Standing::Training(phase, progress) => self.report(&phase, &progress),
            }
            guarded(|| {
                interrupt::sleep(LOOK);
                interrupt::end_without_client();
                Ok(())
            })
            .map_err(Stop::Here)?;
        }
    }

    fn look(&self) -> Result<Standing> {
        let standing = progress::look(self.id)?;
        if matches!(standing, Standing::Training(..)) && training::worker_lock(self.id).is_free() {
            // Its worker writes the end before it lets go of the lock: who finds none written finds a dead one.
            if let Standing::Training(..) = progress::look(self.id)? {
                let reason = training::interrupted();
                training::fail(self.id, &reason)?;
                return Ok(Standing::Failed(reason));
            }
        }
        Ok(standing)
    }

    fn queued(&mut self) -> Result<()> {
        if self.since.elapsed() < PATIENCE {
            return Ok(());
        }
        let why = if queue::start_worker() { QUEUED } else { queue::NO_ROOM };
        if self.queued != Some(why) {
            self.queued = Some(why);
            match why {
                QUEUED => pgrx::notice!(
                    "{} is queued: {QUEUED}, and rec.max_training_workers is {}",
                    self.name,
                    settings::max_training_workers()
                ),
                why => pgrx::notice!("{} is queued: {why}", self.name),
            }
        }
        Ok(())
    }

    fn report(&mut self, phase: &str, progress: &Progress) {
        if self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            pgrx::notice!("{}: {}", self.name, line(phase, progress));
        }
    }
}

/// Why a queued training waits, where there is room for its worker.
const QUEUED: &str = "others are trained first";

fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    procedure::in_subtransaction(std::panic::AssertUnwindSafe(work))
}

/// How far a training is, in one line.
fn line(phase: &str, progress: &Progress) -> String {
    let share = |(done, total): (i64, i64)| format!("{:.0} %", 100.0 * done as f64 / total.max(1) as f64);
    let mut parts = vec![match progress.epochs {
        Some((epoch, epochs)) => format!("epoch {epoch} of {epochs}"),
        None => phase.to_owned(),
    }];
    parts.extend(progress.steps.map(share));
    parts.extend(progress.loss.map(|loss| format!("loss {loss:.3}")));
    if let (Some(metric), Some(value)) = (&progress.metric, progress.validation) {
        let best = progress.best.map_or_else(String::new, |best| format!(" (best {best:.4})"));
        parts.push(format!("{metric} {value:.4}{best}"));
    }
    parts.extend(progress.events_per_second.map(|rate| format!("{} events/s", thousands(rate))));
    parts.extend(progress.seconds_left.map(|seconds| format!("{} left", duration(seconds))));
    parts.join(", ")
}

/// A number with its thousands set apart.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    match seconds.round() as u64 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}
