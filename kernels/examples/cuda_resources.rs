//! Compiles all CUDA kernels for the compute capabilities given, such as 80 or 90, and prints what they use. Fails where
//! one does not compile, or keeps numbers in memory for want of registers.
//!
//! ```text
//! cargo xtask gpu compile
//! ```

use std::process::ExitCode;

use pgrec_kernels::cuda::cuda_resources;

fn main() -> ExitCode {
    let mut failed = false;
    for capability in std::env::args().skip(1) {
        let resources = capability
            .parse()
            .map_err(|e| format!("{e}"))
            .and_then(|number| cuda_resources(number).map_err(|e| e.to_string()));
        match resources {
            Ok(resources) => {
                println!("sm_{capability}: registers, bytes spilled, bytes of static shared memory");
                for kernel in resources {
                    failed |= kernel.spilled > 0;
                    println!("{:>5} {:>5} {:>6}  {}", kernel.registers, kernel.spilled, kernel.shared, kernel.program);
                }
            }
            Err(error) => {
                failed = true;
                eprintln!("sm_{capability}: {error}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
