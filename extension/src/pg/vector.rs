//! Vectors as pgvector and Postgres lay them out: `vector`, `halfvec`, `bit`.

use pgrec_kernels::{Format, Metric, Scalar, normalise};
use pgrx::pg_sys::{self, Datum};

/// Bytes of a detoasted varlena's own header.
const VARHDRSZ: usize = 4;
/// Then a dimension and 16 unused bits, or the number of bits.
const HEADER: usize = VARHDRSZ + 4;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `vector`: f32.
    Vector,
    /// `halfvec`: f16.
    Halfvec,
    /// `bit`.
    Bit,
}

impl Kind {
    /// How its values are stored without loss.
    pub fn scalar(self) -> Scalar {
        match self {
            Kind::Vector => Scalar::F32,
            Kind::Halfvec => Scalar::F16,
            Kind::Bit => Scalar::Bit,
        }
    }

    /// What a page can hold of it, as many as pgvector indexes.
    pub fn most_dimensions(self) -> usize {
        match self {
            Kind::Vector => 2_000,
            Kind::Halfvec => 4_000,
            Kind::Bit => 64_000,
        }
    }

    /// Name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Vector => "vector",
            Kind::Halfvec => "halfvec",
            Kind::Bit => "bit",
        }
    }
}

/// A value, detoasted, with its number of dimensions and the bytes of its numbers.
struct Value {
    bytes: *mut pg_sys::varlena,
    copied: bool,
}

impl Value {
    /// # Safety
    /// The datum is a varlena that is not NULL.
    unsafe fn new(datum: Datum) -> Self {
        // SAFETY: the caller's; a value that is not toasted comes back as it is.
        unsafe {
            let given = datum.cast_mut_ptr::<pg_sys::varlena>();
            let bytes = pg_sys::pg_detoast_datum(given);
            Self { bytes, copied: bytes != given }
        }
    }

    /// Its dimensions and the bytes of its numbers; None where the header promises more than there is.
    fn parts(&self, kind: Kind) -> Option<(usize, &[u8])> {
        // SAFETY: a detoasted varlena is as long as it says.
        let all = unsafe {
            let size = pgrx::varsize_any(self.bytes);
            std::slice::from_raw_parts(self.bytes.cast::<u8>(), size)
        };
        let head = all.get(VARHDRSZ..HEADER)?;
        let (dimensions, size) = match kind {
            Kind::Vector => (usize::from(u16::from_ne_bytes([head[0], head[1]])), 4),
            Kind::Halfvec => (usize::from(u16::from_ne_bytes([head[0], head[1]])), 2),
            Kind::Bit => {
                let bits = usize::try_from(i32::from_ne_bytes([head[0], head[1], head[2], head[3]])).ok()?;
                return Some((bits, all.get(HEADER..HEADER + bits.div_ceil(8))?));
            }
        };
        Some((dimensions, all.get(HEADER..HEADER + dimensions * size)?))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if self.copied && !std::thread::panicking() {
            // SAFETY: allocated by pg_detoast_datum for this value.
            unsafe { pg_sys::pfree(self.bytes.cast()) };
        }
    }
}

/// Why a value cannot be stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It has another number of dimensions.
    Dimensions(usize),
    /// It is not laid out as its type says, or holds numbers that are not finite.
    Malformed,
}

/// Writes a value into `to` as `format` stores it, at unit length for the cosine. False, where it has no direction.
///
/// # Safety
/// The datum is a value of the kind's type, and not NULL.
pub unsafe fn store(datum: Datum, kind: Kind, format: &Format, to: &mut Vec<u8>) -> Result<bool, Refused> {
    // SAFETY: the caller's.
    let value = unsafe { Value::new(datum) };
    let (dimensions, bytes) = value.parts(kind).ok_or(Refused::Malformed)?;
    if dimensions != format.dim() {
        return Err(Refused::Dimensions(dimensions));
    }
    to.clear();
    if kind == Kind::Bit {
        to.extend_from_slice(bytes);
        return Ok(true);
    }
    let given = Format::new(Metric::L2, kind.scalar(), dimensions).map_err(|_| Refused::Malformed)?;
    let mut numbers = given.numbers(bytes);
    if !numbers.iter().all(|x| x.is_finite()) {
        return Err(Refused::Malformed);
    }
    let direction = format.metric() != Metric::Cosine || normalise(&mut numbers);
    format.store(&numbers, to);
    Ok(direction)
}
