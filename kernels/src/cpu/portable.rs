//! Plain Rust, four lanes: what the compiler makes of it on a processor without the others.

use std::ops::{Add, Div, Mul, Sub};

use super::noise::Stream;
use super::simd::{MAX_LANES, Simd};

/// 4 lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let (a, b) = (self.0, other.0);
        Self([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
    }
}

macro_rules! arithmetic {
    ($($operator:ident $method:ident $symbol:tt),*) => {$(
        impl $operator for Portable {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.with(other, |a, b| a $symbol b)
            }
        }
    )*};
}
arithmetic!(Add add +, Sub sub -, Mul mul *, Div div /);

impl Simd for Portable {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has 4 readable f32s.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut lanes = [0f32; 4];
        for (l, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller has `count` readable f32s.
            *lane = unsafe { from.add(l).read_unaligned() };
        }
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has 4 writable f32s.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for (l, lane) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller has `count` writable f32s.
            unsafe { to.add(l).write_unaligned(lane) }
        }
    }

    #[inline(always)]
    unsafe fn load_columns(rows: &[*const f32; MAX_LANES], offset: usize, count: usize) -> [Self; MAX_LANES] {
        let mut columns = [Self([0.0; 4]); MAX_LANES];
        for (c, column) in columns.iter_mut().enumerate().take(count) {
            for (lane, row) in column.0.iter_mut().zip(rows) {
                // SAFETY: the caller has `offset + count` readable f32s behind each pointer.
                *lane = unsafe { row.add(offset + c).read_unaligned() };
            }
        }
        columns
    }

    // Not `mul_add`: without the instruction it is a library call.
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.with(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    fn round(self) -> Self {
        // 1.5·2²³: adding it pushes the fraction out of the mantissa.
        let shift = Self([12_582_912.0; 4]);
        self + shift - shift
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        self.with(n, |x, n| x * f32::from_bits((((n as i32) + 127) as u32) << 23))
    }
    #[inline(always)]
    fn select_negative(self, other: Self, otherwise: Self) -> Self {
        let mut lanes = otherwise.0;
        for (l, lane) in lanes.iter_mut().enumerate() {
            if self.0[l] < 0.0 {
                *lane = other.0[l];
            }
        }
        Self(lanes)
    }
    #[inline(always)]
    fn keep(self, count: usize, fill: Self) -> Self {
        let mut lanes = fill.0;
        for (l, lane) in lanes.iter_mut().enumerate().take(count) {
            *lane = self.0[l];
        }
        Self(lanes)
    }
    #[inline(always)]
    fn not_less(self, other: Self) -> u32 {
        (0..4).fold(0, |bits, l| bits | u32::from(self.0[l] < other.0[l]) << l) ^ 0b1111
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }
    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        Self([vectors[0].sum(), vectors[1].sum(), vectors[2].sum(), vectors[3].sum()])
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        a.max(b).max(c.max(d))
    }
    #[inline(always)]
    fn survive(self, stream: Stream, first: u32) -> Self {
        let mut lanes = self.0;
        for (lane, n) in lanes.iter_mut().zip(0..) {
            if !stream.keeps(first.wrapping_add(n)) {
                *lane = 0.0;
            }
        }
        Self(lanes)
    }
}
