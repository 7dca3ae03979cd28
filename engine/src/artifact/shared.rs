//! Typed slices of shared bytes.

use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;
use pgrec_kernels::Bytes;

use crate::{Error, Result};

/// A read-only slice of `T` inside shared bytes; it keeps them alive and costs no memory of its own.
pub struct Shared<T> {
    bytes: Bytes,
    range: Range<usize>,
    of: PhantomData<fn() -> T>,
}

impl<T: Pod> Shared<T> {
    /// A view of `range` of `bytes`. `name` is what an error calls it.
    pub(crate) fn new(bytes: &Bytes, range: Range<usize>, name: &str) -> Result<Self> {
        (**bytes)
            .as_ref()
            .get(range.clone())
            .and_then(|slice| bytemuck::try_cast_slice::<u8, T>(slice).ok())
            .ok_or_else(|| {
                Error::Malformed(format!("tensor \"{name}\" is misaligned or does not hold whole numbers"))
            })?;
        Ok(Self { bytes: Arc::clone(bytes), range, of: PhantomData })
    }
}

impl<T: Pod> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&(*self.bytes).as_ref()[self.range.clone()])
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), range: self.range.clone(), of: PhantomData }
    }
}

impl AsRef<[u8]> for Shared<u8> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Pod> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared[{}]", self.len())
    }
}

/// Bytes in memory aligned for every number an artifact holds, which a `Vec<u8>` need not be.
struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// Copies bytes into an aligned buffer.
pub(crate) fn aligned(bytes: &[u8]) -> Bytes {
    let mut words = vec![0u64; bytes.len().div_ceil(size_of::<u64>())];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    Arc::new(Aligned { words, len: bytes.len() })
}
