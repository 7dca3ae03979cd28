//! What an index is made of.

use super::delta;
use super::meta::{Meta, consistently};
use super::pages::Pages;
use crate::Result;

/// Sizes of an index and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// All that its meta page says.
    pub meta: Meta,
    /// Pages.
    pub pages: u32,
    /// Rows in chains that are not removed.
    pub chain_rows: u64,
    /// Pages of chains.
    pub chain_pages: u32,
}

/// Looks at all chains and at no segment.
pub fn stats(pages: &(impl Pages + ?Sized)) -> Result<Stats> {
    consistently(pages, |meta| {
        let (mut chain_rows, mut chain_pages) = (0, 0);
        for chain in meta.chains() {
            let blocks = delta::each_page(pages, meta, chain, |_, rows| {
                chain_rows += rows.live().count() as u64;
                Ok(())
            })?;
            chain_pages += blocks.len() as u32;
        }
        Ok(Stats { meta: meta.clone(), pages: pages.len()?, chain_rows, chain_pages })
    })
}
