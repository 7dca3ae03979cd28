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
