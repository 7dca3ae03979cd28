//! Files mapped read-only, shared by every backend through the page cache.

use std::fs::File;
use std::io;
use std::sync::Arc;

use memmap2::Mmap;
use pgrec_kernels::Bytes;

/// Maps a whole file.
pub fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: temporary files have no name, so that only this process reaches them, and are not written any more once
    // they are mapped (their handle is consumed by it). Cache files are written under a temporary name, then renamed, and never written again or truncated
    // by this extension; they are removed only by unlink, which leaves existing mappings whole. Someone with the
    // server's own file rights who truncates one can crash a backend, as with any file of the data directory.
    let map = unsafe { Mmap::map(file)? };
    Ok(Arc::new(map))
}
