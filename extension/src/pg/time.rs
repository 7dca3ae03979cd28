//! Times as Postgres counts them.

use pgrx::prelude::*;

/// Microseconds from 2000, where Postgres begins, in seconds from 1970.
const EPOCH: f64 = 946_684_800.0;

/// A time in Unix seconds; that of the transaction where none is given.
pub fn seconds(at: Option<TimestampWithTimeZone>) -> f64 {
    let at: pg_sys::TimestampTz = at.unwrap_or_else(now).into();
    at as f64 / 1e6 + EPOCH
}
