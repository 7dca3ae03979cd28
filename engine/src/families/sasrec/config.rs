//! What a SASRec model is made of.

use std::ops::Range;

use pgrec_kernels::{Activation, Operators, Rows, Sequences};
use serde::{Deserialize, Serialize};

use super::encoder::Encoder;
use crate::families::sequential::{Architecture, ITEMS, SCORED, Weight, check_sizes};
use crate::train::Init;
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

impl Architecture for Config {
    const FAMILY: &'static str = super::NAME;
    type Encoder<W: Send + Sync> = Encoder<W>;

    fn check(&self) -> Result<()> {
        let Self { dim, blocks, heads, ffn, window, .. } = *self;
        let sizes = [("dim", dim), ("blocks", blocks), ("heads", heads), ("ffn", ffn), ("window", window)];
        check_sizes(Self::FAMILY, &sizes)?;
        let refuse = |what: String| Err(Error::Malformed(format!("sasrec configuration: {what}")));
        if !dim.is_multiple_of(heads) {
            return refuse(format!("{heads} heads do not divide dim {dim}"));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0 && (self.item_scale as f32).is_finite()) {
            return refuse("norm_eps and item_scale must be finite, norm_eps not negative".into());
        }
        Ok(())
    }

    fn blocks(&self) -> usize {
        self.blocks
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn window(&self) -> usize {
        self.window
    }

    fn position_rows(&self, len: usize) -> Range<u32> {
        let first = match self.positions {
            Positions::FromEnd => self.window - len,
            Positions::FromStart => 0,
        };
        first as u32..(first + len) as u32
    }

    fn normalized(&self) -> bool {
        self.normalized
    }

    fn timed(&self) -> bool {
        false
    }

    fn cost(&self, events: usize) -> usize {
        events * self.blocks * (8 * self.dim * self.dim + 4 * self.dim * self.ffn + 2 * events * self.dim)
    }

    /// Optional are biases, the output projection, norms before and after the blocks, what norms multiply and add, and
    /// the table of scored items where that is the table of inputs.
    fn weights(&self, items: usize) -> Vec<Weight> {
        let (d, f) = (self.dim, self.ffn);
        let mut all = vec![
            Weight::needed(ITEMS, &[items, d], Init::Normal(0.02)),
            Weight::needed("positions", &[self.window, d], Init::Normal(0.02)),
            Weight::optional(SCORED, &[items, d], Init::Normal(0.02)),
        ];
        let mut norm = |name: String| {
            all.push(Weight::optional(format!("{name}.weight"), &[d], Init::Ones));
            all.push(Weight::optional(format!("{name}.bias"), &[d], Init::Zeros));
        };
        norm("input_norm".into());
        norm("final_norm".into());
        for block in 0..self.blocks {
            norm(format!("blocks.{block}.attention_norm"));
            norm(format!("blocks.{block}.ffn_norm"));
        }
        for block in 0..self.blocks {
            let layers = [
                ("query", d, d),
                ("key", d, d),
                ("value", d, d),
                ("output", d, d),
                ("ffn_in", d, f),
                ("ffn_out", f, d),
            ];
            for (layer, inputs, outputs) in layers {
                let name = format!("blocks.{block}.{layer}");
                let weight = Weight::needed(format!("{name}.weight"), &[inputs, outputs], Init::Glorot);
                all.push(Weight { optional: layer == "output", ..weight });
                all.push(Weight::optional(format!("{name}.bias"), &[outputs], Init::Zeros));
            }
        }
        all
    }

    fn encoder<W: Send + Sync>(&self, weight: impl Fn(&str) -> Result<Option<W>>) -> Result<Encoder<W>> {
        Encoder::new(self, weight)
    }

    fn encode<O: Operators>(
        &self,
        encoder: &Encoder<O::Weight>,
        dev: &O,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        encoder.encode(self, dev, batch, rows)
    }
}
