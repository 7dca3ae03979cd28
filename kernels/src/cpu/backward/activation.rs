//! Element-wise functions on their own, and the way back through them.

use super::super::activation::{Curve, Gelu, Identity, Relu, Silu};
use super::super::isa::Kernel;
use super::super::simd::{Simd, for_vectors};
use crate::Activation;

/// act(x)
pub(super) struct ActivateKernel<'a> {
    pub x: &'a [f32],
    pub activation: Activation,
    /// As many numbers as `x`, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for ActivateKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's instruction set, and `out` as long as x.
        unsafe {
            match self.activation {
                Activation::Identity => values::<S, Identity>(self.x, self.out),
                Activation::Relu => values::<S, Relu>(self.x, self.out),
                Activation::Gelu => values::<S, Gelu>(self.x, self.out),
                Activation::Silu => values::<S, Silu>(self.x, self.out),
            }
        }
    }
}

/// `dy = dy·act′(x)`; both are of the same length.
pub(super) struct ActivateBackwardKernel<'a> {
    pub x: &'a [f32],
    pub activation: Activation,
    pub dy: &'a mut [f32],
}

impl Kernel for ActivateBackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's instruction set.
        unsafe {
            match self.activation {
                Activation::Identity => {}
                Activation::Relu => slopes::<S, Relu>(self.x, self.dy),
                Activation::Gelu => slopes::<S, Gelu>(self.x, self.dy),
                Activation::Silu => slopes::<S, Silu>(self.x, self.dy),
            }
        }
    }
}

#[inline(always)]
unsafe fn values<S: Simd, C: Curve>(x: &[f32], out: *mut f32) {
    for_vectors!(S, x.len(), j, count => {
        // SAFETY: `count` numbers from j on are within x, and within out, which is as long.
        unsafe { C::value(S::load_some(x.as_ptr().add(j), count)).store_some(out.add(j), count) }
    });
}

#[inline(always)]
unsafe fn slopes<S: Simd, C: Curve>(x: &[f32], dy: &mut [f32]) {
    let (len, x, dy) = (x.len().min(dy.len()), x.as_ptr(), dy.as_mut_ptr());
    for_vectors!(S, len, j, count => {
        // SAFETY: `count` numbers from j on are within the shorter slice.
        unsafe {
            let slope = C::slope(S::load_some(x.add(j), count));
            (S::load_some(dy.add(j), count) * slope).store_some(dy.add(j), count);
        }
    });
}
