//! Links to vectors that no link leads to.
//!
//! usearch clears the list of a new node when it forms its links; what other threads have linked it to meanwhile is
//! lost, and now and then nothing leads to one of them any more: some ten of 20,000 on three threads, none on one.
//! HNSW itself promises nothing either. Such a vector would never be found.

use std::sync::Arc;

use super::{Found, Segment, Walk};
use crate::{Bytes, KernelError};

/// Nearest vectors of which one has to have room for another link.
const CANDIDATES: usize = 32;
/// A link makes others reachable, or takes the last room from them, so that a round may leave some.
const ROUNDS: usize = 4;

/// Adds links to the graph in a segment's bytes until all of its vectors can be reached, as far as there is room.
pub(super) fn repair(mut bytes: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    for _ in 0..ROUNDS {
        let shared = Arc::new(bytes);
        let segment = Segment::view(Arc::clone(&shared) as Bytes)?;
        let (missing, layout) = (missing_links(&segment), segment.layout.clone());
        drop(segment);
        bytes = Arc::unwrap_or_clone(shared);
        let Some(layout) = layout.filter(|_| !missing.is_empty()) else {
            break;
        };
        for (nearest, slot) in missing {
            let _ = nearest.iter().any(|near| layout.link(&mut bytes, near.slot, slot));
        }
    }
    Ok(bytes)
}

/// Vectors, of those that can be reached, from one of which a link should lead to a slot, nearest first.
fn missing_links(segment: &Segment) -> Vec<(Vec<Found>, u32)> {
    let Some((layout, _)) = segment.graph() else {
        return Vec::new();
    };
    let mut reached = Reached { segment, seen: vec![false; segment.len()] };
    reached.from(layout.entry());
    let mut missing = Vec::new();
    for slot in 0..layout.len() {
        if !reached.seen[slot as usize] {
            let format = segment.format();
            let query = format.query_stored(&format, segment.vector(slot));
            let nearest =
                Walk::new(segment, CANDIDATES, false).next(segment, &query, &|near| reached.seen[near as usize]);
            missing.push((nearest, slot));
            reached.from(slot);
        }
    }
    missing
}

/// What links of the lowest level lead to.
struct Reached<'a> {
    segment: &'a Segment,
    seen: Vec<bool>,
}

impl Reached<'_> {
    fn from(&mut self, slot: u32) {
        let Some((layout, bytes)) = self.segment.graph() else {
            return;
        };
        let mut open = vec![slot];
        while let Some(slot) = open.pop() {
            if !std::mem::replace(&mut self.seen[slot as usize], true) {
                let neighbours = layout.neighbours(bytes, slot).iter().map(|slot| u32::from_le_bytes(*slot));
                open.extend(neighbours.filter(|&slot| self.seen.get(slot as usize) == Some(&false)));
            }
        }
    }
}
