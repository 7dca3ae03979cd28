//! Codes of items, open for looking up.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use pgrec_kernels::Scored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::NAME;
use crate::artifact::Shared;
use crate::codes::{Codebook, Codes, Encoder, Form, Layer, Network, Quantizer};
use crate::families::Model;
use crate::families::sequential::{allowed, best};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

/// Codes of the items, `[items, levels]`.
const CODES: &str = "codes";
/// The items in the order of their codes.
const ORDER: &str = "order";
fn layer_name(network: usize, layer: usize, part: &str) -> String {
    format!("encoder.{network}.{layer}.{part}")
}

fn words(level: usize) -> String {
    format!("words.{level}")
}

/// What an artifact says of its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How code words make a vector.
    pub form: Form,
    /// Code words of every level.
    pub sizes: Vec<usize>,
    /// Numbers of a code word of every level.
    pub dims: Vec<usize>,
    /// Numbers of an item vector.
    pub input: usize,
    /// Widths of the encoder's networks, from an item vector on.
    pub encoder: Vec<Vec<usize>>,
    /// Where item vectors came from.
    pub source: Source,
}

impl Config {
    pub(super) fn new(encoder: &Encoder, quantizer: &Quantizer, input: usize, source: Source) -> Self {
        let widths = |network: &Network| [input].into_iter().chain(network.layers.iter().map(Layer::outputs)).collect();
        Self {
            form: quantizer.form,
            sizes: quantizer.sizes(),
            dims: quantizer.codebooks.iter().map(|codebook| codebook.dim).collect(),
            input,
            encoder: encoder.networks.iter().map(widths).collect(),
            source,
        }
    }
}

/// Where item vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The items relation's embedding column.
    Embedding,
    /// Another model.
    Model,
}

/// Adds the tensors to an artifact over as many items.
pub(super) fn store(artifact: &mut ArtifactBuilder, encoder: &Encoder, quantizer: &Quantizer, codes: &Codes<'_>) {
    for (level, codebook) in quantizer.codebooks.iter().enumerate().filter(|(_, codebook)| codebook.dim > 0) {
        artifact.f32(&words(level), &[codebook.size, codebook.dim], codebook.words.clone());
    }
    for (number, network) in encoder.networks.iter().enumerate() {
        for (place, layer) in network.layers.iter().enumerate() {
            let weight = layer.weight.clone();
            artifact.f32(&layer_name(number, place, "weight"), &[layer.inputs, layer.outputs()], weight);
            if let Some(bias) = &layer.bias {
                artifact.f32(&layer_name(number, place, "bias"), &[bias.len()], bias.clone());
            }
        }
    }
    artifact.u16(CODES, codes.of.to_vec()).u32(ORDER, codes.order());
}

fn open_network(artifact: &Artifact, number: usize, widths: &[usize]) -> Result<Network> {
    let layer = |(place, pair): (usize, &[usize])| {
        let weight = artifact.tensor_of(&layer_name(number, place, "weight"), pair)?.as_slice().to_vec();
        let bias = layer_name(number, place, "bias");
        let bias = artifact.has(&bias).then(|| artifact.tensor_of(&bias, &pair[1..])).transpose()?;
        Ok(Layer { inputs: pair[0], weight, bias: bias.map(|bias| bias.as_slice().to_vec()) })
    };
    Ok(Network { layers: widths.windows(2).enumerate().map(layer).collect::<Result<_>>()? })
}

/// A model of semantic IDs.
pub struct SemanticIds {
    catalogue: Catalogue,
    source: Source,
    input: usize,
    quantizer: Quantizer,
    encoder: Encoder,
    codes: Shared<u16>,
    order: Shared<u32>,
}

impl SemanticIds {
    /// Opens an artifact of this family.
    ///
    /// # Errors
    /// [`Error::Malformed`] where its tensors do not fit together.
    pub fn open(artifact: &Artifact) -> Result<Self> {
        Self::open_as(artifact, artifact.config()?)
    }

    /// Opens the codes in an artifact of another family, whose configuration has theirs.
    pub(crate) fn open_as(artifact: &Artifact, config: Config) -> Result<Self> {
        let malformed = |why: &str| Error::Malformed(format!("semantic ids: {why}"));
        let Config { form, sizes, dims, input, encoder: widths, source } = config;
        if sizes.is_empty() || sizes.len() != dims.len() {
            return Err(malformed("sizes and dims do not name the same levels"));
        }
        let codebook = |(level, (&size, &dim)): (usize, (&usize, &usize))| {
            let words = match dim {
                0 => Vec::new(),
                dim => artifact.tensor_of(&words(level), &[size, dim])?.as_slice().to_vec(),
            };
            Ok(Codebook { size, dim, words })
        };
        let codebooks = sizes.iter().zip(&dims).enumerate().map(codebook).collect::<Result<Vec<_>>>()?;
        let quantizer = Quantizer { form, codebooks };
        let networks = widths.iter().enumerate().map(|(number, widths)| open_network(artifact, number, widths));
        let networks = networks.collect::<Result<Vec<_>>>()?;
        let coded = widths.iter().map(|widths| widths.last().copied().unwrap_or(0)).sum::<usize>();
        let begins = widths.iter().all(|widths| widths.len() > 1 && widths[0] == input);
        if !begins || quantizer.dim() != if networks.is_empty() { input } else { coded } {
            return Err(malformed("vectors are of another length than code words"));
        }
        let (catalogue, codes, order) = (artifact.catalogue().clone(), artifact.u16s(CODES)?, artifact.u32s(ORDER)?);
        let items = catalogue.len();
        if codes.len() != items * sizes.len() || order.len() != items {
            return Err(malformed("there are not as many codes as items"));
        }
        if codes
            .chunks_exact(sizes.len())
            .any(|code| code.iter().zip(&sizes).any(|(&code, &size)| code as usize >= size))
        {
            return Err(malformed("a code is not below the number of code words"));
        }
        if order.iter().any(|&item| item as usize >= items) {
            return Err(malformed("the order names an item that there is not"));
        }
        Ok(Self { catalogue, source, input, quantizer, encoder: Encoder { networks }, codes, order })
    }

