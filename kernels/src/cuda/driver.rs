//! What the operators need of a machine that runs kernels: a device, or in tests the emulator.

use std::sync::Arc;

use super::CudaError;
use super::program::Program;

/// Memory on the device and kernels that run on it, in the order of the calls.
pub(crate) trait Driver: Send + Sync {
    /// Memory for so many bytes, aligned to 256, of any content.
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;
    /// Writes the gaps of new rows that begin `stride` bytes apart and are `used` bytes long, where a tool watches for what
    /// is read before it is written: kernels read gaps, and make nothing of them.
    fn fill_gaps(&self, _address: u64, _rows: usize, _stride: usize, _used: usize) -> Result<(), CudaError> {
        Ok(())
    }
    /// Gives memory back after what was started before has ended.
    fn free(&self, address: u64);
    /// Copies from the host, whose memory may change when this returns, to memory that no kernel was started on.
    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError>;
    /// Copies to the host, after everything that was started before.
    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError>;
    /// Copies on the device.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError>;
    /// Waits for everything that was started.
    fn wait(&self) -> Result<(), CudaError> {
        Ok(())
    }
    /// How many blocks of the largest kind run at the same time.
    fn multiprocessors(&self) -> usize {
        1
    }
    /// Whether kernels with Hopper's own instructions run.
    fn is_hopper(&self) -> bool {
        false
    }
    /// A matrix of bf16, of something, as Hopper's copy engine takes it: panels of 64 columns and `rows` rows, swizzled by
    /// 128 bytes.
    fn panels(&self, of: Bf16Matrix, rows: u32) -> Result<Panels, CudaError>;
    /// A kernel of a program, compiled where it was not before.
    fn function(&self, program: &Program) -> Result<Function, CudaError>;
    /// Starts a kernel.
    ///
    /// # Safety
    ///
    /// The bytes are the parameters of that kernel, and its threads stay within what they point to.
    unsafe fn launch(&self, function: Function, grid: Grid, parameters: &[u8]) -> Result<(), CudaError>;
    /// Starts kernels one after the other.
    ///
    /// # Safety
    ///
    /// As of [`Self::launch`], of each.
    unsafe fn launch_all(&self, launches: &[Launch]) -> Result<(), CudaError> {
        launches.iter().try_for_each(|Launch { function, grid, parameters }| {
            // SAFETY: as the caller promises.
            unsafe { self.launch(*function, *grid, parameters) }
        })
    }
}

/// A matrix as kernels pass it to the copy engine.
pub(crate) type Panels = [u64; 16];

/// Where a matrix of bf16 is; its stride is in elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16Matrix {
    pub address: u64,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

/// A kernel that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    pub function: Function,
    pub grid: Grid,
    pub parameters: Vec<u8>,
}

/// A compiled kernel; valid as long as its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Function(pub usize);

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Blocks in each direction; nothing is started where one is 0.
    pub blocks: [u32; 3],
    /// Threads of a block, whole warps.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

/// Memory on a device, given back when dropped.
pub(crate) struct Buffer {
    driver: Arc<dyn Driver>,
    address: u64,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self, CudaError> {
        if bytes == 0 {
            return Ok(Self::nothing(driver));
        }
        Ok(Self { driver: Arc::clone(driver), address: driver.allocate(bytes)?, bytes })
    }

    /// No memory.
    pub(crate) fn nothing(driver: &Arc<dyn Driver>) -> Self {
        Self { driver: Arc::clone(driver), address: 0, bytes: 0 }
    }

    /// A copy of numbers of the host.
    pub(crate) fn of<T: bytemuck::NoUninit>(driver: &Arc<dyn Driver>, values: &[T]) -> Result<Self, CudaError> {
        let buffer = Self::new(driver, size_of_val(values))?;
        if buffer.bytes > 0 {
            driver.upload(buffer.address, bytemuck::cast_slice(values))?;
        }
        Ok(buffer)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.driver.free(self.address);
        }
    }
}
