//! Options of an index (`WITH (…)`) and settings of a session (`usearch.*`).

use std::ffi::c_int;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrec_kernels::{Scalar, SegmentOptions};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::{self, Datum, Relation};
use pgrx::{PostgresGucEnum, pg_guard};

/// What `WITH (…)` says, as Postgres keeps it with the relation.
#[repr(C)]
struct Stored {
    size: i32,
    connectivity: c_int,
    expansion_add: c_int,
    expansion_search: c_int,
    scalar: c_int,
}

/// Options of one index.
#[derive(Debug, Clone, Copy)]
pub struct IndexOptions {
    /// How its graphs are woven, and how widely they are searched where the session does not say.
    pub segment: SegmentOptions,
    /// What numbers are stored as; None: as in the column.
    pub scalar: Option<Scalar>,
}

/// Published defaults of HNSW are 16 and 64 (pgvector) and 16 and 128 (usearch).
const DEFAULTS: SegmentOptions = SegmentOptions { connectivity: 16, expansion_add: 64, expansion_search: 64 };

/// Values of the option `scalar`, in the order of [`SCALARS`].
const SCALAR_NAMES: [&std::ffi::CStr; 5] = [c"auto", c"f32", c"f16", c"bf16", c"i8"];
const SCALARS: [Option<Scalar>; 5] = [None, Some(Scalar::F32), Some(Scalar::F16), Some(Scalar::BF16), Some(Scalar::I8)];

/// The kind of relation options that Postgres gave this library.
static KIND: AtomicU32 = AtomicU32::new(0);

/// Makes the options known; called once when the library is loaded.
pub fn register() {
    let lock = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
    let members: Vec<pg_sys::relopt_enum_elt_def> = SCALAR_NAMES
        .iter()
        .enumerate()
        .map(|(value, name)| pg_sys::relopt_enum_elt_def { string_val: name.as_ptr(), symbol_val: value as c_int })
        .chain([pg_sys::relopt_enum_elt_def { string_val: std::ptr::null(), symbol_val: 0 }])
        .collect();
    // SAFETY: called from _PG_init. Names and descriptions are static or copied; the members are kept as they are, so
    // they are leaked, once a process.
    unsafe {
        let kind = pg_sys::add_reloption_kind();
        KIND.store(kind, Ordering::Relaxed);
        let add = |name: &'static std::ffi::CStr, about: &'static std::ffi::CStr, default: usize, least, most| {
            pg_sys::add_int_reloption(kind, name.as_ptr(), about.as_ptr(), default as c_int, least, most, lock);
        };
        add(
            c"connectivity",
            c"Neighbours a vector keeps in each layer; twice as many in the lowest",
            DEFAULTS.connectivity,
            2,
            100,
        );
        add(c"expansion_add", c"Candidates kept while a vector is inserted", DEFAULTS.expansion_add, 4, 2_000);
        add(
            c"expansion_search",
            c"Candidates kept while searching, where the session does not say",
            DEFAULTS.expansion_search,
            1,
            2_000,
        );
        pg_sys::add_enum_reloption(
            kind,
            c"scalar".as_ptr(),
            c"What numbers are stored as".as_ptr(),
            members.leak().as_mut_ptr(),
            0,
            c"Valid values are \"auto\" (as in the column), \"f32\", \"f16\", \"bf16\" and \"i8\".".as_ptr(),
            lock,
        );
    }
}

/// Reads the text of `WITH (…)`.
#[pg_guard]
pub unsafe extern "C-unwind" fn parse(given: Datum, validate: bool) -> *mut pg_sys::bytea {
    let element = |name: &'static std::ffi::CStr, kind, offset: usize| {
        let mut element = pg_sys::relopt_parse_elt::default();
        (element.optname, element.opttype, element.offset) = (name.as_ptr(), kind, offset as c_int);
        element
    };
    let int = pg_sys::relopt_type::RELOPT_TYPE_INT;
    let elements = [
        element(c"connectivity", int, offset_of!(Stored, connectivity)),
        element(c"expansion_add", int, offset_of!(Stored, expansion_add)),
        element(c"expansion_search", int, offset_of!(Stored, expansion_search)),
        element(c"scalar", pg_sys::relopt_type::RELOPT_TYPE_ENUM, offset_of!(Stored, scalar)),
    ];
    // SAFETY: the elements describe `Stored`, whose size is given.
    unsafe {
        let kind = KIND.load(Ordering::Relaxed);
        pg_sys::build_reloptions(given, validate, kind, size_of::<Stored>(), elements.as_ptr(), elements.len() as c_int)
            .cast()
    }
}

impl IndexOptions {
    /// The options of an open index.
    ///
    /// # Safety
    /// The relation is an open index of this access method.
    pub unsafe fn of(index: Relation) -> Self {
        // SAFETY: the caller's; what is there was made by `parse`.
        let stored = unsafe { (*index).rd_options.cast::<Stored>().as_ref() };
        match stored {
            None => Self { segment: DEFAULTS, scalar: None },
            Some(stored) => Self {
                segment: SegmentOptions {
                    connectivity: stored.connectivity as usize,
                    expansion_add: stored.expansion_add as usize,
                    expansion_search: stored.expansion_search as usize,
                },
                scalar: SCALARS.get(stored.scalar as usize).copied().flatten(),
            },
        }
    }
}

/// What a scan does when more rows are wanted than its first search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names that SQL sees")]
pub enum IterativeScan {
    /// It ends.
    off,
    /// It goes on, and leaves out what is nearer than what it gave already.
    strict_order,
    /// It goes on, and may give rows a little late.
    relaxed_order,
}

static EXPANSION_SEARCH: GucSetting<i32> = GucSetting::<i32>::new(0);
static ITERATIVE_SCAN: GucSetting<IterativeScan> = GucSetting::<IterativeScan>::new(IterativeScan::strict_order);
static MAX_SCAN_TUPLES: GucSetting<i32> = GucSetting::<i32>::new(20_000);

/// Declares the settings; called once when the library is loaded.
pub fn define_settings() {
    GucRegistry::define_int_guc(
        c"usearch.expansion_search",
        c"Candidates kept while a usearch index is searched.",
        c"More find more of the true nearest, and take longer. 0: the index's own option expansion_search.",
        &EXPANSION_SEARCH,
        0,
        2_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"usearch.iterative_scan",
        c"What a scan of a usearch index does when more rows are wanted than its first search found.",
        c"strict_order and relaxed_order go on until the query has its LIMIT; relaxed_order may give rows a little late.",
        &ITERATIVE_SCAN,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usearch.max_scan_tuples",
        c"Rows after which a scan of a usearch index compares all that are left.",
        c"When a filter lets so few rows pass, an exact search is the faster one.",
        &MAX_SCAN_TUPLES,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// `usearch.expansion_search`, where the session says.
pub fn expansion_search() -> Option<usize> {
    usize::try_from(EXPANSION_SEARCH.get()).ok().filter(|&expansion| expansion > 0)
}

/// `usearch.iterative_scan`.
pub fn iterative_scan() -> IterativeScan {
    ITERATIVE_SCAN.get()
}

/// `usearch.max_scan_tuples`.
pub fn max_scan_tuples() -> usize {
    MAX_SCAN_TUPLES.get().max(1) as usize
}
