//! The trigger that gives new items semantic IDs.

use pgrx::prelude::*;

use super::trigger;
use crate::codes::Lookup;
use crate::error;
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
    const NAME: &str = "rec_semantic_assign_new";
    let (recommender, id) = trigger::item(trigger, NAME)?;
    let arguments = trigger::arguments(trigger, NAME)?;
    let Some(id) = id else { return Ok(()) };
    // Who may insert items need not be able to read them, or to own the recommender: the table's owner wants the codes.
    role::as_owner_for(recommender.owner_oid()?, || {
        Lookup::open(Mode::Write, Some(&recommender.name), arguments.get(1).map(String::as_str))?.assign_one(&id)
    })?;
    Ok(())
}
