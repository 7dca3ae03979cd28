//! Values of enum types.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

/// The label of an enum value, which travels as its oid.
pub fn label(value: Oid) -> String {
    // SAFETY: enum_out looks the value up, raises an ERROR where there is none, and gives a palloc'd C string.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::F_ENUM_OUT.into(), Datum::from(value));
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
