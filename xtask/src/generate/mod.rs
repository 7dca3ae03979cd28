//! A shop that never was: seeded, with taste clusters, habits of sequence, Zipf popularity, titles and vectors.
//!
//! It is made so that a recommender has something to find: what a user takes next depends on what came last (every item
//! has a few successors), then on the user's taste (one or two clusters), then on what is popular.

mod catalogue;
mod random;
mod visits;
mod words;

use crate::data::Dataset;
use catalogue::Catalogue;
pub use random::Random;

/// Sizes and seed of a generated shop. The same values give the same shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shop {
    /// Where the random numbers start.
    pub seed: u64,
    /// Number of users, with ids from 1.
    pub users: usize,
    /// Number of items, with ids from 1.
    pub items: usize,
    /// Number of events; fewer come out only where the users cannot take more items without repeating themselves.
    pub events: usize,
    /// Number of taste clusters.
    pub clusters: usize,
    /// Length of the items' vectors; 0 for none.
    pub dimension: usize,
}

impl Default for Shop {
    fn default() -> Self {
        Self { seed: 7, users: 2_000, items: 800, events: 60_000, clusters: 12, dimension: 32 }
    }
}

/// Makes the shop. Events are in the order of time and nobody takes an item twice.
pub(crate) fn generate(shop: &Shop) -> Dataset {
    let mut random = Random::new(shop.seed);
    let catalogue = Catalogue::new(shop, &mut random);
    let mut interactions = visits::all(shop, &catalogue, &mut random);
    interactions.sort_by_key(|event| (event.at, event.user_id));
    Dataset { interactions, items: catalogue.items, ..Dataset::default() }
}

#[cfg(test)]
mod tests;
