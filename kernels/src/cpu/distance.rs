//! How near stored vectors are: of f32, of halves, of bytes, against a query of f32 or against each other.

use super::isa::{Isa, Kernel};
use super::simd::{MAX_LANES, Simd, for_vectors};

/// What a number of a stored vector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    F32,
    F16,
    Bf16,
    I8,
}

/// How two vectors are compared; smaller is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Σ(a − b)².
    SquaredL2,
    /// −Σab.
    Product,
    /// −Σab/√(|a|·|b|), halfway between the dot product and the cosine; 0 where a vector is 0.
    HalfCosine,
}

/// Bytes of a number.
impl Number {
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::F16 | Number::Bf16 => 2,
            Number::I8 => 1,
        }
    }
}

/// A type of stored numbers, as a type.
trait Stored {
    /// # Safety
    /// As for [`Simd::load_f16`], from number `at` on.
    unsafe fn load<S: Simd>(from: *const u8, at: usize, count: usize) -> S;
}

macro_rules! stored {
    ($($name:ident $type:ty, $load:ident;)*) => {$(
        struct $name;
        impl Stored for $name {
            #[inline(always)]
            unsafe fn load<S: Simd>(from: *const u8, at: usize, count: usize) -> S {
                // SAFETY: the caller's.
                unsafe { S::$load(from.cast::<$type>().add(at), count) }
            }
        }
    )*};
}
stored! { F32 f32, load_some; F16 u16, load_f16; Bf16 u16, load_bf16; I8 i8, load_i8; }

/// Asks the processor to have memory at hand soon.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of every x86-64, and without effect on what a program sees.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}

/// Compares `query` with rows of `query.len()` stored numbers each; does not panic.
pub(crate) struct RowDistances<'a> {
    pub comparison: Comparison,
    pub number: Number,
    pub query: &'a [f32],
    /// Each at least as long as the query's numbers are when stored; shorter ones are infinitely far.
    pub rows: &'a [&'a [u8]],
    /// As many as there are rows.
    pub out: &'a mut [f32],
}

impl RowDistances<'_> {
    pub(crate) fn compute(self, isa: Isa) {
        debug_assert!(isa.is_available());
        // SAFETY: instruction sets come from `Isa::detect`.
        unsafe { isa.run(self) }
    }
}

impl Kernel for RowDistances<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            match self.number {
                Number::F32 => self.of::<S, F32>(),
                Number::F16 => self.of::<S, F16>(),
                Number::Bf16 => self.of::<S, Bf16>(),
                Number::I8 => self.of::<S, I8>(),
            }
        }
    }
}

impl RowDistances<'_> {
    /// # Safety
    /// The processor has the instruction set of `S`.
    #[inline(always)]
    unsafe fn of<S: Simd, E: Stored>(self) {
        let squares = self.comparison == Comparison::SquaredL2;
        let needed = self.query.len() * self.number.bytes();
        for (rows, out) in self.rows.chunks(4).zip(self.out.chunks_mut(4)) {
            if rows.iter().any(|row| row.len() < needed) {
                out.fill(f32::INFINITY);
                continue;
            }
            // Rows past the end repeat the last one and are not stored.
            let row = |r: usize| rows[r.min(rows.len() - 1)].as_ptr();
            let four = [row(0), row(1), row(2), row(3)];
            // SAFETY: every row has as many numbers as the query.
            let sums = unsafe {
                if squares { lanes::<S, E, true>(self.query, &four) } else { lanes::<S, E, false>(self.query, &four) }
            };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if squares { sum.sum() } else { -sum.sum() };
            }
        }
    }
}

/// The lanes whose sums are the squared distances of four rows to the query, or the dot products with it: the same
/// bits as those of [`super::dot::dot`].
///
/// # Safety
/// The processor has the instruction set of `S`; the rows have as many numbers as the query.
#[inline(always)]
unsafe fn lanes<S: Simd, E: Stored, const SQUARES: bool>(query: &[f32], rows: &[*const u8; 4]) -> [S; 4] {
    // SAFETY: at most the query's length is read from each.
    unsafe {
        let mut sums = [S::splat(0.0); 4];
        for_vectors!(S, query.len(), at, count => {
            let part = S::load_some(query.as_ptr().add(at), count);
            for r in 0..4 {
                sums[r] = term::<S, SQUARES>(sums[r], part, E::load(rows[r], at, count));
            }
        });
        sums
    }
}

/// A sum with the next (x − y)², or the next x·y.
#[inline(always)]
fn term<S: Simd, const SQUARES: bool>(sum: S, x: S, y: S) -> S {
    if SQUARES { sum.fma(x - y, x - y) } else { sum.fma(x, y) }
}

/// The products of a query with rows of bytes, one row after the other; does not panic.
pub(crate) struct ByteProducts<'a> {
    pub query: &'a [f32],
    /// Of as many bytes as the query has numbers.
    pub rows: &'a [i8],
    /// One number a row; those beyond the rows stay as they are.
    pub out: &'a mut [f32],
}

