//! Errors of the engine, each with what to do about it.

use pgrec_kernels::KernelError;
use pgrec_kernels::cuda::CudaError;

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. The extension maps each kind to one SQLSTATE.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller asked to stop ([`crate::Control::cancel`]).
    #[error("cancelled")]
    Cancelled,
    /// A parameter has no meaning: unknown name, wrong type, out of range.
    #[error("{0}")]
    Parameter(String),
    /// A checkpoint or an artifact is not what it claims to be.
    #[error("{0}")]
    Malformed(String),
    /// The data does not allow what was asked (nothing to train on, everything already seen, …).
    #[error("{0}")]
    Data(String),
    /// The work does not fit into the memory it may take.
    #[error("{0}")]
    Memory(String),
    /// A temporary file could not be written or read.
    #[error("{0}")]
    File(String),
    /// A CUDA device cannot be used, or stopped.
    #[error(transparent)]
    Device(CudaError),
    /// The family does not offer this call.
    #[error("family \"{family}\" {what}")]
    Unsupported {
        /// Family name.
        family: String,
        /// What it does not do, as the end of a sentence.
        what: String,
    },
}

impl From<KernelError> for Error {
    fn from(e: KernelError) -> Self {
        match e {
            KernelError::Cancelled => Self::Cancelled,
            KernelError::Cuda(error) => Self::Device(error),
            other => Self::Malformed(other.to_string()),
        }
    }
}
