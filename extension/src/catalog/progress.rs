//! How far trainings are: what workers write into `rec.training`, and what others read there.

use pgrec_engine::TrainingProgress;
use serde_json::Value;

use crate::error::{Result, SqlError};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode, Row};

/// How far a training is, as its row has it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Epoch under way, and how many there are at most.
    pub epochs: Option<(i32, i32)>,
    /// Steps done, and how many there are: of the epoch, or of the whole where there are no epochs.
    pub steps: Option<(i64, i64)>,
    /// Mean loss of the epoch.
    pub loss: Option<f64>,
    /// Name of the validation metric.
    pub metric: Option<String>,
    /// Its latest value.
    pub validation: Option<f64>,
    /// Its best value.
    pub best: Option<f64>,
    /// Interactions a second.
    pub events_per_second: Option<f64>,
    /// Seconds it may still take.
    pub seconds_left: Option<f64>,
}

impl From<TrainingProgress> for Progress {
    fn from(p: TrainingProgress) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        Self {
            epochs: Some((p.epoch as i32, p.epochs as i32)),
            steps: Some((p.step as i64, p.steps as i64)),
            loss: p.loss.and_then(finite),
            metric: (!p.metric.is_empty()).then(|| p.metric.to_owned()),
            validation: p.validation.and_then(finite),
            best: p.best.and_then(finite),
            events_per_second: finite(p.events_per_second).filter(|&rate| rate > 0.0),
            seconds_left: p.seconds_left.and_then(finite),
        }
    }
}

/// Writes how far a training is; false when its row is gone: somebody has stopped it, or dropped its model.
pub fn publish(id: i64, phase: &str, progress: &Progress) -> Result<bool> {
    let updated = role::as_catalog(|| {
        spi::execute(
            "UPDATE rec.training SET phase = $2, epoch = $3::integer, epochs = $4::integer, step = $5, steps = $6, \
             loss = $7, metric = $8, validation = $9, best = $10, events_per_second = $11, seconds_left = $12, \
             updated_at = pg_catalog.clock_timestamp() WHERE model_id = $1",
            &[
                Arg::Int8(id),
                Arg::Text(phase),
                Arg::MaybeInt8(progress.epochs.map(|(at, _)| i64::from(at))),
                Arg::MaybeInt8(progress.epochs.map(|(_, of)| i64::from(of))),
                Arg::MaybeInt8(progress.steps.map(|(at, _)| at)),
                Arg::MaybeInt8(progress.steps.map(|(_, of)| of)),
                Arg::MaybeFloat8(progress.loss),
                Arg::MaybeText(progress.metric.as_deref()),
                Arg::MaybeFloat8(progress.validation),
                Arg::MaybeFloat8(progress.best),
                Arg::MaybeFloat8(progress.events_per_second),
                Arg::MaybeFloat8(progress.seconds_left),
            ],
        )
    })?;
    Ok(updated > 0)
}

/// How a training stands, seen from outside.
#[derive(Debug)]
pub enum Standing {
    /// It waits for a worker.
    Queued,
    /// Under way: the phase, and how far it is.
    Training(String, Progress),
    /// Its model is ready; what was measured of it.
    Ready(Value),
    /// It failed.
    Failed(SqlError),
    /// Its model was dropped.
    Gone,
}

/// How a training stands.
pub fn look(id: i64) -> Result<Standing> {
    let standing = role::as_catalog(|| {
        spi::first(
            Mode::Write,
            "SELECT m.state, coalesce(m.failure, pg_catalog.jsonb_build_object('message', m.reason))::text, \
             m.metrics::text, coalesce(t.phase, ''), t.epoch, t.epochs, t.step, t.steps, t.loss, t.metric, \
             t.validation, t.best, t.events_per_second, t.seconds_left \
             FROM rec.model m LEFT JOIN rec.training t USING (model_id) WHERE m.model_id = $1",
            &[Arg::Int8(id)],
            standing_of,
        )
    })?;
    Ok(standing.unwrap_or(Standing::Gone))
}

fn standing_of(row: &Row) -> Result<Standing> {
    let json = |index: usize| -> Result<Value> {
        let text: String = row.need(index)?;
        serde_json::from_str(&text).map_err(|e| SqlError::corrupted(format!("rec.model: {e}")))
    };
    Ok(match row.need::<String>(0)?.as_str() {
        "queued" => Standing::Queued,
        "ready" => Standing::Ready(json(2)?),
        "failed" => Standing::Failed(SqlError::from_json(&json(1)?)),
        _ => Standing::Training(
            row.need(3)?,
            Progress {
                epochs: row.get(4).zip(row.get(5)),
                steps: row.get(6).zip(row.get(7)),
                loss: row.get(8),
                metric: row.get(9),
                validation: row.get(10),
                best: row.get(11),
                events_per_second: row.get(12),
                seconds_left: row.get(13),
            },
        ),
    })
}
