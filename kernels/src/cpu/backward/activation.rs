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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::differences::{Differences, inner};
    use crate::cpu::Matrix;
    use crate::cpu::reference::{self, Random, relative_error};
    use crate::cpu::tests::cpus;
    use crate::{Activation, Backward};

    const ACTIVATIONS: [Activation; 4] = [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::Silu];

    #[test]
    fn activations_pass_derivatives_back() {
        let mut random = Random::new();
        // Not at the bend of the ReLU, where the two sides differ.
        let away = |x: f32| if x.abs() < 1e-3 { 0.5 } else { 2.0 * x };
        for cols in [1, 7, 16, 64, 100] {
            let x: Vec<f32> = random.normals(5 * cols).into_iter().map(away).collect();
            let dy = random.normals(5 * cols);
            for activation in ACTIVATIONS {
                let value = |x: &[f64]| x.iter().map(|&x| reference::activate_f64(x, activation)).collect::<Vec<_>>();
                let differences = Differences::new(&mut random, &[&x], 500, |at| inner(&value(&at[0]), &dy));
                for cpu in cpus() {
                    let case = format!("{:?} {activation:?} of {cols}", cpu.isa());
                    let (x, mut dx) = (Matrix::from_slice(&x, cols), Matrix::from_slice(&dy, cols));
                    let y = cpu.activate(&x, activation);
                    let wanted = value(&x.as_slice().iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
                    assert!(relative_error(y.as_slice(), &wanted) < 1e-5, "{case}");
                    cpu.activate_backward(&x, activation, &mut dx);
                    differences.check(&[dx.as_slice()], &case);
                }
            }
        }
    }

    #[test]
    fn slopes_of_activations_are_0_and_1_far_from_the_middle() {
        let x = [-3e38, -1e4, -200.0, 200.0, 1e4, 3e38];
        for cpu in cpus() {
            for activation in [Activation::Relu, Activation::Gelu, Activation::Silu] {
                let mut dy = Matrix::from_slice(&[1.0; 6], 6);
                cpu.activate_backward(&Matrix::from_slice(&x, 6), activation, &mut dy);
                for (slope, wanted) in dy.as_slice().iter().zip([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]) {
                    assert!((slope - wanted).abs() < 1e-6, "{:?} {activation:?} {dy:?}", cpu.isa());
                }
            }
        }
    }
}