    /// Adds its tensors to the artifact of a family that builds on it, over the same items.
    pub(crate) fn store(&self, artifact: &mut ArtifactBuilder) {
        store(artifact, &self.encoder, &self.quantizer, &self.codes());
    }

    /// What an artifact has to say of them.
    pub(crate) fn config(&self) -> Config {
        Config::new(&self.encoder, &self.quantizer, self.input, self.source)
    }

    /// Numbers of the item vectors that are coded.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Whether these are vectors of the items relation's embedding column, so that a new item has one, too.
    pub fn codes_embeddings(&self) -> bool {
        self.source == Source::Embedding
    }

    /// Codebooks.
    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// Codes of all items, in the order of the catalogue.
    pub fn codes(&self) -> Codes<'_> {
        Codes { levels: self.quantizer.levels(), of: Cow::Borrowed(&self.codes) }
    }

    /// The code of an item.
    pub fn code(&self, item: u32) -> &[u16] {
        let levels = self.quantizer.levels();
        &self.codes[item as usize * levels..][..levels]
    }

    /// The items whose codes begin with `prefix`, in the order of their codes: places in [`SemanticIds::ordered`].
    pub fn under(&self, prefix: &[u16]) -> Range<usize> {
        let begins = |item: &u32| {
            let code = self.code(*item);
            code[..prefix.len().min(code.len())].cmp(prefix)
        };
        let start = self.order.partition_point(|item| begins(item).is_lt());
        start..start + self.order[start..].partition_point(|item| begins(item).is_eq())
    }

    /// All items in the order of their codes.
    pub fn ordered(&self) -> &[u32] {
        &self.order
    }

    /// The nearest code for a vector that no item of the model has, and that `taken` does not name either: of codes that
    /// begin with a given prefix of all levels but the last, the last code.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a vector of another length, [`Error::Data`] where no code is free, and those of `taken`.
    pub fn free_code<E: From<Error>>(
        &self,
        vector: &[f32],
        mut taken: impl FnMut(&[u16]) -> std::result::Result<HashSet<u16>, E>,
    ) -> std::result::Result<Vec<u16>, E> {
        if vector.len() != self.input || vector.iter().any(|x| !x.is_finite()) {
            let (len, input) = (vector.len(), self.input);
            let why = format!("an item vector of {len} numbers cannot be coded: it takes {input} finite ones");
            return Err(Error::Parameter(why).into());
        }
        let coded = self.encoder.encode(vector, self.input)?;
        let mut all = |prefix: &[u16]| {
            let mut gone = taken(prefix)?;
            gone.extend(self.order[self.under(prefix)].iter().filter_map(|&item| self.code(item).last()));
            Ok::<_, E>(gone)
        };
        let code = self.quantizer.nearest_free(&coded, &mut all)?;
        code.ok_or_else(|| Error::Data("every code is taken: train with more levels or codes".into()).into())
    }

    fn unsupported<T>(what: &str) -> Result<T> {
        Err(Error::Unsupported { family: NAME.into(), what: what.into() })
    }
}

const RANKS_NOTHING: &str = "codes items and ranks nothing: train a family that does, such as generative";

impl Model for SemanticIds {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        0
    }

    fn semantic_ids(&self) -> Option<&SemanticIds> {
        Some(self)
    }

    fn recommend(&self, _: &[Query<'_>], _: &Control) -> Result<Vec<Vec<Scored>>> {
        Self::unsupported(RANKS_NOTHING)
    }

    fn score(&self, _: &Query<'_>, _: &[u32]) -> Result<Vec<f32>> {
        Self::unsupported(RANKS_NOTHING)
    }

    /// By the distance of what codes stand for; scores are negative distances.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        let own = self.quantizer.decode(self.code(item));
        let scored = |other: u32| Scored { item: other, score: -self.quantizer.error(&own, self.code(other)).sqrt() };
        let others = allowed(self.catalogue.len(), query).filter(|&other| other != item);
        Ok(best(others.map(scored).collect(), query.k))
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Self::unsupported("has no user vectors")
    }

    fn explain(&self, _: &Query<'_>, item: u32) -> Result<Value> {
        Ok(json!({ "code": self.code(item) }))
    }
}