impl ByteProducts<'_> {
    pub(crate) fn compute(self, isa: Isa) {
        debug_assert!(isa.is_available());
        // SAFETY: instruction sets come from `Isa::detect`.
        unsafe { isa.run(self) }
    }
}

impl Kernel for ByteProducts<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let dim = self.query.len();
        let count = self.out.len().min(self.rows.len().checked_div(dim).unwrap_or(0));
        for first in (0..count).step_by(S::LANES) {
            // Rows past the end repeat the last one and are not stored.
            let row = |r: usize| self.rows[(first + r).min(count - 1) * dim..].as_ptr().cast::<u8>();
            // SAFETY: every row has as many bytes as the query has numbers, and as many sums are stored as there is
            // room for.
            unsafe {
                let mut sums = [S::splat(0.0); MAX_LANES];
                for r in (0..S::LANES).step_by(4) {
                    let four = lanes::<S, I8, false>(self.query, &[row(r), row(r + 1), row(r + 2), row(r + 3)]);
                    sums[r..r + 4].copy_from_slice(&four);
                }
                S::sums(&sums).store_some(self.out.as_mut_ptr().add(first), S::LANES.min(count - first));
            }
        }
    }
}

/// Two stored vectors of `dim` numbers, in any alignment.
pub(crate) struct Pair {
    pub comparison: Comparison,
    pub number: Number,
    pub a: *const u8,
    pub b: *const u8,
    pub dim: usize,
}

impl Pair {
    /// How near they are. Does not panic.
    ///
    /// # Safety
    /// `isa` is available; both pointers are readable for `dim` numbers.
    pub(crate) unsafe fn distance(self, isa: Isa) -> f32 {
        // SAFETY: the caller's.
        unsafe { isa.run(self) }
    }
}

impl Kernel for Pair {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        // SAFETY: the caller of `Pair::distance` vouches for the pointers.
        unsafe {
            match self.number {
                Number::F32 => self.of::<S, F32>(),
                Number::F16 => self.of::<S, F16>(),
                Number::Bf16 => self.of::<S, Bf16>(),
                Number::I8 => self.of::<S, I8>(),
            }
        }
    }
}

impl Pair {
    /// # Safety
    /// The processor has the instruction set of `S`, and the pointers are readable for `dim` numbers of `E`.
    #[inline(always)]
    unsafe fn of<S: Simd, E: Stored>(&self) -> f32 {
        // SAFETY: at most `dim` numbers are read from either.
        unsafe {
            match self.comparison {
                Comparison::SquaredL2 => self.sum::<S, E, true>().sum(),
                Comparison::Product => -self.sum::<S, E, false>().sum(),
                Comparison::HalfCosine => {
                    let zero = S::splat(0.0);
                    let (mut ab, mut aa, mut bb) = (zero, zero, zero);
                    for at in (0..self.dim).step_by(S::LANES) {
                        let count = S::LANES.min(self.dim - at);
                        let (x, y): (S, S) = (E::load(self.a, at, count), E::load(self.b, at, count));
                        ab = ab.fma(x, y);
                        aa = aa.fma(x, x);
                        bb = bb.fma(y, y);
                    }
                    let lengths = aa.sum().sqrt() * bb.sum().sqrt();
                    if lengths > 0.0 { -ab.sum() / lengths.sqrt() } else { 0.0 }
                }
            }
        }
    }

    /// Two chains of additions, so that one does not wait for the other.
    ///
    /// # Safety
    /// As for [`Pair::of`].
    #[inline(always)]
    unsafe fn sum<S: Simd, E: Stored, const SQUARES: bool>(&self) -> S {
        // SAFETY: at most `dim` numbers are read from either.
        unsafe {
            let Self { a, b, dim, .. } = *self;
            let mut sums = [S::splat(0.0); 2];
            let mut at = 0;
            while at + 2 * S::LANES <= dim {
                for (chain, sum) in sums.iter_mut().enumerate() {
                    let at = at + chain * S::LANES;
                    *sum = term::<S, SQUARES>(*sum, E::load(a, at, S::LANES), E::load(b, at, S::LANES));
                }
                at += 2 * S::LANES;
            }
            while at < dim {
                let count = S::LANES.min(dim - at);
                sums[0] = term::<S, SQUARES>(sums[0], E::load(a, at, count), E::load(b, at, count));
                at += count;
            }
            sums[0] + sums[1]
        }
    }
}

/// Bits that differ, as far as the shorter goes.
pub(crate) fn hamming(a: &[u8], b: &[u8]) -> f32 {
    let (wide_a, rest_a) = a.as_chunks::<8>();
    let (wide_b, rest_b) = b.as_chunks::<8>();
    let wide: u32 =
        wide_a.iter().zip(wide_b).map(|(x, y)| (u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y)).count_ones()).sum();
    let rest: u32 = rest_a.iter().zip(rest_b).map(|(x, y)| (x ^ y).count_ones()).sum();
    (wide + rest) as f32
}
