//! The serving runtime's operators.
//!
//! [`Operators`] is the list a model family is written over; [`cpu::Cpu`] implements it with SIMD chosen at run
//! time. [`Backward`], [`Losses`] and [`Optimizers`] are what training needs beyond it. [`Segment`] is an immutable
//! nearest-neighbour index over shared bytes.

mod backward;
pub mod cpu;
pub mod cuda;
mod device;
mod error;
mod gradient;
mod loss;
mod optimizer;
mod segment;
mod tensor;
mod time;

pub use backward::{Backward, Noise};
pub use device::{
    Activation, Device, Filter, LayerNorm, Linear, Operators, PairBias, Rows, Scored, Sequences, SiluAttention,
};
pub use error::KernelError;
pub use gradient::{PartialSum, TableGradient};
pub use loss::{Losses, Negatives, UNASKED};
pub use optimizer::{AdaGrad, AdamW, Optimizers};
pub use segment::{
    Format, Found, Metric, Query, Scalar, Segment, SegmentBuilder, SegmentOptions, Walk, near_together, normalise,
};
pub use tensor::{Bytes, Tensor};
pub use time::{TIME_BUCKETS, time_bucket};
