//! The access method `usearch`, as Postgres calls it: what it can do, and one file for each thing it does.

mod build;
mod cost;
mod definition;
mod insert;
mod merge;
mod open;
mod options;
mod scan;
mod stats;
mod vacuum;

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Datum, Oid};

pub use merge::merge_in_background;
pub use options::{define_settings, register as register_options};
pub use stats::{Sizes, sizes};

/// The handler: `CREATE ACCESS METHOD usearch TYPE INDEX HANDLER usearch_handler`.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgrec_usearch_handler(_info: pg_sys::FunctionCallInfo) -> Datum {
    let routine = pg_sys::IndexAmRoutine {
        type_: pg_sys::NodeTag::T_IndexAmRoutine,
        amstrategies: 0,
        amsupport: definition::SUPPORT_FUNCTIONS,
        amcanorderbyop: true,
        amoptionalkey: true,
        amusemaintenanceworkmem: true,
        amparallelvacuumoptions: pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL as u8,
        ambuild: Some(build::build),
        ambuildempty: Some(build::build_empty),
        aminsert: Some(insert::insert),
        ambulkdelete: Some(vacuum::bulk_delete),
        amvacuumcleanup: Some(vacuum::cleanup),
        amcostestimate: Some(cost::estimate),
        amoptions: Some(options::parse),
        ambuildphasename: Some(phase_name),
        amvalidate: Some(validate),
        ambeginscan: Some(scan::begin),
        amrescan: Some(scan::rescan),
        amgettuple: Some(scan::next),
        amendscan: Some(scan::end),
        ..Default::default()
    };
    // SAFETY: a node in the caller's memory context, of the size of its type.
    unsafe {
        let place = pg_sys::palloc0(size_of::<pg_sys::IndexAmRoutine>()).cast::<pg_sys::IndexAmRoutine>();
        place.write(routine);
        Datum::from(place)
    }
}

/// Version-1 calling convention of a C function.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pgrec_usearch_handler() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Names of the phases that `pg_stat_progress_create_index` shows.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn phase_name(phase: i64) -> *mut c_char {
    let name: &CStr = match build::Phase::from_number(phase) {
        Some(phase) => phase.name(),
        None => return std::ptr::null_mut(),
    };
    name.as_ptr().cast_mut()
}

/// Whether an operator class is one: an operator to order by, and the function that says what it means.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn validate(class: Oid) -> bool {
    definition::Meaning::of_class(class).is_some()
}
