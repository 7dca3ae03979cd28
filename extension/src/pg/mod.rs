//! The low-level files: everything that calls Postgres' C functions directly, and all `unsafe` of this crate
//! besides `storage/mapping.rs`.

pub mod interrupt;
pub mod lookup;
pub mod procedure;
mod receiver;
pub mod relation;
pub mod role;
pub mod snapshot;
pub mod spi;
pub mod temporary;
