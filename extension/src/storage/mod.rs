//! Model bytes outside of tables: cache files, derived from `rec.artifact` and disposable.

pub mod cache;
mod mapping;
pub mod open;
