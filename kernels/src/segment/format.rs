//! How a vector is stored and compared.

use half::{bf16, f16};

use super::query::Query;
use crate::KernelError;
use crate::cpu::{Comparison, Isa, Number, Pair};

/// How near two vectors are; smaller is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Euclidean distance.
    L2,
    /// Negative inner product.
    InnerProduct,
    /// One minus the cosine. Vectors are stored with length 1 ([`normalise`]).
    Cosine,
    /// Bits that differ.
    Hamming,
}

/// What a number of a stored vector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: 11 significant bits, up to 65,504.
    F16,
    /// The upper half of a binary32: 8 significant bits.
    BF16,
    /// 127ths of one, for vectors of length 1.
    I8,
    /// One bit, first the highest of a byte.
    Bit,
}

/// Shape and meaning of stored vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    metric: Metric,
    scalar: Scalar,
    dim: usize,
}

/// The largest whole number that [`Scalar::I8`] stores.
const I8_ONE: f32 = 127.0;

impl Format {
    /// `dim` numbers a vector. Bits and the Hamming distance are for each other alone, bytes for the cosine.
    pub fn new(metric: Metric, scalar: Scalar, dim: usize) -> Result<Self, KernelError> {
        let bits = (metric == Metric::Hamming) == (scalar == Scalar::Bit);
        let bytes = scalar != Scalar::I8 || metric == Metric::Cosine;
        if dim == 0 || dim > 1 << 20 || !bits || !bytes {
            return Err(KernelError::Segment(format!("no segment stores {dim} × {scalar:?} for {metric:?}")));
        }
        Ok(Self { metric, scalar, dim })
    }

    /// How vectors are compared.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// What a stored number is.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// Numbers (or bits) of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes of a stored vector.
    pub fn vector_bytes(&self) -> usize {
        match self.number() {
            Some(number) => number.bytes() * self.dim,
            None => self.dim.div_ceil(8),
        }
    }

    /// What the kernels call a number; None for bits.
    pub(crate) fn number(&self) -> Option<Number> {
        match self.scalar {
            Scalar::F32 => Some(Number::F32),
            Scalar::F16 => Some(Number::F16),
            Scalar::BF16 => Some(Number::Bf16),
            Scalar::I8 => Some(Number::I8),
            Scalar::Bit => None,
        }
    }

    /// What one stored unit is worth.
    pub(crate) fn unit(&self) -> f32 {
        if self.scalar == Scalar::I8 { 1.0 / I8_ONE } else { 1.0 }
    }

    /// What a query is compared with stored vectors by.
    pub(crate) fn comparison(&self) -> Comparison {
        match self.metric {
            Metric::L2 => Comparison::SquaredL2,
            _ => Comparison::Product,
        }
    }

    /// Appends a vector of [`Format::dim`] finite numbers, rounded to the scalar, and gives the length of what the
    /// rounding lost. Numbers too large for the scalar become the largest it has.
    ///
    /// Panics for bits, which are stored as they are.
    pub fn store(&self, vector: &[f32], to: &mut Vec<u8>) -> f32 {
        debug_assert_eq!(vector.len(), self.dim);
        let mut lost = 0.0f64;
        for &x in vector {
            let kept = match self.scalar {
                Scalar::F32 => {
                    to.extend_from_slice(&x.to_le_bytes());
                    x
                }
                Scalar::F16 => {
                    let limit = f16::MAX.to_f32();
                    let half = f16::from_f32(x.clamp(-limit, limit));
                    to.extend_from_slice(&half.to_bits().to_le_bytes());
                    half.to_f32()
                }
                Scalar::BF16 => {
                    let limit = bf16::MAX.to_f32();
                    let half = bf16::from_f32(x.clamp(-limit, limit));
                    to.extend_from_slice(&half.to_bits().to_le_bytes());
                    half.to_f32()
                }
                Scalar::I8 => {
                    let whole = (x * I8_ONE).round().clamp(-I8_ONE, I8_ONE);
                    to.push(whole as i8 as u8);
                    whole / I8_ONE
                }
                Scalar::Bit => panic!("bits are not numbers"),
            };
            lost += f64::from(x - kept) * f64::from(x - kept);
        }
        (lost.sqrt() * (1.0 + f64::from(f32::EPSILON))) as f32
    }

