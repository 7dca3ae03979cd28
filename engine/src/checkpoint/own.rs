//! Our own exports.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::formats::Params;
use super::source::Source;
use crate::catalogue::IdKind;
use crate::families::neighbours::{SEGMENT_ABOVE, add_segment};
use crate::families::sequential::{Architecture, ITEMS, SCORED, config_json};
use crate::families::{hstu, hstu_rank, sasrec};
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
    config: Value,
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
    match artifact.header().family.as_str() {
        sasrec::Config::FAMILY => export_as::<sasrec::Config>(artifact),
        hstu::Config::FAMILY => export_as::<hstu::Config>(artifact),
        hstu_rank::Config::FAMILY => export_as::<hstu_rank::Config>(artifact),
        other => {
            Err(Error::Unsupported { family: other.to_owned(), what: "cannot be exported: train it again".into() })
        }
    }
}

fn export_as<A: Architecture>(artifact: &Artifact) -> Result<Vec<u8>> {
    let architecture: A = artifact.config()?;
    architecture.check()?;
    let catalogue = artifact.catalogue();
    let mut columns: Vec<(String, Column)> = Vec::new();
    let mut put = |name: &str, dtype, shape: &[usize], data| {
        columns.push((name.to_owned(), Column { dtype, shape: shape.to_vec(), data }));
    };
    for weight in architecture.weights(catalogue.len()) {
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
    let config = config_json(&architecture)?;
    let about = About { version: VERSION, family: A::FAMILY.to_owned(), ids: catalogue.kind(), config };
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
    match about.family.as_str() {
        _ if about.version != VERSION => Err(malformed(format!("version {} cannot be read", about.version))),
        sasrec::Config::FAMILY => import_as::<sasrec::Config>(source, about, params, control),
        hstu::Config::FAMILY => import_as::<hstu::Config>(source, about, params, control),
        hstu_rank::Config::FAMILY => import_as::<hstu_rank::Config>(source, about, params, control),
        other => Err(malformed(format!("family \"{other}\" cannot be read"))),
    }
}

fn import_as<A: Architecture>(
    source: &Source<'_>,
    about: About,
    params: &Params,
    control: &Control,
) -> Result<ArtifactBuilder> {
    let malformed = |why: String| Error::Malformed(format!("export of pgrec: {why}"));
    let architecture: A = serde_json::from_value(about.config).map_err(|e| malformed(e.to_string()))?;
    architecture.check()?;
    if architecture.blocks() > source.names().len() {
        return Err(malformed(format!("{} blocks are more than it has tensors", architecture.blocks())));
    }
    let ids = ids(source, about.ids)?;
    let counts = source.numbers("counts", &[ids.len()])?;
    if let Some(at) = counts.iter().position(|&c| c < 0.0) {
        return Err(malformed(format!("tensor \"counts\" is negative at {at}")));
    }
    let mut builder = super::start(&architecture, &ids, &counts)?;
    let mut items = Vec::new();
    for weight in architecture.weights(ids.len()) {
        if weight.optional && !source.has(&weight.name) {
            continue;
        }
        let values = source.numbers(&weight.name, &weight.shape)?;
        // Where there is another table that items are scored by, it comes later; where events have outcomes, there is
        // none.
        if architecture.outcomes() == 0 && (weight.name == ITEMS || weight.name == SCORED) {
            items.clone_from(&values);
        }
        builder.f32(&weight.name, &weight.shape, values);
    }
    let above = params.segment_above.unwrap_or(SEGMENT_ABOVE);
    add_segment(&mut builder, &items, architecture.dim(), above, control)?;
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
