//! Events against items that all of them share, a block of items at a time.
//!
//! Scores are computed items by events: an item's numbers are broadcast from the table as it lies, events lie in
//! panels of two vectors, so that a lane is an event and its maximum and sum need no step across lanes. The scores
//! of a block of items and a group of events stay in the second-level cache between the three products.

use super::super::attention::transpose_panels;
use super::super::gemm::{Left, Right, add_rows, for_row_tiles, store_row, tile};
use super::super::matrix::Scratch;
use super::super::simd::{Simd, for_vectors};
use super::hits::{Hit, between};

/// Items of a block: a multiple of every tile's height.
const BLOCK: usize = 192;

/// Events of a group: a multiple of every panel.
const GROUP: usize = 256;

/// Numbers between a group's rows of scores that are not scores: rows a power of two apart share few cache sets.
const GAP: usize = 16;

/// Events and the items they share.
pub(super) struct Grid<'a> {
    /// `[rows, dim]`
    pub hidden: &'a [f32],
    pub rows: usize,
    pub dim: usize,
    /// What dot products are multiplied with.
    pub scale: f32,
    /// `[count, dim]`
    pub items: &'a [f32],
    pub count: usize,
    /// For each item, what is subtracted from its scores.
    pub correction: Option<&'a [f32]>,
    /// Pairs of an item and an event that count nothing, ascending.
    pub hits: &'a [Hit],
}

/// What is done with a block of scores.
pub(super) trait Weigh {
    /// Scores of `count` items, `stride` numbers apart, for `V` vectors of events from `event` on. May replace them.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; the scores are readable and writable, and `event` is a multiple
    /// of the panel and within the grid's rows.
    unsafe fn weigh<S: Simd, const V: usize>(&mut self, scores: *mut f32, stride: usize, count: usize, event: usize);
}

/// The events of a grid in panels.
pub(super) struct Panels {
    /// `scale`·hidden: row `r`'s number `d` at `[(r / panel·dim + d)·panel + r % panel]`.
    transposed: Scratch,
    /// `scale`·hidden, `[rows, dim]`.
    scaled: Scratch,
}

/// Some consecutive items.
struct Block<'a> {
    begin: usize,
    count: usize,
    hits: &'a [Hit],
}

impl<'a> Grid<'a> {
    /// # Safety
    /// The processor has the instruction set of `S`; the slices have the sizes that their comments say.
    #[inline(always)]
    pub(super) unsafe fn panels<S: Simd>(&self) -> Panels {
        let mut scaled = Scratch::new(self.rows * self.dim);
        let mut transposed = Scratch::new(self.padded::<S>() * self.dim);
        // SAFETY: both buffers are of the sizes that are written, and rows·dim of hidden are read.
        unsafe {
            let (to, scale) = (scaled.as_mut_ptr(), S::splat(self.scale));
            for_vectors!(S, self.rows * self.dim, j, lanes => {
                (S::load_some(self.hidden.as_ptr().add(j), lanes) * scale).store_some(to.add(j), lanes);
            });
            transpose_panels::<S>(to, self.dim, self.rows, self.dim, transposed.as_mut_ptr());
        }
        Panels { transposed, scaled }
    }

    /// The rows in whole panels.
    pub(super) fn padded<S: Simd>(&self) -> usize {
        self.rows.next_multiple_of(2 * S::LANES)
    }

    /// Shows every score to `weigh`.
    ///
    /// # Safety
    /// As for [`Grid::panels`], which made `panels`.
    #[inline(always)]
    pub(super) unsafe fn look<S: Simd, W: Weigh>(&self, panels: &mut Panels, weigh: &mut W) {
        let panel = 2 * S::LANES;
        let mut scores = Scratch::new(BLOCK * panel);
        for block in self.blocks() {
            for event in (0..self.rows).step_by(panel) {
                // SAFETY: the scores of a block and a panel fit the buffer.
                unsafe { self.weigh::<S, W>(panels, &block, event, weigh, scores.as_mut_ptr(), panel) };
            }
        }
    }

