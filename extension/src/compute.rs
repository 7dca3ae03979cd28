//! Long computations: on other threads, with the main thread watching its interrupts.

use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pgrec_engine::Control;
use rayon::ThreadPool;

use crate::error::{Result, SqlError};
use crate::pg::interrupt::{self, SignalsBlocked};
use crate::pg::process;
use crate::settings;

/// How often a NOTICE says how far something is.
pub const REPORT: Duration = Duration::from_secs(2);

/// The pool of this backend, started by the first call that needs it; never in the postmaster, which forks.
fn own_pool() -> Result<&'static ThreadPool> {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = pool(settings::threads(), 0)?;
    Ok(POOL.get_or_init(|| pool))
}

/// Threads to compute on: as many as there are cores for 0, and as nice as told.
pub fn pool(threads: usize, niceness: i32) -> Result<ThreadPool> {
    let _signals = SignalsBlocked::all();
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("pgrec {n}"))
        // Else a panic of what is spawned and not waited for would end the process, and the server's sessions with it.
        // What it was to answer is answered by being dropped.
        .panic_handler(|_| {})
        .start_handler(move |_| {
            if niceness > 0 {
                process::be_nice(niceness);
            }
        })
        .build()
        .map_err(no_threads)
}

/// Threads cannot be started.
pub fn no_threads(error: impl std::fmt::Display) -> SqlError {
    SqlError::new(pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("cannot start threads: {error}"))
}

/// Runs `work` on this session's pool while this thread stays open to cancel and timeouts. What takes longer than
/// two seconds reports its progress as NOTICEs named `what`.
pub fn run<T: Send>(what: &str, work: impl FnOnce(&Control) -> pgrec_engine::Result<T> + Send) -> Result<T> {
    let mut reported = Instant::now();
    run_on(own_pool()?, work, |control| {
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            let (done, total) = control.progress();
            match control.phase() {
                Some(phase) => notice(&format!("{what}, {phase}"), done, total),
                None => notice(what, done, total),
            }
        }
        Ok(())
    })
}

/// Runs `work` on a pool while this thread stays open to cancel and timeouts, and calls `tick` some 200 times a second.
/// An error of `tick` stops the work.
pub fn run_on<T: Send>(
    pool: &ThreadPool,
    work: impl FnOnce(&Control) -> pgrec_engine::Result<T> + Send,
    mut tick: impl FnMut(&Control) -> Result<()>,
) -> Result<T> {
    let control = Control::default();
    let (sender, receiver) = mpsc::sync_channel(1);
    let outcome = pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&control)));
            // The receiver is gone only when the main thread has raised an error; nobody needs the result then.
            let _ = sender.send(result);
        });
        interrupt::wait(&receiver, &control, || tick(&control))
    });
    match outcome? {
        Some(Ok(result)) => Ok(result?),
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a computing thread ended without a result",
        )),
    }
}

/// Says how far something is, where that is known.
pub fn notice(what: &str, done: u64, total: u64) {
    if total > 0 {
        pgrx::notice!("{what}: {:.0} % ({done} of {total})", 100.0 * done as f64 / total as f64);
    }
}
