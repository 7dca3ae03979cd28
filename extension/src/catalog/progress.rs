//! Progress of trainings: rows of `rec.training`, shown by the view `rec.progress`, written between phases.

use crate::error::Result;
use crate::pg::role;
use crate::pg::spi::{self, Arg};

/// Says which phase a training is in. Others see it once the procedure commits.
pub fn set(model: i64, phase: &str) -> Result<()> {
    role::as_catalog(|| {
        spi::execute(
            "INSERT INTO rec.training (model_id, pid, phase) VALUES ($1, pg_catalog.pg_backend_pid(), $2) \
             ON CONFLICT (model_id) DO UPDATE SET pid = excluded.pid, phase = excluded.phase, \
             updated_at = pg_catalog.clock_timestamp()",
            &[Arg::Int8(model), Arg::Text(phase)],
        )
    })?;
    Ok(())
}

/// Removes the row when a training has ended.
pub fn clear(model: i64) -> Result<()> {
    role::as_catalog(|| spi::execute("DELETE FROM rec.training WHERE model_id = $1", &[Arg::Int8(model)]))?;
    Ok(())
}
