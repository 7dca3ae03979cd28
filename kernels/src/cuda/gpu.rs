//! The CUDA driver.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use cudarc::driver::result::{self as cu, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute, CUmemPool_attribute};

use super::driver::{Bf16Matrix, Driver, Function, Grid, Launch, Panels};
use super::graph::Graphs;
use super::program::Program;
use super::{CudaError, compile, locked};

/// The driver's version from which on it has all that is called here: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;
/// The compute capability from which on there are asynchronous copies and products of bf16.
const OLDEST_DEVICE: u32 = 80;
/// The compute capability of Hopper, whose instructions no other has.
const HOPPER: u32 = 90;
/// Columns of a panel that Hopper's copy engine brings.
const PANEL_COLUMNS: u32 = 64;
/// Memory that a process keeps between calls, bytes.
const KEPT: u64 = 1 << 30;
/// Dynamic shared memory beyond which a kernel has to ask for it.
const ASKED_SHARED: i32 = 48 << 10;
/// Kernels that make a graph worth its while.
const FEWEST_OF_GRAPH: usize = 3;

/// A device that kernels can run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Its number.
    pub ordinal: usize,
    /// What it is called.
    pub name: String,
    /// Compute capability, ten times the major number and the minor one.
    pub capability: u32,
    /// Memory in bytes.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

impl CudaDevice {
    /// Fails where the kernels cannot run on it.
    pub fn check(&self) -> Result<(), CudaError> {
        let (major, minor) = (self.capability / 10, self.capability % 10);
        match self.capability >= OLDEST_DEVICE {
            true => Ok(()),
            false => Err(CudaError::TooOld { name: self.name.clone(), major, minor }),
        }
    }
}

impl std::fmt::Display for CudaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = (self.capability / 10, self.capability % 10);
        write!(f, "compute capability {major}.{minor}, {} multiprocessors", self.multiprocessors)
    }
}

/// The driver, initialised once in a process; never in one that forks later.
static DRIVER: LazyLock<Result<(), CudaError>> = LazyLock::new(|| {
    // SAFETY: NVIDIA's library may be loaded at any time.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::Missing { library: "libcuda", needs: "NVIDIA's driver" });
    }
    let mut version = 0;
    // SAFETY: the library is present, and the pointer is to a number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(|e| failed("cuDriverGetVersion", e))?;
    if version < OLDEST_DRIVER {
        let message = format!("the driver is of CUDA {}.{}, 12.0 is needed", version / 1000, version % 1000 / 10);
        return Err(CudaError::Driver { call: "cuDriverGetVersion", message });
    }
    cu::init().map_err(|e| failed("cuInit", e))
});

fn failed(call: &'static str, error: DriverError) -> CudaError {
    let message = error.error_string().map_or_else(|_| format!("{:?}", error.0), |s| s.to_string_lossy().into_owned());
    CudaError::Driver { call, message }
}

/// The devices of this machine; those that are too old for the kernels among them. Fails, and says why, where there is
/// no driver or no compiler.
pub fn cuda_devices() -> Result<Vec<CudaDevice>, CudaError> {
    DRIVER.clone()?;
    compile::check_present()?;
    let count = cu::device::get_count().map_err(|e| failed("cuDeviceGetCount", e))?;
    (0..usize::try_from(count).unwrap_or(0)).map(describe).collect()
}

fn describe(ordinal: usize) -> Result<CudaDevice, CudaError> {
    let wrong = |e| failed("cuDeviceGet", e);
    let device = cu::device::get(ordinal as i32).map_err(wrong)?;
    // SAFETY: the device was just got.
    let attribute = |which| unsafe { cu::device::get_attribute(device, which) }.map_err(wrong);
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let multiprocessors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    Ok(CudaDevice {
        ordinal,
        name: cu::device::get_name(device).map_err(wrong)?,
        capability: (10 * major + minor) as u32,
        // SAFETY: as above.
        memory: unsafe { cu::device::total_mem(device) }.map_err(wrong)?,
        multiprocessors: multiprocessors as u32,
    })
}

/// One device, its primary context and a stream.
pub(super) struct Gpu {
    device: CudaDevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Shared memory that a block may ask for.
    most_shared: i32,
    /// Where compiled kernels are kept.
    cache: PathBuf,
    functions: Mutex<HashMap<Program, Function>>,
    graphs: Mutex<Graphs>,
    /// Whether new memory is filled with numbers that are none.
    poisons: bool,
    /// Whether gaps of matrices are written.
    fills_gaps: bool,
}

