//! Attention of the last row, folded with the projections before it.

use super::attention::{Head, Softmax};
use super::dot::dots_strided;
use super::gemm::LinearKernel;
use super::isa::Kernel;
use super::matrix::Scratch;
use super::simd::Simd;
use crate::Activation;

/// The last row's attention over keys and values that are projections of the events, without projecting them.
///
/// With k = x·K + a and v = x·V + b, and K_h, V_h the columns of a head: q·k_j = x_j·(K_h·q) + q·a, of which the
/// last term is the same for all events and leaves the softmax alone; and Σ p_j·v_j = (Σ p_j·x_j)·V_h + b, since
/// the weights sum to 1. So each history costs two products of a matrix with a vector and two passes over its
/// events a head, instead of two projections of all events.
pub(super) struct ProjectedKernel<'a> {
    /// `[histories, dim]`
    pub q: &'a [f32],
    /// `[events, inputs]`
    pub x: &'a [f32],
    /// `[inputs, dim]`
    pub key: &'a [f32],
    /// `[inputs, dim]`
    pub value: &'a [f32],
    /// `[dim]`
    pub value_bias: Option<&'a [f32]>,
    pub heads: usize,
    pub dim: usize,
    pub inputs: usize,
    pub offsets: &'a [usize],
    /// As many numbers as `q`, not necessarily initialised.
    pub out: *mut f32,
}

impl Kernel for ProjectedKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.dim / self.heads;
        let longest = self.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let (mut query, mut mixed) = (Scratch::new(self.inputs), Scratch::new(self.inputs));
        let mut scores = Scratch::new(longest.next_multiple_of(S::LANES));
        let (query, mixed, scores) = (query.as_mut_ptr(), mixed.as_mut_ptr(), scores.as_mut_ptr());
        for (history, bounds) in self.offsets.windows(2).enumerate() {
            for column in (0..self.dim).step_by(dim.max(1)) {
                // SAFETY: the caller checked the shapes; the scratch is as long as what is written to it.
                unsafe {
                    let at = history * self.dim + column;
                    let (key, q) = (self.key.as_ptr().add(column), self.q.as_ptr().add(at));
                    dots_strided::<S>(q, key, self.dim, self.inputs, dim, query);
                    let events = self.x.as_ptr().add(bounds[0] * self.inputs);
                    let head = Head {
                        q: query,
                        k: events,
                        v: events,
                        out: mixed,
                        stride: self.inputs,
                        dim: self.inputs,
                        value_stride: self.inputs,
                        value_dim: self.inputs,
                        len: bounds[1] - bounds[0],
                    };
                    head.row::<S>(scores, 0, head.len, &mut Softmax::new(dim));
                    LinearKernel {
                        x: std::slice::from_raw_parts(mixed, self.inputs),
                        weight: &self.value[column..],
                        bias: self.value_bias.map(|bias| &bias[column..column + dim]),
                        rows: 1,
                        inputs: self.inputs,
                        outputs: dim,
                        stride: self.dim,
                        activation: Activation::Identity,
                        out: self.out.add(at),
                    }
                    .run::<S>();
                }
            }
        }
    }
}
