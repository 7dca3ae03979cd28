//! The CUDA backend: kernels of `kernels/cuda`, compiled at run time for the device at hand.
//!
//! [`Cuda`] implements the operators over a driver: the CUDA driver, or in tests an emulator that runs the same
//! kernels as C++. An operator that fails gives a matrix of nothing, and what is downloaded next gives the error: calls
//! of a device do not wait for what they start.

mod attention;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod attention_tests;
mod compile;
mod deferred;
mod driver;
#[cfg(any(test, feature = "emulator"))]
#[allow(clippy::unwrap_used)]
mod emulated;
mod error;
mod gpu;
mod graph;
mod linear;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod linear_tests;
mod matrix;
mod operators;
mod program;
mod report;
mod resident;
mod rows;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod top_k;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod top_k_tests;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::CudaError;
pub use gpu::{CudaDevice, cuda_devices};
pub use matrix::Matrix;
pub use report::{Resources, cuda_resources};

use deferred::Deferred;
use driver::{Bf16Matrix, Buffer, Driver, Grid, Panels};
use gpu::Gpu;
use program::{Program, Source};
use resident::{Batch, Weights};

use crate::time::bucket_begins;
use crate::{Sequences, Tensor};

/// What matrices on a device are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 throughout: the numbers of the CPU but for the order of additions.
    F32,
    /// bf16 between operators and in products on tensor cores, sums in f32: three significant digits.
    Bf16,
}

impl Precision {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Blocks a multiprocessor of kernels that take about as long as it takes to start them.
const SMALL: u32 = 2;
/// The same of a whole device in tests, where some kernels have to be small and some not.
#[cfg(any(test, feature = "emulator"))]
const TESTED_SMALL: u32 = 8;
/// [`linear::MANY_ROWS`] of tests, for which some batches have to be large and some not.
#[cfg(any(test, feature = "emulator"))]
const TESTED_MANY_ROWS: usize = 64;

/// A CUDA device. Calls of one are made one after the other.
pub struct Cuda {
    driver: Arc<dyn Driver>,
    precision: Precision,
    weights: Mutex<Weights>,
    batch: Mutex<Option<Arc<Batch>>>,
    /// Where buckets of time begin.
    begins: Mutex<Option<Arc<Buffer>>>,
    launches: AtomicU64,
    /// Rows of a batch from which on linear layers compute more of them at a time.
    many_rows: usize,
    /// Whether kernels that only one architecture can run are used where it is that one.
    specific: bool,
    /// The first error since the last download.
    failure: Mutex<Option<CudaError>>,
}

impl Cuda {
    /// Over a driver, whose kernels of up to `small` blocks are started together.
    fn over(driver: impl Driver + 'static, small: u32, precision: Precision) -> Self {
        let driver = Arc::new(Deferred::new(Arc::new(driver), small));
        Self {
            driver,
            precision,
            weights: Mutex::default(),
            batch: Mutex::default(),
            begins: Mutex::default(),
            launches: AtomicU64::new(0),
            many_rows: linear::MANY_ROWS,
            specific: true,
            failure: Mutex::default(),
        }
    }

    /// Device number `ordinal` of this machine. Compiled kernels are kept in the folder `cache`.
    pub fn open(ordinal: usize, precision: Precision, cache: &Path) -> Result<Self, CudaError> {
        let gpu = Gpu::open(ordinal, cache)?;
        let small = SMALL * gpu.device().multiprocessors;
        Ok(Self::over(gpu, small, precision))
    }

    /// The same, where every kernel is started by itself: for comparisons.
    pub fn open_without_graphs(ordinal: usize, precision: Precision, cache: &Path) -> Result<Self, CudaError> {
        Ok(Self::over(Gpu::open(ordinal, cache)?, 0, precision))
    }

    /// The device that `PGREC_CUDA` names by its number, or the emulator: for tests. New memory is numbers that are none,
    /// but with `PGREC_CUDA_UNPOISONED`, where a tool looks for what was not written.
    #[cfg(any(test, feature = "emulator"))]
    #[allow(clippy::unwrap_used)]
    pub fn for_tests(precision: Precision) -> Self {
        let cuda = match std::env::var("PGREC_CUDA") {
            Err(_) => Self::over(emulated::Emulated::default(), TESTED_SMALL, precision),
            Ok(ordinal) => {
                let gpu = Gpu::open(ordinal.parse().unwrap(), &std::env::temp_dir().join("pgrec_cuda")).unwrap();
                let poisoned = std::env::var_os("PGREC_CUDA_UNPOISONED").is_none();
                Self::over(if poisoned { gpu.poisoned() } else { gpu.watched() }, TESTED_SMALL, precision)
            }
        };
        Self { many_rows: TESTED_MANY_ROWS, ..cuda }
    }

    /// The same with kernels that run on every architecture.
    #[cfg(test)]
    fn portable(self) -> Self {
        Self { specific: false, ..self }
    }

