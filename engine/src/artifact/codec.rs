//! The encoding of small headers: the only place that knows bincode.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// More than any header needs; a decoder that is promised more refuses before it allocates.
const LIMIT: usize = 16 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Encodes a header.
pub(crate) fn encode<T: Serialize>(header: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(header, config())
        .map_err(|e| Error::Parameter(format!("a header cannot be encoded: {e}")))
}

/// Decodes a header that must fill `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let malformed = |why: String| Error::Malformed(format!("header: {why}"));
    let (header, read) = bincode::serde::decode_from_slice(bytes, config()).map_err(|e| malformed(e.to_string()))?;
    if read != bytes.len() {
        return Err(malformed(format!("{} bytes too many", bytes.len() - read)));
    }
    Ok(header)
}