// SAFETY: the driver's handles may be used by any thread; every call makes the context current first.
unsafe impl Send for Gpu {}
// SAFETY: as above; the driver locks by itself.
unsafe impl Sync for Gpu {}

impl Gpu {
    pub(super) fn open(ordinal: usize, cache: &Path) -> Result<Self, CudaError> {
        let devices = cuda_devices()?;
        let missing = CudaError::NoDevice { ordinal, devices: devices.len() };
        let device = devices.into_iter().nth(ordinal).ok_or(missing)?;
        device.check()?;
        let number = cu::device::get(ordinal as i32).map_err(|e| failed("cuDeviceGet", e))?;
        // SAFETY: the device was just got. The process keeps its primary context until it ends.
        let context = unsafe { cu::primary_ctx::retain(number) }.map_err(|e| failed("cuDevicePrimaryCtxRetain", e))?;
        // SAFETY: the context was just made.
        unsafe { cu::ctx::set_current(context) }.map_err(|e| failed("cuCtxSetCurrent", e))?;
        let stream =
            cu::stream::create(cu::stream::StreamKind::NonBlocking).map_err(|e| failed("cuStreamCreate", e))?;
        let shared = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        // SAFETY: the device was got above.
        let most_shared =
            unsafe { cu::device::get_attribute(number, shared) }.map_err(|e| failed("cuDeviceGetAttribute", e))?;
        let mut kept = KEPT;
        // SAFETY: the device was got above.
        let pool =
            unsafe { cu::device::get_default_mem_pool(number) }.map_err(|e| failed("cuDeviceGetDefaultMemPool", e))?;
        let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a u64.
        unsafe { cu::mem_pool::set_attribute(pool, threshold, (&raw mut kept).cast()) }
            .map_err(|e| failed("cuMemPoolSetAttribute", e))?;
        let (cache, functions, graphs) = (cache.to_path_buf(), Mutex::default(), Mutex::default());
        Ok(Self { device, context, stream, most_shared, cache, functions, graphs, poisons: false, fills_gaps: false })
    }

    pub(super) fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Fills new memory with numbers that are none, so that tests see what was not written.
    #[cfg(any(test, feature = "emulator"))]
    pub(super) fn poisoned(mut self) -> Self {
        self.poisons = true;
        self
    }

    /// Writes gaps of matrices and nothing else, so that a tool sees what is read before it is written.
    #[cfg(any(test, feature = "emulator"))]
    pub(super) fn watched(mut self) -> Self {
        self.fills_gaps = true;
        self
    }

    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the process holds the context.
        unsafe { cu::ctx::set_current(self.context) }.map_err(|e| failed("cuCtxSetCurrent", e))
    }

    /// A kernel in a binary; its module stays loaded as long as the process lives.
    fn load(&self, image: &[u8], program: &Program) -> Result<Function, CudaError> {
        // SAFETY: the image is a whole cubin, or PTX with a 0 at its end.
        let module =
            unsafe { cu::module::load_data(image.as_ptr().cast()) }.map_err(|e| failed("cuModuleLoadData", e))?;
        let name = CString::new(program.kernel)
            .map_err(|_| CudaError::Driver { call: "cuModuleGetFunction", message: "a name holds a 0".into() })?;
        // SAFETY: the module was just loaded.
        let function =
            unsafe { cu::module::get_function(module, name) }.map_err(|e| failed("cuModuleGetFunction", e))?;
        let own = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the function was just got.
        let own = unsafe { cu::function::get_function_attribute(function, own) }
            .map_err(|e| failed("cuFuncGetAttribute", e))?;
        if self.most_shared - own > ASKED_SHARED {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe { cu::function::set_function_attribute(function, most, self.most_shared - own) }
                .map_err(|e| failed("cuFuncSetAttribute", e))?;
        }
        Ok(Function(function as usize))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: the stream is this value's alone. A process that ends has nothing to do where that fails.
        let _ = self.enter().map(|()| unsafe { cu::stream::destroy(self.stream) });
    }
}

