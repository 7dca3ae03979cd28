//! The logistic function and its logarithm.

use super::super::simd::Simd;

/// A score through the logistic function.
pub(super) struct Logistic<S> {
    /// σ(x)
    pub sigma: S,
    /// log(1 + eˣ) = −log(1 − σ(x))
    pub softplus: S,
}

/// Both within a few ulp, for every x: where one is near 0 or 1, it is not a difference from it.
#[inline(always)]
pub(super) fn logistic<S: Simd>(x: S) -> Logistic<S> {
    let (zero, one) = (x.like(0.0), x.like(1.0));
    let e = x.select_negative(x, zero - x).exp();
    let inverse = one / (one + e);
    let sigma = x.select_negative(e * inverse, inverse);
    // log(1 + e) = 2·artanh(e/(2 + e)), whose series in z² ≤ 1/9 needs no more terms than these.
    let z = e / (x.like(2.0) + e);
    let square = z * z;
    let mut p = x.like(2.0 / 13.0);
    for n in [11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        p = x.like(2.0 / n).fma(p, square);
    }
    Logistic { sigma, softplus: zero.max(x) + z * p }
}

#[cfg(test)]
mod tests {
    use super::super::super::isa::{Isa, Kernel};
    use super::*;

    struct Apply<'a>(&'a [f32], &'a mut [f32], &'a mut [f32]);

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for ((x, sigma), softplus) in self.0.iter().zip(self.1).zip(self.2) {
                // SAFETY: one number each.
                unsafe {
                    let y = logistic(S::load_part(x, 1));
                    y.sigma.store_part(sigma, 1);
                    y.softplus.store_part(softplus, 1);
                }
            }
        }
    }

    #[test]
    fn small_probabilities_keep_their_relative_precision() {
        let inputs: Vec<f32> = (-8700..=8700).map(|i| i as f32 / 100.0).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let (mut sigma, mut softplus) = (inputs.clone(), inputs.clone());
            // SAFETY: the set is available.
            unsafe { isa.run(Apply(&inputs, &mut sigma, &mut softplus)) };
            for ((&x, &sigma), &softplus) in inputs.iter().zip(&sigma).zip(&softplus) {
                let x = f64::from(x);
                let (s, p) = (1.0 / (1.0 + (-x).exp()), x.max(0.0) + (-x.abs()).exp().ln_1p());
                assert!((f64::from(sigma) - s).abs() < 5e-7 * s, "{isa:?} σ({x}) = {sigma}, not {s}");
                assert!((f64::from(softplus) - p).abs() < 5e-7 * p, "{isa:?} softplus({x}) = {softplus}, not {p}");
            }
        }
    }

    #[test]
    fn infinite_scores_are_certain_and_nan_stays() {
        let inputs = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 1e30, -1e30];
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let (mut sigma, mut softplus) = (inputs, inputs);
            // SAFETY: the set is available.
            unsafe { isa.run(Apply(&inputs, &mut sigma, &mut softplus)) };
            assert!(sigma[0] < 1e-37 && softplus[0] < 1e-37 && sigma[4] < 1e-37, "{isa:?} {sigma:?} {softplus:?}");
            assert_eq!((sigma[1], softplus[1], sigma[3], softplus[3]), (1.0, f32::INFINITY, 1.0, 1e30));
            assert!(sigma[2].is_nan() && softplus[2].is_nan(), "{isa:?}");
        }
    }
}
