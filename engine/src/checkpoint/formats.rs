//! The checkpoints that are understood, told apart by their tensors' names.

use serde::Deserialize;

use super::source::Source;
use crate::families::sasrec::{Block, Config, Nonlinearity, Positions};
use crate::families::sequential::Architecture;
use crate::{Error, Result};

/// A naming of SASRec's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As in the BERT-like recommenders (S3-Rec, CL4SRec, ICSRec): `item_embeddings.weight`,
    /// `item_encoder.layer.0.attention.query.weight`.
    Bert,
    /// As in the PyTorch port of the authors' code: `item_emb.weight`, `attention_layers.0.in_proj_weight`.
    Port,
}

/// Where a tensor of ours is in a checkpoint.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub name: String,
    /// Which third, where queries, keys and values share a tensor.
    pub third: Option<usize>,
}

/// What an importer may say about a checkpoint; all of it optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Params {
    /// Attention heads: not to be seen in the weights.
    pub heads: Option<usize>,
    /// Row of the item table to which the first element of the mapping belongs.
    pub first_row: Option<usize>,
    /// Latest events that are looked at, where there are more positions.
    pub window: Option<usize>,
    pub block: Option<Block>,
    pub activation: Option<Nonlinearity>,
    pub norm_eps: Option<f64>,
    pub item_scale: Option<f64>,
    pub positions: Option<Positions>,
    /// Build a nearest-neighbour segment for more items than this.
    pub segment_above: Option<usize>,
}

impl Format {
    pub(super) fn recognise(source: &Source<'_>) -> Result<Self> {
        [Self::Bert, Self::Port].into_iter().find(|format| source.has(format.items())).ok_or_else(|| {
            let names = source.names();
            let mut some = names.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            if names.is_empty() {
                some.push_str("none");
            } else if names.len() > 4 {
                some.push_str(", …");
            }
            Error::Malformed(format!(
                "no SASRec checkpoint: its item table should be named \"{}\" or \"{}\", or it should be an export of \
                 pgrec; its tensors are {some}",
                Self::Bert.items(),
                Self::Port.items(),
            ))
        })
    }

    pub(super) fn items(self) -> &'static str {
        match self {
            Self::Bert => "item_embeddings.weight",
            Self::Port => "item_emb.weight",
        }
    }

    pub(super) fn positions(self) -> &'static str {
        match self {
            Self::Bert => "position_embeddings.weight",
            Self::Port => "pos_emb.weight",
        }
    }

    /// The configuration that the weights' shapes and the importer's parameters give. `window` is the number
    /// of usable rows of the position table.
    pub(super) fn config(self, source: &Source<'_>, dim: usize, window: usize, params: &Params) -> Result<Config> {
        let (prefix, ffn, heads) = match self {
            Self::Bert => ("item_encoder.layer.", "item_encoder.layer.0.intermediate.dense_1.weight", 2),
            Self::Port => ("forward_layers.", "forward_layers.0.conv1.weight", 1),
        };
        let (block, activation, eps, scale) = match self {
            Self::Bert => (Block::PostLn, Nonlinearity::Gelu, 1e-12, 1.0),
            Self::Port => (Block::Original, Nonlinearity::Relu, 1e-8, (dim as f64).sqrt()),
        };
        let blocks = source.blocks(prefix);
        if blocks > source.names().len() {
            return Err(Error::Malformed(format!(
                "a tensor's name counts {blocks} blocks, which the file does not have"
            )));
        }
        let config = Config {
            normalized: false,
            dim,
            blocks,
            heads: params.heads.unwrap_or(heads),
            ffn: source.shape(ffn)?.first().copied().unwrap_or(0),
            window,
            block: params.block.unwrap_or(block),
            activation: params.activation.unwrap_or(activation),
            item_scale: params.item_scale.unwrap_or(scale),
            norm_eps: params.norm_eps.unwrap_or(eps),
            positions: params.positions.unwrap_or(Positions::FromEnd),
        };
        config.check()?;
        Ok(config)
    }

    /// Where one of our tensors (but for the two tables) is, or `None` when models of this kind do without.
    pub(super) fn place(self, ours: &str) -> Option<Place> {
        let at = |name: String| Some(Place { name, third: None });
        let Some(rest) = ours.strip_prefix("blocks.") else {
            let (layer, part) = ours.split_once('.')?;
            return match (self, layer) {
                (Self::Bert, "input_norm") => at(format!("LayerNorm.{part}")),
                (Self::Port, "final_norm") => at(format!("last_layernorm.{part}")),
                _ => None,
            };
        };
        let (block, rest) = rest.split_once('.')?;
        let (layer, part) = rest.split_once('.')?;
        if self == Self::Bert {
            let layer = match layer {
                "attention_norm" => "attention.LayerNorm",
                "query" => "attention.query",
                "key" => "attention.key",
                "value" => "attention.value",
                "output" => "attention.dense",
                "ffn_norm" => "intermediate.LayerNorm",
                "ffn_in" => "intermediate.dense_1",
                _ => "intermediate.dense_2",
            };
            return at(format!("item_encoder.layer.{block}.{layer}.{part}"));
        }
        match layer {
            "attention_norm" => at(format!("attention_layernorms.{block}.{part}")),
            "output" => at(format!("attention_layers.{block}.out_proj.{part}")),
            "ffn_norm" => at(format!("forward_layernorms.{block}.{part}")),
            "ffn_in" => at(format!("forward_layers.{block}.conv1.{part}")),
            "ffn_out" => at(format!("forward_layers.{block}.conv2.{part}")),
            _ => {
                let third = ["query", "key", "value"].iter().position(|&name| name == layer);
                Some(Place { name: format!("attention_layers.{block}.in_proj_{part}"), third })
            }
        }
    }

    /// The shape a linear layer's weight has in the file, for ours `[inputs, outputs]`.
    pub(super) fn stored(self, place: &Place, inputs: usize, outputs: usize) -> Vec<usize> {
        match self {
            Self::Port if place.third.is_some() => vec![3 * outputs, inputs],
            // A convolution of width one.
            Self::Port if place.name.starts_with("forward_layers.") => vec![outputs, inputs, 1],
            _ => vec![outputs, inputs],
        }
    }
}
