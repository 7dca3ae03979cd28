//! Kernels compiled by a C++ compiler and run on this thread.

use std::collections::HashMap;
use std::ffi::c_void;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, OnceLock};

use super::CudaError;
use super::driver::{Bf16Matrix, Driver, Function, Grid, Panels};
use super::program::Program;

/// Where memory that was not written yet holds a number that is none, in any precision.
const POISON: u8 = 0xff;
const ALIGNED: usize = 256;

/// A device made of this thread. Memory is the host's, and addresses are those of the host.
#[derive(Default)]
pub(crate) struct Emulated {
    allocated: Mutex<HashMap<u64, (Vec<Line>, usize)>>,
}

#[derive(Clone, Copy)]
#[repr(C, align(256))]
struct Line([u8; ALIGNED]);

type Kernel = unsafe extern "C" fn(*const c_void, *const u32, u32, u32);

/// Compiled programs of this process; the emulator's state is global, so that one kernel runs at a time.
static COMPILED: LazyLock<Mutex<HashMap<Program, usize>>> = LazyLock::new(Mutex::default);
static RUNNING: Mutex<()> = Mutex::new(());

/// A folder of this process, which the next run finds again.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let folder = exe.ancestors().nth(2).unwrap().join("emulated");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    })
}

/// The library of a program, compiled where no run before did.
fn compile(program: &Program) -> usize {
    let emulator = include_str!("../../cuda/emulated.h");
    let text = program.text();
    let mut hasher = DefaultHasher::new();
    (emulator, &text, program.kernel, &program.variant).hash(&mut hasher);
    let name = format!("{}-{:016x}", program.source.name, hasher.finish());
    let library = folder().join(format!("{name}.so"));
    if !library.exists() {
        let own = folder().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("emulated.h"), emulator).unwrap();
        std::fs::write(own.join("program.cpp"), &text).unwrap();
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let output = Command::new(&compiler)
            .current_dir(&own)
            .args(["-std=c++17", "-O2", "-DEMULATED", "-fPIC", "-shared", "-Wno-unknown-pragmas", "-o", "program.so"])
            .args(program.macros())
            .arg("program.cpp")
            .output()
            .unwrap();
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(own.join("program.so"), &library).unwrap();
        std::fs::remove_dir_all(&own).unwrap();
    }
    // SAFETY: the library has no initialisers but those of the C++ library.
    let library = Box::leak(Box::new(unsafe { libloading::Library::new(&library) }.unwrap()));
    // SAFETY: every kernel of the emulator is such a function.
    let kernel = unsafe { library.get::<Kernel>(program.kernel) }.unwrap();
    *kernel as usize
}

impl Driver for Emulated {
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        let lines = vec![Line([POISON; ALIGNED]); bytes.div_ceil(ALIGNED)];
        let address = lines.as_ptr() as u64;
        self.allocated.lock().unwrap().insert(address, (lines, bytes));
        Ok(address)
    }

    fn free(&self, address: u64) {
        assert!(self.allocated.lock().unwrap().remove(&address).is_some(), "memory that is not allocated");
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError> {
        self.copy(to, from.as_ptr() as u64, from.len())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError> {
        self.copy(to.as_mut_ptr() as u64, from, to.len())
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: callers pass memory of this device, or slices, of so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn is_hopper(&self) -> bool {
        true
    }

    fn panels(&self, of: Bf16Matrix, rows: u32) -> Result<Panels, CudaError> {
        let mut words = [0; 16];
        let [of_rows, cols, stride] = [of.rows, of.cols, of.stride].map(|x| x as u64);
        words[..5].copy_from_slice(&[of.address, cols, of_rows, stride, u64::from(rows)]);
        Ok(words)
    }

    fn function(&self, program: &Program) -> Result<Function, CudaError> {
        let mut compiled = COMPILED.lock().unwrap();
        if let Some(&kernel) = compiled.get(program) {
            return Ok(Function(kernel));
        }
        let kernel = compile(program);
        compiled.insert(program.clone(), kernel);
        Ok(Function(kernel))
    }

    unsafe fn launch(&self, function: Function, grid: Grid, parameters: &[u8]) -> Result<(), CudaError> {
        let _one = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: functions are made in `function` only.
        let kernel: Kernel = unsafe { std::mem::transmute(function.0) };
        // SAFETY: the caller passes what this kernel takes.
        unsafe { kernel(parameters.as_ptr().cast(), grid.blocks.as_ptr(), grid.threads, grid.shared) };
        // What was written beyond the end of memory shows.
        for (lines, bytes) in self.allocated.lock().unwrap().values() {
            let last = lines.last().map_or(&[][..], |line| &line.0);
            let used = bytes - (lines.len().max(1) - 1) * ALIGNED;
            assert!(last[used.min(last.len())..].iter().all(|&byte| byte == POISON), "written beyond the end");
        }
        Ok(())
    }
}
