//! Trainings queued and under way: rows of `rec.training`, and the locks that show who is alive.
//!
//! Whoever changes a training's row and its model's locks the training's row first. A worker cannot go on to another
//! model before it has removed that row, so who holds it locked may signal the worker it names.

use serde_json::Value;

use super::progress::{Standing, look};
use crate::error::{Result, SqlError};
use crate::pg::lock::{Held, Lock};
use crate::pg::spi::{self, Arg, Mode, Row};
use crate::pg::{process, role, transaction};

/// Class of the advisory lock of the worker that trains a model: `pgrc` in ASCII; the key is the model's id. A row
/// that says "training" and whose lock nobody holds was left behind by a crash.
const WORKER: i32 = 0x7067_7263;

/// Class of the lock of the session that waits for a model: `pgrw`.
const WAITER: i32 = 0x7067_7277;

/// Held while a model is trained. The function `rec.is_trained_now` looks for the same.
pub fn worker_lock(id: i64) -> Lock {
    Lock::of_database(WORKER, key(id))
}

/// Held while a session waits for a model. The function `rec.is_awaited_now` looks for the same.
pub fn waiter_lock(id: i64) -> Lock {
    Lock::of_database(WAITER, key(id))
}

fn key(id: i64) -> i32 {
    (id & 0x7fff_ffff) as i32
}

/// What a training is to be done with and for.
#[derive(Debug, Clone)]
pub struct Order {
    /// When its model is deployed: a label of `rec.deploy_rule`.
    pub deploy: String,
    /// Who asked for it.
    pub started_by: String,
    /// Process that waits for it.
    pub waiter: Option<i32>,
    /// `rec.training_threads`.
    pub threads: i32,
    /// `rec.training_niceness`.
    pub niceness: i32,
    /// `rec.training_memory`, in kB.
    pub memory: i32,
}

/// A training that a worker has taken out of the queue.
#[derive(Debug, Clone)]
pub struct Task {
    /// The model's id.
    pub id: i64,
    /// Its name.
    pub model: String,
    /// Name of its recommender.
    pub recommender: String,
    /// Its family.
    pub family: String,
    /// All parameters.
    pub params: Value,
    /// How and for whom.
    pub order: Order,
}

impl Task {
    fn from_row(row: &Row) -> Result<Self> {
        let params: String = row.need(4)?;
        Ok(Self {
            id: row.need(0)?,
            model: row.need(1)?,
            recommender: row.need(2)?,
            family: row.need(3)?,
            params: serde_json::from_str(&params).map_err(|e| SqlError::corrupted(format!("rec.model.params: {e}")))?,
            order: Order {
                deploy: row.need(5)?,
                started_by: row.need(6)?,
                waiter: row.get(7),
                threads: row.need(8)?,
                niceness: row.need(9)?,
                memory: row.need(10)?,
            },
        })
    }
}

/// Puts a model, whose row says "queued", at the end of the queue.
pub fn enqueue(id: i64, order: &Order) -> Result<()> {
    role::as_catalog(|| {
        spi::execute(
            "INSERT INTO rec.training (model_id, deploy, started_by, waiter, threads, niceness, memory) \
             VALUES ($1, $2::rec.deploy_rule, $3, $4::integer, $5, $6, $7)",
            &[
                Arg::Int8(id),
                Arg::Text(&order.deploy),
                Arg::Text(&order.started_by),
                Arg::MaybeInt8(order.waiter.map(i64::from)),
                Arg::Int4(order.threads),
                Arg::Int4(order.niceness),
                Arg::Int4(order.memory),
            ],
        )
    })?;
    Ok(())
}

/// Whether anything is queued in this database.
pub fn any_queued() -> Result<bool> {
    let found = role::as_catalog(|| {
        spi::first(Mode::Write, "SELECT 1 FROM rec.training WHERE pid IS NULL LIMIT 1", &[], |_| Ok(()))
    })?;
    Ok(found.is_some())
}

/// What a worker finds at the head of the queue.
pub enum Head {
    /// A training, its own from now on, with the lock that shows it to be under way.
    Task(Box<Task>, Held),
    /// A training that nobody waited for any more, and that has been ended.
    Forsaken,
    /// Nothing that is not being stopped by somebody else just now.
    Nothing,
}

/// Takes the first training of the queue.
pub fn claim() -> Result<Head> {
    role::as_catalog(|| {
        let task = spi::first(
            Mode::Write,
            "SELECT t.model_id, m.name, r.name, m.family, \
             (m.params || jsonb_strip_nulls(jsonb_build_object('seed', m.seed)))::text, t.deploy::text, \
             t.started_by, t.waiter, t.threads, t.niceness, t.memory \
             FROM rec.training t JOIN rec.model m USING (model_id) JOIN rec.recommender r USING (recommender_id) \
             WHERE t.pid IS NULL ORDER BY t.queued_at, t.model_id LIMIT 1 FOR UPDATE OF t SKIP LOCKED",
            &[],
            Task::from_row,
        )?;
        let Some(task) = task else { return Ok(Head::Nothing) };
        if is_forsaken(&task) {
            fail(task.id, &forsaken())?;
            return Ok(Head::Forsaken);
        }
        let held = worker_lock(task.id).try_hold().ok_or_else(|| {
            SqlError::corrupted(format!("another process says that it trains model \"{}\"", task.model))
        })?;
        spi::execute("UPDATE rec.model SET state = 'training' WHERE model_id = $1", &[Arg::Int8(task.id)])?;
        spi::execute(
            "UPDATE rec.training SET pid = $2, phase = 'reading', started_at = pg_catalog.clock_timestamp(), \
             updated_at = pg_catalog.clock_timestamp() WHERE model_id = $1",
            &[Arg::Int8(task.id), Arg::Int4(process::id())],
        )?;
        Ok(Head::Task(Box::new(task), held))
    })
}

