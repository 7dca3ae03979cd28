//! Losses over items of each event's own.
//!
//! Nothing is shared, so there is no product of matrices: an event's scores are dot products with rows of the table,
//! and both derivatives are added up row by row while the rows are in the cache.

use super::super::dot::{dot, dots};
use super::super::gemm::{load_row, store_row};
use super::super::isa::Kernel;
use super::super::matrix::Scratch;
use super::super::simd::{MAX_LANES, Simd, for_vectors};
use super::logistic::logistic;
use crate::TableGradient;

/// What an event's scores make of its loss.
pub(super) trait RowLoss {
    /// Replaces the scores of the negatives, and the target's after them, by the derivatives of the loss by them.
    /// Gives the loss. Scores of −∞ count nothing.
    ///
    /// # Safety
    /// The processor has the instruction set of `S`; `scores` is readable and writable for `negatives + 1` numbers.
    unsafe fn weigh<S: Simd>(&self, scores: *mut f32, negatives: usize) -> f64;
}

/// The loss `L` of every event with its own negatives.
pub(super) struct EachKernel<'a, L> {
    pub loss: L,
    /// `[targets.len(), dim]`
    pub hidden: &'a [f32],
    pub dim: usize,
    /// Rows of `dim`.
    pub items: &'a [f32],
    /// Rows of `items`.
    pub targets: &'a [u32],
    /// Rows of `items`, `[targets.len(), count]`.
    pub negatives: &'a [u32],
    pub count: usize,
    /// What dot products are multiplied with.
    pub scale: f32,
    /// What the derivatives are multiplied with.
    pub weight: f32,
    pub ditems: &'a mut TableGradient,
    /// As many numbers as `hidden`, not necessarily initialised.
    pub dhidden: *mut f32,
}

impl<L: RowLoss> Kernel for EachKernel<'_, L> {
    /// The sum of the losses, without the weight.
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let (dim, count) = (self.dim, self.count);
        let mut scores = Scratch::new((count + 1).next_multiple_of(MAX_LANES));
        let scores = scores.as_mut_ptr();
        let (mut ids, mut places) = (Vec::with_capacity(count + 1), Vec::with_capacity(count + 1));
        let mut loss = 0.0;
        for (r, &target) in self.targets.iter().enumerate() {
            ids.clear();
            ids.extend_from_slice(&self.negatives[r * count..(r + 1) * count]);
            ids.push(target);
            self.ditems.places(&ids, &mut places);
            // SAFETY: the caller made sure that the ids are rows of `items` and that `ditems` has rows of `dim`; there
            // is a score for every id.
            unsafe {
                let hidden = self.hidden[r * dim..(r + 1) * dim].as_ptr();
                self.scores::<S>(hidden, &ids, scores);
                let hit = |n: &usize| ids[*n] == target;
                (0..count).filter(hit).for_each(|n| *scores.add(n) = f32::NEG_INFINITY);
                loss += self.loss.weigh::<S>(scores, count);
                (0..count).filter(hit).for_each(|n| *scores.add(n) = 0.0);
                let factor = S::splat(self.weight * self.scale);
                for_vectors!(S, count + 1, n, lanes => {
                    (S::load_some(scores.add(n), lanes) * factor).store_some(scores.add(n), lanes);
                });
                let event = Event {
                    hidden,
                    items: self.items.as_ptr(),
                    ids: &ids,
                    places: &places,
                    coefficients: scores,
                    dim,
                    dhidden: self.dhidden.add(r * dim),
                    ditems: self.ditems.values_mut().as_mut_ptr(),
                };
                event.spread::<S>();
            }
        }
        loss
    }
}

impl<L> EachKernel<'_, L> {
    /// # Safety
    /// The processor has the instruction set of `S`; `hidden` is a row, the ids are rows of `items`, and `to` is
    /// writable for as many numbers.
    #[inline(always)]
    unsafe fn scores<S: Simd>(&self, hidden: *const f32, ids: &[u32], to: *mut f32) {
        let (items, dim) = (self.items.as_ptr(), self.dim);
        // SAFETY: the caller's.
        unsafe {
            let mut n = 0;
            while ids.len() - n >= S::LANES {
                let mut rows = [items; MAX_LANES];
                for l in 0..S::LANES {
                    rows[l] = items.add(ids[n + l] as usize * dim);
                }
                (dots::<S>(hidden, &rows, dim) * S::splat(self.scale)).store(to.add(n));
                n += S::LANES;
            }
            for (n, &id) in ids.iter().enumerate().skip(n) {
                *to.add(n) = self.scale * dot::<S>(hidden, items.add(id as usize * dim), dim);
            }
        }
    }
}

