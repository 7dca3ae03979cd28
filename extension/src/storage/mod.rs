//! Bytes outside of tables: cache files of models, derived from `rec.artifact` and disposable, and temporary files of
//! trainings.

pub mod cache;
mod mapping;
pub mod open;
pub mod spill;
