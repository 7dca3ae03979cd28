//! Writing an artifact.

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::{Dtype, View};
use serde_json::Value;

use super::texts::{self, Texts};
use super::{FORMAT_VERSION, HEADER, Header, codec};
use crate::catalogue::encode_catalogue;
use crate::{Error, ItemIds, Result};

/// Collects a model's tensors and writes them as one byte string.
#[derive(Debug)]
pub struct ArtifactBuilder {
    family: String,
    config: Value,
    ids: ItemIds,
    counts: Vec<f32>,
    tensors: BTreeMap<String, Payload>,
    byte_lengths: BTreeMap<String, u64>,
    refused: Option<String>,
}

/// Numbers of one tensor, owned.
#[derive(Debug)]
pub(crate) struct Payload {
    shape: Vec<usize>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    F32(Vec<f32>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    U8(Vec<u8>),
}

impl Payload {
    pub(crate) fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), data: Data::F32(values) }
    }

    pub(crate) fn u16(values: Vec<u16>) -> Self {
        Self { shape: vec![values.len()], data: Data::U16(values) }
    }

    pub(crate) fn u32(values: Vec<u32>) -> Self {
        Self { shape: vec![values.len()], data: Data::U32(values) }
    }

    pub(crate) fn u64(values: Vec<u64>) -> Self {
        Self { shape: vec![values.len()], data: Data::U64(values) }
    }

    pub(crate) fn i64(values: Vec<i64>) -> Self {
        Self { shape: vec![values.len()], data: Data::I64(values) }
    }

    pub(crate) fn u8(shape: &[usize], values: Vec<u8>) -> Self {
        Self { shape: shape.to_vec(), data: Data::U8(values) }
    }

    fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::U16(v) => bytemuck::cast_slice(v),
            Data::U32(v) => bytemuck::cast_slice(v),
            Data::U64(v) => bytemuck::cast_slice(v),
            Data::I64(v) => bytemuck::cast_slice(v),
            Data::U8(v) => v,
        }
    }

    fn fits(&self) -> bool {
        let numbers = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        numbers.and_then(|n| n.checked_mul(self.dtype().bitsize() / 8)) == Some(self.bytes().len())
    }
}

impl View for &Payload {
    fn dtype(&self) -> Dtype {
        match self.data {
            Data::F32(_) => Dtype::F32,
            Data::U16(_) => Dtype::U16,
            Data::U32(_) => Dtype::U32,
            Data::U64(_) => Dtype::U64,
            Data::I64(_) => Dtype::I64,
            Data::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes())
    }

    fn data_len(&self) -> usize {
        self.bytes().len()
    }
}

impl ArtifactBuilder {
    /// An artifact of `family` over these items. `counts` says how often each was touched in training
    /// (zeros when unknown), same length as `ids`.
    pub fn new(family: &str, config: &Value, ids: &ItemIds, counts: &[f32]) -> Self {
        Self {
            family: family.to_owned(),
            config: config.clone(),
            ids: ids.clone(),
            counts: counts.to_vec(),
            tensors: BTreeMap::new(),
            byte_lengths: BTreeMap::new(),
            refused: None,
        }
    }

    /// The name of the family that opens it.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// The items, ascending.
    pub fn ids(&self) -> &ItemIds {
        &self.ids
    }

    /// Replaces the counts given to [`ArtifactBuilder::new`]: an importer learns the items' order here first.
    pub fn counts(&mut self, counts: Vec<f32>) -> &mut Self {
        self.counts = counts;
        self
    }

    /// Adds numbers of the given row-major shape.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> &mut Self {
        self.put(name, Payload::f32(shape, values))
    }

    /// Adds a list of small numbers.
    pub fn u16(&mut self, name: &str, values: Vec<u16>) -> &mut Self {
        self.put(name, Payload::u16(values))
    }

    /// Adds a list of indices.
    pub fn u32(&mut self, name: &str, values: Vec<u32>) -> &mut Self {
        self.put(name, Payload::u32(values))
    }

    /// Adds a list of offsets.
    pub fn u64(&mut self, name: &str, values: Vec<u64>) -> &mut Self {
        self.put(name, Payload::u64(values))
    }

    /// Adds bytes of a format of their own; they start at a multiple of 8 of the artifact.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        self.byte_lengths.insert(name.to_owned(), bytes.len() as u64);
        let mut words = vec![0u64; bytes.len().div_ceil(size_of::<u64>())];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        self.put(name, Payload::u64(words))
    }

    /// Adds texts.
    pub(crate) fn texts(&mut self, name: &str, texts: &[String]) -> &mut Self {
        let (bytes, offsets) = Texts::laid_out(texts);
        self.bytes(name, &bytes).u64(&texts::offsets(name), offsets)
    }

    fn put(&mut self, name: &str, tensor: Payload) -> &mut Self {
        if !tensor.fits() {
            self.refuse(format!("tensor \"{name}\" does not have as many numbers as its shape {:?}", tensor.shape));
        }
        if self.tensors.insert(name.to_owned(), tensor).is_some() {
            self.refuse(format!("two tensors are named \"{name}\""));
        }
        self
    }

    /// Keeps the first thing that is wrong until [`ArtifactBuilder::finish`] can say so.
    fn refuse(&mut self, why: String) {
        self.refused.get_or_insert(why);
    }

    /// Writes the artifact. The same content gives the same bytes.
    pub fn finish(&self) -> Result<Vec<u8>> {
        if let Some(why) = &self.refused {
            return Err(Error::Parameter(why.clone()));
        }
        let header = Header {
            version: FORMAT_VERSION,
            family: self.family.clone(),
            config: self.config.to_string(),
            kind: self.ids.kind(),
            items: self.ids.len() as u64,
            byte_lengths: self.byte_lengths.clone(),
        };
        let header = codec::encode(&header)?;
        let mut own = encode_catalogue(&self.ids, &self.counts)?;
        own.push((HEADER, Payload::u8(&[header.len()], header)));
        if let Some((name, _)) = own.iter().find(|(name, _)| self.tensors.contains_key(*name)) {
            return Err(Error::Parameter(format!("\"{name}\" is a name of the artifact's own tensors")));
        }
        let all = own.iter().map(|(name, t)| (*name, t)).chain(self.tensors.iter().map(|(n, t)| (n.as_str(), t)));
        safetensors::serialize(all, None).map_err(|e| Error::Parameter(format!("artifact cannot be written: {e}")))
    }
}
