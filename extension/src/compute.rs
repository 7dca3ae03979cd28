//! Long computations: on other threads, with the main thread watching its interrupts.

use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pgrec_engine::Control;
use rayon::ThreadPool;

use crate::error::{Result, SqlError};
use crate::pg::interrupt::{self, SignalsBlocked};
use crate::settings;

/// How often a NOTICE reports progress.
const REPORT: Duration = Duration::from_secs(2);

/// The pool of this backend, started by the first call that needs it; never in the postmaster, which forks.
fn pool() -> Result<&'static ThreadPool> {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let _signals = SignalsBlocked::all();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(settings::threads())
        .thread_name(|n| format!("pgrec {n}"))
        .build()
        .map_err(|e| {
            SqlError::new(pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("cannot start threads: {e}"))
        })?;
    Ok(POOL.get_or_init(|| pool))
}

/// Runs `work` on the pool while this thread stays open to cancel and timeouts. What takes longer than two
/// seconds reports its progress as NOTICEs named `what`.
pub fn run<T: Send>(what: &str, work: impl FnOnce(&Control) -> pgrec_engine::Result<T> + Send) -> Result<T> {
    let control = Control::default();
    let pool = pool()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let mut reported = Instant::now();
    let outcome = pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&control)));
            // The receiver is gone only when the main thread has raised an error; nobody needs the result then.
            let _ = sender.send(result);
        });
        interrupt::wait(&receiver, &control, || {
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                report(what, &control);
            }
        })
    });
    match outcome {
        Some(Ok(result)) => Ok(result?),
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a computing thread ended without a result",
        )),
    }
}

fn report(what: &str, control: &Control) {
    let (done, total) = control.progress();
    if total > 0 {
        pgrx::notice!("{what}: {:.0} % ({done} of {total})", 100.0 * done as f64 / total as f64);
    }
}
