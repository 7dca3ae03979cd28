//! Kernels compiled at run time (NVRTC), and kept in a folder.

use std::ffi::{CString, c_char};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cudarc::nvrtc::result::{self as nvrtc, NvrtcError};
use cudarc::nvrtc::sys::{self, nvrtcProgram};

use super::CudaError;
use super::program::Program;

/// Whether the compiler's library can be loaded.
static PRESENT: LazyLock<bool> = LazyLock::new(|| {
    // SAFETY: NVIDIA's library may be loaded at any time.
    unsafe { sys::is_culib_present() }
});

/// A compiled program.
pub(super) struct Binary {
    /// A cubin, or the text of PTX with a 0 at its end: what the driver loads.
    pub image: Vec<u8>,
    /// What the compiler said, registers and spills among it.
    pub log: String,
}

/// Fails where there is no compiler.
pub(super) fn check_present() -> Result<(), CudaError> {
    let missing =
        CudaError::Missing { library: "libnvrtc", needs: "CUDA toolkit 12 or 13, or the package nvidia-cuda-nvrtc" };
    PRESENT.then_some(()).ok_or(missing)
}

/// The compiler's version.
fn version() -> (i32, i32) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is present, as the callers checked, and the pointers are to numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (major, minor)
}

/// The option that names a target: the machine code of a compute capability, or, where the compiler is older than the
/// device, the newest PTX it knows, which the driver translates.
fn target(program: &Program, capability: u32) -> Result<(String, bool), CudaError> {
    if program.source.only.is_some() {
        return Ok((format!("sm_{capability}a"), true));
    }
    let mut count = 0;
    // SAFETY: the pointer is to a number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result().map_err(failed)?;
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for as many as there are.
    unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result().map_err(failed)?;
    let known = known.into_iter().filter_map(|known| u32::try_from(known).ok());
    match known.filter(|&known| known <= capability).max() {
        Some(known) if known == capability => Ok((format!("sm_{known}"), true)),
        Some(older) => Ok((format!("compute_{older}"), false)),
        None => Err(CudaError::Compile {
            program: "all".into(),
            log: format!("NVRTC {:?} knows no target up to sm_{capability}", version()),
        }),
    }
}

fn failed(error: NvrtcError) -> CudaError {
    CudaError::Driver { call: "NVRTC", message: format!("{:?}", error.0) }
}

/// A program under compilation.
struct Unit(nvrtcProgram);

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed here alone. There is nothing to do where that fails.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

/// Compiles a program for a compute capability, ten times the major number and the minor one.
pub(super) fn compile(program: &Program, capability: u32) -> Result<Binary, CudaError> {
    check_present()?;
    let (target, machine_code) = target(program, capability)?;
    let text = CString::new(program.text())
        .map_err(|_| CudaError::Driver { call: "NVRTC", message: "a source holds a byte of 0".into() })?;
    let unit = Unit(nvrtc::create_program(&text, None).map_err(failed)?);
    let mut options = vec![format!("--gpu-architecture={target}"), "--std=c++17".into()];
    // Only with machine code there are registers to speak of.
    options.extend(machine_code.then(|| "--ptxas-options=-v".into()));
    options.extend(program.macros());
    // SAFETY: the program was just created.
    let compiled = unsafe { nvrtc::compile_program(unit.0, &options) };
    // SAFETY: as above.
    let log = unsafe { nvrtc::get_program_log(unit.0) }.map_err(failed)?;
    let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).take_while(|&byte| byte != 0).collect();
    let log = String::from_utf8_lossy(&log).into_owned();
    if compiled.is_err() {
        return Err(CudaError::Compile { program: program.to_string(), log });
    }
    let image = if machine_code {
        let mut size = 0;
        // SAFETY: the pointer is to a number.
        unsafe { sys::nvrtcGetCUBINSize(unit.0, &raw mut size) }.result().map_err(failed)?;
        let mut image = vec![0u8; size];
        // SAFETY: there is room for as many bytes as it has.
        unsafe { sys::nvrtcGetCUBIN(unit.0, image.as_mut_ptr().cast::<c_char>()) }.result().map_err(failed)?;
        image
    } else {
        // SAFETY: the program was compiled.
        let text = unsafe { nvrtc::get_ptx(unit.0) }.map_err(failed)?;
        text.into_iter().map(|byte| byte as u8).collect()
    };
    Ok(Binary { image, log })
}

/// Where the binary of a program lies: named by all that it was made of.
fn path(folder: &Path, program: &Program, capability: u32) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (program.text(), program.kernel, &program.variant, version()).hash(&mut hasher);
    folder.join(format!("{}-sm_{capability}-{:016x}.bin", program.source.name, hasher.finish()))
}

/// A program's binary, from the folder where it is there; kept there where it was compiled, if that is possible: the
/// folder is a cache, and what cannot be written is compiled again.
pub(super) fn kept(folder: &Path, program: &Program, capability: u32) -> Result<Vec<u8>, CudaError> {
    check_present()?;
    let path = path(folder, program, capability);
    if let Ok(bytes) = std::fs::read(&path)
        && let Some((image, sum)) = bytes.split_last_chunk::<8>()
        && checksum(image) == u64::from_le_bytes(*sum)
    {
        return Ok(image.to_vec());
    }
    let image = compile(program, capability)?.image;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let bytes = [&image[..], &checksum(&image).to_le_bytes()].concat();
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&temporary, bytes))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(image)
}

/// Tells a file that was cut off.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
