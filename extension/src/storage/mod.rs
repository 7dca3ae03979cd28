//! Bytes outside of tables: cache files of models and of index segments, derived from `rec.artifact` and the index's
//! pages and disposable, and temporary files of trainings.

pub mod cache;
mod mapping;
pub mod open;
pub mod segments;
pub mod spill;
