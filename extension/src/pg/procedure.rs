//! Procedures that commit between their phases.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::error::{Result, SqlError};

/// Refuses a transaction block: the caller commits between phases so that others see its progress and vacuum
/// is not held back.
pub fn require_top_level(fcinfo: pg_sys::FunctionCallInfo, what: &str) -> Result<()> {
    // SAFETY: the function manager passes a valid fcinfo; for CALL its context is a CallContext node.
    let atomic = unsafe {
        let context = (*fcinfo).context;
        context.is_null()
            || (*context).type_ != pg_sys::NodeTag::T_CallContext
            || (*context.cast::<pg_sys::CallContext>()).atomic
    };
    if atomic {
        return Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            format!("{what} cannot run inside a transaction block or a function"),
        )
        .detail("It commits between its phases, so that other sessions see its progress and vacuum is not held back.")
        .hint("Run the CALL on its own, outside BEGIN … COMMIT."));
    }
    Ok(())
}

/// Runs `work` in a subtransaction. When it fails, by `Err` or by an ERROR of Postgres, everything it wrote is
/// undone and the error comes back as a value, so that the caller can record the reason before raising it.
pub fn in_subtransaction<T>(work: impl FnOnce() -> Result<T> + std::panic::UnwindSafe) -> Result<T> {
    // SAFETY: the pattern of PL/pgSQL's exception blocks: remember context and owner, begin, then release or
    // roll back, then restore both.
    let (context, owner) = unsafe {
        let state = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(state.0);
        state
    };
    let outcome = pgrx::PgTryBuilder::new(|| work().map_err(Failure::Own))
        .catch_others(|error| Err(Failure::Caught(Box::new(error))))
        .catch_rust_panic(|error| Err(Failure::Caught(Box::new(error))))
        .execute();
    // SAFETY: as above; the subtransaction is the innermost one, since every nested one has ended.
    unsafe {
        match &outcome {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    outcome.map_err(SqlError::from)
}

/// Why work failed.
pub(super) enum Failure {
    /// It says so itself.
    Own(SqlError),
    /// An ERROR of Postgres, or a panic.
    Caught(Box<CaughtError>),
}

/// An ERROR of Postgres as a value.
pub(super) fn describe(error: CaughtError) -> SqlError {
    let report = match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    };
    let mut described = SqlError::new(report.sql_error_code(), report.message().to_owned());
    if let Some(detail) = report.detail() {
        described = described.detail(detail.to_owned());
    }
    if let Some(hint) = report.hint() {
        described = described.hint(hint.to_owned());
    }
    described
}
