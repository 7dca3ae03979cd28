//! What row triggers of a recommender's relations are told.

use std::rc::Rc;

use pgrx::datum::TryFromDatumError;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

use crate::catalog::IdType;
use crate::catalog::recommender::{self, Recommender};
use crate::error::{Result, SqlError};
use crate::ids::Id;
use crate::pg::relation;
use crate::pg::spi::{self, Arg, Mode};

/// The recommender (the trigger's first argument; without one, as everywhere) whose items relation this is, and the new
/// row's item, where there is one.
pub(super) fn item(trigger: &PgTrigger<'_>, function: &str) -> Result<(Rc<Recommender>, Option<Id>)> {
    let recommender = of(trigger, function)?;
    let items = recommender.items.as_ref().map(|items| (items.relation, items.id.as_str()));
    let column = bound(trigger, function, &recommender, "items", items)?;
    let id = new_id(trigger, column, recommender.item_type)?;
    Ok((recommender, id))
}

/// The same of its interactions relation and the new row's user.
pub(super) fn user(trigger: &PgTrigger<'_>, function: &str) -> Result<(Rc<Recommender>, Option<Id>)> {
    let recommender = of(trigger, function)?;
    let interactions = &recommender.interactions;
    let bound_to = Some((interactions.relation, interactions.user.as_str()));
    let column = bound(trigger, function, &recommender, "interactions", bound_to)?;
    let id = new_id(trigger, column, recommender.user_type)?;
    Ok((recommender, id))
}

/// The arguments of a trigger.
pub(super) fn arguments(trigger: &PgTrigger<'_>, function: &str) -> Result<Vec<String>> {
    trigger.extra_args().map_err(|error| misused(function, &error))
}

fn of(trigger: &PgTrigger<'_>, function: &str) -> Result<Rc<Recommender>> {
    recommender::resolve(Mode::Write, arguments(trigger, function)?.first().map(String::as_str))
}

fn misused(function: &str, error: &PgTriggerError) -> SqlError {
    SqlError::parameter(format!("{function}: {error}"))
}

/// The id's column, where the trigger is on the relation it belongs to.
fn bound<'r>(
    trigger: &PgTrigger<'_>,
    function: &str,
    recommender: &Recommender,
    what: &str,
    bound: Option<(Oid, &'r str)>,
) -> Result<&'r str> {
    let relation = trigger.relid().map_err(|error| misused(function, &error))?;
    let column = match bound {
        Some((bound, column)) if relation == bound || is_partition_of(relation, bound)? => Some(column),
        _ => None,
    };
    column.ok_or_else(|| {
        SqlError::parameter(format!(
            "the trigger is not on the {what} relation of recommender \"{}\"",
            recommender.name
        ))
        .hint(format!("EXECUTE FUNCTION {function}('RECOMMENDER'); it may be left out where it is the only one."))
    })
}

/// Row triggers of a partitioned table are those of its partitions.
fn is_partition_of(relation: Oid, whole: Oid) -> Result<bool> {
    if !relation::is_partition(relation) {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors($1) a (relid) WHERE a.relid = $2)";
    let found = spi::first(Mode::Write, sql, &[Arg::Oid(relation), Arg::Oid(whole)], |row| row.need::<bool>(0))?;
    Ok(found.unwrap_or(false))
}

fn new_id(trigger: &PgTrigger<'_>, column: &str, kind: IdType) -> Result<Option<Id>> {
    let Some(new) = trigger.new() else { return Ok(None) };
    let read = |error: TryFromDatumError| SqlError::corrupted(error.to_string());
    Ok(match kind {
        // A smallint is bound as an integer.
        IdType::Integer => match new.get_by_name::<i32>(column) {
            Ok(id) => id.map(|id| Id::Int(i64::from(id))),
            Err(_) => new.get_by_name::<i16>(column).map_err(read)?.map(|id| Id::Int(i64::from(id))),
        },
        IdType::Bigint => new.get_by_name::<i64>(column).map_err(read)?.map(Id::Int),
        IdType::Uuid => new.get_by_name::<pgrx::Uuid>(column).map_err(read)?.map(|id| Id::Text(id.to_string())),
        IdType::Text => new.get_by_name::<String>(column).map_err(read)?.map(Id::Text),
    })
}
