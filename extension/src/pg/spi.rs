//! SQL from inside the server.
//!
//! pgrx' own `Spi` drops read-only mode as soon as the transaction has an xid. A STABLE function must then not
//! run CommandCounterIncrement, and an event inserted one line earlier is exactly that case, so the mode is
//! explicit here. Plans are kept per backend, keyed by their text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

use pgrx::IntoDatum;
use pgrx::pg_sys::{self, Oid};

pub use super::receiver::Row;
use super::receiver::{Collector, Receiver};
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
    /// real[]; for a vector, cast in the statement
    Float4s(&'a [f32]),
    /// integer[]
    Int4s(&'a [i32]),
    /// oid
    Oid(Oid),
    /// bigint or NULL
    MaybeInt8(Option<i64>),
    /// double precision or NULL
    MaybeFloat8(Option<f64>),
    /// text or NULL
    MaybeText(Option<&'a str>),
}

impl Arg<'_> {
    fn type_oid(&self) -> Oid {
        match self {
            Arg::Int8(_) | Arg::MaybeInt8(_) => pg_sys::INT8OID,
            Arg::MaybeFloat8(_) => pg_sys::FLOAT8OID,
            Arg::Int4(_) => pg_sys::INT4OID,
            Arg::Text(_) | Arg::MaybeText(_) => pg_sys::TEXTOID,
            Arg::Bytea(_) => pg_sys::BYTEAOID,
            Arg::Int8s(_) => pg_sys::INT8ARRAYOID,
            Arg::Texts(_) => pg_sys::TEXTARRAYOID,
            Arg::Float4s(_) => pg_sys::FLOAT4ARRAYOID,
            Arg::Int4s(_) => pg_sys::INT4ARRAYOID,
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
            Arg::Float4s(v) => v.to_vec().into_datum(),
            Arg::Int4s(v) => v.to_vec().into_datum(),
            Arg::Oid(v) => v.into_datum(),
            Arg::MaybeInt8(v) => v.into_datum(),
            Arg::MaybeFloat8(v) => v.into_datum(),
            Arg::MaybeText(v) => v.into_datum(),
        }
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
    // One plan for all arguments: what these statements look for has an index or reads everything, and the first
    // calls of a session are not slowed by planning each of them anew.
    let options = (pg_sys::CURSOR_OPT_GENERIC_PLAN | pg_sys::CURSOR_OPT_PARALLEL_OK) as i32;
    // SAFETY: an SPI connection is open; text and types outlive the call, which copies both. SPI_keepplan moves
    // the plan out of the connection's memory, so the pointer stays valid for the life of the backend.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), options);
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            let code = pg_sys::SPI_result;
            return Err(SqlError::corrupted(format!("cannot prepare an internal query: code {code}")));
        }
        plan
    };
    PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan));
    Ok(plan)
}

/// Runs a statement and hands its rows to `each` as they come; gives the number of rows processed. Memory does
/// not grow with the rows. `sql` is the plan's key: put values into `args`, never into the text.
pub fn each(mode: Mode, sql: &str, args: &[Arg<'_>], mut each: impl FnMut(&Row) -> Result<()>) -> Result<u64> {
    let _connection = Connection::open(false);
    let mut receiver = Receiver::new(&mut each);
    let outcome = execute_into(mode, sql, args, receiver.as_dest());
    receiver.outcome()?;
    outcome
}

/// The first column, a bigint, of every row of a statement.
pub fn bigints(mode: Mode, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Option<i64>>> {
    let _connection = Connection::open(false);
    let mut collector = Collector::new();
    execute_into(mode, sql, args, collector.as_dest())?;
    Ok(collector.into_values())
}

/// Runs a statement in the open connection; `dest` belongs to the caller and outlives the call.
fn execute_into(mode: Mode, sql: &str, args: &[Arg<'_>], dest: *mut pg_sys::DestReceiver) -> Result<u64> {
    let plan = plan(sql, args)?;
    let options = pg_sys::SPIExecuteOptions {
        params: parameters(args),
        read_only: mode == Mode::Read,
        dest,
        ..Default::default()
    };
    // SAFETY: the plan was prepared for exactly these argument types; parameters and receiver outlive the call.
    let code = unsafe { pg_sys::SPI_execute_plan_extended(plan, &options) };
    if code < 0 {
        return Err(SqlError::corrupted(format!("an internal query failed: code {code}")));
    }
    // SAFETY: reads a global that the call above has set.
    Ok(unsafe { pg_sys::SPI_processed })
}

/// Runs a statement and maps its rows.
pub fn query<T>(mode: Mode, sql: &str, args: &[Arg<'_>], mut map: impl FnMut(&Row) -> Result<T>) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    each(mode, sql, args, |row| {
        rows.push(map(row)?);
        Ok(())
    })?;
    Ok(rows)
}

/// The same with a plan of its own for these arguments, which is not kept: for statements whose best plan depends on how
/// much they find.
pub fn each_planned(mode: Mode, sql: &str, args: &[Arg<'_>], mut each: impl FnMut(&Row) -> Result<()>) -> Result<u64> {
    let _connection = Connection::open(false);
    let text = CString::new(sql).map_err(|_| SqlError::parameter("a name contains a zero byte"))?;
    let mut receiver = Receiver::new(&mut each);
    let options = pg_sys::SPIExecuteOptions {
        params: parameters(args),
        read_only: mode == Mode::Read,
        dest: receiver.as_dest(),
        ..Default::default()
    };
    // SAFETY: text, parameters and receiver outlive the call.
    let code = unsafe { pg_sys::SPI_execute_extended(text.as_ptr(), &options) };
    receiver.outcome()?;
    if code < 0 {
        return Err(SqlError::corrupted(format!("an internal query failed: code {code}")));
    }
    // SAFETY: reads a global that the call above has set.
    Ok(unsafe { pg_sys::SPI_processed })
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
    each(Mode::Write, sql, args, |_| Ok(()))
}

/// Ends the transaction of a procedure that may do so, and starts the next.
pub fn commit() {
    let _connection = Connection::open(true);
    // SAFETY: the caller is a procedure in a non-atomic context (checked by `procedure::require_top_level`).
    unsafe { pg_sys::SPI_commit() };
}

fn parameters(args: &[Arg<'_>]) -> pg_sys::ParamListInfo {
    if args.is_empty() {
        return std::ptr::null_mut();
    }
    // SAFETY: makeParamList allocates room for as many parameters as it is told, in the SPI connection's memory.
    unsafe {
        let list = pg_sys::makeParamList(args.len() as i32);
        let slots = (*list).params.as_mut_ptr();
        for (index, arg) in args.iter().enumerate() {
            let datum = arg.datum();
            *slots.add(index) = pg_sys::ParamExternData {
                isnull: datum.is_none(),
                value: datum.unwrap_or(pg_sys::Datum::from(0usize)),
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: arg.type_oid(),
            };
        }
        list
    }
}
