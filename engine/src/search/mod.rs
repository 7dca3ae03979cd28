//! Searching: how well words match a text, and how lists from several sources become one.

mod bm25;
mod fusion;

pub use bm25::{Bm25, inverse_document_frequency};
pub use fusion::{RANK_CONSTANT, Weighted, fuse, ranks};
