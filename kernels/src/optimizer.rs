//! Steps of optimisers over weights in host memory; a table's touched rows are stepped row by row.

/// AdamW (Loshchilov & Hutter 2019): m and v the decayed means of the derivative and its square,
/// w −= lr·(m̂/(√v̂ + eps) + decay·w).
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f32,
    /// Decay of the mean of the derivative.
    pub beta1: f32,
    /// Decay of the mean of its square.
    pub beta2: f32,
    /// Added to the root.
    pub eps: f32,
    /// Weight decay, decoupled from the derivative.
    pub decay: f32,
    /// Number of this step, from 1: the bias of the means is corrected by it.
    pub step: u64,
}

/// AdaGrad (Duchi et al. 2011): s the sum of squares, w −= lr·g/(√s + eps).
#[derive(Debug, Clone, Copy)]
pub struct AdaGrad {
    /// Learning rate.
    pub rate: f32,
    /// Added to the root.
    pub eps: f32,
}

/// Element-wise steps. Slices of one call have the same length. `scale` multiplies the derivative first: clipping.
pub trait Optimizers {
    /// One step of [`AdamW`].
    fn adamw(&self, step: &AdamW, weights: &mut [f32], gradient: &[f32], scale: f32, m: &mut [f32], v: &mut [f32]);
    /// One step of [`AdaGrad`].
    fn adagrad(&self, step: &AdaGrad, weights: &mut [f32], gradient: &[f32], scale: f32, squares: &mut [f32]);
    /// Σ x², summed in double precision in a fixed order.
    fn sum_squares(&self, x: &[f32]) -> f64;
    /// `to += from`
    fn accumulate(&self, to: &mut [f32], from: &[f32]);
}