/// One event on the way back.
struct Event<'a> {
    hidden: *const f32,
    items: *const f32,
    /// Rows of `items`.
    ids: &'a [u32],
    /// Rows of `ditems`.
    places: &'a [u32],
    /// As many as ids.
    coefficients: *const f32,
    dim: usize,
    dhidden: *mut f32,
    ditems: *mut f32,
}

impl Event<'_> {
    /// `dhidden = Σ coefficient·item`, and `coefficient·hidden` is added to each item's derivative.
    #[inline(always)]
    unsafe fn spread<S: Simd>(&self) {
        let mut j = 0;
        // SAFETY: the columns are within the rows.
        unsafe {
            while self.dim - j > 4 * S::LANES {
                self.columns::<S, 4>(j, S::LANES);
                j += 4 * S::LANES;
            }
            let rest = self.dim - j;
            match rest.div_ceil(S::LANES) {
                0 => {}
                1 => self.columns::<S, 1>(j, rest),
                2 => self.columns::<S, 2>(j, rest - S::LANES),
                3 => self.columns::<S, 3>(j, rest - 2 * S::LANES),
                _ => self.columns::<S, 4>(j, rest - 3 * S::LANES),
            }
        }
    }

    /// `V` vectors of columns from `j` on, the last of `last` lanes.
    #[inline(always)]
    unsafe fn columns<S: Simd, const V: usize>(&self, j: usize, last: usize) {
        if last == S::LANES {
            // SAFETY: the caller's.
            unsafe { self.panel::<S, V, false>(j, last) }
        } else {
            // SAFETY: the caller's.
            unsafe { self.panel::<S, V, true>(j, last) }
        }
    }

    #[inline(always)]
    unsafe fn panel<S: Simd, const V: usize, const PART: bool>(&self, j: usize, last: usize) {
        // SAFETY: columns from j on of rows that exist.
        unsafe {
            let hidden = load_row::<S, V, PART>(self.hidden.add(j), last);
            let mut sums = [S::splat(0.0); V];
            for (n, (&id, &place)) in self.ids.iter().zip(self.places).enumerate() {
                let coefficient = S::splat(*self.coefficients.add(n));
                let item = load_row::<S, V, PART>(self.items.add(id as usize * self.dim + j), last);
                let to = self.ditems.add(place as usize * self.dim + j);
                let mut there = load_row::<S, V, PART>(to, last);
                for v in 0..V {
                    sums[v] = sums[v].fma(coefficient, item[v]);
                    there[v] = there[v].fma(coefficient, hidden[v]);
                }
                store_row::<S, V, PART>(there, to, last);
            }
            store_row::<S, V, PART>(sums, self.dhidden.add(j), last);
        }
    }
}

/// Cross-entropy of the softmax over the target and its negatives.
pub(super) struct Softmax;

impl RowLoss for Softmax {
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, scores: *mut f32, negatives: usize) -> f64 {
        // SAFETY: the caller's scores.
        unsafe {
            let (zero, lowest) = (S::splat(0.0), S::splat(f32::NEG_INFINITY));
            let target = *scores.add(negatives);
            let mut largest = lowest;
            for_vectors!(S, negatives + 1, n, lanes => {
                largest = S::load_some(scores.add(n), lanes).keep(lanes, lowest).max(largest);
            });
            let most = largest.largest();
            let (largest, mut sum) = (S::splat(most), zero);
            for_vectors!(S, negatives + 1, n, lanes => {
                let e = (S::load_some(scores.add(n), lanes) - largest).exp().keep(lanes, zero);
                e.store_some(scores.add(n), lanes);
                sum = sum + e;
            });
            let sum = sum.sum();
            let inverse = S::splat(1.0 / sum);
            for_vectors!(S, negatives, n, lanes => {
                (S::load_some(scores.add(n), lanes) * inverse).store_some(scores.add(n), lanes);
            });
            let loss = f64::from(most) - f64::from(target) + f64::from(sum).ln();
            *scores.add(negatives) = (-loss).exp_m1() as f32;
            loss
        }
    }
}

/// −β·log σ of the target's score − Σ log(1 − σ) of the negatives'.
pub(super) struct Binary {
    pub beta: f32,
}

impl RowLoss for Binary {
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, scores: *mut f32, negatives: usize) -> f64 {
        // SAFETY: the caller's scores.
        unsafe {
            let zero = S::splat(0.0);
            let target = S::splat(-*scores.add(negatives));
            let mut losses = zero;
            for_vectors!(S, negatives, n, lanes => {
                let y = logistic(S::load_some(scores.add(n), lanes));
                y.sigma.store_some(scores.add(n), lanes);
                losses = losses + y.softplus.keep(lanes, zero);
            });
            let answer = logistic(target);
            (answer.sigma * S::splat(-self.beta)).store_part(scores.add(negatives), 1);
            f64::from(losses.sum()) + f64::from((answer.softplus * S::splat(self.beta)).keep(1, zero).sum())
        }
    }
}