    /// With `weigh` making weights of the scores: `dhidden += weights·items` and
    /// `ditems += weight·weightsᵀ·scale·hidden`.
    ///
    /// # Safety
    /// As for [`Grid::panels`], which made `panels`; `dhidden` is readable and writable for `[rows, dim]` numbers, and
    /// `ditems` for `[count, dim]`.
    #[inline(always)]
    pub(super) unsafe fn spread<S: Simd, W: Weigh>(
        &self,
        panels: &mut Panels,
        weigh: &mut W,
        weight: f32,
        dhidden: *mut f32,
        ditems: *mut f32,
    ) {
        let (panel, dim) = (2 * S::LANES, self.dim);
        let group = GROUP.min(self.padded::<S>()).max(panel);
        let stride = group + GAP;
        let mut scores = Scratch::new(BLOCK * stride);
        let scores = scores.as_mut_ptr();
        // SAFETY: events stay below `rows` and items below `count`; the scores of a block and a group fit the buffer.
        unsafe {
            let (scaled, weight) = (panels.scaled.as_mut_ptr(), S::splat(weight));
            for_vectors!(S, self.rows * dim, j, lanes => {
                (S::load_some(scaled.add(j), lanes) * weight).store_some(scaled.add(j), lanes);
            });
            for block in self.blocks() {
                let items = self.items.as_ptr().add(block.begin * dim);
                for first in (0..self.rows).step_by(group) {
                    let events = group.min(self.rows - first);
                    for event in (0..events).step_by(panel) {
                        self.weigh::<S, W>(panels, &block, first + event, weigh, scores.add(event), stride);
                    }
                    for_row_tiles!(S, block.count, i, M => {
                        let left = Left { at: scores.add(i * stride), stride, step: 1 };
                        let to = ditems.add((block.begin + i) * dim);
                        add_rows::<S, M>(left, scaled.add(first * dim), dim, events, dim, to, dim);
                    });
                    for_row_tiles!(S, events, i, M => {
                        let left = Left { at: scores.add(i), stride: 1, step: stride };
                        add_rows::<S, M>(left, items, dim, block.count, dim, dhidden.add((first + i) * dim), dim);
                    });
                }
            }
        }
    }

    fn blocks(&self) -> impl Iterator<Item = Block<'a>> + use<'a> {
        let (all, hits) = (self.count, self.hits);
        (0..all).step_by(BLOCK).map(move |begin| {
            let count = BLOCK.min(all - begin);
            Block { begin, count, hits: between(hits, begin, begin + count) }
        })
    }

    /// Scores of a block for the panel from `event` on, weighed.
    #[inline(always)]
    unsafe fn weigh<S: Simd, W: Weigh>(
        &self,
        panels: &mut Panels,
        block: &Block<'_>,
        event: usize,
        weigh: &mut W,
        to: *mut f32,
        stride: usize,
    ) {
        // SAFETY: the caller's; a panel of one vector's events needs but one.
        unsafe {
            let events = panels.transposed.as_mut_ptr().add(event * self.dim);
            if self.rows - event > S::LANES {
                self.scores::<S, 2>(events, block, event, to, stride);
                weigh.weigh::<S, 2>(to, stride, block.count, event);
            } else {
                self.scores::<S, 1>(events, block, event, to, stride);
                weigh.weigh::<S, 1>(to, stride, block.count, event);
            }
            self.fill_hits(block, event, 2 * S::LANES, to, stride, 0.0);
        }
    }

    #[inline(always)]
    unsafe fn scores<S: Simd, const V: usize>(
        &self,
        events: *const f32,
        block: &Block<'_>,
        event: usize,
        to: *mut f32,
        stride: usize,
    ) {
        let dim = self.dim;
        // SAFETY: items stay below `count`; `to` holds a row for each of the block's.
        unsafe {
            let right = Right { at: events, stride: 2 * S::LANES, last: S::LANES };
            for_row_tiles!(S, block.count, i, M => {
                let left = Left { at: self.items.as_ptr().add((block.begin + i) * dim), stride: dim, step: 1 };
                let sums = tile::<S, M, V, false>(left, right, dim, [S::splat(0.0); V]);
                for (r, row) in sums.into_iter().enumerate() {
                    store_row::<S, V, false>(row, to.add((i + r) * stride), S::LANES);
                }
            });
            if let Some(correction) = self.correction {
                for (i, &less) in correction[block.begin..block.begin + block.count].iter().enumerate() {
                    for v in 0..V {
                        let at = to.add(i * stride + v * S::LANES);
                        (S::load(at) - S::splat(less)).store(at);
                    }
                }
            }
            self.fill_hits(block, event, 2 * S::LANES, to, stride, f32::NEG_INFINITY);
        }
    }

    /// Writes `value` for the block's hits among the panel's events.
    #[inline(always)]
    unsafe fn fill_hits(&self, block: &Block<'_>, event: usize, panel: usize, to: *mut f32, stride: usize, value: f32) {
        for hit in block.hits {
            let (item, row) = (hit.item as usize - block.begin, hit.row as usize);
            if (event..event + panel).contains(&row) {
                // SAFETY: the hit is among the block's items and the panel's events.
                unsafe { *to.add(item * stride + row - event) = value };
            }
        }
    }
}
