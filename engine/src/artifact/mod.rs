//! The bytes of a model: one safetensors file that is mapped and read in place.
//!
//! Every tensor starts at a multiple of its element size (safetensors sorts by size, largest first, after a
//! header padded to 8 bytes), so numbers are used where they lie. Reserved tensors are `header` (format
//! version, family, configuration) and those of the [`Catalogue`]; all others are the family's.

mod builder;
pub(crate) mod codec;
mod shared;
mod texts;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use pgrec_kernels::{Bytes, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use builder::ArtifactBuilder;
pub(crate) use builder::Payload;
pub use shared::Shared;
pub(crate) use shared::aligned;
pub(crate) use texts::Texts;

use crate::catalogue::IdKind;
use crate::{Catalogue, Error, Result};

#[cfg(target_endian = "big")]
compile_error!("artifacts hold little-endian numbers that are used in place");

/// Version of the layout written here; a reader refuses any other.
pub const FORMAT_VERSION: u32 = 1;

const HEADER: &str = "header";

/// What an artifact says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// Layout version, [`FORMAT_VERSION`].
    pub version: u32,
    /// Name of the family that opens it.
    pub family: String,
    /// The family's configuration, a JSON object.
    pub config: String,
    /// Kind of its item ids.
    pub kind: IdKind,
    /// Number of items.
    pub items: u64,
    /// True length of tensors added as bytes, which are stored as whole words.
    byte_lengths: BTreeMap<String, u64>,
}

/// A tensor's place in the file.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A model's bytes, checked, with its tensors found. Tensors handed out share the bytes.
pub struct Artifact {
    bytes: Bytes,
    entries: HashMap<String, Entry>,
    header: Header,
    catalogue: Catalogue,
}

impl Artifact {
    /// Checks an artifact and finds its tensors without copying them. `bytes` must be aligned to 8, as mapped
    /// files are. Costs some 20 µs and one pass over the item ids.
    ///
    /// [`Error::Malformed`] says what is wrong with truncated, overlapping or inconsistent contents.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let all = (*bytes).as_ref();
        let entries = entries(all).map_err(|why| Error::Malformed(format!("not an artifact: {why}")))?;
        let header = entries
            .get(HEADER)
            .filter(|e| e.dtype == Dtype::U8)
            .ok_or_else(|| Error::Malformed("not an artifact: it has no header".into()))?;
        let header: Header = codec::decode(&all[header.range.clone()])?;
        if header.version != FORMAT_VERSION {
            return Err(Error::Malformed(format!(
                "artifact has format version {}, this version reads {FORMAT_VERSION}: train or import the model again",
                header.version
            )));
        }
        let file = File { bytes: &bytes, entries: &entries };
        let catalogue = Catalogue::open(header.kind, header.items, &file)?;
        Ok(Self { entries, header, catalogue, bytes })
    }

    /// The same for bytes of any alignment: copies them once.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(aligned(&bytes))
    }

    /// What the artifact says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The family's configuration.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.header.config)
            .map_err(|e| Error::Malformed(format!("configuration of family \"{}\": {e}", self.header.family)))
    }

    /// The items. Cloning it is cheap.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.bytes().len()
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// A tensor of f32s.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.file().entry(name, Dtype::F32)?;
        Tensor::view(Arc::clone(&self.bytes), entry.range.clone(), entry.shape.clone()).map_err(Error::from)
    }

    /// A tensor of f32s that must have this shape.
    pub fn tensor_of(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.tensor(name)?;
        if tensor.shape() != shape {
            return Err(Error::Malformed(format!("tensor \"{name}\" has shape {:?}, not {shape:?}", tensor.shape())));
        }
        Ok(tensor)
    }

    /// A list of small numbers.
    pub fn u16s(&self, name: &str) -> Result<Shared<u16>> {
        self.file().numbers(name, Dtype::U16)
    }

    /// A list of indices.
    pub fn u32s(&self, name: &str) -> Result<Shared<u32>> {
        self.file().numbers(name, Dtype::U32)
    }

    /// A list of offsets.
    pub fn u64s(&self, name: &str) -> Result<Shared<u64>> {
        self.file().numbers(name, Dtype::U64)
    }

    /// Bytes added with [`ArtifactBuilder::bytes`].
    pub fn raw(&self, name: &str) -> Result<Shared<u8>> {
        let entry = self.file().entry(name, Dtype::U64)?;
        let length = self.header.byte_lengths.get(name).copied();
        let length = length
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| n.div_ceil(size_of::<u64>()) * size_of::<u64>() == entry.range.len())
            .ok_or_else(|| {
                Error::Malformed(format!("tensor \"{name}\" does not hold the bytes the header promises"))
            })?;
        Shared::new(&self.bytes, entry.range.start..entry.range.start + length, name)
    }

    /// Texts added with [`ArtifactBuilder::texts`].
    pub(crate) fn texts(&self, name: &str) -> Result<Texts> {
        let (bytes, offsets) = (self.raw(name)?, self.u64s(&texts::offsets(name))?);
        Texts::new(bytes, offsets).map_err(|what| Error::Malformed(format!("texts \"{name}\": {what}")))
    }

    fn file(&self) -> File<'_> {
        File { bytes: &self.bytes, entries: &self.entries }
    }
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact").field("header", &self.header).field("size", &self.size()).finish()
    }
}

/// The tensors of a file under way to an [`Artifact`].
pub(crate) struct File<'a> {
    bytes: &'a Bytes,
    entries: &'a HashMap<String, Entry>,
}

impl<'a> File<'a> {
    fn entry(&self, name: &str, dtype: Dtype) -> Result<&'a Entry> {
        let entry =
            self.entries.get(name).ok_or_else(|| Error::Malformed(format!("the artifact has no tensor \"{name}\"")))?;
        if entry.dtype != dtype {
            return Err(Error::Malformed(format!("tensor \"{name}\" holds {}, not {dtype}", entry.dtype)));
        }
        Ok(entry)
    }

    /// All numbers of a tensor, whatever its shape.
    pub(crate) fn numbers<T: bytemuck::Pod>(&self, name: &str, dtype: Dtype) -> Result<Shared<T>> {
        Shared::new(self.bytes, self.entry(name, dtype)?.range.clone(), name)
    }
}

/// Reads the table of contents. safetensors checks that the tensors lie end to end and fill the file.
fn entries(all: &[u8]) -> std::result::Result<HashMap<String, Entry>, safetensors::SafeTensorError> {
    let (header, metadata) = SafeTensors::read_metadata(all)?;
    let start = size_of::<u64>() + header;
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        (name, Entry { dtype: info.dtype, shape: info.shape.clone(), range })
    });
    Ok(entries.collect())
}

#[cfg(test)]
mod tests;
