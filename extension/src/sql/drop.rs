//! `rec_drop`.

use pgrx::pg_extern;
use pgrx::pg_sys::Oid;

use super::create::existing;
use super::typed;
use crate::catalog::recommender::{self, quoted};
use crate::catalog::training;
use crate::error::{Result, SqlError, or_raise};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};
use crate::storage::cache;
use crate::vectors::publish;

#[pg_extern(sql = false)]
fn rec_drop(name: Option<String>, tables: Option<bool>) {
    or_raise(drop(name.as_deref(), tables.unwrap_or(false)));
}

fn drop(name: Option<&str>, tables: bool) -> Result<()> {
    let Some(name) = name else {
        return Err(SqlError::parameter("which recommender?").hint("SELECT rec_drop('…');"));
    };
    let recommender = recommender::resolve(Mode::Write, Some(name))?;
    recommender.require_owner("drop it")?;
    training::stop_before_drop(recommender.id, None)?;
    publish::unpublish(&recommender)?;
    typed::drop(name)?;
    role::as_catalog(|| {
        spi::execute("DELETE FROM rec.recommender WHERE recommender_id = $1", &[Arg::Int8(recommender.id)])
    })?;
    if tables {
        drop_tables(name, &recommender)?;
    }
    cache::remove_orphans(Mode::Write)?;
    Ok(())
}

/// Drops the tables that `rec_create` makes, as the caller; then the schema, when nothing else is in it.
fn drop_tables(name: &str, recommender: &recommender::Recommender) -> Result<()> {
    let schema = quoted(name);
    let own = |oid: Oid, table: &str| -> Result<bool> { Ok(existing(name, table)? == Some(oid)) };
    if own(recommender.interactions.relation, "interaction")? {
        spi::run(&format!("DROP TABLE {schema}.interaction, {schema}.item, {schema}.search"))?;
    }
    let left = spi::first(
        Mode::Write,
        "SELECT 1 FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass \
         AND refobjid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) LIMIT 1",
        &[Arg::Text(name)],
        |_| Ok(()),
    )?;
    if left.is_none() {
        spi::run(&format!("DROP SCHEMA {schema}"))?;
    }
    Ok(())
}
