//! Dropout on rows of events.

use super::super::isa::Kernel;
use super::super::noise::{Stream, growth};
use super::super::simd::{Simd, for_vectors};
use crate::Noise;

/// Numbers of `x` become 0 or grow; number `n` of a history's rows is decided by number `n` of its stream.
pub(super) struct DropOutKernel<'a> {
    /// `[events, cols]`
    pub x: &'a mut [f32],
    pub cols: usize,
    pub offsets: &'a [usize],
    pub noise: Noise<'a>,
}

impl Kernel for DropOutKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (history, bounds) in self.offsets.windows(2).enumerate() {
            let rows = &mut self.x[bounds[0] * self.cols..bounds[1] * self.cols];
            let (len, at) = (rows.len(), rows.as_mut_ptr());
            let stream = Stream::new(&self.noise, history);
            for_vectors!(S, len, j, count => {
                // SAFETY: `count` numbers from j on are within the rows.
                unsafe {
                    let x = S::load_some(at.add(j), count) * S::splat(growth(&self.noise));
                    x.survive(stream, j as u32).store_some(at.add(j), count);
                }
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cpu::noise::{Stream, growth};
    use crate::cpu::reference::Random;
    use crate::cpu::tests::{cpus, sequences};
    use crate::cpu::{Cpu, Matrix};
    use crate::{Backward, Noise};

    /// The dropout of ones.
    fn mask(cpu: Cpu, rows: usize, cols: usize, noise: Noise<'_>) -> Matrix {
        let mut x = Matrix::from_slice(&vec![1.0; rows * cols], cols);
        cpu.drop_out(&mut x, &sequences(&[0, rows]), noise);
        x
    }

    #[test]
    fn the_same_numbers_fall_away_with_every_instruction_set() {
        let mut random = Random::new();
        for (rows, cols, rate) in [(1, 1, 0.5), (13, 50, 0.2), (200, 64, 0.5), (7, 25, 0.9), (3, 3, 0.0)] {
            let noise = Noise { keys: &[random.next()], site: 7, rate };
            let stream = Stream::new(&noise, 0);
            let wanted: Vec<f32> =
                (0..(rows * cols) as u32).map(|n| if stream.keeps(n) { growth(&noise) } else { 0.0 }).collect();
            for cpu in cpus() {
                assert_eq!(mask(cpu, rows, cols, noise).as_slice(), wanted, "{:?} {rows}×{cols}", cpu.isa());
            }
            if rate == 0.0 {
                assert!(wanted.iter().all(|&x| x == 1.0));
            }
        }
    }

    #[test]
    fn dropout_decides_by_the_rate_and_by_nothing_else() {
        let mut random = Random::new();
        let (rows, cols) = (4096, 64);
        let count = (rows * cols) as f64;
        let cpu = Cpu::new();
        for rate in [0.1f32, 0.2, 0.5, 0.75] {
            // Keys and sites in a row, as a caller might number them.
            let key = random.next() >> 40;
            let kept = |key: u64, site| -> Vec<f64> {
                let mask = mask(cpu, rows, cols, Noise { keys: &[key], site, rate });
                let centre = 1.0 - f64::from(rate);
                mask.as_slice().iter().map(|&x| f64::from(u8::from(x != 0.0)) - centre).collect()
            };
            let base = kept(key, 0);
            let variance = f64::from(rate) * f64::from(1.0 - rate);
            let mean = base.iter().sum::<f64>() / count;
            assert!(mean.abs() < 5.0 * (variance / count).sqrt(), "rate {rate}: off by {mean}");
            let correlation = |other: &[f64]| base.iter().zip(other).map(|(a, b)| a * b).sum::<f64>() / variance;
            let mut others = vec![kept(key + 1, 0), kept(key, 1), kept(key + 1, 1), kept(key ^ 1 << 32, 0)];
            others.extend([1, 2, 16, cols - 1, cols, cols + 1, 2 * cols, 1024].map(|lag| base[lag..].to_vec()));
            for (n, other) in others.iter().enumerate() {
                let deviations = correlation(other) / count.sqrt();
                assert!(deviations.abs() < 5.5, "rate {rate}, comparison {n}: {deviations} standard deviations");
            }
        }
    }
}
