//! Temporary files for what does not fit into memory. They have no name: the system frees them with the process
//! that uses them, however it ends.

use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use pgrec_engine::corpus::{Spill, Spills};
use pgrec_engine::{Error, Result};
use pgrec_kernels::Bytes;

use super::mapping;
use crate::pg::{interrupt, temporary};

/// Files in the session's temporary tablespaces which together stay within `temp_file_limit`.
pub fn files() -> Spills {
    let written = Rc::new(Cell::new(0));
    let mut made = 0;
    Box::new(move || {
        made += 1;
        let file = create(&temporary::directory(), made).map_err(|e| failed("create", &e))?;
        Ok(Box::new(Temporary { file, length: 0, written: Rc::clone(&written) }))
    })
}

/// Creates a file that only its handle knows.
fn create(folder: &Path, number: usize) -> io::Result<File> {
    let path = folder.join(format!("{}_pgrec_{}.{number}", temporary::PREFIX, std::process::id()));
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
    let file = match open() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            open()?
        }
        outcome => outcome?,
    };
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn failed(what: &str, e: &io::Error) -> Error {
    Error::File(format!("cannot {what} a temporary file: {e}"))
}

/// Bytes read and written back at a time.
const PIECE: usize = 1 << 20;

struct Temporary {
    file: File,
    length: u64,
    /// What all files of one reading have been given.
    written: Rc<Cell<u64>>,
}

impl Spill for Temporary {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        interrupt::check();
        self.length += bytes.len() as u64;
        self.written.set(self.written.get() + bytes.len() as u64);
        if let Some(limit) = temporary::limit().filter(|&limit| self.written.get() > limit) {
            let kilobytes = limit >> 10;
            return Err(Error::Memory(format!(
                "out of training memory, and its temporary files exceed temp_file_limit ({kilobytes} kB)"
            )));
        }
        self.file.write_all(bytes).map_err(|e| failed("write", &e))
    }

    fn rewrite(&mut self, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.length {
            interrupt::check();
            let piece = &mut piece[..PIECE.min((self.length - at) as usize)];
            self.file.read_exact_at(piece, at).map_err(|e| failed("read", &e))?;
            change(piece);
            self.file.write_all_at(piece, at).map_err(|e| failed("write", &e))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn map(self: Box<Self>) -> Result<Bytes> {
        mapping::map(&self.file).map_err(|e| failed("map", &e))
    }
}
