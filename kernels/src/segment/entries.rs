//! Where a walk begins.
//!
//! The links of HNSW's upper levels lead from one vector to near and different ones, which between clusters may mean
//! not at all: a walk down the levels then ends in the wrong cluster, and no beam of a reasonable width leaves it. So the
//! vectors of the upper levels, of which every cluster of some size has one, are copied to the end of a segment, in
//! bytes, and a walk begins at the nearest of all of them: some thousands lie in the caches and take some µs.

use super::format::{Format, Metric, Scalar};
use super::layout::Layout;
use super::query::Query;
use crate::cpu::hamming;

/// As many entries at most.
const MOST: usize = 4_096;
/// And at least, where there are so many vectors.
const FEWEST: usize = 64;
/// Of which a walk begins at so many.
const STARTS: usize = 8;
/// Compared between two looks at the best.
const BLOCK: usize = 256;
/// The largest number of a row.
const LARGEST: f32 = 127.0;
/// A slot, what a row's numbers are multiplied with, and the square of the vector's length.
const HEAD: usize = 12;

/// Bytes that one entry takes.
pub(super) fn entry_bytes(format: &Format) -> usize {
    HEAD + row_bytes(format)
}

/// Bits as they are; of numbers one byte each, in parts of the largest of the vector.
fn row_bytes(format: &Format) -> usize {
    if format.scalar() == Scalar::Bit { format.vector_bytes() } else { format.dim() }
}

/// Appends the entries of a graph to the bytes of its segment; gives how many there are.
pub(super) fn append(format: &Format, layout: &Layout, bytes: &mut Vec<u8>) -> usize {
    let mut slots: Vec<(usize, u32)> = (0..layout.len()).map(|slot| (layout.level(bytes, slot), slot)).collect();
    slots.sort_unstable_by_key(|&(level, slot)| (std::cmp::Reverse(level), slot));
    let upper = slots.partition_point(|&(level, _)| level > 0);
    slots.truncate(upper.clamp(FEWEST, MOST));
    let (mut factors, mut squares, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for &(_, slot) in &slots {
        let stored = layout.vector(bytes, slot);
        if format.scalar() == Scalar::Bit {
            rows.extend_from_slice(stored);
            factors.push(0.0);
            squares.push(0.0);
            continue;
        }
        let numbers = format.numbers(stored);
        let factor = numbers.iter().fold(0.0f32, |most, x| most.max(x.abs())) / LARGEST;
        rows.extend(numbers.iter().map(|x| (x / factor.max(f32::MIN_POSITIVE)).round() as i8 as u8));
        factors.push(factor);
        squares.push(numbers.iter().map(|x| x * x).sum::<f32>());
    }
    bytes.extend(slots.iter().flat_map(|(_, slot)| slot.to_le_bytes()));
    bytes.extend(factors.iter().chain(&squares).flat_map(|x: &f32| x.to_le_bytes()));
    bytes.extend(rows);
    slots.len()
}

/// The entries of a segment.
pub(super) struct Entries<'b> {
    slots: &'b [[u8; 4]],
    factors: &'b [[u8; 4]],
    squares: &'b [[u8; 4]],
    rows: &'b [u8],
}

impl<'b> Entries<'b> {
    /// Those that [`append`] wrote, of which there are `count`; none where they do not fit the bytes.
    pub(super) fn read(format: &Format, bytes: &'b [u8], count: usize) -> Self {
        let words = |which: usize| {
            let part = bytes.get(4 * which * count..4 * (which + 1) * count);
            part.unwrap_or(&[]).as_chunks::<4>().0
        };
        let rows = bytes.get(HEAD * count..entry_bytes(format) * count).unwrap_or(&[]);
        Self { slots: words(0), factors: words(1), squares: words(2), rows }
    }

    /// The slots of those nearest to the query, as far as bytes can tell.
    pub(super) fn nearest(&self, query: &Query) -> Vec<u32> {
        let format = query.format();
        let mut best: Vec<(f32, u32)> = Vec::with_capacity(STARTS + 1);
        let mut worst = f32::INFINITY;
        let mut distances = [0.0; BLOCK];
        for first in (0..self.slots.len()).step_by(BLOCK) {
            let count = BLOCK.min(self.slots.len() - first);
            let size = row_bytes(&format);
            let Some(rows) = self.rows.get(first * size..(first + count) * size) else { break };
            self.distances(query, first, rows, &mut distances[..count]);
            for (&distance, slot) in distances[..count].iter().zip(&self.slots[first..]) {
                if distance < worst || best.len() < STARTS {
                    let place = best.partition_point(|&(other, _)| other <= distance);
                    best.insert(place, (distance, u32::from_le_bytes(*slot)));
                    best.truncate(STARTS);
                    worst = best[best.len() - 1].0;
                }
            }
        }
        best.into_iter().map(|(_, slot)| slot).collect()
    }

    /// What orders the rows from number `first` on by their distance.
    fn distances(&self, query: &Query, first: usize, rows: &[u8], out: &mut [f32]) {
        let format = query.format();
        if format.scalar() == Scalar::Bit {
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(format.vector_bytes())) {
                *out = hamming(row, query.bits());
            }
            return;
        }
        query.byte_products(rows, out);
        let numbers = |words: &'b [[u8; 4]]| words[first..].iter().map(|word| f32::from_le_bytes(*word));
        match format.metric() {
            Metric::L2 => {
                for ((out, factor), square) in out.iter_mut().zip(numbers(self.factors)).zip(numbers(self.squares)) {
                    *out = square - 2.0 * factor * *out;
                }
            }
            _ => out.iter_mut().zip(numbers(self.factors)).for_each(|(out, factor)| *out *= -factor),
        }
    }
}
