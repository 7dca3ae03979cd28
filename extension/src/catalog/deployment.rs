//! Deployments: the latest row of a recommender names the model that serves.

use crate::catalog::{ModelRow, Recommender};
use crate::error::Result;
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};

/// Makes a model the one that serves, from this transaction's commit on (and for this transaction at once). `by` is
/// who wants it.
pub fn add(recommender: &Recommender, model: &ModelRow, by: &str) -> Result<()> {
    role::as_catalog(|| {
        spi::execute(
            "INSERT INTO rec.deployment (recommender_id, model_id, deployed_by) VALUES ($1, $2, $3)",
            &[Arg::Int8(recommender.id), Arg::Int8(model.id), Arg::Text(by)],
        )
    })?;
    Ok(())
}

/// Removes the latest deployment, so that the one before serves again; false when there is none to return to.
pub fn remove_last(recommender: &Recommender) -> Result<bool> {
    role::as_catalog(|| {
        // Two roll-backs at once must not remove two rows each believing it removed the last.
        spi::query(
            Mode::Write,
            "SELECT 1 FROM rec.recommender WHERE recommender_id = $1 FOR UPDATE",
            &[Arg::Int8(recommender.id)],
            |_| Ok(()),
        )?;
        let removed = spi::execute(
            "DELETE FROM rec.deployment WHERE deployment_id = (\
                 SELECT deployment_id FROM rec.deployment WHERE recommender_id = $1 ORDER BY deployment_id DESC LIMIT 1) \
             AND EXISTS (SELECT FROM rec.deployment WHERE recommender_id = $1 OFFSET 1)",
            &[Arg::Int8(recommender.id)],
        )?;
        Ok(removed > 0)
    })
}
