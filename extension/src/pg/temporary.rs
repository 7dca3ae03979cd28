//! Where this session's temporary files belong, and how large they may grow.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pgrx::pg_sys::{self, Oid};

/// Begins the name of every file that the server removes when it starts and finds it left over.
pub const PREFIX: &str = "pgsql_tmp";

/// The folder for the next temporary file by `temp_tablespaces`, relative to the data directory. It may not exist.
pub fn directory() -> PathBuf {
    let mut path = [0; pg_sys::MAXPGPATH as usize];
    // SAFETY: inside a transaction, as PrepareTempTablespaces wants it; TempTablespacePath writes a C string of at
    // most MAXPGPATH bytes. The choice is that of OpenTemporaryFile.
    unsafe {
        pg_sys::PrepareTempTablespaces();
        let chosen = pg_sys::GetNextTempTableSpace();
        let tablespace = if chosen == Oid::INVALID { pg_sys::MyDatabaseTableSpace } else { chosen };
        pg_sys::TempTablespacePath(path.as_mut_ptr(), tablespace);
        PathBuf::from(OsStr::from_bytes(CStr::from_ptr(path.as_ptr()).to_bytes()))
    }
}

/// `temp_file_limit` in bytes, `None` when there is none.
pub fn limit() -> Option<u64> {
    // SAFETY: reads a setting.
    let kilobytes = unsafe { pg_sys::temp_file_limit };
    u64::try_from(kilobytes).ok().map(|kilobytes| kilobytes << 10)
}
