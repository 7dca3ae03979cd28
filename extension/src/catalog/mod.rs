//! The only place that reads or writes rows of schema `rec`.

pub mod artifact;
pub mod code;
pub mod deployment;
pub mod model;
pub mod progress;
pub mod publication;
pub mod recommender;
pub mod schedule;
pub mod schemas;
pub mod training;

pub use model::ModelRow;
pub use recommender::{IdType, Recommender};
