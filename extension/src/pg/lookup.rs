//! One row of a catalogue table by index, under the caller's snapshot, without the executor.
//!
//! Every serving call has to see which model is deployed *now*. Three index look-ups cost some microseconds; a
//! query that joins the three tables costs more than the forward pass of a short history.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};

/// What a row is found by: the first column of the index.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// A bigint column.
    Int8(i64),
    /// A text column of the default collation.
    Text(&'a str),
}

/// Identifies one version of one row: another version of the row has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    xmin: u32,
    block: u32,
    offset: u16,
}

/// The row found, valid inside the closure that receives it.
pub struct Found {
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
}

impl Found {
    /// Column `number` (from 1, as in the table's definition), or None for NULL.
    pub fn get<T: FromDatum>(&self, number: i32) -> Option<T> {
        let mut null = false;
        // SAFETY: tuple and descriptor stay valid until the scan ends, which is after the closure has run.
        unsafe {
            let datum = pg_sys::heap_getattr(self.tuple, number, self.desc, &mut null);
            T::from_datum(datum, null)
        }
    }

    /// Which version of the row this is.
    pub fn version(&self) -> Version {
        // SAFETY: as above; a tuple on disk has a header with a heap part.
        unsafe {
            let place = (*self.tuple).t_self;
            Version {
                xmin: (*(*self.tuple).t_data).t_choice.t_heap.t_xmin.into_inner(),
                block: (u32::from(place.ip_blkid.bi_hi) << 16) | u32::from(place.ip_blkid.bi_lo),
                offset: place.ip_posid,
            }
        }
    }
}

/// The first row of `index`, in its order, whose first indexed column (`column` of the table) equals `key`.
/// None when there is none, or no such table.
pub fn first<T>(table: &CStr, index: &CStr, column: i16, key: Key<'_>, read: impl FnOnce(&Found) -> T) -> Option<T> {
    // SAFETY: the pattern of Postgres' own catalogue look-ups (genam.c): open with a lock, scan with a snapshot,
    // close in reverse order. An ERROR in between leaves the clean-up to the transaction's resource owner.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"rec".as_ptr(), true);
        let table = pg_sys::get_relname_relid(table.as_ptr(), schema);
        let index = pg_sys::get_relname_relid(index.as_ptr(), schema);
        if table == Oid::INVALID || index == Oid::INVALID {
            return None;
        }
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let heap = pg_sys::table_open(table, lock);
        let sorted = pg_sys::index_open(index, lock);
        let (operator, datum): (Oid, Datum) = match key {
            Key::Int8(value) => (pg_sys::F_INT8EQ.into(), value.into_datum()?),
            Key::Text(value) => (pg_sys::F_TEXTEQ.into(), value.into_datum()?),
        };
        let mut scan_key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut scan_key,
            column,
            pg_sys::BTEqualStrategyNumber as u16,
            operator.to_u32().into(),
            datum,
        );
        scan_key.sk_collation = pg_sys::DEFAULT_COLLATION_OID;
        let scan = pg_sys::systable_beginscan_ordered(heap, sorted, pg_sys::GetActiveSnapshot(), 1, &mut scan_key);
        let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::ForwardScanDirection);
        let found = (!tuple.is_null()).then(|| read(&Found { tuple, desc: (*heap).rd_att }));
        pg_sys::systable_endscan_ordered(scan);
        pg_sys::index_close(sorted, lock);
        pg_sys::table_close(heap, lock);
        found
    }
}
