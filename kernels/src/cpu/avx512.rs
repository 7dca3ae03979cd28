//! AVX-512F.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::noise::{MULTIPLIERS, Stream};
use super::simd::{MAX_LANES, Simd};

/// 16 lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Avx512(__m512);

macro_rules! arithmetic {
    ($($operator:ident $method:ident $intrinsic:ident),*) => {$(
        impl $operator for Avx512 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: a value of the type exists only with AVX-512F.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
arithmetic!(Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps, Div div _mm512_div_ps);

#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

/// `count ≤ 16` numbers of 16 bits, then zeros.
/// # Safety
/// `from` is readable for `count` numbers.
#[inline(always)]
unsafe fn first_halves(from: *const u16, count: usize) -> __m256i {
    let mut halves = [0u16; 16];
    // SAFETY: the caller's; the copy is of bytes, so any alignment will do.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), halves.as_mut_ptr().cast(), 2 * count);
        _mm256_loadu_si256(halves.as_ptr().cast())
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX-512F.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX-512F and 16 readable f32s; the instruction takes any alignment.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: masked-out lanes are not accessed.
        Self(unsafe { _mm512_maskz_loadu_ps(first(count), from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has 16 writable f32s.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: masked-out lanes are not accessed.
        unsafe { _mm512_mask_storeu_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16, count: usize) -> Self {
        // SAFETY: the caller has AVX-512F and `count` readable numbers; no more are copied.
        unsafe {
            let bits = if count == 16 { _mm256_loadu_si256(from.cast()) } else { first_halves(from, count) };
            Self(_mm512_cvtph_ps(bits))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16, count: usize) -> Self {
        // SAFETY: as in `load_f16`.
        unsafe {
            let bits = if count == 16 { _mm256_loadu_si256(from.cast()) } else { first_halves(from, count) };
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8, count: usize) -> Self {
        // SAFETY: the caller has AVX-512F and `count` readable numbers, of which no more are copied.
        unsafe {
            let mut bytes = [0i8; 16];
            let bytes = if count == 16 {
                _mm_loadu_si128(from.cast())
            } else {
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
                _mm_loadu_si128(bytes.as_ptr().cast())
            };
            Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn load_columns(rows: &[*const f32; MAX_LANES], offset: usize, count: usize) -> [Self; MAX_LANES] {
        // SAFETY: the caller has AVX-512F, and `offset + count` readable f32s behind each pointer.
        unsafe {
            let zero = _mm512_setzero_ps();
            let (mut x, mut y, mut columns) = ([zero; 16], [zero; 16], [Self(zero); 16]);
            if count >= 16 {
                for r in 0..16 {
                    x[r] = _mm512_loadu_ps(rows[r].add(offset));
                }
            } else {
                for r in 0..16 {
                    x[r] = _mm512_maskz_loadu_ps(first(count), rows[r].add(offset));
                }
            }
            // 4×4 blocks within each 128-bit lane, by pairs of rows, then by pairs of pairs.
            for i in 0..8 {
                y[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                y[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..4 {
                for h in 0..2 {
                    let (a, b) = (_mm512_castps_pd(y[4 * i + h]), _mm512_castps_pd(y[4 * i + 2 + h]));
                    x[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    x[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            // Now 128-bit lane `l` of x[4i + c] holds column 4l + c of rows 4i .. 4i + 4: transpose the lanes.
            for c in 0..4 {
                let low = _mm512_shuffle_f32x4::<0x88>(x[c], x[4 + c]);
                let high = _mm512_shuffle_f32x4::<0x88>(x[8 + c], x[12 + c]);
                columns[c] = Self(_mm512_shuffle_f32x4::<0x88>(low, high));
                columns[8 + c] = Self(_mm512_shuffle_f32x4::<0xdd>(low, high));
                let low = _mm512_shuffle_f32x4::<0xdd>(x[c], x[4 + c]);
                let high = _mm512_shuffle_f32x4::<0xdd>(x[8 + c], x[12 + c]);
                columns[4 + c] = Self(_mm512_shuffle_f32x4::<0x88>(low, high));
                columns[12 + c] = Self(_mm512_shuffle_f32x4::<0xdd>(low, high));
            }
            columns
        }
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of the type exists only with AVX-512F; so below.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn select_negative(self, other: Self, otherwise: Self) -> Self {
        // SAFETY: as in `fma`.
        unsafe {
            let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_blend_ps(negative, otherwise.0, other.0))
        }
    }
    #[inline(always)]
    fn keep(self, count: usize, fill: Self) -> Self {
        // SAFETY: as in `fma`.
        Self(unsafe { _mm512_mask_mov_ps(fill.0, first(count), self.0) })
    }
    #[inline(always)]
    fn not_less(self, other: Self) -> u32 {
        // SAFETY: as in `fma`.
        u32::from(unsafe { _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self.0, other.0) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `fma`.
        unsafe {
            let x = _mm512_add_ps(self.0, _mm512_permute_ps::<0b01_00_11_10>(self.0));
            let x = _mm512_add_ps(x, _mm512_permute_ps::<0b10_11_00_01>(x));
            let x = _mm512_add_ps(x, _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x));
            let x = _mm512_add_ps(x, _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x));
            _mm512_cvtss_f32(x)
        }
    }
    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        let x = vectors;
        // SAFETY: as in `fma`.
        unsafe {
            // By pairs of vectors and halves of 128-bit lanes; then by quarters; then across the lanes.
            let (mut pairs, mut quads) = ([x[0].0; 8], [x[0].0; 4]);
            for i in 0..8 {
                let (a, b) = (x[2 * i].0, x[2 * i + 1].0);
                pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            }
            for i in 0..4 {
                let (a, b) = (_mm512_castps_pd(pairs[2 * i]), _mm512_castps_pd(pairs[2 * i + 1]));
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                quads[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            let across = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            Self(across(across(quads[0], quads[1]), across(quads[2], quads[3])))
        }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `fma`.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn survive(self, stream: Stream, first: u32) -> Self {
        // SAFETY: as in `fma`.
        unsafe {
            let all = |x: u32| _mm512_set1_epi32(x as i32);
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let x = _mm512_xor_si512(_mm512_add_epi32(all(first), lanes), all(stream.seed[0]));
            let x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32::<16>(x)), all(MULTIPLIERS[0]));
            let x = _mm512_xor_si512(x, all(stream.seed[1]));
            let x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32::<15>(x)), all(MULTIPLIERS[1]));
            let stays = _mm512_cmpge_epi32_mask(x, _mm512_set1_epi32(stream.least));
            Self(_mm512_maskz_mov_ps(stays, self.0))
        }
    }
}
