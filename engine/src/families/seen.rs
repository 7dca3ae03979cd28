//! What each user has touched, for whoever draws items that they have not.

use crate::train::Histories;

/// Bits of a filter for each item that it is for: one item in some eight that were not touched passes.
const BITS: usize = 8;

/// The items that a user is known by: the distinct ones of the latest `window` events, ascending. One that was touched again
/// counts once.
pub(crate) fn distinct(history: &[u32], window: usize) -> Vec<u32> {
    let mut items = history[history.len().saturating_sub(window)..].to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

/// The distinct items of each user.
pub(crate) struct Seen {
    /// Ascending.
    items: Vec<u32>,
    filters: Vec<u64>,
    /// Where each user's items and filter end.
    ends: Vec<(usize, usize)>,
}

/// Those of one user.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    /// Ascending.
    pub(crate) items: &'a [u32],
    /// Bits of which those of the items are set (Bloom 1970, one function), a power of two; or none. Most items that are
    /// drawn are told by one of them.
    pub(crate) filter: &'a [u64],
}

impl Own<'_> {
    /// Whether the user has touched it.
    pub(crate) fn holds(self, item: u32) -> bool {
        if !self.filter.is_empty() {
            let (word, bit) = place(item, self.filter.len());
            if self.filter[word] >> bit & 1 == 0 {
                return false;
            }
        }
        self.items.binary_search(&item).is_ok()
    }
}

/// The word of a filter, and the bit of it, of an item.
fn place(item: u32, words: usize) -> (usize, u32) {
    let hash = u64::from(item).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((hash >> 6) as usize & (words - 1), (hash & 63) as u32)
}

impl Seen {
    pub(crate) fn new(histories: &Histories<'_>) -> Self {
        let items = Vec::with_capacity(histories.corpus.interactions());
        let mut seen = Self { items, filters: Vec::new(), ends: Vec::new() };
        for user in 0..histories.corpus.users() {
            let mut own = histories.of(user).to_vec();
            own.sort_unstable();
            own.dedup();
            let first = seen.filters.len();
            let words = (own.len() * BITS).div_ceil(64).next_power_of_two();
            seen.filters.resize(first + words, 0);
            for &item in &own {
                let (word, bit) = place(item, words);
                seen.filters[first + word] |= 1 << bit;
            }
            seen.items.extend(own);
            seen.ends.push((seen.items.len(), seen.filters.len()));
        }
        seen
    }

    pub(crate) fn of(&self, user: u32) -> Own<'_> {
        let (first, first_word) = if user == 0 { (0, 0) } else { self.ends[user as usize - 1] };
        let (end, end_word) = self.ends[user as usize];
        Own { items: &self.items[first..end], filter: &self.filters[first_word..end_word] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crate::train::{HeldOut, Histories};

    #[test]
    fn every_item_that_was_touched_is_held_and_no_other() {
        let corpus = testing::random_corpus(testing::fresh_seed(), 60, 300);
        let seen = Seen::new(&Histories { corpus: &corpus, held_out: HeldOut::Nobody, described: None });
        let mut told = 0;
        for user in 0..60 {
            let own = seen.of(user);
            for item in 0..300 {
                let right = corpus.history(user as usize).contains(&item);
                assert_eq!(own.holds(item), right, "user {user}, item {item}");
                let (word, bit) = place(item, own.filter.len());
                told += u32::from(!right && own.filter[word] >> bit & 1 == 0);
            }
        }
        assert!(told > 60 * 300 / 2, "the filter tells {told} only");
    }
}
