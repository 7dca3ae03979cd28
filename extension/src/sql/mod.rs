//! The SQL functions, one file a group, in the order of the README's table.

mod check;
mod checkpoint;
mod create;
mod measure;
mod models;
mod serve;
mod train;
mod typed;
