//! The inference worker: one process that owns the open models and the devices of the whole server, and the sessions
//! that ask it.
//!
//! Where the library is preloaded, a session reads the history and applies rights and filters as ever, and hands numbers
//! to the worker through shared memory ([`crate::pg::board`]). [`client`] is the session's end; [`worker`] is the life
//! of the worker's main thread, [`quick`] what its threads do with questions of single users, [`device`] the thread that
//! owns a CUDA device, and [`models`] what is open.

pub mod client;
mod device;
mod models;
mod quick;
mod task;
pub mod worker;

pub use worker::main;