    /// The numbers of a stored vector; of bits, 0 or 1.
    pub fn numbers(&self, stored: &[u8]) -> Vec<f32> {
        let halves = |number: fn(u16) -> f32| {
            stored.as_chunks::<2>().0.iter().map(|bytes| number(u16::from_le_bytes(*bytes))).collect()
        };
        match self.scalar {
            Scalar::F32 => stored.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Scalar::F16 => halves(|bits| f16::from_bits(bits).to_f32()),
            Scalar::BF16 => halves(|bits| bf16::from_bits(bits).to_f32()),
            Scalar::I8 => stored.iter().map(|&byte| f32::from(byte as i8) / I8_ONE).collect(),
            Scalar::Bit => {
                (0..self.dim).map(|i| f32::from(stored.get(i / 8).copied().unwrap_or(0) >> (7 - i % 8) & 1)).collect()
            }
        }
    }

    /// Appends a vector stored in the format `from` (same metric and dimension) in this one; what rounding lost, as
    /// [`Format::store`] gives it.
    pub fn convert(&self, from: &Format, stored: &[u8], to: &mut Vec<u8>) -> f32 {
        if self.scalar == from.scalar {
            to.extend_from_slice(stored);
            return 0.0;
        }
        self.store(&from.numbers(stored), to)
    }

    /// Length of a stored vector, rounded up; infinite where the square of it is; 0 for bits.
    pub fn length(&self, stored: &[u8]) -> f32 {
        let Some(number) = self.number().filter(|_| stored.len() == self.vector_bytes()) else {
            return 0.0;
        };
        let (a, dim) = (stored.as_ptr(), self.dim);
        let pair = Pair { comparison: Comparison::Product, number, a, b: a, dim };
        // SAFETY: `detect` gives an instruction set that is available; the vector has its numbers, as just checked.
        let square = -unsafe { pair.distance(Isa::detect()) };
        square.sqrt() * self.unit() * (1.0 + dim as f32 * f32::EPSILON)
    }

    /// The most that [`Format::store`] loses of a vector of length 1.
    pub fn rounding(&self) -> f32 {
        let per_component = |least: f32| least * (self.dim as f32).sqrt();
        match self.scalar {
            Scalar::F32 | Scalar::Bit => 0.0,
            // Half a unit in the last place, or of the smallest numbers there are.
            Scalar::F16 => 0.5 * f16::EPSILON.to_f32() + per_component(3e-8),
            Scalar::BF16 => 0.5 * bf16::EPSILON.to_f32(),
            Scalar::I8 => per_component(0.5 / I8_ONE),
        }
    }

    /// A vector to compare stored ones with; of [`Format::dim`] finite numbers, of length 1 for the cosine.
    ///
    /// Panics for bits: see [`Format::query_stored`].
    pub fn query(&self, vector: &[f32]) -> Query {
        assert!(self.scalar != Scalar::Bit, "bits are not numbers");
        Query::of_numbers(*self, vector.to_vec())
    }

    /// A query that was stored in the format `exact`, for vectors stored in this one.
    pub fn query_stored(&self, exact: &Format, stored: &[u8]) -> Query {
        match self.scalar {
            Scalar::Bit => Query::of_bits(*self, stored.to_vec()),
            _ => Query::of_numbers(*self, exact.numbers(stored)),
        }
    }

    /// What SQL calls the distance, from the one that kernels compare by.
    pub fn sql_distance(&self, distance: f32) -> f64 {
        let distance = f64::from(distance);
        match self.metric {
            Metric::L2 => distance.max(0.0).sqrt(),
            Metric::Cosine => 1.0 + distance,
            Metric::InnerProduct | Metric::Hamming => distance,
        }
    }

    /// What is certainly not more than the SQL distance between the query and a vector, computed in f32 in any order
    /// of additions, where the kernels compute `distance` to the vector as stored, rounding lost at most `error` of its
    /// length (Cauchy–Schwarz, triangle inequality), and no vector is longer than `longest`, which is asked for where it
    /// matters.
    pub fn bound(&self, query: &Query, distance: f32, error: f32, longest: impl FnOnce() -> f32) -> f64 {
        // Each of the two sums is off by less than this part of the sum of its terms' sizes, twice as much with what
        // the terms themselves are off by.
        let sums = 4.0 * (self.dim as f64 + 4.0) * f64::from(f32::EPSILON);
        let (error, query) = (f64::from(error), f64::from(query.length()));
        let exact = self.sql_distance(distance);
        match self.metric {
            Metric::Hamming => exact,
            Metric::L2 => (exact * (1.0 - sums) - error * (1.0 + sums)).max(0.0),
            Metric::InnerProduct | Metric::Cosine => exact - query * (error + f64::from(longest()) * sums) - sums,
        }
    }
}

/// Scales a vector to length 1. False, and unchanged, where it has no direction: of length zero, or not finite.
pub fn normalise(vector: &mut [f32]) -> bool {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if square == 0.0 || !square.is_finite() {
        return false;
    }
    let scale = 1.0 / square.sqrt();
    for x in vector {
        *x = (f64::from(*x) * scale) as f32;
    }
    true
}
