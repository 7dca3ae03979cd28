//! Steps of optimisers.

use super::Cpu;
use super::isa::Kernel;
use super::rowwise::AddKernel;
use super::simd::{Simd, for_vectors};
use crate::{AdaGrad, AdamW, Optimizers};

impl Optimizers for Cpu {
    fn adamw(&self, step: &AdamW, weights: &mut [f32], gradient: &[f32], scale: f32, m: &mut [f32], v: &mut [f32]) {
        let len = weights.len();
        assert!(gradient.len() == len && m.len() == len && v.len() == len, "one derivative and two means a weight");
        self.run(AdamWKernel { factors: Factors::new(step, scale), weights, gradient, m, v });
    }

    fn adagrad(&self, step: &AdaGrad, weights: &mut [f32], gradient: &[f32], scale: f32, squares: &mut [f32]) {
        assert!(gradient.len() == weights.len() && squares.len() == weights.len(), "one derivative and sum a weight");
        self.run(AdaGradKernel { step, scale, weights, gradient, squares });
    }

    fn sum_squares(&self, x: &[f32]) -> f64 {
        self.run(SumSquaresKernel(x))
    }

    fn accumulate(&self, to: &mut [f32], from: &[f32]) {
        assert_eq!(to.len(), from.len(), "a sum of different lengths");
        self.run(AddKernel { x: to, y: from });
    }
}

/// The numbers of [`AdamW`] that its loop needs.
struct Factors {
    scale: f32,
    beta1: f32,
    beta2: f32,
    /// rate/(1 − β₁ᵗ)
    rate: f32,
    /// 1/√(1 − β₂ᵗ)
    root: f32,
    eps: f32,
    /// 1 − rate·decay
    keep: f32,
}

impl Factors {
    fn new(step: &AdamW, scale: f32) -> Self {
        let power = i32::try_from(step.step).unwrap_or(i32::MAX);
        let remaining = |beta: f32| 1.0 - f64::from(beta).powi(power);
        Self {
            scale,
            beta1: step.beta1,
            beta2: step.beta2,
            rate: (f64::from(step.rate) / remaining(step.beta1)) as f32,
            root: (1.0 / remaining(step.beta2).sqrt()) as f32,
            eps: step.eps,
            keep: (1.0 - f64::from(step.rate) * f64::from(step.decay)) as f32,
        }
    }
}

/// One step of [`AdamW`]; all slices have the same length.
struct AdamWKernel<'a> {
    factors: Factors,
    weights: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Kernel for AdamWKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let f = self.factors;
        let (weights, m, v) = (self.weights.as_mut_ptr(), self.m.as_mut_ptr(), self.v.as_mut_ptr());
        // SAFETY: indices stay below the common length.
        unsafe {
            let (beta1, beta2) = (S::splat(f.beta1), S::splat(f.beta2));
            let (rest1, rest2) = (S::splat(1.0) - beta1, S::splat(1.0) - beta2);
            let (scale, rate, root) = (S::splat(f.scale), S::splat(f.rate), S::splat(f.root));
            let (eps, keep) = (S::splat(f.eps), S::splat(f.keep));
            for_vectors!(S, self.gradient.len(), j, lanes => {
                let g = S::load_some(self.gradient.as_ptr().add(j), lanes) * scale;
                let mean = (g * rest1).fma(S::load_some(m.add(j), lanes), beta1);
                let square = (g * g * rest2).fma(S::load_some(v.add(j), lanes), beta2);
                let w = S::load_some(weights.add(j), lanes) * keep;
                mean.store_some(m.add(j), lanes);
                square.store_some(v.add(j), lanes);
                (w - mean * rate / eps.fma(square.sqrt(), root)).store_some(weights.add(j), lanes);
            });
        }
    }
}

/// One step of [`AdaGrad`]; all slices have the same length.
struct AdaGradKernel<'a> {
    step: &'a AdaGrad,
    scale: f32,
    weights: &'a mut [f32],
    gradient: &'a [f32],
    squares: &'a mut [f32],
}

impl Kernel for AdaGradKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (weights, squares) = (self.weights.as_mut_ptr(), self.squares.as_mut_ptr());
        // SAFETY: indices stay below the common length.
        unsafe {
            let (scale, rate, eps) = (S::splat(self.scale), S::splat(self.step.rate), S::splat(self.step.eps));
            for_vectors!(S, self.gradient.len(), j, lanes => {
                let g = S::load_some(self.gradient.as_ptr().add(j), lanes) * scale;
                let sum = S::load_some(squares.add(j), lanes).fma(g, g);
                sum.store_some(squares.add(j), lanes);
                let w = S::load_some(weights.add(j), lanes) - rate * g / (sum.sqrt() + eps);
                w.store_some(weights.add(j), lanes);
            });
        }
    }
}

/// Σ x², in 32 chains that are the same for every instruction set.
struct SumSquaresKernel<'a>(&'a [f32]);

