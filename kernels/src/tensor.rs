//! f32 tensors: views of shared bytes (a mapped artifact), or memory of their own.

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::KernelError;

/// Bytes shared by reference count.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A row-major f32 tensor. Cloning shares the memory; [`Tensor::to_mut`] copies what is shared.
#[derive(Clone)]
pub struct Tensor {
    storage: Storage,
    shape: Vec<usize>,
}

#[derive(Clone)]
enum Storage {
    View(Bytes, Range<usize>),
    Own(Arc<Aligned>),
}

/// One cache line: vector loads that stay within a line are twice as fast as those that do not.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers that begin at a cache line.
#[derive(Clone)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    fn new(values: &[f32]) -> Self {
        let mut own = Self { lines: vec![Line([0.0; 16]); values.len().div_ceil(16)], len: values.len() };
        own.as_mut_slice().copy_from_slice(values);
        own
    }

    fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Tensor {
    /// A view of `range` of `bytes` as f32s of the given shape. Fails when size or alignment is wrong.
    pub fn view(bytes: Bytes, range: Range<usize>, shape: Vec<usize>) -> Result<Self, KernelError> {
        let wrong = |bytes: usize| KernelError::Shape { shape: shape.clone(), bytes };
        let all = (*bytes).as_ref();
        let slice = all.get(range.clone()).ok_or_else(|| wrong(all.len()))?;
        let numbers = bytemuck::try_cast_slice::<u8, f32>(slice).map_err(|_| wrong(slice.len()))?;
        if product(&shape) != Some(numbers.len()) {
            return Err(wrong(slice.len()));
        }
        Ok(Self { storage: Storage::View(bytes, range), shape })
    }

    /// A copy of numbers in memory.
    pub fn from_vec(values: Vec<f32>, shape: Vec<usize>) -> Result<Self, KernelError> {
        if product(&shape) != Some(values.len()) {
            return Err(KernelError::Shape { shape, bytes: size_of_val(&values[..]) });
        }
        Ok(Self { storage: Storage::Own(Arc::new(Aligned::new(&values))), shape })
    }

    /// All numbers, row-major.
    pub fn as_slice(&self) -> &[f32] {
        match &self.storage {
            Storage::View(bytes, range) => bytemuck::cast_slice(&(**bytes).as_ref()[range.clone()]),
            Storage::Own(own) => own.as_slice(),
        }
    }

    /// All numbers, to change. Memory that another tensor or file shares is copied first.
    pub fn to_mut(&mut self) -> &mut [f32] {
        if let Storage::View(..) = self.storage {
            self.storage = Storage::Own(Arc::new(Aligned::new(self.as_slice())));
        }
        match &mut self.storage {
            Storage::Own(own) => Arc::make_mut(own).as_mut_slice(),
            Storage::View(..) => unreachable!("made its own above"),
        }
    }

    /// Tells, without keeping it, whether the memory is still there and unchanged.
    pub(crate) fn watch(&self) -> Watch {
        match &self.storage {
            Storage::View(bytes, _) => Watch::View(Arc::downgrade(bytes)),
            Storage::Own(own) => Watch::Own(Arc::downgrade(own)),
        }
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

/// Whether the memory of a tensor is still there. Who changes a tensor that is watched is given other memory.
pub(crate) enum Watch {
    View(Weak<dyn AsRef<[u8]> + Send + Sync>),
    Own(Weak<Aligned>),
}

impl Watch {
    pub(crate) fn lives(&self) -> bool {
        match self {
            Self::View(bytes) => bytes.strong_count() > 0,
            Self::Own(own) => own.strong_count() > 0,
        }
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_numbers_when_the_original_changes() {
        let bytes: Bytes = Arc::new(bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0, 3.0, 4.0]).to_vec());
        let Ok(mut view) = Tensor::view(bytes, 0..16, vec![2, 2]) else { return };
        let kept = view.clone();
        view.to_mut()[0] = 9.0;
        let again = view.clone();
        view.to_mut()[1] = 8.0;
        assert_eq!(
            (kept.as_slice()[0], again.as_slice(), view.row(0)),
            (1.0, &[9.0, 2.0, 3.0, 4.0][..], &[9.0, 8.0][..])
        );
        assert_eq!(view.as_slice().as_ptr() as usize % 64, 0);
        assert!(Tensor::from_vec(vec![1.0], vec![2]).is_err());
    }
}
