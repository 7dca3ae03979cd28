//! Columns that grow value by value, in memory or, beyond a bound, in files.

use std::marker::PhantomData;

use bytemuck::Pod;
use pgrec_kernels::Bytes;

use crate::{Error, Result};

/// A file that grows until it is mapped. What is in it need not outlive the process.
pub trait Spill {
    /// Writes `bytes` at its end.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Hands everything written so far to `change`, in pieces of a multiple of 8 bytes (the last may be shorter),
    /// and puts what it leaves in each piece in the piece's place.
    fn rewrite(&mut self, change: &mut dyn FnMut(&mut [u8])) -> Result<()>;

    /// All of it as memory, aligned to 8 bytes, without reading it in.
    fn map(self: Box<Self>) -> Result<Bytes>;
}

/// Makes files for columns that outgrow their memory.
pub type Spills = Box<dyn FnMut() -> Result<Box<dyn Spill>>>;

/// Bytes that a column with a file collects before it writes them.
const BUFFER: usize = 64 << 10;

/// A column under construction.
pub(super) struct Column<T> {
    /// All values, or those that are not in the file yet.
    tail: Vec<T>,
    file: Option<Box<dyn Spill>>,
    len: usize,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { tail: Vec::new(), file: None, len: 0 }
    }
}

impl<T: Pod> Column<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it takes in memory.
    pub(super) fn resident(&self) -> usize {
        size_of_val(self.tail.as_slice())
    }

    pub(super) fn push(&mut self, value: T) -> Result<()> {
        self.tail.push(value);
        self.len += 1;
        if self.file.is_some() && self.resident() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Moves what it has, and what will come, into a file.
    pub(super) fn spill(&mut self, file: Box<dyn Spill>) -> Result<()> {
        self.file = Some(file);
        self.flush()?;
        self.tail = Vec::new();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.append(bytemuck::cast_slice(&self.tail))?;
            self.tail.clear();
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Stored<T>> {
        self.flush()?;
        match self.file {
            Some(file) if self.len > 0 => Stored::mapped(file.map()?),
            _ => Ok(Stored::Own(self.tail)),
        }
    }
}

impl Column<u32> {
    /// Puts `names[value]` in the place of each value. All values are below the number of names.
    pub(super) fn rename(&mut self, names: &[u32]) -> Result<()> {
        self.flush()?;
        self.tail.iter_mut().for_each(|value| *value = names[*value as usize]);
        let Some(file) = &mut self.file else { return Ok(()) };
        file.rewrite(&mut |piece| {
            for value in piece.as_chunks_mut().0 {
                *value = names[u32::from_ne_bytes(*value) as usize].to_ne_bytes();
            }
        })
    }
}

/// A finished column.
pub(super) enum Stored<T> {
    Own(Vec<T>),
    /// Checked to be whole values in their alignment.
    Mapped(Bytes, PhantomData<T>),
}

impl<T> Default for Stored<T> {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl<T: Pod> Stored<T> {
    fn mapped(bytes: Bytes) -> Result<Self> {
        match bytemuck::try_cast_slice::<u8, T>((*bytes).as_ref()) {
            Ok(_) => Ok(Self::Mapped(bytes, PhantomData)),
            Err(e) => Err(Error::Malformed(format!("a spilled column cannot be read: {e}"))),
        }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::Own(values) => values,
            Self::Mapped(bytes, _) => bytemuck::cast_slice((**bytes).as_ref()),
        }
    }

    /// Bytes that it takes in memory of its own.
    pub(super) fn resident(&self) -> usize {
        match self {
            Self::Own(values) => size_of_val(values.as_slice()),
            Self::Mapped(..) => 0,
        }
    }
}
