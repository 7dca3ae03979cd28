//! `ORDER BY column <-> query LIMIT k`.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrec_engine::index::{Bitmaps, Order, Scan, ScanOptions};
use pgrx::pg_sys::{self, Datum, IndexScanDesc, Relation, ScanKey};
use pgrx::{PgMemoryContexts, PgSqlErrorCode, pg_guard};

use super::insert::place_of;
use super::open::OpenIndex;
use super::options::{self, IterativeScan};
use crate::error::SqlError;
use crate::pg::interrupt;
use crate::pg::vector::{self, Refused};

/// What a scan keeps between calls.
#[derive(Default)]
struct State {
    scan: Option<Scan>,
}

thread_local! {
    /// Tombstones as scans of this session read them last, by index.
    static BITMAPS: RefCell<HashMap<u32, Bitmaps>> = RefCell::default();
}

/// Bytes that this session keeps between scans of an index: its tombstones, and a bit for every vector of the largest
/// segment that was searched.
pub fn private_bytes(index: u32) -> usize {
    BITMAPS.with_borrow(|bitmaps| bitmaps.get(&index).map_or(0, Bitmaps::bytes)) + pgrec_kernels::Walk::spare_bytes()
}

/// `ambeginscan`.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin(index: Relation, keys: i32, orders: i32) -> IndexScanDesc {
    // SAFETY: the index is open; the state is dropped with the memory context that the scan is in.
    unsafe {
        let scan = pg_sys::RelationGetIndexScan(index, keys, orders);
        (*scan).opaque = PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(State::default()).cast();
        if orders > 0 {
            let count = orders as usize;
            (*scan).xs_orderbyvals = pg_sys::palloc0(count * size_of::<Datum>()).cast();
            (*scan).xs_orderbynulls = pg_sys::palloc0(count * size_of::<bool>()).cast();
        }
        scan
    }
}

/// `amrescan`: with other keys, from the start.
#[pg_guard]
pub unsafe extern "C-unwind" fn rescan(
    scan: IndexScanDesc,
    keys: ScanKey,
    key_count: i32,
    orders: ScanKey,
    order_count: i32,
) {
    // SAFETY: the scan's arrays have as many elements as `begin` was told, which are those given here.
    unsafe {
        (*(*scan).opaque.cast::<State>()).scan = None;
        if !keys.is_null() && key_count > 0 {
            std::ptr::copy(keys, (*scan).keyData, key_count as usize);
        }
        if !orders.is_null() && order_count > 0 {
            std::ptr::copy(orders, (*scan).orderByData, order_count as usize);
        }
    }
}

/// `amgettuple`: the next nearest row.
#[pg_guard]
pub unsafe extern "C-unwind" fn next(scan: IndexScanDesc, _direction: pg_sys::ScanDirection::Type) -> bool {
    // SAFETY: the state is what `begin` made; nobody else uses it meanwhile.
    let state = unsafe { &mut *(*scan).opaque.cast::<State>() };
    // SAFETY: the index of the scan is open and locked while there is a scan.
    let open = unsafe { OpenIndex::new((*scan).indexRelation) };
    if state.scan.is_none() {
        // SAFETY: as above.
        state.scan = Some(unsafe { first(scan, &open) });
    }
    let Some(search) = &mut state.scan else {
        return false;
    };
    let mut interrupts = || {
        interrupt::check();
        Ok(())
    };
    let Some(hit) = open.or_raise(search.next(&mut interrupts)) else {
        return false;
    };
    // SAFETY: the scan's own fields; there is an order, so the arrays are there.
    unsafe {
        (*scan).xs_heaptid = place_of(hit.tid);
        (*scan).xs_recheck = false;
        (*scan).xs_recheckorderby = !search.exact();
        *(*scan).xs_orderbyvals = Datum::from(hit.distance.to_bits());
        *(*scan).xs_orderbynulls = false;
    }
    true
}

/// `amendscan`.
#[pg_guard]
pub unsafe extern "C-unwind" fn end(scan: IndexScanDesc) {
    // SAFETY: the state stays until the memory context goes; what it holds is let go now.
    unsafe { (*(*scan).opaque.cast::<State>()).scan = None };
}

/// Begins the search.
///
/// # Safety
/// The scan is one of `begin`'s, and its index is open.
unsafe fn first(scan: IndexScanDesc, open: &OpenIndex) -> Scan {
    // SAFETY: the caller's.
    let query = unsafe {
        count_scan(scan);
        if (*scan).numberOfOrderBys < 1 || (*scan).orderByData.is_null() {
            SqlError::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "cannot scan usearch index without order")
                .raise()
        }
        // What was removed may be found again, under another row's vector, by a snapshot that sees what is newest.
        if (*(*scan).xs_snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC {
            SqlError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "non-MVCC snapshots are not supported with usearch",
            )
            .raise()
        }
        query(scan, open)
    };
    let options = ScanOptions {
        expansion: options::expansion_search().unwrap_or_else(|| open.options().segment.expansion_search),
        order: match options::iterative_scan() {
            IterativeScan::off => Order::Off,
            IterativeScan::strict_order => Order::Strict,
            IterativeScan::relaxed_order => Order::Relaxed,
        },
        max_tuples: options::max_scan_tuples(),
    };
    BITMAPS.with_borrow_mut(|bitmaps| {
        let bitmaps = bitmaps.entry(open.segments.index).or_default();
        open.or_raise(Scan::begin(&open.pages, &open.segments, bitmaps, &query, options))
    })
}

/// What rows are compared with; a vector of zeros for NULL, to which every distance is NULL.
///
/// # Safety
/// As for `first`.
unsafe fn query(scan: IndexScanDesc, open: &OpenIndex) -> Vec<u8> {
    let definition = open.definition();
    let format = open.or_raise(definition.shape.query_format());
    // SAFETY: the caller's; the argument is a value of the operator's right side, which is the column's type.
    let stored = unsafe {
        let key = (*scan).orderByData;
        if (*key).sk_flags & pg_sys::SK_ISNULL as i32 != 0 {
            return vec![0; format.vector_bytes()];
        }
        let mut stored = Vec::new();
        vector::store((*key).sk_argument, definition.kind, &format, &mut stored).map(|_| stored)
    };
    match stored {
        Ok(stored) => stored,
        Err(Refused::Dimensions(found)) => SqlError::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("different {} dimensions {} and {found}", definition.kind.name(), definition.shape.dim),
        )
        .raise(),
        Err(Refused::Malformed) => {
            SqlError::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, "the query is damaged or not finite").raise()
        }
    }
}

/// Counts a scan, as `pgstat_count_index_scan` does.
///
/// # Safety
/// As for `first`.
unsafe fn count_scan(scan: IndexScanDesc) {
    // SAFETY: the index is open; its counters are this process's.
    unsafe {
        let index = (*scan).indexRelation;
        if (*index).pgstat_info.is_null() && (*index).pgstat_enabled {
            pg_sys::pgstat_assoc_relation(index);
        }
        if let Some(status) = (*index).pgstat_info.as_mut() {
            status.counts.numscans += 1;
        }
        #[cfg(feature = "pg18")]
        if let Some(instrument) = (*scan).instrument.as_mut() {
            instrument.nsearches += 1;
        }
    }
}
