//! Reading tensors of a file that somebody else wrote.

use safetensors::{Dtype, SafeTensors};

use crate::{Error, Result};

/// A safetensors file whose table of contents has been checked: every tensor lies within it.
pub(super) struct Source<'a> {
    tensors: SafeTensors<'a>,
    metadata: std::collections::HashMap<String, String>,
}

impl<'a> Source<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self> {
        let wrong = |e| Error::Malformed(format!("not a safetensors file: {e}"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(wrong)?;
        Ok(Self { tensors, metadata: metadata.metadata().clone().unwrap_or_default() })
    }

    pub(super) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// Names in alphabetical order.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        names
    }

    /// One more than the largest number `i` in names that start with `prefix`, `i`, a dot; 0 when there is none.
    pub(super) fn blocks(&self, prefix: &str) -> usize {
        let number = |name: &str| name.strip_prefix(prefix)?.split_once('.')?.0.parse::<usize>().ok();
        let largest = self.tensors.names().into_iter().filter_map(number).max();
        largest.map_or(0, |largest| largest.saturating_add(1))
    }

    pub(super) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.tensor(name)?.shape().to_vec())
    }

    /// Bytes of a tensor of this type.
    pub(super) fn raw(&self, name: &str, dtype: Dtype) -> Result<&'a [u8]> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() != dtype {
            return Err(Error::Malformed(format!("tensor \"{name}\" holds {}, not {dtype}", tensor.dtype())));
        }
        Ok(tensor.data())
    }

    /// Numbers of a tensor that must have this shape, all of them finite.
    pub(super) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if tensor.shape() != shape {
            return Err(Error::Malformed(format!(
                "tensor \"{name}\" has shape {:?}, the others ask for {shape:?}",
                tensor.shape()
            )));
        }
        let two = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let data = tensor.data();
        let numbers: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::BF16 => data.chunks_exact(2).map(|b| f32::from_bits(u32::from(two(b)) << 16)).collect(),
            Dtype::F16 => data.chunks_exact(2).map(|b| half_to_single(two(b))).collect(),
            other => {
                return Err(Error::Malformed(format!(
                    "tensor \"{name}\" holds {other}; F32, F16 and BF16 can be read"
                )));
            }
        };
        if let Some(place) = numbers.iter().position(|x| !x.is_finite()) {
            let mut rest = place;
            let mut at: Vec<usize> = Vec::with_capacity(shape.len());
            for &extent in shape.iter().rev() {
                at.insert(0, rest % extent);
                rest /= extent;
            }
            return Err(Error::Malformed(format!("tensor \"{name}\" holds {} at {at:?}", numbers[place])));
        }
        Ok(numbers)
    }

    fn tensor(&self, name: &str) -> Result<safetensors::tensor::TensorView<'a>> {
        self.tensors.tensor(name).map_err(|_| Error::Malformed(format!("the file has no tensor \"{name}\"")))
    }
}

/// IEEE 754 binary16 to binary32; exact.
fn half_to_single(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    match exponent {
        // Subnormal: the fraction counts units of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / (1 << 24) as f32).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::half_to_single;

    #[test]
    fn every_kind_of_half_precision_number_is_converted_exactly() {
        for (half, single) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half_to_single(half), single, "{half:#06x}");
        }
        assert!(half_to_single(0x7c00).is_infinite());
        assert!(half_to_single(0xfe00).is_nan());
    }
}
