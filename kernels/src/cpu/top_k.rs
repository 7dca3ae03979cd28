//! The items with the largest dot products.
//!
//! A single query scans the item table as it lies: [`super::dot::dot`] defines an item's score. Many queries are
//! transposed into panels of one or two vectors and multiplied with tiles of items. That is several times
//! faster a query but adds in another order, so its sums only say which items cannot matter: those that miss
//! the query's bar by more than rounding can explain. The few others are scored again as in a scan. The result
//! is the scan's, to the bit.
#![allow(clippy::needless_range_loop, reason = "indices keep the unrolled register tiles readable")]

use std::cmp::Ordering;

use super::dot::{dot, dots};
use super::gemm::{Left, Right, for_row_tiles, tile};
use super::isa::Kernel;
use super::matrix::Scratch;
use super::simd::{MAX_LANES, Simd};
use crate::{Filter, Scored};

/// Items multiplied with all queries before the next ones: 256 rows of 64 are 64 KiB, and stay in the cache.
const ITEM_BLOCK: usize = 264;

/// The best items of one query so far.
pub(super) struct Best<'a> {
    k: usize,
    /// Up to `capacity` items, of which the best `k` count.
    found: Vec<Scored>,
    capacity: usize,
    exclude: &'a [u32],
    /// No smaller score can still matter. Items come in ascending order, so neither can an equal one.
    bar: f32,
}

/// Best first; ties by ascending index. Scores are never NaN.
fn best_first(a: &Scored, b: &Scored) -> Ordering {
    b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal).then(a.item.cmp(&b.item))
}

impl<'a> Best<'a> {
    pub(super) fn new(k: usize, rows: usize, exclude: &'a [u32]) -> Self {
        let k = k.min(rows);
        let capacity = k + k.max(MAX_LANES);
        Self { k, found: Vec::with_capacity(capacity), capacity, exclude, bar: f32::NEG_INFINITY }
    }

    /// Takes an item, unless its score is below the bar or NaN, or it is excluded.
    fn take(&mut self, item: u32, score: f32) {
        // Not "score < bar": that is false for NaN.
        let high_enough = score >= self.bar;
        if !high_enough || self.exclude.binary_search(&item).is_ok() {
            return;
        }
        self.found.push(Scored { item, score });
        if self.found.len() == self.capacity {
            self.found.select_nth_unstable_by(self.k - 1, best_first);
            self.found.truncate(self.k);
            self.bar = self.found[self.k - 1].score.next_up();
        }
    }

    /// Takes the lanes of a vector that `lanes` names.
    #[inline(always)]
    fn take_lanes<S: Simd>(&mut self, scores: S, lanes: u32, item: impl Fn(usize) -> u32) {
        let mut passing = scores.not_less(scores.like(self.bar)) & lanes;
        if passing == 0 {
            return;
        }
        let mut values = [0f32; MAX_LANES];
        // SAFETY: the buffer is as long as the longest vector.
        unsafe { scores.store(values.as_mut_ptr()) };
        while passing != 0 {
            let lane = passing.trailing_zeros() as usize;
            passing &= passing - 1;
            self.take(item(lane), values[lane]);
        }
    }

    pub(super) fn finish(mut self) -> Vec<Scored> {
        self.found.sort_unstable_by(best_first);
        self.found.truncate(self.k);
        self.found
    }
}

/// One query over the item table or the candidates of its filter; `k` is not 0.
pub(super) struct ScanKernel<'a> {
    pub query: &'a [f32],
    pub items: &'a [f32],
    /// Rows of `items`.
    pub rows: usize,
    pub k: usize,
    pub filter: &'a Filter<'a>,
}

impl Kernel for ScanKernel<'_> {
    type Output = Vec<Scored>;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Vec<Scored> {
        let dim = self.query.len();
        let candidates = self.filter.candidates.map(|all| &all[..all.partition_point(|&c| (c as usize) < self.rows)]);
        let count = candidates.map_or(self.rows, <[u32]>::len);
        let mut best = Best::new(self.k, count, self.filter.exclude);
        let item = |i: usize| candidates.map_or(i as u32, |all| all[i]);
        let mut i = 0;
        while i < count {
            let mut block = [self.items.as_ptr(); MAX_LANES];
            for (l, pointer) in block.iter_mut().enumerate() {
                // Lanes past the end repeat the last item and are masked below.
                let row = item((i + l).min(count - 1)) as usize;
                // SAFETY: the row exists.
                *pointer = unsafe { self.items.as_ptr().add(row * dim) };
            }
            // SAFETY: the rows and the query are dim long.
            let scores = unsafe { dots::<S>(self.query.as_ptr(), &block, dim) };
            best.take_lanes(scores, first_lanes(S::LANES.min(count - i)), |lane| item(i + lane));
            i += S::LANES;
        }
        best.finish()
    }
}

/// The bits of the first `count` lanes.
#[inline(always)]
fn first_lanes(count: usize) -> u32 {
    (1u32 << count) - 1
}

/// Many queries over the whole item table; none has `k` = 0 or candidates.
pub(super) struct BatchKernel<'a, 'f> {
    /// The queries, each `dim` long, with what was found for them.
    pub queries: Vec<(&'a [f32], Best<'f>)>,
    pub items: &'a [f32],
    /// Rows of `items`.
    pub rows: usize,
    pub dim: usize,
}

