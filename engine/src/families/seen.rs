//! What each user has touched, for whoever draws items that they have not.

use crate::train::Histories;

/// The distinct items of each user, ascending.
pub(crate) struct Seen {
    items: Vec<u32>,
    /// Where each user's end.
    ends: Vec<usize>,
}

impl Seen {
    pub(crate) fn new(histories: &Histories<'_>) -> Self {
        let (mut items, mut ends) = (Vec::with_capacity(histories.corpus.interactions()), Vec::new());
        for user in 0..histories.corpus.users() {
            let mut own = histories.of(user).to_vec();
            own.sort_unstable();
            own.dedup();
            items.extend(own);
            ends.push(items.len());
        }
        Self { items, ends }
    }

    pub(crate) fn of(&self, user: u32) -> &[u32] {
        let start = if user == 0 { 0 } else { self.ends[user as usize - 1] };
        &self.items[start..self.ends[user as usize]]
    }
}
