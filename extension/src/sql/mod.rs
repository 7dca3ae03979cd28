//! The SQL functions, one file a group, in the order of the README's table.

mod bind;
mod check;
mod checkpoint;
mod create;
mod door;
mod drop;
mod generate;
mod index;
mod inference;
mod measure;
mod models;
mod schedule;
mod search;
mod semantic;
mod semantic_trigger;
mod serve;
mod train;
mod trigger;
mod typed;
mod vector_triggers;
mod vectors;
