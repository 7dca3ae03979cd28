//! Trainings to be repeated: rows of `rec.schedule`.

use serde_json::Value;

use crate::catalog::Recommender;
use crate::error::{Result, SqlError};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};

/// One that is due.
#[derive(Debug)]
pub struct Due {
    /// Id of the recommender.
    pub recommender_id: i64,
    /// Its name.
    pub recommender: String,
    /// The family.
    pub family: String,
    /// All parameters.
    pub params: Value,
    /// A label of `rec.deploy_rule`.
    pub deploy: String,
    /// Role that has scheduled it.
    pub by: String,
}

/// Makes a schedule, or changes the one that the recommender has for this family.
pub fn set(recommender: &Recommender, family: &str, every: &str, params: &Value, deploy: &str, by: &str) -> Result<()> {
    role::as_catalog(|| {
        let positive =
            spi::first(Mode::Write, "SELECT $1::interval > '0'", &[Arg::Text(every)], |row| row.need::<bool>(0))?;
        if positive != Some(true) {
            return Err(SqlError::parameter(format!("every must be longer than nothing, and is {every}"))
                .hint("For example every => '1 day'."));
        }
        spi::execute(
            "INSERT INTO rec.schedule (recommender_id, family, every, params, deploy, scheduled_by, next_at) \
             VALUES ($1, $2, $3::interval, $4::jsonb, $5::rec.deploy_rule, $6, \
                     pg_catalog.clock_timestamp() + $3::interval) \
             ON CONFLICT (recommender_id, family) DO UPDATE SET every = excluded.every, params = excluded.params, \
             deploy = excluded.deploy, scheduled_by = excluded.scheduled_by, next_at = excluded.next_at, failure = NULL",
            &[
                Arg::Int8(recommender.id),
                Arg::Text(family),
                Arg::Text(every),
                Arg::Text(&params.to_string()),
                Arg::Text(deploy),
                Arg::Text(by),
            ],
        )
    })?;
    Ok(())
}

/// Removes a schedule; false when there was none.
pub fn remove(recommender: &Recommender, family: &str) -> Result<bool> {
    let removed = role::as_catalog(|| {
        spi::execute(
            "DELETE FROM rec.schedule WHERE recommender_id = $1 AND family = $2",
            &[Arg::Int8(recommender.id), Arg::Text(family)],
        )
    })?;
    Ok(removed > 0)
}

/// What is due, locked, and without what another session starts just now or what is still being trained.
pub fn due() -> Result<Vec<Due>> {
    role::as_catalog(|| {
        spi::query(
            Mode::Write,
            "SELECT s.recommender_id, r.name, s.family, s.params::text, s.deploy::text, s.scheduled_by \
             FROM rec.schedule s JOIN rec.recommender r USING (recommender_id) \
             WHERE s.next_at <= pg_catalog.clock_timestamp() AND NOT EXISTS (\
                 SELECT FROM rec.model m WHERE m.model_id = s.model_id AND m.state IN ('queued', 'training')) \
             ORDER BY s.next_at FOR UPDATE OF s SKIP LOCKED",
            &[],
            |row| {
                let params: String = row.need(3)?;
                Ok(Due {
                    recommender_id: row.need(0)?,
                    recommender: row.need(1)?,
                    family: row.need(2)?,
                    params: serde_json::from_str(&params)
                        .map_err(|e| SqlError::corrupted(format!("rec.schedule.params: {e}")))?,
                    deploy: row.need(4)?,
                    by: row.need(5)?,
                })
            },
        )
    })
}

/// Writes that it was started, or why not, and when it is due again: times that have been missed are not made up for.
pub fn done(due: &Due, started: std::result::Result<i64, &str>) -> Result<()> {
    role::as_catalog(|| {
        spi::execute(
            "UPDATE rec.schedule SET model_id = coalesce($3, model_id), failure = $4, next_at = CASE \
             WHEN next_at + every > pg_catalog.clock_timestamp() THEN next_at + every \
             ELSE pg_catalog.clock_timestamp() + every END \
             WHERE recommender_id = $1 AND family = $2",
            &[
                Arg::Int8(due.recommender_id),
                Arg::Text(&due.family),
                Arg::MaybeInt8(started.ok()),
                Arg::MaybeText(started.err()),
            ],
        )
    })?;
    Ok(())
}
