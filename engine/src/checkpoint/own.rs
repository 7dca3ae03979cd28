//! Our own exports.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use super::formats::Params;
use super::source::Source;
use crate::catalogue::IdKind;
use crate::families::sasrec::Config;
use crate::{Artifact, ArtifactBuilder, Control, Error, ItemIds, Result};

/// The metadata key by which an export is known.
const KEY: &str = "pgrec";

const VERSION: u32 = 1;

/// What stands under [`KEY`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    version: u32,
    family: String,
    ids: IdKind,
    config: Config,
}

pub(super) fn is_own(source: &Source<'_>) -> bool {
    source.metadata(KEY).is_some()
}

/// A tensor on its way out.
struct Column {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Column {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

fn little<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Writes a model as a safetensors file that [`super::import`] turns back into the same artifact.
///
/// [`Error::Unsupported`] for families whose weights are not imported.
pub fn export(artifact: &Artifact) -> Result<Vec<u8>> {
    let family = &artifact.header().family;
    if family != "sasrec" {
        return Err(Error::Unsupported { family: family.clone(), what: "cannot be exported: train it again".into() });
    }
    let config: Config = artifact.config()?;
    config.check()?;
    let catalogue = artifact.catalogue();
    let mut columns: Vec<(String, Column)> = Vec::new();
    let mut put = |name: &str, dtype, shape: &[usize], data| {
        columns.push((name.to_owned(), Column { dtype, shape: shape.to_vec(), data }));
    };
    for weight in config.weights(catalogue.len()) {
        if artifact.has(&weight.name) || !weight.optional {
            let tensor = artifact.tensor_of(&weight.name, &weight.shape)?;
            put(&weight.name, Dtype::F32, &weight.shape, little(tensor.as_slice()));
        }
    }
    let n = catalogue.len();
    put("counts", Dtype::F32, &[n], little(catalogue.counts()));
    match catalogue.to_ids() {
        ItemIds::Int(ids) => put("ids", Dtype::I64, &[n], little(&ids)),
        ItemIds::Uuid(ids) => put("ids", Dtype::U8, &[n, 16], ids.concat()),
        ItemIds::Text(ids) => {
            let mut offsets = vec![0u64];
            let mut bytes = Vec::new();
            for id in &ids {
                bytes.extend_from_slice(id.as_bytes());
                offsets.push(bytes.len() as u64);
            }
            put("ids.offsets", Dtype::U64, &[offsets.len()], little(&offsets));
            put("ids", Dtype::U8, &[bytes.len()], bytes);
        }
    }
    let about = About { version: VERSION, family: family.clone(), ids: catalogue.kind(), config };
    let refuse = |e: String| Error::Parameter(format!("model cannot be exported: {e}"));
    let about = serde_json::to_string(&about).map_err(|e| refuse(e.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), about)]);
    safetensors::serialize(columns.iter().map(|(name, column)| (name.as_str(), column)), Some(metadata))
        .map_err(|e| refuse(e.to_string()))
}

/// Reads what [`export`] wrote.
pub(super) fn import(source: &Source<'_>, params: &Params, control: &Control) -> Result<ArtifactBuilder> {
    let malformed = |why: String| Error::Malformed(format!("export of pgrec: {why}"));
    let about: About =
        serde_json::from_str(source.metadata(KEY).unwrap_or_default()).map_err(|e| malformed(e.to_string()))?;
    if about.version != VERSION || about.family != "sasrec" {
        return Err(malformed(format!("version {} of family \"{}\" cannot be read", about.version, about.family)));
    }
    let config = about.config;
    config.check()?;
    if config.blocks > source.names().len() {
        return Err(malformed(format!("{} blocks are more than it has tensors", config.blocks)));
    }
    let ids = ids(source, about.ids)?;
    let counts = source.numbers("counts", &[ids.len()])?;
    if let Some(at) = counts.iter().position(|&c| c < 0.0) {
        return Err(malformed(format!("tensor \"counts\" is negative at {at}")));
    }
    let mut builder = super::start(&config, &ids, &counts)?;
    let mut items = Vec::new();
    for weight in config.weights(ids.len()) {
        if weight.optional && !source.has(&weight.name) {
            continue;
        }
        let values = source.numbers(&weight.name, &weight.shape)?;
        // The last table that holds items is the one that they are scored by.
        if weight.shape == [ids.len(), config.dim] && weight.name.ends_with("items") {
            items.clone_from(&values);
        }
        builder.f32(&weight.name, &weight.shape, values);
    }
    super::add_segment(&mut builder, &items, config.dim, params, control)?;
    Ok(builder)
}

fn ids(source: &Source<'_>, kind: IdKind) -> Result<ItemIds> {
    let malformed = |what: &str| Error::Malformed(format!("tensor \"ids\" {what}"));
    let word = |b: &[u8]| {
        let mut word = [0u8; 8];
        word.copy_from_slice(b);
        word
    };
    let (ids, ascending) = match kind {
        IdKind::Int => {
            let raw = source.raw("ids", Dtype::I64)?;
            let ids: Vec<i64> = raw.chunks_exact(8).map(|b| i64::from_le_bytes(word(b))).collect();
            let ascending = ids.is_sorted_by(|a, b| a < b);
            (ItemIds::Int(ids), ascending)
        }
        IdKind::Uuid => {
            let (ids, rest) = source.raw("ids", Dtype::U8)?.as_chunks::<16>();
            if !rest.is_empty() {
                return Err(malformed("does not hold whole uuids"));
            }
            (ItemIds::Uuid(ids.to_vec()), ids.is_sorted_by(|a, b| a < b))
        }
        IdKind::Text => {
            let text = std::str::from_utf8(source.raw("ids", Dtype::U8)?).map_err(|_| malformed("is not UTF-8"))?;
            let offsets = source.raw("ids.offsets", Dtype::U64)?;
            let offsets: Vec<usize> = offsets
                .chunks_exact(8)
                .map(|b| usize::try_from(u64::from_le_bytes(word(b))).unwrap_or(usize::MAX))
                .collect();
            let ids: Option<Vec<String>> =
                offsets.windows(2).map(|ends| text.get(ends[0]..ends[1]).map(str::to_owned)).collect();
            let ids = ids.filter(|_| offsets.first() == Some(&0) && offsets.last() == Some(&text.len()));
            let ids = ids.ok_or_else(|| malformed("does not match \"ids.offsets\""))?;
            let ascending = ids.is_sorted_by(|a, b| a < b);
            (ItemIds::Text(ids), ascending)
        }
    };
    if ids.is_empty() || !ascending {
        return Err(malformed("is empty, or its ids are not ascending"));
    }
    Ok(ids)
}
