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

/// Scores that are kept from one pass to the next: 4 MB, a core's share of a third-level cache. Reading them there
/// takes a fifth of the time of computing them again; reading them from memory would take as long.
const KEPT: usize = 1 << 20;

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

/// What the passes over a grid share.
pub(super) struct Workspace {
    /// `scale`·hidden: row `r`'s number `d` at `[(r / panel·dim + d)·panel + r % panel]`.
    panels: Scratch,
    /// `scale`·hidden, `[rows, dim]`.
    scaled: Scratch,
    /// Scores of a block of items and a group of events at a time, an item's `stride` apart; before them those of
    /// every group and the first `kept` items.
    scores: Scratch,
    stride: usize,
    kept: usize,
}

/// Some consecutive items.
struct Block<'a> {
    begin: usize,
    count: usize,
    hits: &'a [Hit],
}

impl<'a> Grid<'a> {
    /// With `keep`, scores that [`Grid::look`] computes are there for [`Grid::spread`], as far as they fit.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; the slices have the sizes that their comments say.
    #[inline(always)]
    pub(super) unsafe fn workspace<S: Simd>(&self, keep: bool) -> Workspace {
        let mut scaled = Scratch::new(self.rows * self.dim);
        let mut panels = Scratch::new(self.padded::<S>() * self.dim);
        // SAFETY: both buffers are of the sizes that are written, and rows·dim of hidden are read.
        unsafe {
            let (to, scale) = (scaled.as_mut_ptr(), S::splat(self.scale));
            for_vectors!(S, self.rows * self.dim, j, lanes => {
                (S::load_some(self.hidden.as_ptr().add(j), lanes) * scale).store_some(to.add(j), lanes);
            });
            transpose_panels::<S>(to, self.dim, self.rows, self.dim, panels.as_mut_ptr());
        }
        let (stride, groups) = (GROUP.min(self.padded::<S>()) + GAP, self.rows.div_ceil(GROUP));
        let fitting = KEPT / (stride * groups.max(1));
        let kept = match keep {
            true if fitting >= self.count => self.count,
            true => fitting / BLOCK * BLOCK,
            false => 0,
        };
        let scores = Scratch::new((groups * kept + BLOCK) * stride);
        Workspace { panels, scaled, scores, stride, kept }
    }

    /// The rows in whole panels.
    pub(super) fn padded<S: Simd>(&self) -> usize {
        self.rows.next_multiple_of(2 * S::LANES)
    }

    /// Shows every score to `weigh`, which must not replace them where they are kept.
    ///
    /// # Safety
    /// As for [`Grid::workspace`], which made `work`.
    #[inline(always)]
    pub(super) unsafe fn look<S: Simd, W: Weigh>(&self, work: &mut Workspace, weigh: &mut W) {
        for block in self.blocks() {
            for first in (0..self.rows).step_by(GROUP) {
                // SAFETY: the caller's.
                unsafe { self.weigh_group::<S, W>(work, &block, first, weigh, true) };
            }
        }
    }

    /// With `weigh` making weights of the scores: `dhidden += weights·items` and
    /// `ditems += weight·weightsᵀ·scale·hidden`.
    ///
    /// # Safety
    /// As for [`Grid::workspace`], which made `work`, with `keep` only where [`Grid::look`] was called; `dhidden` is
    /// readable and writable for `[rows, dim]` numbers, and `ditems` for `[count, dim]`.
    #[inline(always)]
    pub(super) unsafe fn spread<S: Simd, W: Weigh>(
        &self,
        work: &mut Workspace,
        weigh: &mut W,
        weight: f32,
        dhidden: *mut f32,
        ditems: *mut f32,
    ) {
        let (dim, stride) = (self.dim, work.stride);
        // SAFETY: events stay below `rows` and items below `count`.
        unsafe {
            let (scaled, weight) = (work.scaled.as_mut_ptr(), S::splat(weight));
            for_vectors!(S, self.rows * dim, j, lanes => {
                (S::load_some(scaled.add(j), lanes) * weight).store_some(scaled.add(j), lanes);
            });
            for block in self.blocks() {
                let items = self.items.as_ptr().add(block.begin * dim);
                for first in (0..self.rows).step_by(GROUP) {
                    let events = GROUP.min(self.rows - first);
                    let weights = self.weigh_group::<S, W>(work, &block, first, weigh, block.begin >= work.kept);
                    fill_hits(&block, first, events, weights, stride, 0.0);
                    for_row_tiles!(S, block.count, i, M => {
                        let left = Left { at: weights.add(i * stride), stride, step: 1 };
                        let to = ditems.add((block.begin + i) * dim);
                        add_rows::<S, M>(left, scaled.add(first * dim), dim, events, dim, to, dim);
                    });
                    for_row_tiles!(S, events, i, M => {
                        let left = Left { at: weights.add(i), stride: 1, step: stride };
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

    /// Weighs the scores of a block for the group from event `first` on, which it computes first where told to.
    /// Gives their place.
    #[inline(always)]
    unsafe fn weigh_group<S: Simd, W: Weigh>(
        &self,
        work: &mut Workspace,
        block: &Block<'_>,
        first: usize,
        weigh: &mut W,
        compute: bool,
    ) -> *mut f32 {
        let (panel, stride) = (2 * S::LANES, work.stride);
        let above = match block.begin < work.kept {
            true => first / GROUP * work.kept + block.begin,
            false => self.rows.div_ceil(GROUP) * work.kept,
        };
        // SAFETY: the buffer has as many rows above the block's; a panel of one vector's events needs but one.
        unsafe {
            let scores = work.scores.as_mut_ptr().add(above * stride);
            for event in (first..self.rows.min(first + GROUP)).step_by(panel) {
                let (events, to) = (work.panels.as_mut_ptr().add(event * self.dim), scores.add(event - first));
                let wide = self.rows - event > S::LANES;
                if compute {
                    if wide {
                        self.scores::<S, 2>(events, block, to, stride);
                    } else {
                        self.scores::<S, 1>(events, block, to, stride);
                    }
                    fill_hits(block, event, panel, to, stride, f32::NEG_INFINITY);
                }
                if wide {
                    weigh.weigh::<S, 2>(to, stride, block.count, event);
                } else {
                    weigh.weigh::<S, 1>(to, stride, block.count, event);
                }
            }
            scores
        }
    }

    /// Scores of a block, corrected, for `V` vectors of events.
    #[inline(always)]
    unsafe fn scores<S: Simd, const V: usize>(
        &self,
        events: *const f32,
        block: &Block<'_>,
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
        }
    }
}

/// Writes `value` for the block's hits among `count` events from `first` on, of which `scores` are.
#[inline(always)]
unsafe fn fill_hits(block: &Block<'_>, first: usize, count: usize, scores: *mut f32, stride: usize, value: f32) {
    for hit in block.hits {
        let (item, row) = (hit.item as usize - block.begin, hit.row as usize);
        if (first..first + count).contains(&row) {
            // SAFETY: the hit is among the block's items and these events.
            unsafe { *scores.add(item * stride + row - first) = value };
        }
    }
}
