//! Item ids and their dense indices.

mod buckets;
mod ids;
mod mapped;

pub use ids::{IdKind, ItemId, ItemIds};
pub use mapped::Catalogue;
pub(crate) use mapped::encode as encode_catalogue;

#[cfg(test)]
mod tests;
