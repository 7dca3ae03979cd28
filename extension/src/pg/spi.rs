//! SQL from inside the server.
//!
//! pgrx' own `Spi` drops read-only mode as soon as the transaction has an xid. A STABLE function must then not
//! run CommandCounterIncrement, and an event inserted one line earlier is exactly that case, so the mode is
//! explicit here. Plans are kept per backend, keyed by their text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};
use pgrx::{FromDatum, IntoDatum};

use crate::error::{Result, SqlError};

/// Whether a statement runs under the caller's snapshot and may not write, or under a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The snapshot of the calling query; for everything behind a STABLE function.
    Read,
    /// A fresh snapshot that sees this function's own writes.
    Write,
}

/// A statement's argument.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// bigint
    Int8(i64),
    /// integer
    Int4(i32),
    /// text
    Text(&'a str),
    /// bytea
    Bytea(&'a [u8]),
    /// bigint[]
    Int8s(&'a [i64]),
    /// text[]; for uuids, cast in the statement
    Texts(&'a [String]),
    /// oid
    Oid(Oid),
}

impl Arg<'_> {
    fn type_oid(&self) -> Oid {
        match self {
            Arg::Int8(_) => pg_sys::INT8OID,
            Arg::Int4(_) => pg_sys::INT4OID,
            Arg::Text(_) => pg_sys::TEXTOID,
            Arg::Bytea(_) => pg_sys::BYTEAOID,
            Arg::Int8s(_) => pg_sys::INT8ARRAYOID,
            Arg::Texts(_) => pg_sys::TEXTARRAYOID,
            Arg::Oid(_) => pg_sys::OIDOID,
        }
    }

    fn datum(&self) -> Option<pg_sys::Datum> {
        match *self {
            Arg::Int8(v) => v.into_datum(),
            Arg::Int4(v) => v.into_datum(),
            Arg::Text(v) => v.into_datum(),
            Arg::Bytea(v) => v.into_datum(),
            Arg::Int8s(v) => v.to_vec().into_datum(),
            Arg::Texts(v) => v.to_vec().into_datum(),
            Arg::Oid(v) => v.into_datum(),
        }
    }
}

/// One result row, valid inside the closure that receives it.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
}

impl Row {
    /// Column `index` (from 0), or None for NULL.
    pub fn get<T: FromDatum>(&self, index: usize) -> Option<T> {
        let mut null = false;
        // SAFETY: tuple and desc come from the SPI_tuptable that the callers of this closure hold alive;
        // SPI_getbinval checks the column number and reports a wrong one as NULL.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.desc, index as i32 + 1, &mut null);
            T::from_datum(datum, null)
        }
    }

    /// A column that the catalogue declares NOT NULL.
    pub fn need<T: FromDatum>(&self, index: usize) -> Result<T> {
        self.get(index).ok_or_else(|| SqlError::corrupted(format!("column {} of an internal query is NULL", index + 1)))
    }
}

thread_local! {
    static PLANS: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// An SPI connection for one call. Not closed while a panic unwinds: the transaction's end does that.
struct Connection;

impl Connection {
    fn open(nonatomic: bool) -> Self {
        let options = if nonatomic { pg_sys::SPI_OPT_NONATOMIC as i32 } else { 0 };
        // SAFETY: plain call; it cannot fail but by ERROR, which pgrx turns into a panic.
        unsafe { pg_sys::SPI_connect_ext(options) };
        Self
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `open` has connected, and connections nest as these values do.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

fn plan(sql: &str, args: &[Arg<'_>]) -> Result<pg_sys::SPIPlanPtr> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(sql).copied()) {
        return Ok(plan);
    }
    let text = CString::new(sql).map_err(|_| SqlError::parameter("a name contains a zero byte"))?;
    let mut types: Vec<Oid> = args.iter().map(Arg::type_oid).collect();
    // SAFETY: an SPI connection is open; text and types outlive the call, which copies both. SPI_keepplan moves
    // the plan out of the connection's memory, so the pointer stays valid for the life of the backend.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_mut_ptr());
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            let code = pg_sys::SPI_result;
            return Err(SqlError::corrupted(format!("cannot prepare an internal query: code {code}")));
        }
        plan
    };
    PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan));
    Ok(plan)
}

