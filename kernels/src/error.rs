//! What can go wrong below the engine.

/// Errors of the kernels. All of them are about data that came from outside: shapes, bytes, files.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A buffer does not have the size or alignment its shape asks for.
    #[error("tensor of shape {shape:?} does not fit its {bytes} bytes")]
    Shape {
        /// The shape that was asked for.
        shape: Vec<usize>,
        /// How many bytes there are.
        bytes: usize,
    },
    /// A NaN or an infinity where only finite numbers are allowed.
    #[error("vector {row} holds a value that is not finite")]
    NotFinite {
        /// The row in which it was found.
        row: usize,
    },
    /// The nearest-neighbour library refused.
    #[error("nearest-neighbour segment: {0}")]
    Segment(String),
    /// A CUDA device cannot be used, or stopped.
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaError),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
