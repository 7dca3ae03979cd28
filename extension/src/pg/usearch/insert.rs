//! A new row.

use pgrec_engine::index;
use pgrx::pg_sys::{self, Datum, IndexInfo, ItemPointer, Relation};
use pgrx::{PgSqlErrorCode, pg_guard};

use super::definition::Definition;
use super::open::{OpenIndex, Threads, maintenance_memory};
use crate::error::SqlError;
use crate::pg::launch;
use crate::pg::vector::{self, Refused};

/// `aminsert`: appends to the chain; when that is long enough, makes it into a segment.
#[pg_guard]
#[allow(clippy::too_many_arguments, reason = "Postgres' signature")]
pub unsafe extern "C-unwind" fn insert(
    relation: Relation,
    values: *mut Datum,
    nulls: *mut bool,
    tid: ItemPointer,
    _heap: Relation,
    _unique: pg_sys::IndexUniqueCheck::Type,
    _unchanged: bool,
    _info: *mut IndexInfo,
) -> bool {
    // SAFETY: the index is open and locked during the call; it has one column.
    let (open, value, null, tid) = unsafe { (OpenIndex::new(relation), *values, *nulls, number_of(tid)) };
    if null {
        return false;
    }
    let definition = open.definition();
    let mut stored = Vec::new();
    // SAFETY: the value of the index's column.
    if !unsafe { store(value, &definition, &mut stored) } {
        return false;
    }
    if open.or_raise(index::insert(&open.pages, tid, &stored)) {
        tidy_up(&open);
    }
    false
}

/// Makes the chain into a segment, and has segments merged when there are many: by a worker, or here when none comes.
fn tidy_up(open: &OpenIndex) {
    let crew = Threads::new(1);
    if !open.or_raise(index::seal(&open.pages, &crew, false)) {
        return;
    }
    open.pages.publish_free();
    let meta = open.or_raise(index::Meta::read(&open.pages));
    let memory = maintenance_memory();
    if index::is_crowded(&meta) || open.segments.temporary {
        open.or_raise(index::merge(&open.pages, &open.segments, &crew, memory));
    } else if index::merge_due(&meta, memory).is_some() {
        launch::index_worker(open.segments.index);
    }
}

/// Writes a value as chains store it; false where the index leaves it out, because it has no direction.
///
/// # Safety
/// A value of the index's column, not NULL.
pub unsafe fn store(value: Datum, definition: &Definition, to: &mut Vec<u8>) -> bool {
    let format = match definition.shape.exact_format() {
        Ok(format) => format,
        Err(error) => SqlError::from(error).raise(),
    };
    // SAFETY: the caller's.
    match unsafe { vector::store(value, definition.kind, &format, to) } {
        Ok(direction) => direction,
        Err(Refused::Dimensions(found)) => SqlError::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("expected {} dimensions, not {found}", definition.shape.dim),
        )
        .raise(),
        Err(Refused::Malformed) => SqlError::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("a {} is damaged or holds numbers that are not finite", definition.kind.name()),
        )
        .raise(),
    }
}

/// A place in the table as one number: the block, then the offset.
///
/// # Safety
/// The pointer is valid.
pub unsafe fn number_of(tid: ItemPointer) -> u64 {
    // SAFETY: the caller's.
    let (block, offset) = unsafe { pgrx::itemptr::item_pointer_get_both(*tid) };
    u64::from(block) << 16 | u64::from(offset)
}

/// The place that a number stands for.
pub fn place_of(number: u64) -> pg_sys::ItemPointerData {
    let mut place = pg_sys::ItemPointerData::default();
    pgrx::itemptr::item_pointer_set_all(&mut place, (number >> 16) as u32, number as u16);
    place
}
