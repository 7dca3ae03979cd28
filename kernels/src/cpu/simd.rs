//! One vector of f32 as the kernels see it, and the functions built on it.
//!
//! A value of a type that implements [`Simd`] exists only on a processor that has the instruction set: it
//! comes from `splat` or a load, which are unsafe for that reason (and for their pointers). Everything done
//! with a value is safe. The implementations are `#[inline(always)]`, so that they end up inside the
//! `#[target_feature]` functions of [`super::isa`], where the compiler may use the instructions.

use std::ops::{Add, Div, Mul, Sub};

use half::f16;

use super::noise::Stream;

/// Lanes of the widest vector.
pub(super) const MAX_LANES: usize = 16;

/// Runs `$body` for vectors that cover `0..$len`: `$count` lanes from `$j` on, a constant in all but the last.
macro_rules! for_vectors {
    ($simd:ty, $len:expr, $j:ident, $count:ident => $body:expr) => {{
        let (len, mut $j): (usize, usize) = ($len, 0);
        while len - $j >= <$simd as Simd>::LANES {
            let $count = <$simd as Simd>::LANES;
            $body;
            $j += $count;
        }
        if $j < len {
            let $count = len - $j;
            $body;
        }
    }};
}
pub(super) use for_vectors;

/// A vector of f32.
pub(super) trait Simd:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// How many f32 a vector holds; at most [`MAX_LANES`].
    const LANES: usize;
    /// Rows of the register tile of a matrix product, with two vectors of columns: as many as fit the registers.
    const TILE_ROWS: usize;

    /// # Safety
    /// The processor has the instruction set.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// The processor has the instruction set; `from` is readable for `LANES` f32s, in any alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count ≤ LANES` lanes; the others are zero and their memory is not touched.
    /// # Safety
    /// The processor has the instruction set; `from` is readable for `count` f32s, in any alignment.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;
    /// # Safety
    /// `to` is writable for `LANES` f32s.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count ≤ LANES` lanes.
    /// # Safety
    /// `to` is writable for `count` f32s.
    unsafe fn store_part(self, to: *mut f32, count: usize);
    /// `count ≤ LANES` columns of a block of `LANES` rows: lane `r` of vector `c` is `rows[r][offset + c]`.
    /// The vectors from `count` on mean nothing.
    /// # Safety
    /// The processor has the instruction set; the first `LANES` pointers are readable for `offset + count` f32s.
    unsafe fn load_columns(rows: &[*const f32; MAX_LANES], offset: usize, count: usize) -> [Self; MAX_LANES];

    /// `self + a·b`, rounded once where the processor can.
    fn fma(self, a: Self, b: Self) -> Self;
    /// The larger lane; `other`'s where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller lane; `other`'s where either is NaN.
    fn min(self, other: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The nearest whole number, for |x| < 2²².
    fn round(self) -> Self;
    /// `self·2ⁿ` for a whole `n` in −126 ..= 127.
    fn scale(self, n: Self) -> Self;
    /// `other` where `self` is negative, else `otherwise`.
    fn select_negative(self, other: Self, otherwise: Self) -> Self;
    /// The first `count ≤ LANES` lanes of `self`, the others of `fill`.
    fn keep(self, count: usize, fill: Self) -> Self;
    /// Bit `l` is set where lane `l` is not less than the other's: larger, equal, or one of them NaN.
    fn not_less(self, other: Self) -> u32;
    /// Sum of the lanes, in an order fixed for the type.
    fn sum(self) -> f32;
    /// Lane `r` is the sum of the lanes of vector `r`, of the first `LANES`: the same bits as its `sum`.
    fn sums(vectors: &[Self; MAX_LANES]) -> Self;
    /// Largest lane.
    fn largest(self) -> f32;
    /// The lanes that stay, zero in the others: lane `l` stays where [`Stream::keeps`] says so of `first + l`.
    fn survive(self, stream: Stream, first: u32) -> Self;

    /// The first `count` lanes, in 1 ..= `LANES`; the others are zero. For the loops of `for_vectors`.
    /// # Safety
    /// As for [`Simd::load_part`].
    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { if count == Self::LANES { Self::load(from) } else { Self::load_part(from, count) } }
    }
    /// Writes the first `count` lanes, in 1 ..= `LANES`.
    /// # Safety
    /// As for [`Simd::store_part`].
    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's.
        unsafe { if count == Self::LANES { self.store(to) } else { self.store_part(to, count) } }
    }

    /// `count ≤ LANES` half-precision numbers (IEEE 754 binary16), as f32; the other lanes are zero.
    /// # Safety
    /// The processor has the instruction set; `from` is readable for `count` numbers, in any alignment.
    #[inline(always)]
    unsafe fn load_f16(from: *const u16, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::load_as(from, count, |bits| f16::from_bits(bits).to_f32()) }
    }
    /// `count ≤ LANES` bfloat16 numbers, as f32; the other lanes are zero.
    /// # Safety
    /// As for [`Simd::load_f16`].
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::load_as(from, count, |bits| f32::from_bits(u32::from(bits) << 16)) }
    }
    /// `count ≤ LANES` whole numbers, as f32; the other lanes are zero.
    /// # Safety
    /// As for [`Simd::load_f16`].
    #[inline(always)]
    unsafe fn load_i8(from: *const i8, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::load_as(from, count, f32::from) }
    }
    /// `count ≤ LANES` numbers of another type, converted one by one; the other lanes are zero.
    /// # Safety
    /// As for [`Simd::load_f16`].
    #[inline(always)]
    unsafe fn load_as<T: Copy>(from: *const T, count: usize, number: impl Fn(T) -> f32) -> Self {
        let mut lanes = [0f32; MAX_LANES];
        for (l, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller has `count` readable numbers.
            *lane = number(unsafe { from.add(l).read_unaligned() });
        }
        // SAFETY: a vector has at most MAX_LANES lanes.
        unsafe { Self::load(lanes.as_ptr()) }
    }

    /// A vector of one number, where `self` proves that there are vectors.
    #[inline(always)]
    fn like(self, x: f32) -> Self {
        // SAFETY: a value of the type exists, so the processor has the instruction set.
        unsafe { Self::splat(x) }
    }

    /// eˣ within 2 ulp; inputs are clamped to the range whose results are normal numbers. NaN stays NaN.
    ///
    /// The argument reduction and polynomial of Cephes' `expf`: ln 2 in two parts, of which the first times
    /// any exponent is exact, so that it needs no fused multiply-add.
    #[inline(always)]
    fn exp(self) -> Self {
        let x = self.like(87.3).min(self.like(-87.3).max(self));
        let n = (x * x.like(std::f32::consts::LOG2_E)).round();
        let r = x.fma(n, x.like(-0.693_359_4)).fma(n, x.like(2.121_944_4e-4));
        let p = x.like(1.987_569_1e-4);
        let p = x.like(1.398_199_9e-3).fma(p, r);
        let p = x.like(8.333_452e-3).fma(p, r);
        let p = x.like(4.166_579_6e-2).fma(p, r);
        let p = x.like(1.666_666_5e-1).fma(p, r);
        let p = x.like(0.5).fma(p, r);
        (x.like(1.0) + r.fma(p, r * r)).scale(n)
    }
}