    /// What matrices are made of.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Frees the memory of weights whose tensors are gone, which else the next new ones would do.
    pub fn forget_dropped(&self) {
        locked(&self.weights).sweep();
    }

    /// Waits for all kernels that were started, and gives the first error of them.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.check()?;
        self.driver.wait()
    }

    /// How many kernels were started.
    pub fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    /// A matrix that `fill` computes; of nothing where it fails, or something before it did.
    fn computed(&self, rows: usize, cols: usize, fill: impl FnOnce(&Matrix) -> Result<(), CudaError>) -> Matrix {
        let mut failure = locked(&self.failure);
        if failure.is_none() {
            let made = Matrix::new(&self.driver, self.precision, rows, cols).and_then(|matrix| {
                fill(&matrix)?;
                Ok(matrix)
            });
            match made {
                Ok(matrix) => return matrix,
                Err(error) => *failure = Some(error),
            }
        }
        Matrix::nothing(self.precision, rows, cols, Buffer::nothing(&self.driver))
    }

    /// Does something that gives no matrix.
    fn attempt(&self, work: impl FnOnce() -> Result<(), CudaError>) {
        let mut failure = locked(&self.failure);
        if failure.is_none() {
            *failure = work().err();
        }
    }

    /// Gives what failed, once.
    fn check(&self) -> Result<(), CudaError> {
        locked(&self.failure).take().map_or(Ok(()), Err)
    }

    fn matrix(&self, tensor: &Tensor, precision: Precision) -> Result<Arc<Matrix>, CudaError> {
        locked(&self.weights).matrix(&self.driver, precision, tensor)
    }

    fn vector(&self, tensor: &Tensor) -> Result<Arc<Buffer>, CudaError> {
        locked(&self.weights).vector(&self.driver, tensor)
    }

    /// Whether kernels with Hopper's own instructions are used.
    fn is_hopper(&self) -> bool {
        self.specific && self.driver.is_hopper()
    }

    /// A matrix of something as Hopper's copy engine takes it: panels of so many rows.
    fn panels(&self, x: &Matrix, rows: usize) -> Result<Panels, CudaError> {
        let of = Bf16Matrix { address: x.address(), rows: x.rows(), cols: x.cols(), stride: x.stride() };
        self.driver.panels(of, rows as u32)
    }

    /// The batch on the device, copied where it is another than the last.
    fn batch(&self, batch: &Sequences<'_>) -> Result<Arc<Batch>, CudaError> {
        let mut last = locked(&self.batch);
        if let Some(last) = last.as_ref().filter(|last| last.is(batch)) {
            return Ok(Arc::clone(last));
        }
        let copied = Arc::new(Batch::new(&self.driver, batch)?);
        *last = Some(Arc::clone(&copied));
        Ok(copied)
    }

    /// Where buckets of time begin, as [`resident::seconds`].
    fn bucket_begins(&self) -> Result<Arc<Buffer>, CudaError> {
        let mut begins = locked(&self.begins);
        if let Some(begins) = begins.as_ref() {
            return Ok(Arc::clone(begins));
        }
        let copied = Arc::new(Buffer::of(&self.driver, &bucket_begins().map(resident::seconds))?);
        *begins = Some(Arc::clone(&copied));
        Ok(copied)
    }

    /// Starts a kernel of a source in a variant, which is of this device's precision unless it says otherwise.
    ///
    /// # Safety
    ///
    /// `P` is the kernel's structure of parameters, and its threads stay within what it points to.
    unsafe fn launch<P: bytemuck::NoUninit>(
        &self,
        source: Source,
        kernel: &'static str,
        variant: &[(&'static str, u32)],
        grid: Grid,
        parameters: &P,
    ) -> Result<(), CudaError> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let mut program = Program::new(source, kernel, variant);
        if variant.iter().all(|(name, _)| *name != "BF16") {
            program.variant.push(("BF16", u32::from(self.precision == Precision::Bf16)));
        }
        let function = self.driver.function(&program)?;
        self.launches.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { self.driver.launch(function, grid, bytemuck::bytes_of(parameters)) }
    }
}

/// Representative variants of all kernels for a compute capability.
fn programs(capability: u32) -> Vec<Program> {
    let mut all = [rows::programs(), linear::programs(), attention::programs(), top_k::programs()].concat();
    all.retain(|program| program.source.only.is_none_or(|only| only == capability));
    all
}

/// A matrix as kernels take it.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct View {
    data: u64,
    /// In elements.
    stride: u32,
    unused: u32,
}

impl View {
    const NOTHING: Self = Self { data: 0, stride: 0, unused: 0 };
}

impl From<&Matrix> for View {
    fn from(matrix: &Matrix) -> Self {
        Self { data: matrix.address(), stride: matrix.stride() as u32, unused: 0 }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
