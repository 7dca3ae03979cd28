//! Read-only f32 tensors over shared bytes: a mapped artifact or an owned buffer.

use std::ops::Range;
use std::sync::Arc;

use crate::KernelError;

/// Bytes shared by reference count.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An immutable row-major f32 tensor. Cloning shares the memory.
#[derive(Clone)]
pub struct Tensor {
    bytes: Bytes,
    range: Range<usize>,
    shape: Vec<usize>,
}

struct Owned(Vec<f32>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// A view of `range` of `bytes` as f32s of the given shape. Fails when size or alignment is wrong.
    pub fn view(bytes: Bytes, range: Range<usize>, shape: Vec<usize>) -> Result<Self, KernelError> {
        let wrong = |bytes: usize| KernelError::Shape { shape: shape.clone(), bytes };
        let all = (*bytes).as_ref();
        let slice = all.get(range.clone()).ok_or_else(|| wrong(all.len()))?;
        let numbers = bytemuck::try_cast_slice::<u8, f32>(slice).map_err(|_| wrong(slice.len()))?;
        let wanted = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if wanted != Some(numbers.len()) {
            return Err(wrong(slice.len()));
        }
        Ok(Self { bytes, range, shape })
    }

    /// Takes ownership of numbers in memory.
    pub fn from_vec(values: Vec<f32>, shape: Vec<usize>) -> Result<Self, KernelError> {
        let range = 0..values.len() * size_of::<f32>();
        Self::view(Arc::new(Owned(values)), range, shape)
    }

    /// All numbers, row-major.
    pub fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&(*self.bytes).as_ref()[self.range.clone()])
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Length of the first axis (1 for a scalar).
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Product of the other axes.
    pub fn cols(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        let cols = self.cols();
        &self.as_slice()[index * cols..(index + 1) * cols]
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}