impl Kernel for SumSquaresKernel<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        const CHAINS: usize = 32;
        let mut sums = [0f64; CHAINS];
        let (chunks, rest) = self.0.as_chunks::<CHAINS>();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Isa;
    use super::super::reference::{Random, relative_error};
    use super::*;

    const LENGTHS: [usize; 6] = [0, 1, 15, 16, 100, 1000];

    fn cpus() -> Vec<Cpu> {
        Isa::ALL.into_iter().filter_map(Cpu::with_isa).collect()
    }

    fn doubles(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&x| f64::from(x)).collect()
    }

    #[test]
    fn adamw_matches_double_precision_over_several_steps() {
        let mut random = Random::new();
        for cpu in cpus() {
            for len in LENGTHS {
                let mut weights = random.normals(len);
                let (mut m, mut v) = (vec![0f32; len], vec![0f32; len]);
                let (mut w64, mut m64, mut v64) = (doubles(&weights), vec![0.0; len], vec![0.0; len]);
                for step in 1..=5 {
                    let step = AdamW { rate: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-6, decay: 0.1, step };
                    let (gradient, scale) = (random.normals(len), 0.3f32);
                    cpu.adamw(&step, &mut weights, &gradient, scale, &mut m, &mut v);
                    let [rate, beta1, beta2, eps, decay] =
                        [step.rate, step.beta1, step.beta2, step.eps, step.decay].map(f64::from);
                    for i in 0..len {
                        let g = f64::from(gradient[i]) * f64::from(scale);
                        m64[i] = beta1 * m64[i] + (1.0 - beta1) * g;
                        v64[i] = beta2 * v64[i] + (1.0 - beta2) * g * g;
                        let mean = m64[i] / (1.0 - beta1.powi(step.step as i32));
                        let square: f64 = v64[i] / (1.0 - beta2.powi(step.step as i32));
                        w64[i] -= rate * (mean / (square.sqrt() + eps) + decay * w64[i]);
                    }
                }
                for (found, wanted) in [(&weights, &w64), (&m, &m64), (&v, &v64)] {
                    assert!(relative_error(found, wanted) < 1e-5, "{:?} {len}", cpu.isa());
                }
            }
        }
    }

    #[test]
    fn a_weight_that_never_had_a_derivative_only_decays() {
        for cpu in cpus() {
            for step in [1, 100_000_000_000] {
                let step = AdamW { rate: 0.5, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.5, step };
                let (mut weights, mut m, mut v) = ([2.0; 3], [0.0; 3], [0.0; 3]);
                cpu.adamw(&step, &mut weights, &[0.0; 3], 1.0, &mut m, &mut v);
                assert_eq!((weights, m, v), ([1.5; 3], [0.0; 3], [0.0; 3]));
            }
            let mut weights = [2.0; 3];
            cpu.adagrad(&AdaGrad { rate: 0.5, eps: 1e-8 }, &mut weights, &[0.0; 3], 1.0, &mut [0.0; 3]);
            assert_eq!(weights, [2.0; 3]);
        }
    }

    #[test]
    fn adagrad_matches_double_precision_over_several_steps() {
        let mut random = Random::new();
        for cpu in cpus() {
            for len in LENGTHS {
                let (mut weights, mut squares) = (random.normals(len), vec![0f32; len]);
                let (mut w64, mut s64) = (doubles(&weights), vec![0.0; len]);
                for _ in 0..4 {
                    let (gradient, scale) = (random.normals(len), 0.7f32);
                    cpu.adagrad(&AdaGrad { rate: 0.1, eps: 1e-3 }, &mut weights, &gradient, scale, &mut squares);
                    for i in 0..len {
                        let g = f64::from(gradient[i]) * f64::from(scale);
                        s64[i] += g * g;
                        w64[i] -= f64::from(0.1f32) * g / (f64::sqrt(s64[i]) + f64::from(1e-3f32));
                    }
                }
                assert!(relative_error(&weights, &w64) < 1e-5, "{:?} {len}", cpu.isa());
                assert!(relative_error(&squares, &s64) < 1e-5, "{:?} {len}", cpu.isa());
            }
        }
    }

    #[test]
    fn sums_of_squares_have_the_same_bits_everywhere() {
        let mut random = Random::new();
        for len in LENGTHS {
            let values = random.normals(len);
            let wanted: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
            let found: Vec<f64> = cpus().iter().map(|cpu| cpu.sum_squares(&values)).collect();
            assert!((found[0] - wanted).abs() <= 1e-13 * wanted, "{found:?}, not {wanted}");
            assert!(found.iter().all(|x| x.to_bits() == found[0].to_bits()), "{found:?}");
        }
        // Single precision would not see the ones.
        let mut values = vec![1.0; 4096];
        values[0] = 1e4;
        assert_eq!(Cpu::new().sum_squares(&values), 1e8 + 4095.0);
    }

    #[test]
    fn accumulation_adds_every_number() {
        for cpu in cpus() {
            for len in LENGTHS {
                let (mut to, from): (Vec<f32>, Vec<f32>) = (0..len).map(|i| (i as f32, 2.0 * i as f32)).unzip();
                cpu.accumulate(&mut to, &from);
                assert!(to.iter().enumerate().all(|(i, &x)| x == 3.0 * i as f32), "{:?} {len}", cpu.isa());
            }
        }
    }
}
