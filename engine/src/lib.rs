//! Recommendation families, their evaluation and their artifacts.
//!
//! Pure Rust: no Postgres, no `unsafe`. The server side (`extension`) reads relations into a [`Corpus`] or a
//! [`Query`], hands them to a [`families::Model`], and prints what comes back.

#![forbid(unsafe_code)]

pub mod artifact;
pub mod audit;
pub mod calibration;
pub mod catalogue;
pub mod checkpoint;
pub mod codes;
mod content;
pub mod control;
pub mod corpus;
mod error;
pub mod evaluate;
pub mod families;
pub mod index;
pub mod inference;
pub mod metrics;
pub mod query;
mod random;
pub mod search;
pub mod serve;
pub mod task;
#[cfg(test)]
mod testing;
pub mod train;
pub mod words;

pub use artifact::{Artifact, ArtifactBuilder};
pub use catalogue::{Catalogue, ItemId, ItemIds};
pub use content::ItemContent;
pub use control::{Control, TrainingProgress};
pub use corpus::Corpus;
pub use error::{Error, Result};
pub use families::{Family, Model};
pub use pgrec_kernels::Scored;
pub use query::{Asked, Query};
pub use task::Task;
