//! The triggers that keep published vectors fresh.

use pgrx::prelude::*;

use super::trigger;
use crate::catalog::publication;
use crate::error;
use crate::pg::role;
use crate::pg::spi::Mode;
use crate::vectors::Published;

/// A row trigger of an items relation: an item that the training did not know is placed at once. What hinders that is a
/// WARNING and does not keep the item out.
#[pg_trigger]
fn rec_place_item<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    if let Err(error) = place_item(trigger) {
        error.warn();
    }
    Ok(trigger.new().or_else(|| trigger.old()))
}

fn place_item(trigger: &PgTrigger<'_>) -> error::Result<()> {
    let (recommender, id) = trigger::item(trigger, "rec_place_item")?;
    let (Some(id), Some(_)) = (id, publication::of(&recommender)) else { return Ok(()) };
    let item = crate::ids::item_id(&id, recommender.item_type)?;
    // Who may insert items need not be able to read them, or to own the recommender.
    role::as_owner_for(recommender.owner_oid()?, || Published::open(Mode::Write, &recommender)?.place_one(&item))?;
    Ok(())
}

/// A row trigger of an interactions relation: the user is where the new event has moved them. What hinders that is a WARNING
/// and does not keep the event out.
#[pg_trigger]
fn rec_place_user<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    if let Err(error) = place_user(trigger) {
        error.warn();
    }
    Ok(trigger.new().or_else(|| trigger.old()))
}

fn place_user(trigger: &PgTrigger<'_>) -> error::Result<()> {
    let (recommender, id) = trigger::user(trigger, "rec_place_user")?;
    let published = publication::of(&recommender).filter(|publication| publication.users.is_some());
    let (Some(id), Some(_)) = (id, published) else { return Ok(()) };
    role::as_owner_for(recommender.owner_oid()?, || Published::open(Mode::Write, &recommender)?.put_users(&[id]))?;
    Ok(())
}
