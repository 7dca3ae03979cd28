//! What a SASRec model is made of.

use std::ops::Range;

use pgrec_kernels::Activation;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The shape of a model and the form of its blocks. Stored with the artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of item and position vectors.
    pub dim: usize,
    /// Number of transformer blocks.
    pub blocks: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward half.
    pub ffn: usize,
    /// How many of the latest events are looked at: rows of the position table.
    pub window: usize,
    /// Where the norms and residuals are.
    pub block: Block,
    /// Between the two layers of the feed-forward half.
    pub activation: Nonlinearity,
    /// Factor on the item vectors at the input: √dim in the paper.
    pub item_scale: f64,
    /// Added to the variance in every layer norm.
    pub norm_eps: f64,
    /// Which row of the position table an event gets.
    pub positions: Positions,
    /// Whether scores are cosines: histories' vectors have length 1, and so have the rows of `scored_items`.
    #[serde(default)]
    pub normalized: bool,
}

/// The forms of a transformer block, `A` the attention and `F` the feed-forward half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Kang & McAuley 2018, in their code: queries from n = LN(x), keys and values from x;
    /// y = n + A(n, x, x), m = LN(y), m + F(m).
    Original,
    /// n = LN(x), y = x + A(n, n, n); y + F(LN(y)).
    PreLn,
    /// y = LN(x + A(x, x, x)); LN(y + F(y)), as in BERT.
    PostLn,
}

/// The element-wise functions of the feed-forward half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// max(0, x)
    Relu,
    /// x·Φ(x)
    Gelu,
    /// x·σ(x)
    Silu,
}

impl From<Nonlinearity> for Activation {
    fn from(n: Nonlinearity) -> Self {
        match n {
            Nonlinearity::Relu => Self::Relu,
            Nonlinearity::Gelu => Self::Gelu,
            Nonlinearity::Silu => Self::Silu,
        }
    }
}

/// How events are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// The latest event has the last row: what training on left-padded windows gives.
    FromEnd,
    /// The oldest event in the window has row 0.
    FromStart,
}

/// Name of the table that items are scored by, where it is not the table of inputs.
pub(super) const SCORED: &str = "scored_items";

/// One tensor of a model.
#[derive(Debug, PartialEq)]
pub(crate) struct Weight {
    /// Its name in the artifact.
    pub name: String,
    /// Its shape there. Linear layers are `[inputs, outputs]`.
    pub shape: Vec<usize>,
    /// Whether a model can do without: biases, the output projection, norms before and after the blocks, what norms
    /// multiply and add, and the table of scored items where that is the table of inputs.
    pub optional: bool,
}

impl Config {
    /// The rows of the position table for a history of `len` events, which is not above `window`.
    pub(super) fn position_rows(&self, len: usize) -> Range<u32> {
        let first = match self.positions {
            Positions::FromEnd => self.window - len,
            Positions::FromStart => 0,
        };
        first as u32..(first + len) as u32
    }

    /// Refuses what no forward pass can be made of.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Malformed(format!("sasrec configuration: {what}")));
        let sizes = [
            ("dim", self.dim),
            ("blocks", self.blocks),
            ("heads", self.heads),
            ("ffn", self.ffn),
            ("window", self.window),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|&(_, size)| size == 0 || size > 1 << 20) {
            return refuse(format!("{name} {size} is not between 1 and {}", 1 << 20));
        }
        if !self.dim.is_multiple_of(self.heads) {
            return refuse(format!("{} heads do not divide dim {}", self.heads, self.dim));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0 && (self.item_scale as f32).is_finite()) {
            return refuse("norm_eps and item_scale must be finite, norm_eps not negative".into());
        }
        Ok(())
    }

    /// The tensors of a model over `items` items, but for those of block `blocks` and above.
    pub(crate) fn weights(&self, items: usize) -> Vec<Weight> {
        let (d, f) = (self.dim, self.ffn);
        let mut all = vec![
            Weight { name: "items".into(), shape: vec![items, d], optional: false },
            Weight { name: "positions".into(), shape: vec![self.window, d], optional: false },
            Weight { name: SCORED.into(), shape: vec![items, d], optional: true },
        ];
        let mut norm = |name: String, optional| {
            for part in ["weight", "bias"] {
                all.push(Weight { name: format!("{name}.{part}"), shape: vec![d], optional });
            }
        };
        norm("input_norm".into(), true);
        norm("final_norm".into(), true);
        for block in 0..self.blocks {
            norm(format!("blocks.{block}.attention_norm"), true);
            norm(format!("blocks.{block}.ffn_norm"), true);
        }
        for block in 0..self.blocks {
            let layers = [
                ("query", d, d, false),
                ("key", d, d, false),
                ("value", d, d, false),
                ("output", d, d, true),
                ("ffn_in", d, f, false),
                ("ffn_out", f, d, false),
            ];
            for (layer, inputs, outputs, optional) in layers {
                let name = format!("blocks.{block}.{layer}");
                all.push(Weight { name: format!("{name}.weight"), shape: vec![inputs, outputs], optional });
                all.push(Weight { name: format!("{name}.bias"), shape: vec![outputs], optional: true });
            }
        }
        all
    }
}