/// Runs a statement and maps its rows. `sql` is the plan's key: put values into `args`, never into the text.
pub fn query<T>(mode: Mode, sql: &str, args: &[Arg<'_>], mut each: impl FnMut(&Row) -> Result<T>) -> Result<Vec<T>> {
    let _connection = Connection::open(false);
    let plan = plan(sql, args)?;
    let (mut datums, nulls) = datums(args);
    // SAFETY: the plan was prepared for exactly these argument types; datums and nulls have its length.
    let code = unsafe {
        pg_sys::SPI_execute_plan(plan, datums.as_mut_ptr(), nulls.as_ptr(), mode == Mode::Read, 0)
    };
    if code < 0 {
        return Err(SqlError::corrupted(format!("an internal query failed: code {code}")));
    }
    rows(&mut each)
}

/// Runs a statement that is not worth keeping a plan for (DDL), under a fresh snapshot.
pub fn run(sql: &str) -> Result<()> {
    let _connection = Connection::open(false);
    let text = CString::new(sql).map_err(|_| SqlError::parameter("a name contains a zero byte"))?;
    // SAFETY: text outlives the call.
    let code = unsafe { pg_sys::SPI_execute(text.as_ptr(), false, 0) };
    if code < 0 { Err(SqlError::corrupted(format!("an internal statement failed: code {code}"))) } else { Ok(()) }
}

/// The first row, if any.
pub fn first<T>(mode: Mode, sql: &str, args: &[Arg<'_>], each: impl FnMut(&Row) -> Result<T>) -> Result<Option<T>> {
    Ok(query(mode, sql, args, each)?.into_iter().next())
}

/// Runs a statement for its effect and gives the number of rows.
pub fn execute(sql: &str, args: &[Arg<'_>]) -> Result<u64> {
    query(Mode::Write, sql, args, |_| Ok(()))?;
    // SAFETY: reads a global that the call above has set.
    Ok(unsafe { pg_sys::SPI_processed })
}

/// Streams a large result through a cursor, `batch` rows at a time, so that memory stays bounded.
pub fn stream(mode: Mode, sql: &str, args: &[Arg<'_>], batch: i64, mut each: impl FnMut(&Row) -> Result<()>) -> Result<()> {
    let _connection = Connection::open(false);
    let plan = plan(sql, args)?;
    let (mut datums, nulls) = datums(args);
    // SAFETY: as in `query`; the portal is closed below, or by the transaction's end when an ERROR passes.
    let portal = unsafe {
        pg_sys::SPI_cursor_open(std::ptr::null(), plan, datums.as_mut_ptr(), nulls.as_ptr(), mode == Mode::Read)
    };
    // What a row's values are detoasted into; emptied after every fetch.
    let mut scratch = pgrx::PgMemoryContexts::new("pgrec stream");
    loop {
        // SAFETY: the portal is open; SPI_freetuptable frees what this fetch returned before the next one.
        unsafe { pg_sys::SPI_cursor_fetch(portal, true, batch) };
        // SAFETY: the closures keep nothing that was allocated in the context beyond their own call.
        let fetched = unsafe { scratch.switch_to(|_| rows(&mut each)) }?.len();
        // SAFETY: as above.
        unsafe { scratch.reset() };
        // SAFETY: SPI_tuptable is the table of the fetch above.
        unsafe { pg_sys::SPI_freetuptable(pg_sys::SPI_tuptable) };
        if fetched == 0 {
            break;
        }
    }
    // SAFETY: opened above, not closed since.
    unsafe { pg_sys::SPI_cursor_close(portal) };
    Ok(())
}

/// Ends the transaction of a procedure that may do so, and starts the next.
pub fn commit() {
    let _connection = Connection::open(true);
    // SAFETY: the caller is a procedure in a non-atomic context (checked by `procedure::require_top_level`).
    unsafe { pg_sys::SPI_commit() };
}

fn datums(args: &[Arg<'_>]) -> (Vec<pg_sys::Datum>, Vec<std::ffi::c_char>) {
    args.iter()
        .map(|arg| match arg.datum() {
            Some(datum) => (datum, b' ' as std::ffi::c_char),
            None => (pg_sys::Datum::from(0usize), b'n' as std::ffi::c_char),
        })
        .unzip()
}

fn rows<T>(each: &mut impl FnMut(&Row) -> Result<T>) -> Result<Vec<T>> {
    // SAFETY: SPI has just run; SPI_tuptable is null or a table with `numvals` valid tuples, alive until the
    // connection closes or the table is freed, both after the closures have run.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if table.is_null() {
            return Ok(Vec::new());
        }
        let count = (*table).numvals as usize;
        let mut result = Vec::with_capacity(count);
        for index in 0..count {
            let row = Row { tuple: *(*table).vals.add(index), desc: (*table).tupdesc };
            result.push(each(&row)?);
        }
        Ok(result)
    }
}
