//! Searching the graph from its entries, and going on where a search stopped.
//!
//! The search of the lowest level is that of HNSW (Malkov & Yashunin 2018, algorithm 2) with a beam of `expansion`.
//! What falls out of the beam is kept, so that the next batch goes on from there: no distance is computed twice, nothing
//! is found twice, and a filter above the search gets as many rows as it asks for.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::layout::Layout;
use super::query::Query;
use super::{Found, Segment};
use crate::cpu::prefetch;

/// Neighbours whose distances are computed at a time.
const BATCH: usize = 16;

/// Vectors of a batch at most, beyond the first: some milliseconds of work.
const WIDEST: usize = 4_096;

/// A slot and how near it is, in one number that sorts by distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    fn new(distance: f32, slot: u32) -> Self {
        // The bits of floats that are not negative are in the order of the numbers; those of negative ones backwards.
        let bits = distance.to_bits();
        let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        Self(u64::from(ordered) << 32 | u64::from(slot))
    }

    fn distance(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// A search under way. It holds no part of the segment, and works only with the one it was made for.
#[derive(Debug)]
pub struct Walk {
    expansion: usize,
    withhold: bool,
    seen: Seen,
    /// Reached, not looked beyond yet.
    open: BinaryHeap<Reverse<Place>>,
    /// Reached, too far for the beam so far: neither looked beyond nor given; with whether it may be given.
    beyond: Vec<(Place, bool)>,
    /// May be given, and fell out of the beam.
    fallen: BinaryHeap<Reverse<Place>>,
    started: bool,
}

impl Walk {
    /// A walk whose first beam is of `expansion` vectors; each later one is of twice as many, up to some thousands: who
    /// wants more than was found wants many, and a wide beam gives them in better order. A batch is all that the beam
    /// holds, or, to `withhold` what a wider one may find to have nearer ones before it, the nearer half.
    pub fn new(segment: &Segment, expansion: usize, withhold: bool) -> Self {
        Self {
            expansion: expansion.max(1),
            withhold,
            seen: Seen::new(segment.len()),
            open: BinaryHeap::new(),
            beyond: Vec::new(),
            fallen: BinaryHeap::new(),
            started: false,
        }
    }

    /// The next nearest vectors that are `live`, ascending; empty when all that can be reached were given. A later
    /// batch may hold a vector nearer than the last of an earlier one: the beam was too narrow to see it.
    pub fn next(&mut self, segment: &Segment, query: &Query, live: &dyn Fn(u32) -> bool) -> Vec<Found> {
        let mut best = BinaryHeap::new();
        if self.started {
            self.expansion = self.expansion.max((2 * self.expansion).min(WIDEST));
            self.take_up(&mut best);
        } else {
            self.start(segment, query, live, &mut best);
        }
        self.search(segment, query, live, &mut best);
        // From where it began the links may not lead to all vectors; from the graph's own entry they do.
        if best.len() < self.expansion
            && let Some((graph, bytes)) = segment.graph()
        {
            self.reach(graph, bytes, graph.entry(), query, live, &mut best);
            self.search(segment, query, live, &mut best);
        }
        let full = best.len() >= self.expansion;
        let mut best = best.into_sorted_vec();
        if self.withhold && full {
            self.fallen.extend(best.drain(best.len().div_ceil(2)..).map(Reverse));
        }
        best.into_iter().map(|p: Place| Found { distance: p.distance(), slot: p.slot() }).collect()
    }

    /// How many vectors were looked at.
    pub fn looked_at(&self) -> usize {
        self.seen.slots.len()
    }

    /// Bytes that this thread keeps for the next walk.
    pub fn spare_bytes() -> usize {
        SPARE.with_borrow(Vec::len) * size_of::<u64>()
    }

    /// At the nearest of the entries.
    fn start(&mut self, segment: &Segment, query: &Query, live: &dyn Fn(u32) -> bool, best: &mut BinaryHeap<Place>) {
        self.started = true;
        let Some((graph, bytes)) = segment.graph() else {
            return;
        };
        let mut starts = segment.entries().map_or_else(Vec::new, |entries| entries.nearest(query));
        if starts.is_empty() {
            starts.push(graph.entry());
        }
        for slot in starts.into_iter().take(self.expansion) {
            self.reach(graph, bytes, slot, query, live, best);
        }
    }

    /// Comes to a slot that no link led to. The beam is not full.
    fn reach(
        &mut self,
        graph: &Layout,
        bytes: &[u8],
        slot: u32,
        query: &Query,
        live: &dyn Fn(u32) -> bool,
        best: &mut BinaryHeap<Place>,
    ) {
        if slot < graph.len() && self.seen.insert(slot) {
            let mut distance = [0.0];
            query.distances(&[graph.vector(bytes, slot)], &mut distance);
            let place = Place::new(distance[0], slot);
            self.open.push(Reverse(place));
            if live(slot) {
                best.push(place);
            }
        }
    }

    /// Begins a batch with what the former ones left out.
    fn take_up(&mut self, best: &mut BinaryHeap<Place>) {
        for (place, live) in self.beyond.drain(..) {
            self.open.push(Reverse(place));
            if live {
                self.fallen.push(Reverse(place));
            }
        }
        while best.len() < self.expansion {
            match self.fallen.pop() {
                Some(Reverse(place)) => best.push(place),
                None => break,
            }
        }
    }

    fn search(&mut self, segment: &Segment, query: &Query, live: &dyn Fn(u32) -> bool, best: &mut BinaryHeap<Place>) {
        let Some((graph, bytes)) = segment.graph() else {
            return;
        };
        let mut farthest = self.farthest(best);
        while let Some(&Reverse(place)) = self.open.peek() {
            if place > farthest {
                break;
            }
            self.open.pop();
            let mut neighbours = graph.neighbours(bytes, place.slot()).iter();
            loop {
                let (mut rows, mut slots, mut distances) = ([&bytes[..0]; BATCH], [0; BATCH], [0.0; BATCH]);
                let mut count = 0;
                for slot in neighbours.by_ref().map(|slot| u32::from_le_bytes(*slot)) {
                    if slot < graph.len() && self.seen.insert(slot) {
                        (rows[count], slots[count]) = (graph.vector(bytes, slot), slot);
                        prefetch(rows[count]);
                        count += 1;
                        if count == BATCH {
                            break;
                        }
                    }
                }
                if count == 0 {
                    break;
                }
                query.distances(&rows[..count], &mut distances[..count]);
                for (&distance, &slot) in distances[..count].iter().zip(&slots) {
                    let place = Place::new(distance, slot);
                    if place >= farthest {
                        self.beyond.push((place, live(slot)));
                        continue;
                    }
                    self.open.push(Reverse(place));
                    if live(slot) {
                        best.push(place);
                        if best.len() > self.expansion
                            && let Some(fallen) = best.pop()
                        {
                            self.fallen.push(Reverse(fallen));
                        }
                        farthest = self.farthest(best);
                    }
                }
            }
        }
    }

    /// What is not nearer does not enter the beam any more.
    fn farthest(&self, best: &BinaryHeap<Place>) -> Place {
        match best.peek() {
            Some(&place) if best.len() >= self.expansion => place,
            _ => Place(u64::MAX),
        }
    }
}

/// Slots that were met.
#[derive(Debug)]
struct Seen {
    words: Vec<u64>,
    slots: Vec<u32>,
}

thread_local! {
    /// The words of the walk before, all zero: clearing those that were touched is far less work than making new ones.
    static SPARE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Seen {
    fn new(len: usize) -> Self {
        let mut words = SPARE.take();
        words.resize(words.len().max(len.div_ceil(64)), 0);
        Self { words, slots: Vec::new() }
    }

    /// Whether it is new.
    #[inline]
    fn insert(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        let fresh = self.words[word] & bit == 0;
        if fresh {
            self.words[word] |= bit;
            self.slots.push(slot);
        }
        fresh
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let mut words = std::mem::take(&mut self.words);
        for &slot in &self.slots {
            words[slot as usize / 64] = 0;
        }
        // At the end of a thread there is nowhere to keep them.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < words.len() {
                *spare = words;
            }
        });
    }
}
