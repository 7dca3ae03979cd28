//! The low-level files: everything that calls Postgres' C functions directly, and all `unsafe` of this crate
//! besides `storage/mapping.rs`.

pub mod board;
pub mod enumeration;
pub mod interrupt;
pub mod latch;
pub mod launch;
pub mod lock;
pub mod lookup;
pub mod message;
pub mod pages;
pub mod procedure;
pub mod process;
mod receiver;
pub mod relation;
pub mod role;
pub mod snapshot;
pub mod spi;
pub mod temporary;
pub mod time;
pub mod transaction;
pub mod tsvector;
pub mod usearch;
pub mod vector;
