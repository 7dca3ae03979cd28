//! Binary input of types: what a client has sent.

use pgrx::{Internal, pg_sys};

/// All that is left of the message that a receive function is given.
pub fn rest(message: Internal) -> Vec<u8> {
    let Some(datum) = message.unwrap() else { return Vec::new() };
    // SAFETY: the argument of a receive function is a StringInfo; pq_getmsgbytes gives as many bytes as it is asked for,
    // which are no more than there are, and moves the cursor behind them.
    unsafe {
        let buffer = datum.cast_mut_ptr::<pg_sys::StringInfoData>();
        let length = (*buffer).len - (*buffer).cursor;
        let bytes = pg_sys::pq_getmsgbytes(buffer, length);
        std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(length).unwrap_or(0)).to_vec()
    }
}
