//! `rec_evict` and what the views `rec.stat_worker` and `rec.stat_model` show.

use std::sync::atomic::Ordering;

use pgrec_engine::inference::statistics::Histogram;
use pgrx::pg_extern;
use pgrx::prelude::*;

use crate::catalog::{model, recommender};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::board::{ModelLine, board};
use crate::pg::spi::Mode;
use crate::storage::cache;

#[pg_extern(sql = false)]
fn rec_evict(model: Option<String>, recommender: Option<String>) -> bool {
    or_raise(evict(model.as_deref(), recommender.as_deref()))
}

fn evict(name: Option<&str>, recommender: Option<&str>) -> Result<bool> {
    let recommender = recommender::resolve(Mode::Read, recommender)?;
    recommender.require_owner("close its models")?;
    let name = name.ok_or_else(|| {
        SqlError::parameter("which model?").hint("SELECT * FROM rec_models_loaded(); lists what is open.")
    })?;
    let row = model::ready(Mode::Read, &recommender, Some(name))?;
    let Some(board) = board() else { return Ok(false) };
    let identity = cache::identity(&row);
    let open = |line: &&ModelLine| line.identity() == Some(identity) && line.loaded.load(Ordering::Relaxed) != 0;
    let Some(line) = board.models.iter().find(open) else { return Ok(false) };
    line.unwanted.store(1, Ordering::Relaxed);
    board.wake_worker();
    Ok(true)
}

#[pg_extern(sql = false)]
fn rec_stat_reset() {
    if let Some(board) = board() {
        board.statistics.reset();
    }
}

#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn rec_worker_models() -> TableIterator<
    'static,
    (
        name!(database, pg_sys::Oid),
        name!(model_id, i64),
        name!(checksum, i64),
        name!(loaded, bool),
        name!(bytes, i64),
        name!(device_bytes, i64),
        name!(calls, i64),
        name!(rows, i64),
        name!(errors, i64),
        name!(compute_ms, f64),
        name!(last_used, f64),
    ),
> {
    let lines = board().map_or(&[][..], |board| &board.models[..]);
    TableIterator::new(lines.iter().filter_map(|line| {
        let identity = line.identity()?;
        Some((
            pg_sys::Oid::from(identity.database),
            identity.model,
            i64::from(identity.checksum),
            line.loaded.load(Ordering::Relaxed) != 0,
            identity.bytes as i64,
            line.on_device.load(Ordering::Relaxed) as i64,
            line.questions.load(Ordering::Relaxed) as i64,
            line.rows.load(Ordering::Relaxed) as i64,
            line.errors.load(Ordering::Relaxed) as i64,
            line.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-6,
            line.used.load(Ordering::Relaxed) as f64,
        ))
    }))
}

/// Milliseconds within which half, 95 % and 99 % were done.
fn quantiles(histogram: &Histogram) -> Vec<Option<f64>> {
    [0.5, 0.95, 0.99].map(|share| histogram.quantile(share).map(|nanoseconds| nanoseconds * 1e-6)).into()
}

#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn rec_worker_statistics() -> TableIterator<
    'static,
    (
        name!(pid, Option<i32>),
        name!(since, Option<f64>),
        name!(starts, i64),
        name!(slots, i64),
        name!(slots_taken, i64),
        name!(waiting, i64),
        name!(computing, i64),
        name!(calls, i64),
        name!(errors, i64),
        name!(abandoned, i64),
        name!(batches, i64),
        name!(batch_sizes, Vec<i64>),
        name!(wait_ms, Vec<Option<f64>>),
        name!(compute_ms, Vec<Option<f64>>),
        name!(total_ms, Vec<Option<f64>>),
    ),
> {
    TableIterator::new(board().into_iter().map(|board| {
        let worker = board.worker();
        let (waiting, computing, taken) = board.load();
        let counted = &board.statistics;
        let number = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as i64;
        (
            worker.map(|(pid, _)| pid),
            worker.map(|(_, since)| since as f64),
            i64::from(board.lives()),
            board.places() as i64,
            taken as i64,
            waiting as i64,
            computing as i64,
            number(&counted.questions),
            number(&counted.errors),
            number(&counted.abandoned),
            number(&counted.batches),
            counted.sizes.iter().map(number).collect(),
            quantiles(&counted.wait),
            quantiles(&counted.compute),
            quantiles(&counted.total),
        )
    }))
}
