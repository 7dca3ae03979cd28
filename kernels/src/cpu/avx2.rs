//! AVX2 and FMA.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::noise::{MULTIPLIERS, Stream};
use super::simd::{MAX_LANES, Simd};

/// 8 lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Avx2(__m256);

macro_rules! arithmetic {
    ($($operator:ident $method:ident $intrinsic:ident),*) => {$(
        impl $operator for Avx2 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: a value of the type exists only with AVX2 and FMA.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
arithmetic!(Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);

/// All bits of the first `count` lanes.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    const WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the caller has AVX2; 8 numbers from 8 − count on lie within the 16.
    unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - count).cast()) }
}

/// `count ≤ 8` numbers of 16 bits, then zeros.
/// # Safety
/// `from` is readable for `count` numbers.
#[inline(always)]
unsafe fn first_halves(from: *const u16, count: usize) -> __m128i {
    let mut halves = [0u16; 8];
    // SAFETY: the caller's; the copy is of bytes, so any alignment will do.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), halves.as_mut_ptr().cast(), 2 * count);
        _mm_loadu_si128(halves.as_ptr().cast())
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX2 and 8 readable f32s; the instruction takes any alignment.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: masked-out lanes are not accessed.
        Self(unsafe { _mm256_maskload_ps(from, first(count)) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has 8 writable f32s.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: masked-out lanes are not accessed.
        unsafe { _mm256_maskstore_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16, count: usize) -> Self {
        // SAFETY: the caller has AVX2 and F16C, and `count` readable numbers; no more are copied.
        unsafe {
            let bits = if count == 8 { _mm_loadu_si128(from.cast()) } else { first_halves(from, count) };
            Self(_mm256_cvtph_ps(bits))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16, count: usize) -> Self {
        // SAFETY: as in `load_f16`.
        unsafe {
            let bits = if count == 8 { _mm_loadu_si128(from.cast()) } else { first_halves(from, count) };
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8, count: usize) -> Self {
        // SAFETY: the caller has AVX2 and `count` readable numbers, of which no more are copied.
        unsafe {
            let mut bytes = [0i8; 8];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
            Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()))))
        }
    }

    #[inline(always)]
    unsafe fn load_columns(rows: &[*const f32; MAX_LANES], offset: usize, count: usize) -> [Self; MAX_LANES] {
        // SAFETY: the caller has AVX2, and `offset + count` readable f32s behind each pointer.
        unsafe {
            let zero = _mm256_setzero_ps();
            let (mut x, mut y, mut columns) = ([zero; 8], [zero; 8], [Self(zero); MAX_LANES]);
            if count >= 8 {
                for r in 0..8 {
                    x[r] = _mm256_loadu_ps(rows[r].add(offset));
                }
            } else {
                for r in 0..8 {
                    x[r] = _mm256_maskload_ps(rows[r].add(offset), first(count));
                }
            }
            // 4×4 blocks within each 128-bit lane, by pairs of rows, then by pairs of pairs.
            for i in 0..4 {
                y[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                y[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..2 {
                for h in 0..2 {
                    let (a, b) = (_mm256_castps_pd(y[4 * i + h]), _mm256_castps_pd(y[4 * i + 2 + h]));
                    x[4 * i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    x[4 * i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                }
            }
            for c in 0..4 {
                columns[c] = Self(_mm256_permute2f128_ps::<0x20>(x[c], x[4 + c]));
                columns[4 + c] = Self(_mm256_permute2f128_ps::<0x31>(x[c], x[4 + c]));
            }
            columns
        }
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of the type exists only with AVX2 and FMA; so below.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in `fma`.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.0), _mm256_set1_epi32(127));
            Self(_mm256_mul_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))))
        }
    }
    #[inline(always)]
    fn select_negative(self, other: Self, otherwise: Self) -> Self {
        // SAFETY: as in `fma`.
        unsafe {
            let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_setzero_ps());
            Self(_mm256_blendv_ps(otherwise.0, other.0, negative))
        }
    }
    #[inline(always)]
    fn keep(self, count: usize, fill: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm256_blendv_ps(fill.0, self.0, _mm256_castsi256_ps(first(count))) })
    }
    #[inline(always)]
    fn not_less(self, other: Self) -> u32 {
        // SAFETY: as in `fma`.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(self.0, other.0)) as u32 }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `fma`.
        unsafe {
            let x = _mm256_add_ps(self.0, _mm256_permute_ps::<0b01_00_11_10>(self.0));
            let x = _mm256_add_ps(x, _mm256_permute_ps::<0b10_11_00_01>(x));
            _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)))
        }
    }
    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        let x = vectors;
        // SAFETY: as in `fma`.
        unsafe {
            // By pairs of vectors and halves of 128-bit lanes; then by quarters; then across the lanes.
            let (mut pairs, mut quads) = ([x[0].0; 4], [x[0].0; 2]);
            for i in 0..4 {
                let (a, b) = (x[2 * i].0, x[2 * i + 1].0);
                pairs[i] = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            }
            for i in 0..2 {
                let (a, b) = (_mm256_castps_pd(pairs[2 * i]), _mm256_castps_pd(pairs[2 * i + 1]));
                let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
                quads[i] = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
            }
            let low = _mm256_permute2f128_ps::<0x20>(quads[0], quads[1]);
            let high = _mm256_permute2f128_ps::<0x31>(quads[0], quads[1]);
            Self(_mm256_add_ps(low, high))
        }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `fma`.
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    fn survive(self, stream: Stream, first: u32) -> Self {
        // SAFETY: as in `fma`.
        unsafe {
            let all = |x: u32| _mm256_set1_epi32(x as i32);
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let x = _mm256_xor_si256(_mm256_add_epi32(all(first), lanes), all(stream.seed[0]));
            let x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32::<16>(x)), all(MULTIPLIERS[0]));
            let x = _mm256_xor_si256(x, all(stream.seed[1]));
            let x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32::<15>(x)), all(MULTIPLIERS[1]));
            let falls = _mm256_cmpgt_epi32(_mm256_set1_epi32(stream.least), x);
            Self(_mm256_andnot_ps(_mm256_castsi256_ps(falls), self.0))
        }
    }
}
