//! The vector that others are compared with.

use super::format::{Format, Scalar};
use crate::cpu::{ByteProducts, Isa, RowDistances, hamming};

/// A vector to compare stored vectors with. Distances are those that order them: squared for L2, −Σab for inner
/// product and cosine, different bits for Hamming.
#[derive(Debug, Clone)]
pub struct Query {
    format: Format,
    isa: Isa,
    /// Already multiplied with what a stored unit is worth, where products are compared.
    numbers: Vec<f32>,
    bits: Vec<u8>,
    length: f32,
}

impl Query {
    pub(super) fn of_numbers(format: Format, mut numbers: Vec<f32>) -> Self {
        numbers.resize(format.dim(), 0.0);
        let square: f64 = numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let unit = format.unit();
        if format.scalar() == Scalar::I8 {
            numbers.iter_mut().for_each(|x| *x *= unit);
        }
        Self { format, isa: Isa::detect(), numbers, bits: Vec::new(), length: square.sqrt() as f32 }
    }

    pub(super) fn of_bits(format: Format, mut bits: Vec<u8>) -> Self {
        bits.resize(format.vector_bytes(), 0);
        Self { format, isa: Isa::detect(), numbers: Vec::new(), bits, length: 0.0 }
    }

    /// The format of the vectors it is compared with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its length (Euclidean norm); 0 for bits.
    pub fn length(&self) -> f32 {
        self.length
    }

    /// The query's bits; none where it has numbers.
    pub(super) fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Writes the products with rows of signed bytes, one row after the other.
    pub(super) fn byte_products(&self, rows: &[u8], out: &mut [f32]) {
        ByteProducts { query: &self.numbers, rows: bytemuck::cast_slice(rows), out }.compute(self.isa);
    }

    /// Writes the distances of stored vectors, of [`Format::vector_bytes`] each; shorter ones are infinitely far.
    pub fn distances(&self, rows: &[&[u8]], out: &mut [f32]) {
        match self.format.number() {
            Some(number) => {
                let comparison = self.format.comparison();
                RowDistances { comparison, number, query: &self.numbers, rows, out }.compute(self.isa);
            }
            None => {
                for (row, out) in rows.iter().zip(out) {
                    *out = row.get(..self.bits.len()).map_or(f32::INFINITY, |row| hamming(row, &self.bits));
                }
            }
        }
    }

    /// Appends the distances of vectors that lie `stride` bytes apart, the first at `offset`, as many as there are.
    pub fn distances_strided(&self, bytes: &[u8], stride: usize, offset: usize, out: &mut Vec<f32>) {
        let size = self.format.vector_bytes();
        let mut at = offset;
        while at + size <= bytes.len() {
            let mut rows = [&bytes[..0]; 16];
            let mut count = 0;
            while count < rows.len() && at + size <= bytes.len() {
                rows[count] = &bytes[at..at + size];
                count += 1;
                at += stride.max(1);
            }
            let first = out.len();
            out.resize(first + count, 0.0);
            self.distances(&rows[..count], &mut out[first..]);
        }
    }
}
