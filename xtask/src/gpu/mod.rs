//! The CUDA kernels on machines without a device, and what is carried to one that has it.

mod bundle;

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo::cargo;
use crate::home::Home;
use crate::process::streamed;
use crate::progress::Progress;
use crate::toolchain::compiler_of_kernels;

/// Ampere, Hopper and Blackwell: each is compiled for as itself.
const CAPABILITIES: [&str; 3] = ["80", "90", "100"];

/// Compiles every kernel for every target and prints registers and spills.
///
/// # Errors
/// When the compiler cannot be fetched, a kernel does not compile, or one spills.
pub fn compile(home: &Home, progress: &Progress) -> Result<()> {
    let folder = compiler_of_kernels(home, progress)?;
    let mut example = cargo(home, "run");
    example.args(["--package", "pgrec-kernels", "--example", "cuda_resources", "--"]).args(CAPABILITIES);
    streamed(example.env("LD_LIBRARY_PATH", folder), "compiling the CUDA kernels")
}

/// Builds the folder to carry to a machine with a device, below target unless another is named.
///
/// # Errors
/// When it does not build, or is too large.
pub fn bundle(home: &Home, progress: &Progress, folder: Option<PathBuf>) -> Result<()> {
    let folder = folder.unwrap_or_else(|| home.target().join("gpu"));
    let bytes = progress.phase("building the bundle", || bundle::build(home, progress, &folder))?;
    progress.say(&format!(
        "{}: {} MiB. On a machine with a device, NVIDIA's driver, NVRTC and PyTorch:\n  sh {}/run.sh RESULTS",
        folder.display(),
        bytes >> 20,
        folder.file_name().unwrap_or_default().to_string_lossy(),
    ));
    Ok(())
}
