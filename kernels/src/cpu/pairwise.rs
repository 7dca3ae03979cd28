//! Steps of matrix factorisation.

use super::Cpu;
use super::isa::Kernel;
use super::simd::{Simd, for_vectors};

/// A step of Bayesian personalised ranking (Rendle et al. 2009): along the derivative of
/// −ln σ(x) + λ/2 (‖p‖² + ‖i‖² + ‖j‖²), where x = (p, 1)·(i − j).
#[derive(Debug, Clone, Copy)]
pub struct Pairwise {
    /// Learning rate.
    pub rate: f32,
    /// λ
    pub l2: f32,
}

impl Cpu {
    /// Steps a user's vector and the rows of two items, which end with their bias: one number more than `user` has. Gives x
    /// before the step.
    pub fn pairwise(self, step: &Pairwise, user: &mut [f32], liked: &mut [f32], other: &mut [f32]) -> f32 {
        let dim = user.len();
        assert!(liked.len() == dim + 1 && other.len() == dim + 1, "items have a number more than users");
        self.run(PairwiseKernel { step, user, liked, other })
    }
}

/// The slices of items are one number longer than that of the user.
struct PairwiseKernel<'a> {
    step: &'a Pairwise,
    user: &'a mut [f32],
    liked: &'a mut [f32],
    other: &'a mut [f32],
}

impl Kernel for PairwiseKernel<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let Self { step: &Pairwise { rate, l2 }, user, liked, other } = self;
        let dim = user.len();
        // SAFETY: the vectors cover the user's numbers, and items have one more.
        unsafe {
            let (p, i, j) = (user.as_mut_ptr(), liked.as_mut_ptr(), other.as_mut_ptr());
            let mut product = S::splat(0.0);
            for_vectors!(S, dim, at, count => {
                let apart = S::load_some(i.add(at), count) - S::load_some(j.add(at), count);
                product = product.fma(S::load_some(p.add(at), count), apart);
            });
            let x = product.sum() + *i.add(dim) - *j.add(dim);
            // −∂/∂x of −ln σ(x).
            let wrong = 1.0 / (1.0 + x.exp());
            let (by, keep) = (S::splat(rate * wrong), S::splat(1.0 - rate * l2));
            for_vectors!(S, dim, at, count => {
                let (user, liked, other) =
                    (S::load_some(p.add(at), count), S::load_some(i.add(at), count), S::load_some(j.add(at), count));
                (user * keep).fma(by, liked - other).store_some(p.add(at), count);
                (liked * keep).fma(by, user).store_some(i.add(at), count);
                (other * keep - by * user).store_some(j.add(at), count);
            });
            *i.add(dim) += rate * (wrong - l2 * *i.add(dim));
            *j.add(dim) -= rate * (wrong + l2 * *j.add(dim));
            x
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::Random;
    use super::super::tests::cpus;
    use super::*;

    #[test]
    fn a_step_goes_down_the_derivative_in_every_tail() {
        let mut random = Random::new();
        let step = Pairwise { rate: 0.1, l2: 0.03 };
        let (rate, l2) = (0.1, 0.03);
        for cpu in cpus() {
            for dim in [1, 7, 8, 15, 16, 17, 33, 64, 100] {
                let [user, liked, other] = [dim, dim + 1, dim + 1].map(|len| random.normals(len));
                let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
                let [p, i, j] = [&user, &liked, &other].map(|x| wide(x));
                let x: f64 = (0..dim).map(|at| p[at] * (i[at] - j[at])).sum::<f64>() + i[dim] - j[dim];
                let wrong = 1.0 / (1.0 + x.exp());
                let [mut own_p, mut own_i, mut own_j] = [user, liked, other];
                let told = cpu.pairwise(&step, &mut own_p, &mut own_i, &mut own_j);
                assert!((f64::from(told) - x).abs() < 1e-5 * (1.0 + x.abs()), "{:?}, {dim}", cpu.isa());
                for at in 0..=dim {
                    let with = if at < dim { p[at] } else { 1.0 };
                    let right =
                        [i[at] + rate * (wrong * with - l2 * i[at]), j[at] - rate * (wrong * with + l2 * j[at])];
                    let close = |own: f32, right: f64| (f64::from(own) - right).abs() < 1e-5 * (1.0 + right.abs());
                    assert!(close(own_i[at], right[0]) && close(own_j[at], right[1]), "{:?}, {dim}, {at}", cpu.isa());
                    if at < dim {
                        let right = p[at] + rate * (wrong * (i[at] - j[at]) - l2 * p[at]);
                        assert!(close(own_p[at], right), "{:?}, {dim}, {at}", cpu.isa());
                    }
                }
            }
        }
    }
}
