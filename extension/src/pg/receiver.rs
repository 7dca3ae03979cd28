//! A DestReceiver that hands each row to a closure as the executor produces it: nothing is copied into a tuple
//! table, and memory stays bounded whatever the number of rows.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys;
use pgrx::{FromDatum, PgMemoryContexts};

use crate::error::{Result, SqlError};

/// One result row, valid inside the closure that receives it.
pub struct Row {
    slot: *mut pg_sys::TupleTableSlot,
}

impl Row {
    /// Column `index` (from 0), or None for NULL.
    pub fn get<T: FromDatum>(&self, index: usize) -> Option<T> {
        // SAFETY: the executor keeps the slot valid while it calls the receiver. The statement's text and the
        // code that reads its columns stand together in this crate; a column that is not there reads as NULL.
        unsafe {
            let slot = &*self.slot;
            if index >= (*slot.tts_tupleDescriptor).natts as usize {
                return None;
            }
            if (slot.tts_nvalid as usize) <= index {
                pg_sys::slot_getsomeattrs_int(self.slot, index as i32 + 1);
            }
            T::from_datum(*(*self.slot).tts_values.add(index), *(*self.slot).tts_isnull.add(index))
        }
    }

    /// A column that cannot be NULL.
    pub fn need<T: FromDatum>(&self, index: usize) -> Result<T> {
        self.get(index).ok_or_else(|| SqlError::corrupted(format!("column {} of an internal query is NULL", index + 1)))
    }
}

/// The receiver: Postgres' struct first, so that a pointer to it is a pointer to the whole.
#[repr(C)]
pub struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    each: &'a mut dyn FnMut(&Row) -> Result<()>,
    /// What values are detoasted into; emptied after every row.
    scratch: PgMemoryContexts,
    failed: Option<SqlError>,
}

impl<'a> Receiver<'a> {
    /// A receiver for one execution.
    pub fn new(each: &'a mut dyn FnMut(&Row) -> Result<()>) -> Self {
        let base = pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(startup),
            rShutdown: Some(nothing),
            rDestroy: Some(nothing),
            mydest: pg_sys::CommandDest::DestTuplestore,
        };
        Self { base, each, scratch: PgMemoryContexts::new("pgrec row"), failed: None }
    }

    /// What Postgres is given. The receiver must not move while the statement runs.
    pub fn as_dest(&mut self) -> *mut pg_sys::DestReceiver {
        std::ptr::from_mut(self).cast()
    }

    /// The closure's error, if it gave one; the rows after it were not asked for.
    pub fn outcome(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, receiver: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: the executor passes back the pointer of `as_dest`, which is the start of a live `Receiver` that
    // nothing else refers to while the statement runs.
    let receiver = unsafe { &mut *receiver.cast::<Receiver<'_>>() };
    let row = Row { slot };
    let each = AssertUnwindSafe(&mut receiver.each);
    // SAFETY: the closure copies what it keeps out of the context before it is emptied.
    let outcome = unsafe {
        let outcome = receiver.scratch.switch_to(|_| (each.0)(&row));
        receiver.scratch.reset();
        outcome
    };
    match outcome {
        Ok(()) => true,
        Err(error) => {
            receiver.failed = Some(error);
            false
        }
    }
}

/// A receiver that only collects a bigint column: the hot path of every history. A row costs a few nanoseconds,
/// against some fifty for the guard, the context and the closure of [`Receiver`].
#[repr(C)]
pub struct Collector {
    base: pg_sys::DestReceiver,
    values: Vec<Option<i64>>,
}

impl Collector {
    /// A receiver for one execution of a statement whose first column is a bigint.
    pub fn new() -> Self {
        let base = pg_sys::DestReceiver {
            receiveSlot: Some(collect),
            rStartup: Some(startup),
            rShutdown: Some(nothing),
            rDestroy: Some(nothing),
            mydest: pg_sys::CommandDest::DestTuplestore,
        };
        Self { base, values: Vec::new() }
    }

    /// What Postgres is given. The receiver must not move while the statement runs.
    pub fn as_dest(&mut self) -> *mut pg_sys::DestReceiver {
        std::ptr::from_mut(self).cast()
    }

    /// The column.
    pub fn into_values(self) -> Vec<Option<i64>> {
        self.values
    }
}

/// Nothing in here can panic or raise, so it needs no guard: a projected slot has its values at hand, and where it
/// has not, the value is taken as Postgres takes it, in a guarded function.
unsafe extern "C-unwind" fn collect(slot: *mut pg_sys::TupleTableSlot, receiver: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: the executor passes back the pointer of `as_dest` and a valid slot; with one value at hand, the first
    // entries of both arrays are set, and the datum of a bigint is the number itself.
    unsafe {
        if (*slot).tts_nvalid < 1 {
            return deform_and_collect(slot, receiver);
        }
        let null = *(*slot).tts_isnull;
        let value = (*(*slot).tts_values).value() as i64;
        (*receiver.cast::<Collector>()).values.push((!null).then_some(value));
    }
    true
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn deform_and_collect(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: as in `collect`, whose condition holds after the call.
    unsafe {
        pg_sys::slot_getsomeattrs_int(slot, 1);
        collect(slot, receiver)
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup(
    _receiver: *mut pg_sys::DestReceiver,
    _operation: std::ffi::c_int,
    _types: pg_sys::TupleDesc,
) {
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
