//! Codes that were learnt elsewhere: an item's vector is its code, a number a level. One of zeros alone is none.

use super::{Codebook, Form, MOST_LEVELS, MOST_WORDS, Quantizer};
use crate::{Error, Result};

/// The quantizer whose codes are the vectors themselves. A vector without a code, such as that of a new item, has the
/// code whose numbers are nearest.
///
/// # Errors
/// [`Error::Data`] where a number is no code: not whole, negative or too large.
pub fn fit(vectors: &[f32], dim: usize) -> Result<Quantizer> {
    if dim > MOST_LEVELS {
        return Err(Error::Data(format!(
            "vectors of {dim} numbers are no codes, which have {MOST_LEVELS} levels at most"
        )));
    }
    let mut sizes = vec![0; dim];
    for vector in vectors.chunks_exact(dim) {
        for (&code, size) in vector.iter().zip(&mut sizes) {
            if !(0.0..MOST_WORDS as f32).contains(&code) || code.fract() != 0.0 {
                let why = format!(
                    "{code} is no code: quantizer \"given\" takes vectors of whole numbers from 0 to {}",
                    MOST_WORDS - 1
                );
                return Err(Error::Data(why));
            }
            *size = (*size).max(code as usize + 1);
        }
    }
    let codebook = |size: usize| Codebook { size, dim: 1, words: (0..size).map(|code| code as f32).collect() };
    Ok(Quantizer { form: Form::Parallel, codebooks: sizes.into_iter().map(codebook).collect() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Control;

    #[test]
    fn vectors_are_their_own_codes() {
        let vectors = [3.0, 0.0, 7.0, 0.0, 200.0, 1.0];
        let quantizer = fit(&vectors, 3).unwrap();
        assert_eq!(quantizer.sizes(), [4, 201, 8]);
        let codes = quantizer.encode(&vectors, &Control::default()).unwrap();
        assert_eq!(codes.of.as_ref(), [3, 0, 7, 0, 200, 1]);
        assert_eq!(quantizer.decode(codes.item(1)), vectors[3..]);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for wrong in [0.5, -1.0, 65_536.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(fit(&[1.0, wrong], 2), Err(Error::Data(_))), "{wrong}");
        }
        assert!(matches!(fit(&[1.0; 27], 27), Err(Error::Data(_))));
    }
}
