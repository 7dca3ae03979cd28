//! Kernels compiled at run time (NVRTC), and kept in a folder.

use std::ffi::{CString, c_char};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

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

/// What the compiler is told, and whether it makes machine code.
fn options(program: &Program, capability: u32) -> Result<(Vec<String>, bool), CudaError> {
    let (target, machine_code) = target(program, capability)?;
    let mut options = vec![format!("--gpu-architecture={target}"), "--std=c++17".into()];
    // Only with machine code there are registers to speak of.
    options.extend(machine_code.then(|| "--ptxas-options=-v".into()));
    options.extend(program.macros());
    Ok((options, machine_code))
}

/// Compiles a program for a compute capability, ten times the major number and the minor one.
pub(super) fn compile(program: &Program, capability: u32) -> Result<Binary, CudaError> {
    check_present()?;
    let (options, machine_code) = options(program, capability)?;
    let text = CString::new(program.text())
        .map_err(|_| CudaError::Driver { call: "NVRTC", message: "a source holds a byte of 0".into() })?;
    let unit = Unit(nvrtc::create_program(&text, None).map_err(failed)?);
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

/// What names of kept binaries begin with.
const KERNEL: &str = "kernel_";
/// The same with the version that made them.
const KEPT: &str = concat!("kernel_", env!("CARGO_PKG_VERSION"), "_");
/// After so long nobody is still writing a file.
const ABANDONED: Duration = Duration::from_hours(1);

/// What the binary of a program is called: by all that it is made of.
fn name(program: &Program, capability: u32, options: &[String], compiler: (i32, i32)) -> String {
    let mut hasher = DefaultHasher::new();
    (program.text(), program.kernel, options, compiler).hash(&mut hasher);
    format!("{KEPT}{}_sm_{capability}_{:016x}.bin", program.source.name, hasher.finish())
}

/// A program's binary, from the folder where it is there; kept there where it was compiled, if that is possible: the
/// folder is a cache, and what cannot be written is compiled again.
pub(super) fn kept(folder: &Path, program: &Program, capability: u32) -> Result<Vec<u8>, CudaError> {
    check_present()?;
    let (options, _) = options(program, capability)?;
    let path = folder.join(name(program, capability, &options, version()));
    if let Ok(bytes) = std::fs::read(&path)
        && let Some((image, sum)) = bytes.split_last_chunk::<8>()
        && checksum(image) == u64::from_le_bytes(*sum)
    {
        return Ok(image.to_vec());
    }
    let image = compile(program, capability)?.image;
    sweep(folder);
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let bytes = [&image[..], &checksum(&image).to_le_bytes()].concat();
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&temporary, bytes))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(image)
}

/// Removes what another version kept, and what a process that died was writing; as far as that is possible.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let abandoned = || {
            let written = entry.metadata().and_then(|data| data.modified()).ok();
            written.and_then(|at| at.elapsed().ok()).is_some_and(|since| since > ABANDONED)
        };
        if name.starts_with(KERNEL) && (!name.starts_with(KEPT) || name.contains(".tmp") && abandoned()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Tells a file that was cut off.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::program::Source;
    use super::*;

    #[test]
    fn a_kept_binary_is_named_by_all_that_it_is_made_of_and_by_the_version_that_made_it() {
        let of = |variant: u32, option: &str, compiler| {
            let program = Program::new(Source::ROWS, "add", &[("BF16", variant)]);
            let options: Vec<String> = std::iter::once(option.to_owned()).chain(program.macros()).collect();
            name(&program, 90, &options, compiler)
        };
        let names = [
            of(0, "--gpu-architecture=sm_90", (13, 0)),
            of(1, "--gpu-architecture=sm_90", (13, 0)),
            of(0, "--gpu-architecture=compute_89", (13, 0)),
            of(0, "--gpu-architecture=sm_90", (12, 9)),
        ];
        for (place, name) in names.iter().enumerate() {
            assert!(name.starts_with(concat!("kernel_", env!("CARGO_PKG_VERSION"), "_rows_sm_90_")), "{name}");
            assert!(!names[..place].contains(name), "{names:?}");
        }
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn what_another_version_kept_and_what_nobody_finishes_is_swept_up() {
        let folder = std::env::temp_dir().join(format!("pgrec_sweep_{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = |name: &str| format!("{KEPT}{name}");
        let all = [own("a.bin"), own("b.tmp1"), own("c.tmp2"), "kernel_0.0.9_a.bin".into(), "17_4_00c0ffee".into()];
        for name in &all {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED;
        std::fs::File::options().write(true).open(folder.join(&all[2])).unwrap().set_modified(long_ago).unwrap();
        sweep(&folder);
        let left = all.map(|name| folder.join(name).exists());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, [true, true, false, false, true]);
    }
}
