//! Searching: how well words match a text, and how lists from several sources become one.

mod bm25;
mod fusion;
mod texts;

pub use bm25::{Bm25, inverse_document_frequency};
pub use fusion::{Weighted, fuse, fuse_with_model, ranks};
pub use texts::Texts;
