//! The serving runtime's operators.
//!
//! [`Device`] is the list of operators a model family is written over; [`cpu::Cpu`] implements it with
//! SIMD chosen at run time. [`Segment`] is an immutable nearest-neighbour index over shared bytes.

pub mod cpu;
mod device;
mod error;
mod segment;
mod tensor;

pub use device::{Activation, Device, Filter, LayerNorm, Linear, Rows, Scored, Sequences};
pub use error::KernelError;
pub use segment::{Segment, SegmentOptions};
pub use tensor::{Bytes, Tensor};
