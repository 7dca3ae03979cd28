//! Row-major matrices on a device.

use std::sync::Arc;

use half::bf16;

use super::driver::{Buffer, Driver};
use super::{CudaError, Precision};

/// Rows begin at multiples of so many bytes: what one thread loads at a time.
const ALIGNED: usize = 16;

/// A matrix on a device. What is between the last column and the next row is anything.
pub struct Matrix {
    buffer: Buffer,
    rows: usize,
    cols: usize,
    stride: usize,
    precision: Precision,
}

impl Matrix {
    pub(super) fn new(
        driver: &Arc<dyn Driver>,
        precision: Precision,
        rows: usize,
        cols: usize,
    ) -> Result<Self, CudaError> {
        let stride = cols.next_multiple_of(ALIGNED / precision.bytes());
        let bytes = rows.checked_mul(stride).and_then(|numbers| numbers.checked_mul(precision.bytes()));
        let bytes = bytes.filter(|_| rows < 1 << 31);
        let bytes = bytes.ok_or(CudaError::TooLarge { what: "rows of a matrix" })?;
        let buffer = Buffer::new(driver, bytes)?;
        if bytes > 0 && stride > cols {
            driver.fill_gaps(buffer.address(), rows, stride * precision.bytes(), cols * precision.bytes())?;
        }
        Ok(Self { buffer, rows, cols, stride, precision })
    }

    /// What stands for a matrix that could not be computed.
    pub(super) fn nothing(precision: Precision, rows: usize, cols: usize, buffer: Buffer) -> Self {
        Self { buffer, rows, cols, stride: 0, precision }
    }

    pub(super) fn upload(
        driver: &Arc<dyn Driver>,
        precision: Precision,
        values: &[f32],
        cols: usize,
    ) -> Result<Self, CudaError> {
        let rows = values.len() / cols.max(1);
        let x = Self::new(driver, precision, rows, cols)?;
        if x.buffer.bytes() > 0 {
            let mut bytes = Vec::with_capacity(x.buffer.bytes());
            for row in values.chunks_exact(cols) {
                match precision {
                    Precision::F32 => bytes.extend_from_slice(bytemuck::cast_slice(row)),
                    Precision::Bf16 => {
                        bytes.extend(row.iter().flat_map(|&x| bf16::from_f32(x).to_bits().to_ne_bytes()));
                    }
                }
                bytes.resize(bytes.len() + (x.stride - cols) * precision.bytes(), 0);
            }
            driver.upload(x.address(), &bytes)?;
        }
        Ok(x)
    }

    pub(super) fn download(&self, driver: &Arc<dyn Driver>) -> Result<Vec<f32>, CudaError> {
        let mut bytes = vec![0; self.rows * self.stride * self.precision.bytes()];
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        driver.download(self.address(), &mut bytes)?;
        let mut values = Vec::with_capacity(self.rows * self.cols);
        for row in bytes.chunks_exact(self.stride * self.precision.bytes()) {
            let row = &row[..self.cols * self.precision.bytes()];
            match self.precision {
                Precision::F32 => values.extend(row.as_chunks().0.iter().map(|x| f32::from_ne_bytes(*x))),
                Precision::Bf16 => {
                    let number = |x: &[u8; 2]| f32::from_bits(u32::from(u16::from_ne_bytes(*x)) << 16);
                    values.extend(row.as_chunks().0.iter().map(number));
                }
            }
        }
        Ok(values)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Numbers from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn address(&self) -> u64 {
        self.buffer.address()
    }

    /// What the device holds of it, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    fn row_bytes(&self) -> usize {
        self.stride * self.precision.bytes()
    }

    /// Keeps the first rows.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
    }

    /// Adds rows of the same width below; memory grows by half at a time.
    pub(super) fn append(&mut self, driver: &Arc<dyn Driver>, other: &Self) -> Result<(), CudaError> {
        assert_eq!((self.cols, self.precision), (other.cols, other.precision), "rows of another kind");
        let (used, more) = (self.rows * self.row_bytes(), other.rows * other.row_bytes());
        if used + more > self.buffer.bytes() {
            let rows = self.rows + other.rows;
            let grown = Self::new(driver, self.precision, rows + rows / 2, self.cols)?;
            if used > 0 {
                driver.copy(grown.address(), self.address(), used)?;
            }
            self.buffer = grown.buffer;
        }
        if more > 0 {
            driver.copy(self.address() + used as u64, other.address(), more)?;
        }
        self.rows += other.rows;
        Ok(())
    }
}
