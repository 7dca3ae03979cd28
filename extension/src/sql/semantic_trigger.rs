//! The trigger that gives new items semantic IDs.

use pgrx::datum::TryFromDatumError;
use pgrx::prelude::*;

use crate::catalog::{IdType, recommender};
use crate::codes::Lookup;
use crate::error::{self, SqlError};
use crate::ids::Id;
use crate::pg::role;
use crate::pg::spi::Mode;

/// A row trigger of an items relation: the new item gets a code at once. What hinders that is a WARNING and does not keep
/// the item out.
#[pg_trigger]
fn rec_semantic_assign_new<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    if let Err(error) = assign_new(trigger) {
        error.warn();
    }
    Ok(trigger.new().or_else(|| trigger.old()))
}

/// Arguments of the trigger: the recommender, and the model; without, as everywhere.
fn assign_new(trigger: &PgTrigger<'_>) -> error::Result<()> {
    let misused = |error: PgTriggerError| SqlError::parameter(format!("rec_semantic_assign_new: {error}"));
    let arguments = trigger.extra_args().map_err(misused)?;
    let relation = trigger.relid().map_err(misused)?;
    let recommender = recommender::resolve(Mode::Write, arguments.first().map(String::as_str))?;
    let items = recommender.items.as_ref().filter(|items| items.relation == relation).ok_or_else(|| {
        SqlError::parameter(format!("the trigger is not on the items relation of recommender \"{}\"", recommender.name))
            .hint("EXECUTE FUNCTION rec_semantic_assign_new('RECOMMENDER', 'MODEL'); both may be left out.")
    })?;
    let Some(new) = trigger.new() else { return Ok(()) };
    let read = |error: TryFromDatumError| SqlError::corrupted(error.to_string());
    let id = match recommender.item_type {
        IdType::Integer => new.get_by_name::<i32>(&items.id).map_err(read)?.map(|id| Id::Int(i64::from(id))),
        IdType::Bigint => new.get_by_name::<i64>(&items.id).map_err(read)?.map(Id::Int),
        IdType::Uuid => new.get_by_name::<pgrx::Uuid>(&items.id).map_err(read)?.map(|id| Id::Text(id.to_string())),
        IdType::Text => new.get_by_name::<String>(&items.id).map_err(read)?.map(Id::Text),
    };
    let Some(id) = id else { return Ok(()) };
    // Who may insert items need not be able to read them, or to own the recommender: the table's owner wants the codes.
    role::as_owner(recommender.owner_oid()?, || {
        Lookup::open(Mode::Write, Some(&recommender.name), arguments.get(1).map(String::as_str))?.assign_one(&id)
    })?;
    Ok(())
}
