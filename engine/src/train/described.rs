//! Items that are described by words: a description, or some of it, is a history of words, and the item comes after it.
//!
//! So what a query or an attribute says and what a history says are told by the same decoder (the alignment tasks of LC-Rec,
//! Zheng et al. 2024, section III-C, without a language model). A history whose next item is described may go on with
//! words of that: what somebody asks for who has done this.

use std::ops::Range;

use crate::random::SplitMix;

/// The words of the items.
#[derive(Debug, Default)]
pub(crate) struct Described {
    offsets: Vec<usize>,
    words: Vec<u32>,
    /// With which probability an item's words are learnt from in an epoch; half as often they follow a history.
    share: f32,
}

impl Described {
    /// From the words of every item.
    pub(crate) fn new(items: impl Iterator<Item = Vec<u32>>, share: f32) -> Self {
        let mut all = Self { offsets: vec![0], words: Vec::new(), share };
        for words in items {
            all.words.extend(words);
            all.offsets.push(all.words.len());
        }
        all
    }

    /// How many items there are.
    pub(super) fn items(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn of(&self, item: u32) -> &[u32] {
        let Range { start, end } = self.offsets[item as usize]..self.offsets[item as usize + 1];
        &self.words[start..end]
    }

    /// How many of an item's words are learnt from, at most so many and any number as likely, alone or after a history.
    pub(super) fn some(&self, item: u32, most: usize, alone: bool, random: &mut SplitMix) -> usize {
        let most = self.of(item).len().min(most);
        let share = if alone { self.share } else { self.share / 2.0 };
        if most == 0 || random.uniform() >= share { 0 } else { 1 + random.below(most) }
    }

    /// So many of an item's words, in any order.
    pub(super) fn draw(&self, item: u32, count: usize, key: u64) -> Vec<u32> {
        let mut words = self.of(item).to_vec();
        SplitMix::new(key).shuffle(&mut words);
        words.truncate(count);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fresh_seed;

    #[test]
    fn some_words_are_drawn_of_items_that_have_any_and_no_more_than_there_is_room_for() {
        let described = Described::new([vec![0, 1, 2], vec![], vec![7]].into_iter(), 0.5);
        let mut random = SplitMix::new(fresh_seed());
        let mut drawn =
            |item, most, alone| (0..600).map(|_| described.some(item, most, alone, &mut random)).collect::<Vec<_>>();
        let (alone, after) = (drawn(0, 9, true), drawn(0, 2, false));
        let nothing = |counts: &[usize]| counts.iter().filter(|&&count| count == 0).count();
        assert!((230..370).contains(&nothing(&alone)) && (380..520).contains(&nothing(&after)));
        assert!((1..=3).all(|count| alone.contains(&count)) && after.iter().all(|&count| count <= 2));
        assert!(drawn(1, 9, true).iter().all(|&count| count == 0) && drawn(2, 0, true).iter().all(|&count| count == 0));
        for key in 0..20 {
            let mut words = described.draw(0, 2, key);
            words.sort_unstable();
            words.dedup();
            assert!(words.len() == 2 && words.iter().all(|word| *word < 3));
        }
    }
}
