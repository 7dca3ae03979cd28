//! What a batch adds to the gradients of items, as factors of a few vectors of each event: what a long history adds to every
//! one of its items is one number.
//!
//! Shares are kept by the stretch of the catalogue that their item lies in, so that stretches can be stepped beside each
//! other, none of them waiting for all shares to be put in order. How many shares a part and how many items a stretch has
//! depends on the data alone: the number of threads changes no bit.

use std::ops::Range;

/// Events whose shares make a part.
pub(super) const EVENTS: usize = 32;
/// Stretches, at most.
const MOST: usize = 64;
/// Vectors of an event: the user's point, what pulls it, and what its item is pushed by.
pub(super) const VECTORS: usize = 3;

/// Instead of an event's vector, the item's own point.
const OWN: u32 = u32::MAX;

/// What one event adds to an item's gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// The item.
    pub(super) item: u32,
    /// The vector: its place among those of the batch, or [`OWN`].
    vector: u32,
    /// Its factor.
    pub(super) by: f32,
    /// To the gradient of what the item weighs.
    pub(super) attention: f32,
}

impl Share {
    /// Of vector number `which` of an event, which is counted within the batch.
    pub(super) fn of(item: u32, event: u32, which: usize, by: f32) -> Self {
        Self { item, vector: event * VECTORS as u32 + which as u32, by, attention: 0.0 }
    }

    /// With what it adds to what the item weighs.
    pub(super) fn weighing(self, attention: f32) -> Self {
        Self { attention, ..self }
    }

    /// Of the item's own point.
    pub(super) fn own(item: u32, by: f32) -> Self {
        Self { item, vector: OWN, by, attention: 0.0 }
    }
}

/// How a catalogue is parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretches {
    shift: u32,
}

impl Stretches {
    /// Of so many items.
    pub(super) fn of(items: usize) -> Self {
        Self { shift: items.div_ceil(MOST).max(1).next_power_of_two().trailing_zeros() }
    }

    /// Items of one.
    pub(super) fn len(self) -> usize {
        1 << self.shift
    }
}

/// What some events add up to.
pub(super) struct Part {
    /// In the order of stretches, within one in the order in which they were added.
    shares: Vec<Share>,
    /// Where those of each stretch end.
    ends: [u32; MOST],
    /// `[events, VECTORS, dim]`
    pub(super) vectors: Vec<f32>,
}

impl Part {
    /// Shares in the order in which they were added.
    pub(super) fn new(shares: &[Share], vectors: Vec<f32>, stretches: Stretches) -> Self {
        let mut ends = [0u32; MOST];
        let stretch = |share: &Share| (share.item >> stretches.shift) as usize;
        shares.iter().for_each(|share| ends[stretch(share)] += 1);
        let mut next = [0u32; MOST];
        for place in 1..MOST {
            next[place] = next[place - 1] + ends[place - 1];
        }
        let Some(&first) = shares.first() else { return Self { shares: Vec::new(), ends: next, vectors } };
        let mut sorted = vec![first; shares.len()];
        for share in shares {
            let place = &mut next[stretch(share)];
            sorted[*place as usize] = *share;
            *place += 1;
        }
        Self { shares: sorted, ends: next, vectors }
    }

    fn range(&self, stretch: usize) -> Range<usize> {
        let first = stretch.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        first..self.ends[stretch] as usize
    }
}

/// The parts of a batch, in their order.
#[derive(Default)]
pub(super) struct Shares(pub(super) Vec<Part>);

impl Shares {
    /// Those of a stretch, each item's together and in their order, items ascending.
    pub(super) fn of_stretch(&self, stretch: usize, stretches: Stretches) -> Vec<Share> {
        let all = || self.0.iter().flat_map(|part| &part.shares[part.range(stretch)]);
        let count = self.0.iter().map(|part| part.range(stretch).len()).sum::<usize>();
        let Some(&first) = all().next() else { return Vec::new() };
        if count < stretches.len() {
            let mut few: Vec<Share> = Vec::with_capacity(count);
            few.extend(all());
            few.sort_by_key(|share| share.item);
            return few;
        }
        let base = stretch << stretches.shift;
        let mut next = vec![0u32; stretches.len() + 1];
        all().for_each(|share| next[share.item as usize - base + 1] += 1);
        (1..next.len()).for_each(|item| next[item] += next[item - 1]);
        let mut sorted = vec![first; count];
        for share in all() {
            let place = &mut next[share.item as usize - base];
            sorted[*place as usize] = *share;
            *place += 1;
        }
        sorted
    }

    /// What a share is a factor of; none of the item's own point.
    pub(super) fn vector(&self, share: &Share, dim: usize) -> Option<&[f32]> {
        if share.vector == OWN {
            return None;
        }
        let (part, place) = (share.vector as usize / (EVENTS * VECTORS), share.vector as usize % (EVENTS * VECTORS));
        Some(&self.0[part].vectors[place * dim..][..dim])
    }

    /// The items that the batch compares users with, ascending.
    pub(super) fn compared(&self) -> Vec<u32> {
        let shares = self.0.iter().flat_map(|part| &part.shares);
        let mut items: Vec<u32> = shares.filter(|share| share.vector == OWN).map(|share| share.item).collect();
        items.sort_unstable();
        items.dedup();
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use crate::testing;

    #[test]
    fn shares_come_by_item_and_in_their_order_whatever_the_stretches_are() {
        let mut random = SplitMix::new(testing::fresh_seed());
        for items in [1, 2, 63, 64, 65, 1000, 20_000] {
            let stretches = Stretches::of(items);
            assert!(items.div_ceil(stretches.len()) <= MOST);
            let mut all: Vec<Share> = Vec::new();
            let parts = (0..5u32).map(|part| {
                let shares: Vec<Share> = (0..random.below(900))
                    .map(|n| {
                        Share::of(random.below(items) as u32, part * EVENTS as u32 + n as u32 % 32, n % 3, n as f32)
                    })
                    .collect();
                all.extend(&shares);
                Part::new(&shares, vec![part as f32; EVENTS * VECTORS], stretches)
            });
            let parts = Shares(parts.collect());
            let found: Vec<Share> =
                (0..items.div_ceil(stretches.len())).flat_map(|place| parts.of_stretch(place, stretches)).collect();
            all.sort_by_key(|share| share.item);
            assert_eq!(found, all, "{items} items");
            let part = |share: &Share| (share.vector as usize / (EVENTS * VECTORS)) as f32;
            assert!(all.iter().all(|share| parts.vector(share, 1) == Some(&[part(share)][..])));
        }
    }
}
