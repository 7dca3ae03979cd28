//! AArch64 NEON.

use std::arch::aarch64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::noise::{MULTIPLIERS, Stream};
use super::simd::{MAX_LANES, Simd};

/// 4 lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Neon(float32x4_t);

macro_rules! arithmetic {
    ($($operator:ident $method:ident $intrinsic:ident),*) => {$(
        impl $operator for Neon {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: a value of the type exists only with NEON.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
arithmetic!(Add add vaddq_f32, Sub sub vsubq_f32, Mul mul vmulq_f32, Div div vdivq_f32);

/// Bit `l` of the result is set where lane `l` is all ones.
#[inline(always)]
unsafe fn bits(mask: uint32x4_t) -> u32 {
    const WEIGHTS: [u32; 4] = [1, 2, 4, 8];
    // SAFETY: the caller has NEON.
    unsafe { vaddvq_u32(vandq_u32(mask, vld1q_u32(WEIGHTS.as_ptr()))) }
}

impl Simd for Neon {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has NEON.
        Self(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has NEON and 4 readable f32s; the cast to bytes takes any alignment.
        Self(unsafe { vreinterpretq_f32_u8(vld1q_u8(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut lanes = [0f32; 4];
        // SAFETY: the caller has `count ≤ 4` readable f32s; the copy is of bytes, so any alignment will do.
        unsafe {
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), lanes.as_mut_ptr().cast(), count * size_of::<f32>());
            Self(vld1q_f32(lanes.as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has 4 writable f32s.
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        let mut lanes = [0f32; 4];
        // SAFETY: the caller has `count ≤ 4` writable f32s.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), self.0);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
        }
    }

    #[inline(always)]
    unsafe fn load_columns(rows: &[*const f32; MAX_LANES], offset: usize, count: usize) -> [Self; MAX_LANES] {
        // SAFETY: the caller has NEON, and `offset + count` readable f32s behind each pointer.
        unsafe {
            let count = count.min(4);
            let mut x = [vdupq_n_f32(0.0); 4];
            for r in 0..4 {
                x[r] = Self::load_part(rows[r].add(offset), count).0;
            }
            let (a, b) = (vtrnq_f32(x[0], x[1]), vtrnq_f32(x[2], x[3]));
            let mut columns = [Self(x[0]); MAX_LANES];
            columns[0] = Self(vcombine_f32(vget_low_f32(a.0), vget_low_f32(b.0)));
            columns[1] = Self(vcombine_f32(vget_low_f32(a.1), vget_low_f32(b.1)));
            columns[2] = Self(vcombine_f32(vget_high_f32(a.0), vget_high_f32(b.0)));
            columns[3] = Self(vcombine_f32(vget_high_f32(a.1), vget_high_f32(b.1)));
            columns
        }
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of the type exists only with NEON; so below.
        Self(unsafe { vfmaq_f32(self.0, a.0, b.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { vsqrtq_f32(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { vrndnq_f32(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in `fma`.
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n.0), vdupq_n_s32(127));
            Self(vmulq_f32(self.0, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))))
        }
    }
    #[inline(always)]
    fn select_negative(self, other: Self, otherwise: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { vbslq_f32(vcltzq_f32(self.0), other.0, otherwise.0) })
    }
    #[inline(always)]
    fn keep(self, count: usize, fill: Self) -> Self {
        const INDEX: [u32; 4] = [0, 1, 2, 3];
        // SAFETY: as in `fma`.
        unsafe {
            let kept = vcltq_u32(vld1q_u32(INDEX.as_ptr()), vdupq_n_u32(count as u32));
            Self(vbslq_f32(kept, self.0, fill.0))
        }
    }
    #[inline(always)]
    fn not_less(self, other: Self) -> u32 {
        // SAFETY: as in `fma`.
        unsafe { bits(vmvnq_u32(vcltq_f32(self.0, other.0))) }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `fma`.
        unsafe {
            let x = vpaddq_f32(self.0, self.0);
            vgetq_lane_f32::<0>(vpaddq_f32(x, x))
        }
    }
    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        let x = vectors;
        // SAFETY: as in `fma`.
        Self(unsafe { vpaddq_f32(vpaddq_f32(x[0].0, x[1].0), vpaddq_f32(x[2].0, x[3].0)) })
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `fma`.
        unsafe { vmaxvq_f32(self.0) }
    }
    #[inline(always)]
    fn survive(self, stream: Stream, first: u32) -> Self {
        const INDEX: [u32; 4] = [0, 1, 2, 3];
        // SAFETY: as in `fma`.
        unsafe {
            let x = vaddq_u32(vdupq_n_u32(first), vld1q_u32(INDEX.as_ptr()));
            let x = veorq_u32(x, vdupq_n_u32(stream.seed[0]));
            let x = vmulq_u32(veorq_u32(x, vshrq_n_u32::<16>(x)), vdupq_n_u32(MULTIPLIERS[0]));
            let x = veorq_u32(x, vdupq_n_u32(stream.seed[1]));
            let x = vmulq_u32(veorq_u32(x, vshrq_n_u32::<15>(x)), vdupq_n_u32(MULTIPLIERS[1]));
            let stays = vcgeq_s32(vreinterpretq_s32_u32(x), vdupq_n_s32(stream.least));
            Self(vreinterpretq_f32_u32(vandq_u32(stays, vreinterpretq_u32_f32(self.0))))
        }
    }
}