impl Driver for Gpu {
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.enter()?;
        // SAFETY: the stream lives as long as this value.
        let address = unsafe { cu::malloc_async(self.stream, bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::Memory { bytes },
            _ => failed("cuMemAllocAsync", error),
        })?;
        if self.poisons {
            // SAFETY: the memory was just allocated.
            unsafe { cu::memset_d8_async(address, 0xff, bytes, self.stream) }
                .map_err(|e| failed("cuMemsetD8Async", e))?;
        }
        Ok(address)
    }

    fn fill_gaps(&self, address: u64, rows: usize, stride: usize, used: usize) -> Result<(), CudaError> {
        if !self.fills_gaps {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the rows were just allocated, and what is written of each ends where the next begins.
        unsafe { sys::cuMemsetD2D8Async(address + used as u64, stride, 0, stride - used, rows, self.stream) }
            .result()
            .map_err(|e| failed("cuMemsetD2D8Async", e))
    }

    fn free(&self, address: u64) {
        // SAFETY: the address is one of `allocate`, and given back once. Memory that the driver does not take back is
        // lost to the process; nobody here could do better.
        let _ = self.enter().map(|()| unsafe { cu::free_async(address, self.stream) });
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller's memory on the device has room for all bytes. The driver has copied pageable memory of
        // the host when the call returns.
        unsafe { cu::memcpy_htod_async(to, from, self.stream) }.map_err(|e| failed("cuMemcpyHtoDAsync", e))
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the memory on the device holds as many bytes; they are waited for before the slice is given back.
        unsafe { cu::memcpy_dtoh_async(to, from, self.stream) }.map_err(|e| failed("cuMemcpyDtoHAsync", e))?;
        self.wait()
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the stream lives as long as this value.
        unsafe { cu::stream::synchronize(self.stream) }.map_err(|e| failed("cuStreamSynchronize", e))
    }

    fn multiprocessors(&self) -> usize {
        self.device.multiprocessors as usize
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller's memory holds as many bytes on both sides.
        unsafe { cu::memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(|e| failed("cuMemcpyDtoDAsync", e))
    }

    fn is_hopper(&self) -> bool {
        self.device.capability == HOPPER
    }

    fn panels(&self, of: Bf16Matrix, rows: u32) -> Result<Panels, CudaError> {
        self.enter()?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let (sizes, stride) = ([of.cols as u64, of.rows as u64], [2 * of.stride as u64]);
        let (panel, steps) = ([PANEL_COLUMNS, rows], [1; 2]);
        // SAFETY: the pointers are to a map and to as many numbers as a matrix has dimensions, but for the stride of
        // single elements, which is not given.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                of.address as *mut c_void,
                sizes.as_ptr(),
                stride.as_ptr(),
                panel.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| failed("cuTensorMapEncodeTiled", e))?;
        Ok(map.opaque)
    }

    fn function(&self, program: &Program) -> Result<Function, CudaError> {
        let mut functions = locked(&self.functions);
        if let Some(&function) = functions.get(program) {
            return Ok(function);
        }
        self.enter()?;
        let image = compile::kept(&self.cache, program, self.device.capability)?;
        let function = self.load(&image, program)?;
        functions.insert(program.clone(), function);
        Ok(function)
    }

    unsafe fn launch(&self, function: Function, grid: Grid, parameters: &[u8]) -> Result<(), CudaError> {
        self.enter()?;
        let [x, y, z] = grid.blocks;
        let mut arguments = [parameters.as_ptr().cast_mut().cast::<c_void>()];
        let function = function.0 as sys::CUfunction;
        // SAFETY: the function is one of `load`, and takes the one structure, as the caller promises; the driver copies
        // it before it returns.
        unsafe {
            cu::launch_kernel(function, (x, y, z), (grid.threads, 1, 1), grid.shared, self.stream, &mut arguments)
        }
        .map_err(|e| failed("cuLaunchKernel", e))
    }

    unsafe fn launch_all(&self, launches: &[Launch]) -> Result<(), CudaError> {
        if launches.len() < FEWEST_OF_GRAPH {
            return launches.iter().try_for_each(|Launch { function, grid, parameters }| {
                // SAFETY: as the caller promises.
                unsafe { self.launch(*function, *grid, parameters) }
            });
        }
        self.enter()?;
        // SAFETY: functions are those of `load`, and take what the caller promises.
        unsafe { locked(&self.graphs).launch(launches, self.stream) }.map_err(|e| failed("cuGraphLaunch", e))
    }
}
