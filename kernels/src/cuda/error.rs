//! What can go wrong on a CUDA device.

/// Why a CUDA device cannot be used, or stopped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CudaError {
    /// A library is not where the loader looks.
    #[error("{library} is not installed, or not where the loader looks ({needs})")]
    Missing {
        /// Its name.
        library: &'static str,
        /// What brings it.
        needs: &'static str,
    },
    /// The driver is there, and no device.
    #[error("no CUDA device {ordinal}: there are {devices}")]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// How many there are.
        devices: usize,
    },
    /// The device lacks instructions that the kernels are written with.
    #[error("CUDA device \"{name}\" has compute capability {major}.{minor}, and the kernels need 8.0")]
    TooOld {
        /// The device's name.
        name: String,
        /// Its compute capability.
        major: u32,
        /// Its compute capability.
        minor: u32,
    },
    /// A kernel does not compile for this device.
    #[error("kernels \"{program}\" do not compile: {log}")]
    Compile {
        /// The source.
        program: String,
        /// What the compiler said.
        log: String,
    },
    /// There is not enough memory on the device.
    #[error("the CUDA device has no {bytes} bytes free")]
    Memory {
        /// How many were asked for.
        bytes: usize,
    },
    /// A call of the driver failed.
    #[error("{call}: {message}")]
    Driver {
        /// What was tried.
        call: &'static str,
        /// What the driver said.
        message: String,
    },
    /// More than the kernels' indices can count.
    #[error("{what}: more than CUDA kernels can index")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
    },
}
