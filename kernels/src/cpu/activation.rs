//! Element-wise functions.

use super::simd::Simd;
use crate::Activation;

/// Applies GELU or SiLU in place to `rows` rows of `cols` numbers. The others are done where the sum is stored.
///
/// # Safety
/// The processor has the instruction set of `S`; the rows are initialised and writable.
#[inline(always)]
pub(super) unsafe fn activate<S: Simd>(activation: Activation, at: *mut f32, rows: usize, cols: usize, stride: usize) {
    // SAFETY: the caller vouches for the rows.
    unsafe {
        match activation {
            Activation::Identity | Activation::Relu => {}
            Activation::Gelu => {
                for r in 0..rows {
                    let mut j = 0;
                    while j < cols {
                        let (at, count) = (at.add(r * stride + j), S::LANES.min(cols - j));
                        gelu(S::load_part(at, count)).store_part(at, count);
                        j += S::LANES;
                    }
                }
            }
            Activation::Silu => {
                for r in 0..rows {
                    let mut j = 0;
                    while j < cols {
                        let (at, count) = (at.add(r * stride + j), S::LANES.min(cols - j));
                        silu(S::load_part(at, count)).store_part(at, count);
                        j += S::LANES;
                    }
                }
            }
        }
    }
}

/// An element-wise function and its derivative.
pub(super) trait Curve {
    fn value<S: Simd>(x: S) -> S;
    fn slope<S: Simd>(x: S) -> S;
}

pub(super) struct Identity;
pub(super) struct Relu;
pub(super) struct Gelu;
pub(super) struct Silu;

impl Curve for Identity {
    #[inline(always)]
    fn value<S: Simd>(x: S) -> S {
        x
    }
    #[inline(always)]
    fn slope<S: Simd>(x: S) -> S {
        x.like(1.0)
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value<S: Simd>(x: S) -> S {
        x.like(0.0).max(x)
    }
    #[inline(always)]
    fn slope<S: Simd>(x: S) -> S {
        (x.like(0.0) - x).select_negative(x.like(1.0), x.like(0.0))
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value<S: Simd>(x: S) -> S {
        gelu(x)
    }
    /// Φ(x) + x·φ(x)
    #[inline(always)]
    fn slope<S: Simd>(x: S) -> S {
        const DENSITY: f32 = 0.398_942_3;
        // Beyond 20 the density is clamped, and the product would grow with x.
        let x = x.like(20.0).min(x.like(-20.0).max(x));
        let Normal { cdf, e } = normal(x);
        cdf.fma(x * e, x.like(DENSITY))
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn value<S: Simd>(x: S) -> S {
        silu(x)
    }
    /// σ(x)·(1 + x·(1 − σ(x)))
    #[inline(always)]
    fn slope<S: Simd>(x: S) -> S {
        let x = x.like(88.0).min(x.like(-88.0).max(x));
        let one = x.like(1.0);
        let e = (x.like(0.0) - x).exp();
        let sigma = one / (one + e);
        sigma.fma(sigma * (sigma * e), x)
    }
}

/// x·σ(x)
#[inline(always)]
fn silu<S: Simd>(x: S) -> S {
    // Beyond −88 the exponential is clamped, and the quotient would grow with x.
    x.like(-88.0).max(x) / (x.like(1.0) + (x.like(0.0) - x).exp())
}

/// x·Φ(x), within 1e-6 of its own size wherever it is a normal number.
#[inline(always)]
fn gelu<S: Simd>(x: S) -> S {
    x * normal(x).cdf
}

/// The normal distribution at a number.
struct Normal<S> {
    /// Φ(x)
    cdf: S,
    /// e^(−x²/2)
    e: S,
}

/// The normal distribution's upper tail at a = |x| is e^(−a²/2)·t·P(t) with t = 1/(1 + .27·a) and P the
/// interpolation of erfcx at Chebyshev nodes for 0 ≤ a ≤ 20 (relative error 5e-8). a² is needed to twice the
/// precision of f32, because the exponential turns its absolute error into a relative one.
#[inline(always)]
fn normal<S: Simd>(x: S) -> Normal<S> {
    const P: [f32; 9] = [
        2.953_709_1e-2,
        -1.292_239_1e-1,
        1.752_855_3e-1,
        -7.528_294e-2,
        1.118_407_2e-1,
        7.042_805e-2,
        1.021_999e-1,
        1.074_921_9e-1,
        1.077_234e-1,
    ];
    let zero = x.like(0.0);
    let a = x.like(20.0).min(x.select_negative(zero - x, x));
    let t = x.like(1.0) / x.like(1.0).fma(a, x.like(0.27));
    let mut p = x.like(P[0]);
    for coefficient in &P[1..] {
        p = x.like(*coefficient).fma(p, t);
    }
    let square = a * a;
    let rest = (zero - square).fma(a, a);
    let e = (square * x.like(-0.5)).exp();
    let e = e.fma(e * rest, x.like(-0.5));
    let tail = e * t * p;
    Normal { cdf: x.select_negative(tail, x.like(1.0) - tail), e }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, Kernel};
    use crate::cpu::reference::{gelu_f64, silu_f64};

    struct Apply<'a>(Activation, &'a mut [f32]);

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            // SAFETY: one row, of the slice's length.
            unsafe { activate::<S>(self.0, self.1.as_mut_ptr(), 1, self.1.len(), self.1.len()) }
        }
    }

    #[test]
    fn gelu_and_silu_keep_their_relative_precision_in_the_tails() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for (activation, reference, low) in
                [(Activation::Gelu, gelu_f64 as fn(f64) -> f64, -12.0f32), (Activation::Silu, silu_f64, -80.0)]
            {
                let inputs: Vec<f32> = (0..=20_000).map(|i| low + i as f32 * (12.0 - low) / 20_000.0).collect();
                let mut out = inputs.clone();
                // SAFETY: the set is available.
                unsafe { isa.run(Apply(activation, &mut out)) };
                for (&x, &y) in inputs.iter().zip(&out) {
                    let wanted = reference(f64::from(x));
                    // Without a fused multiply-add the low part of x² is lost.
                    let bound = if isa == Isa::Portable { 1e-5 } else { 1e-6 };
                    let error = (f64::from(y) - wanted).abs();
                    assert!(error <= bound * wanted.abs() + 1e-37, "{isa:?} {activation:?}({x}) = {y}, not {wanted}");
                }
            }
        }
    }

    #[test]
    fn activations_survive_extreme_inputs() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for activation in [Activation::Gelu, Activation::Silu] {
                let mut out = [0.0, -0.0, 1e30, -1e30, 3e38, -3e38, 1e-40, f32::NAN, 25.0];
                // SAFETY: the set is available.
                unsafe { isa.run(Apply(activation, &mut out)) };
                assert_eq!(out[..3], [0.0, 0.0, 1e30], "{isa:?} {activation:?}");
                assert!(out[3].abs() < 1e-6 && out[5].abs() < 1e-0, "{isa:?} {activation:?} {out:?}");
                assert_eq!(out[4], 3e38);
                assert!(out[7].is_nan(), "{isa:?} {activation:?}");
                assert_eq!(out[8], 25.0);
            }
        }
    }
}
