//! Bytes outside of tables: cache files of models and of index segments, derived from `rec.artifact` and the index's
//! pages and disposable, temporary files of trainings, and where those stand that were interrupted.

pub mod cache;
mod mapping;
pub mod open;
pub mod segments;
pub mod spill;
pub mod unfinished;
