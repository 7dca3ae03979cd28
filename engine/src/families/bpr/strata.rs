//! Events in strata that share neither users nor items, so that threads step beside each other (Gemulla et al. 2011).
//!
//! Users and items are cut into as many blocks; in turn s the task of user block b has the events on item block b + s. An
//! event's other item is of the same block, so items are dealt out anew every epoch, and over the epochs all meet. How many
//! blocks there are depends on the data alone, so that the number of threads changes no bit.

use crate::random::SplitMix;

/// Blocks at most.
const BLOCKS: usize = 64;
/// Items of a block at least: with few, an event would be compared with the same ones again and again.
const ITEMS: usize = 256;

/// Events of a stratum at least, on average: fewer would not be worth a task.
const EVENTS: usize = 256;

/// How users and items are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) count: usize,
    /// Users of a block.
    pub(super) users: usize,
    /// Items of a block.
    pub(super) items: usize,
}

impl Blocks {
    pub(super) fn new(users: usize, items: usize, events: usize) -> Self {
        let count = (items / ITEMS).min(users).min((events / EVENTS).isqrt()).clamp(1, BLOCKS);
        Self { count, users: users.div_ceil(count).max(1), items: items.div_ceil(count).max(1) }
    }
}

/// A user's event on an item, the item given by the place it was dealt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) user: u32,
    pub(super) place: u32,
}

/// The events of an epoch.
pub(super) struct Strata {
    /// Which item each place has.
    pub(super) items: Vec<u32>,
    /// By item block, by user block within it, and in random order within those.
    events: Vec<Event>,
    /// Where the events of each item block and user block begin, and the end of the last.
    starts: Vec<usize>,
    blocks: Blocks,
}

impl Strata {
    /// Deals items out, and sorts events (user and item).
    pub(super) fn deal(blocks: Blocks, items: usize, events: &[(u32, u32)], random: &mut SplitMix) -> Self {
        let mut dealt: Vec<u32> = (0..items as u32).collect();
        random.shuffle(&mut dealt);
        let mut places = vec![0; items];
        dealt.iter().zip(0..).for_each(|(&item, place)| places[item as usize] = place);
        let stratum =
            |event: &Event| event.place as usize / blocks.items * blocks.count + event.user as usize / blocks.users;
        let placed = |&(user, item): &(u32, u32)| Event { user, place: places[item as usize] };
        let mut starts = vec![0; blocks.count * blocks.count + 1];
        events.iter().for_each(|event| starts[stratum(&placed(event)) + 1] += 1);
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let (mut next, mut sorted) = (starts.clone(), vec![Event::default(); events.len()]);
        for event in events.iter().map(placed) {
            let next = &mut next[stratum(&event)];
            sorted[*next] = event;
            *next += 1;
        }
        for bounds in starts.windows(2) {
            random.shuffle(&mut sorted[bounds[0]..bounds[1]]);
        }
        Self { items: dealt, events: sorted, starts, blocks }
    }

    /// The events of a stratum.
    pub(super) fn of(&self, user_block: usize, item_block: usize) -> &[Event] {
        let at = item_block * self.blocks.count + user_block;
        &self.events[self.starts[at]..self.starts[at + 1]]
    }

    /// All events on a block of items.
    pub(super) fn on(&self, item_block: usize) -> &[Event] {
        let at = item_block * self.blocks.count;
        &self.events[self.starts[at]..self.starts[at + self.blocks.count]]
    }
}