/// Whether a session was to wait for it and does not.
pub fn is_forsaken(task: &Task) -> bool {
    task.order.waiter.is_some() && waiter_lock(task.id).is_free()
}

/// What a training ends with for which nobody waits any more.
pub fn forsaken() -> SqlError {
    cancelled("cancelled: the session that waited for it ended")
}

/// What a training ends with that somebody does not want any more.
pub fn cancelled(reason: impl Into<String>) -> SqlError {
    SqlError::new(pgrx::PgSqlErrorCode::ERRCODE_QUERY_CANCELED, reason)
}

/// Removes the row of a training whose model is ready.
pub fn remove(id: i64) -> Result<()> {
    role::as_catalog(|| spi::execute("DELETE FROM rec.training WHERE model_id = $1", &[Arg::Int8(id)]))?;
    Ok(())
}

/// Ends a training as failed, with the reason; false when it had ended before.
pub fn fail(id: i64, error: &SqlError) -> Result<bool> {
    let updated = role::as_catalog(|| {
        spi::execute("DELETE FROM rec.training WHERE model_id = $1", &[Arg::Int8(id)])?;
        spi::execute(
            "UPDATE rec.model SET state = 'failed', reason = $2, failure = $3::jsonb, \
             finished_at = pg_catalog.clock_timestamp() WHERE model_id = $1 AND state IN ('queued', 'training')",
            &[Arg::Int8(id), Arg::Text(&error.reason()), Arg::Text(&error.to_json().to_string())],
        )
    })?;
    Ok(updated > 0)
}

/// Ends a training as failed from another process than its worker, which is told to stop; false when it had ended.
pub fn stop(id: i64, error: &SqlError) -> Result<bool> {
    signal(id)?;
    fail(id, error)
}

/// Tells worker and waiting session that a training is not wanted any more, and keeps its row locked.
fn signal(id: i64) -> Result<()> {
    let processes = role::as_catalog(|| {
        spi::first(
            Mode::Write,
            "SELECT pid, waiter FROM rec.training WHERE model_id = $1 FOR UPDATE",
            &[Arg::Int8(id)],
            |row| Ok((row.get::<i32>(0), row.get::<i32>(1))),
        )
    })?;
    let Some((worker, waiter)) = processes else { return Ok(()) };
    if let Some(worker) = worker.filter(|&pid| pid != process::id()) {
        process::cancel(worker);
    }
    if let Some(waiter) = waiter {
        transaction::after_commit(move || process::wake(waiter));
    }
    Ok(())
}

/// Tells the workers that train this model, or any of the recommender's, to stop: what they train is about to be
/// dropped. Their rows stay locked until then.
pub fn stop_before_drop(recommender: i64, model: Option<i64>) -> Result<()> {
    let models = role::as_catalog(|| {
        spi::query(
            Mode::Write,
            "SELECT t.model_id FROM rec.training t JOIN rec.model m USING (model_id) \
             WHERE m.recommender_id = $1 AND ($2 IS NULL OR m.model_id = $2) ORDER BY 1",
            &[Arg::Int8(recommender), Arg::MaybeInt8(model)],
            |row| row.need::<i64>(0),
        )
    })?;
    models.into_iter().try_for_each(signal)
}

/// What is left of a training whose process ended without a word.
pub fn interrupted() -> SqlError {
    SqlError::state("interrupted: the process or server that trained it ended")
}

/// Ends what crashes have left: models in training that nobody trains, and queued ones that nobody waits for though
/// somebody wanted to, or that are in no queue because they came from a dump.
pub fn sweep() -> Result<()> {
    if transaction::is_read_only() {
        return Ok(());
    }
    let left = role::as_catalog(|| {
        spi::query(
            Mode::Write,
            "SELECT m.model_id, m.state FROM rec.model m LEFT JOIN rec.training t USING (model_id) \
             WHERE CASE m.state WHEN 'training' THEN NOT rec.is_trained_now(m.model_id) \
             WHEN 'queued' THEN t.model_id IS NULL OR t.waiter IS NOT NULL AND NOT rec.is_awaited_now(m.model_id) \
             ELSE false END",
            &[],
            |row| Ok((row.need::<i64>(0)?, row.need::<String>(1)?)),
        )
    })?;
    for (id, state) in left {
        // Another look, under a newer snapshot: it may have ended well in between.
        let still = match look(id)? {
            Standing::Queued => state == "queued",
            Standing::Training(..) => state == "training" && worker_lock(id).is_free(),
            _ => false,
        };
        if still {
            fail(id, &if state == "queued" { forsaken() } else { interrupted() })?;
        }
    }
    Ok(())
}

/// As [`fail`] or, for another process' training, [`stop`], in a process that is ending and must wait for nobody.
pub fn abandon(id: i64, error: &SqlError) -> Result<()> {
    role::as_catalog(|| {
        spi::run("LOCK TABLE rec.model, rec.training IN ROW EXCLUSIVE MODE NOWAIT")?;
        let free = spi::first(
            Mode::Write,
            "SELECT 1 FROM rec.training t JOIN rec.model m USING (model_id) WHERE model_id = $1 \
             FOR UPDATE SKIP LOCKED",
            &[Arg::Int8(id)],
            |_| Ok(()),
        )?;
        if free.is_some() {
            stop(id, error)?;
        }
        Ok(())
    })
}
