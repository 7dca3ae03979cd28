//! NumPy's `.npy` files of two-dimensional float16 or float32 arrays (format 1.0 to 3.0, C order, little-endian).

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

/// The rows of the array in `path`.
pub(super) fn read(path: &Path) -> Result<Vec<Vec<f32>>> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is no array this can read", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Vec<Vec<f32>>> {
    let version = bytes.strip_prefix(b"\x93NUMPY").and_then(|rest| rest.first()).context("no NumPy header")?;
    let (length, start) = match (version, bytes) {
        (1, [_, _, _, _, _, _, _, _, a, b, ..]) => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        (2 | 3, [_, _, _, _, _, _, _, _, a, b, c, d, ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        _ => bail!("unknown header version {version}"),
    };
    let header = bytes.get(start..start + length).context("truncated header")?;
    let header = std::str::from_utf8(header).context("header is not text")?;
    if !header.contains("'fortran_order': False") {
        bail!("not in C order");
    }
    let (rows, columns) = shape(header).ok_or_else(|| anyhow!("not two-dimensional: {header}"))?;
    let width = match () {
        () if header.contains("'<f2'") => 2,
        () if header.contains("'<f4'") => 4,
        () => bail!("neither float16 nor float32: {header}"),
    };
    let body = &bytes[start + length..];
    let row_bytes = columns.checked_mul(width).filter(|&size| size > 0).context("empty or absurd rows")?;
    if row_bytes.checked_mul(rows) != Some(body.len()) {
        bail!("{} bytes do not make {rows} rows of {columns}", body.len());
    }
    let value = |chunk: &[u8]| match *chunk {
        [a, b] => half(u16::from_le_bytes([a, b])),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    };
    Ok(body.chunks_exact(row_bytes).map(|row| row.chunks_exact(width).map(value).collect()).collect())
}

/// The two numbers of `'shape': (3, 384)`.
fn shape(header: &str) -> Option<(usize, usize)> {
    let inside = header.split_once("'shape': (")?.1.split_once(')')?.0;
    let (rows, columns) = inside.split_once(',')?;
    Some((rows.trim().parse().ok()?, columns.trim().parse().ok()?))
}

/// IEEE 754 binary16 to binary32.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2.0_f32.powi(exponent - 25),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn halves_are_exact_at_the_edges() {
        let cases = [(0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65_504.0), (0x0001, 2.0_f32.powi(-24))];
        for (bits, expected) in cases {
            assert_eq!(half(bits), expected, "{bits:#06x}");
        }
        assert_eq!(half(0x3555), 0.333_251_95);
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }

    #[test]
    fn rows_keep_their_order_in_both_widths() {
        let halves = file("<f2", "(2, 1)", &[0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!(parse(&halves).unwrap(), [[1.0], [-2.0]]);
        let floats = file("<f4", "(1, 2)", &[1.5_f32.to_le_bytes(), 2.5_f32.to_le_bytes()].concat());
        assert_eq!(parse(&floats).unwrap(), [[1.5, 2.5]]);
    }

    #[test]
    fn damaged_files_are_errors() {
        let good = file("<f2", "(2, 1)", &[0; 4]);
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "{length} bytes");
        }
        assert!(parse(&file("<f8", "(1, 1)", &[0; 8])).is_err());
        assert!(parse(&file("<f4", "(4,)", &[0; 16])).is_err());
        assert!(parse(&file("<f4", "(18446744073709551615, 2)", &[0; 16])).is_err());
    }
}
