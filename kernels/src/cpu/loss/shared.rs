//! Losses over items that all events share.

use super::super::isa::Kernel;
use super::super::matrix::Scratch;
use super::super::simd::Simd;
use super::grid::{Grid, Weigh};
use super::logistic::logistic;

/// Cross-entropy of the softmax over the items of a grid.
///
/// Two passes over the items: the first finds what each event's exponentials add up to. The second computes again the
/// scores that were too many to keep.
pub(super) struct SoftmaxKernel<'a> {
    pub grid: Grid<'a>,
    /// The scores of the targets.
    pub targets: &'a [f32],
    /// Whether the targets are among the items; they are added to them where not.
    pub included: bool,
    pub weight: f32,
    /// `[rows, dim]`, zeros: gets Σ p·item, to be multiplied with `weight·scale`.
    pub dhidden: &'a mut [f32],
    /// `[count, dim]`: `weight·p·scale·hidden` is added.
    pub ditems: &'a mut [f32],
    /// A number a row: gets what the target's vector counts in the derivative by the row, and the row in that by
    /// the target's vector, but for `weight·scale`.
    pub coefficients: &'a mut [f32],
}

impl Kernel for SoftmaxKernel<'_> {
    /// The sum of the losses, without the weight.
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let (grid, padded) = (&self.grid, self.grid.padded::<S>());
        let mut sums = Scratch::new(2 * padded);
        let mut sums = LogSums { largest: sums.as_mut_ptr(), sum: sums.as_mut_ptr().wrapping_add(padded) };
        // SAFETY: the caller checked the shapes; there is a sum for every event of every panel.
        unsafe {
            for event in 0..padded {
                let start = if self.included { None } else { self.targets.get(event) };
                *sums.largest.add(event) = start.copied().unwrap_or(f32::NEG_INFINITY);
                *sums.sum.add(event) = if start.is_some() { 1.0 } else { 0.0 };
            }
            let mut work = grid.workspace::<S>(true);
            grid.look::<S, _>(&mut work, &mut sums);
            let mut loss = 0.0;
            for (event, (&target, coefficient)) in self.targets.iter().zip(self.coefficients).enumerate() {
                let sum = sums.sum.add(event);
                let row = f64::from(*sums.largest.add(event)) - f64::from(target) + f64::from(*sum).ln();
                loss += row;
                *coefficient = if self.included { -1.0 } else { (-row).exp_m1() as f32 };
                *sum = 1.0 / *sum;
            }
            let mut shares = Shares { largest: sums.largest, inverse: sums.sum };
            let (dhidden, ditems) = (self.dhidden.as_mut_ptr(), self.ditems.as_mut_ptr());
            grid.spread::<S, _>(&mut work, &mut shares, self.weight, dhidden, ditems);
            loss
        }
    }
}

/// Σ eˣ of each event, as the largest score and the sum relative to it.
struct LogSums {
    largest: *mut f32,
    sum: *mut f32,
}

impl Weigh for LogSums {
    #[inline(always)]
    unsafe fn weigh<S: Simd, const V: usize>(&mut self, scores: *mut f32, stride: usize, count: usize, event: usize) {
        // SAFETY: the caller's; V vectors from a panel's first event on are within the sums.
        unsafe {
            let (largest, sum) = (self.largest.add(event), self.sum.add(event));
            let mut most = [S::splat(f32::NEG_INFINITY); V];
            for i in 0..count {
                for (v, most) in most.iter_mut().enumerate() {
                    *most = S::load(scores.add(i * stride + v * S::LANES)).max(*most);
                }
            }
            let mut sums = [S::splat(0.0); V];
            for v in 0..V {
                let before = S::load(largest.add(v * S::LANES));
                most[v] = most[v].max(before);
                most[v].store(largest.add(v * S::LANES));
                // No sum is 0 where a score was seen, so this is not −∞ − (−∞) where it counts.
                sums[v] = S::load(sum.add(v * S::LANES)) * (before - most[v]).exp();
            }
            let mut added = [S::splat(0.0); V];
            for i in 0..count {
                for v in 0..V {
                    added[v] = added[v] + (S::load(scores.add(i * stride + v * S::LANES)) - most[v]).exp();
                }
            }
            for v in 0..V {
                (sums[v] + added[v]).store(sum.add(v * S::LANES));
            }
        }
    }
}

/// The softmax.
struct Shares {
    /// The largest score of each event. Subtracting the logarithm of the sum with it would round both to its size.
    largest: *const f32,
    /// 1/Σ e^(x − largest)
    inverse: *const f32,
}

impl Weigh for Shares {
    #[inline(always)]
    unsafe fn weigh<S: Simd, const V: usize>(&mut self, scores: *mut f32, stride: usize, count: usize, event: usize) {
        // SAFETY: the caller's; V vectors from a panel's first event on are within the sums.
        unsafe {
            let zero = S::splat(0.0);
            let (mut largest, mut inverse) = ([zero; V], [zero; V]);
            for v in 0..V {
                largest[v] = S::load(self.largest.add(event + v * S::LANES));
                inverse[v] = S::load(self.inverse.add(event + v * S::LANES));
            }
            for i in 0..count {
                for v in 0..V {
                    let at = scores.add(i * stride + v * S::LANES);
                    ((S::load(at) - largest[v]).exp() * inverse[v]).store(at);
                }
            }
        }
    }
}

/// Binary cross-entropy of the items of a grid, none of which is an answer.
pub(super) struct NegativesKernel<'a> {
    pub grid: Grid<'a>,
    pub weight: f32,
    /// `[rows, dim]`, zeros: gets Σ σ·item, to be multiplied with `weight·scale`.
    pub dhidden: &'a mut [f32],
    /// `[count, dim]`: `weight·σ·scale·hidden` is added.
    pub ditems: &'a mut [f32],
}

impl Kernel for NegativesKernel<'_> {
    /// The sum of the losses, without the weight.
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let (grid, padded) = (&self.grid, self.grid.padded::<S>());
        let mut losses = Scratch::new(padded);
        let mut chances = Chances { losses: losses.as_mut_ptr() };
        // SAFETY: the caller checked the shapes; there is a loss for every event of every panel.
        unsafe {
            std::ptr::write_bytes(chances.losses, 0, padded);
            let mut work = grid.workspace::<S>(false);
            let (dhidden, ditems) = (self.dhidden.as_mut_ptr(), self.ditems.as_mut_ptr());
            grid.spread::<S, _>(&mut work, &mut chances, self.weight, dhidden, ditems);
            (0..grid.rows).map(|event| f64::from(*chances.losses.add(event))).sum()
        }
    }
}

/// The logistic function.
struct Chances {
    /// Σ softplus of each event.
    losses: *mut f32,
}

impl Weigh for Chances {
    #[inline(always)]
    unsafe fn weigh<S: Simd, const V: usize>(&mut self, scores: *mut f32, stride: usize, count: usize, event: usize) {
        // SAFETY: the caller's; V vectors from a panel's first event on are within the losses.
        unsafe {
            let mut losses = [S::splat(0.0); V];
            for i in 0..count {
                for (v, loss) in losses.iter_mut().enumerate() {
                    let at = scores.add(i * stride + v * S::LANES);
                    let y = logistic(S::load(at));
                    y.sigma.store(at);
                    *loss = *loss + y.softplus;
                }
            }
            for (v, loss) in losses.into_iter().enumerate() {
                let at = self.losses.add(event + v * S::LANES);
                (S::load(at) + loss).store(at);
            }
        }
    }
}
