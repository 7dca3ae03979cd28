//! What compiled kernels use: for builds, on machines without a device.

use rayon::prelude::*;

use super::compile::compile;
use super::program::Program;
use super::{CudaError, programs};

/// What the assembler says where products on Hopper cannot run beside what follows them.
const SERIALIZED: &str = "wgmma.mma_async instructions are serialized";

/// What one kernel takes of a multiprocessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Source, kernel and variant.
    pub program: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores to memory for want of registers, and loads again.
    pub spilled: u32,
    /// Static shared memory of a block in bytes.
    pub shared: u32,
}

/// Compiles the kernels in representative variants for a compute capability, ten times its major number and the minor
/// one. Needs the compiler (NVRTC) and no device.
pub fn cuda_resources(capability: u32) -> Result<Vec<Resources>, CudaError> {
    programs(capability).into_par_iter().map(|program| of(&program, capability)).collect()
}

fn of(program: &Program, capability: u32) -> Result<Resources, CudaError> {
    let log = compile(program, capability)?.log;
    if log.contains(SERIALIZED) {
        return Err(CudaError::Compile { program: program.to_string(), log });
    }
    read(program.kernel, &log).map(|resources| Resources { program: program.to_string(), ..resources }).ok_or_else(
        || {
            let log = format!("the compiler said nothing of its registers:\n{log}");
            CudaError::Compile { program: program.to_string(), log }
        },
    )
}

/// What the assembler says of a kernel; a file may hold several.
fn read(kernel: &str, log: &str) -> Option<Resources> {
    let mut lines = log.lines().skip_while(|line| !line.contains(&format!("Compiling entry function '{kernel}'")));
    let (mut found, mut spilled) = (None, 0);
    lines.next()?;
    for line in lines.take_while(|line| !line.contains("Compiling entry function")) {
        if line.contains("spill") {
            spilled += before(line, "bytes spill stores").unwrap_or(0) + before(line, "bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = before(line, "registers") {
            found = Some((registers, before(line, "bytes smem").unwrap_or(0)));
        }
    }
    let (registers, shared) = found?;
    Some(Resources { program: String::new(), registers, spilled, shared })
}

/// The number before some words.
fn before(line: &str, words: &str) -> Option<u32> {
    line.split(words).next().filter(|head| head.len() < line.len())?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_and_spills_are_read_from_the_assemblers_lines() {
        let log = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'other' for 'sm_80'
ptxas info    : Function properties for other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 416 bytes cmem[0]
ptxas info    : Compiling entry function 'attention' for 'sm_80'
ptxas info    : Function properties for attention
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 173 registers, used 1 barriers, 16 bytes stack frame, 512 bytes smem, 416 bytes cmem[0]
";
        let wanted = Resources { program: String::new(), registers: 173, spilled: 20, shared: 512 };
        assert_eq!(read("attention", log), Some(wanted));
        assert_eq!(read("missing", log), None);
    }
}