/// How many queries make the batch kernel worth it; fewer are scanned one by one.
pub(super) const BATCH: usize = 8;

impl Kernel for BatchKernel<'_, '_> {
    type Output = Vec<Vec<Scored>>;

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) -> Vec<Vec<Scored>> {
        let (panel, dim) = (2 * S::LANES, self.dim);
        let panels = self.queries.len().div_ceil(panel);
        let mut transposed = Scratch::new(panels * panel * dim);
        let transposed = transposed.as_mut_ptr();
        // SAFETY: a panel holds dim rows of two vectors; item rows stay below `rows`.
        unsafe {
            for q in 0..panels * panel {
                let to = transposed.add(q / panel * panel * dim + q % panel);
                for d in 0..dim {
                    *to.add(d * panel) = self.queries.get(q).map_or(0.0, |(query, _)| query[d]);
                }
            }
            let mut longest = 0f32;
            for row in 0..self.rows {
                let row = self.items.as_ptr().add(row * dim);
                longest = longest.max(dot::<S>(row, row, dim));
            }
            // Two sums of n products of vectors differ by less than 2·n·2⁻²⁴·‖a‖·‖b‖; the rest of the factor
            // covers the rounding of the norms and of the subtraction from the bar. Where it overflows,
            // every item is scored again.
            let slack = |query: &[f32]| {
                let length = dot::<S>(query.as_ptr(), query.as_ptr(), dim).sqrt() * longest.sqrt();
                1.1 * (dim + 8) as f32 * f32::EPSILON * length
            };
            // Nothing reaches infinity in the lanes of queries that do not exist.
            let mut bars = vec![f32::INFINITY; panels * panel];
            let mut slacks = vec![0.0; panels * panel];
            for (q, (query, best)) in self.queries.iter().enumerate() {
                slacks[q] = slack(query);
                bars[q] = best.bar - slacks[q];
            }
            for begin in (0..self.rows).step_by(ITEM_BLOCK) {
                let items = self.items.as_ptr().add(begin * dim);
                let count = ITEM_BLOCK.min(self.rows - begin);
                for p in 0..panels {
                    let at = p * panel..self.queries.len().min((p + 1) * panel);
                    let mut block = Block {
                        items,
                        begin,
                        count,
                        dim,
                        transposed: transposed.add(p * panel * dim),
                        bars: &mut bars[p * panel..][..panel],
                        slacks: &slacks[p * panel..][..panel],
                        queries: &mut self.queries[at],
                    };
                    if block.queries.len() <= S::LANES { block.scan::<S, 1>() } else { block.scan::<S, 2>() }
                }
            }
        }
        self.queries.into_iter().map(|(_, best)| best.finish()).collect()
    }
}

/// Some consecutive items against a panel of queries.
struct Block<'b, 'a, 'f> {
    items: *const f32,
    /// Index of the first item.
    begin: usize,
    count: usize,
    dim: usize,
    /// `dim` rows of two vectors of queries.
    transposed: *const f32,
    /// For each lane, what a sum has to reach to be looked at.
    bars: &'b mut [f32],
    /// How far that is below the query's own bar.
    slacks: &'b [f32],
    queries: &'b mut [(&'a [f32], Best<'f>)],
}

impl Block<'_, '_, '_> {
    /// # Safety
    /// The processor has the instruction set of `S`; the pointers are as described, and the queries are at most
    /// `V` vectors.
    #[inline(always)]
    unsafe fn scan<S: Simd, const V: usize>(&mut self) {
        // SAFETY: tiles stay below `count` items; `bars` has two vectors.
        unsafe {
            let right = Right { at: self.transposed, stride: 2 * S::LANES, last: S::LANES };
            let zero = [S::splat(0.0); V];
            for_row_tiles!(S, self.count, i, M => {
                let left = Left { at: self.items.add(i * self.dim), stride: self.dim, step: 1 };
                let sums = tile::<S, M, V, false>(left, right, self.dim, zero);
                let mut bars = zero;
                for v in 0..V {
                    bars[v] = S::load(self.bars.as_ptr().add(v * S::LANES));
                }
                let mut passing = [[0; V]; M];
                let mut any = 0;
                for r in 0..M {
                    for v in 0..V {
                        passing[r][v] = sums[r][v].not_less(bars[v]);
                        any |= passing[r][v];
                    }
                }
                if any != 0 {
                    for r in 0..M {
                        for v in 0..V {
                            self.look_at::<S>(i + r, v * S::LANES, passing[r][v]);
                        }
                    }
                }
            });
        }
    }

    /// Scores an item again for the queries whose lanes passed, the first of which is query `first`.
    ///
    /// # Safety
    /// As for `scan`; the item exists.
    #[inline(always)]
    unsafe fn look_at<S: Simd>(&mut self, item: usize, first: usize, mut lanes: u32) {
        while lanes != 0 {
            let q = first + lanes.trailing_zeros() as usize;
            lanes &= lanes - 1;
            if let Some((query, best)) = self.queries.get_mut(q) {
                // SAFETY: the item's row and the query are dim long.
                let score = unsafe { dot::<S>(query.as_ptr(), self.items.add(item * self.dim), self.dim) };
                best.take((self.begin + item) as u32, score);
                self.bars[q] = best.bar - self.slacks[q];
            }
        }
    }
}
