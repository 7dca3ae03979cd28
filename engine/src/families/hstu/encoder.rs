//! The forward pass: histories in, one vector a history out.

use pgrec_kernels::{Activation, LayerNorm, Linear, Operators, PairBias, Rows, Sequences, SiluAttention};

use super::config::Config;
use super::past::Past;
use crate::Result;
use crate::families::sequential::{ITEMS, needed};

/// A model's weights: tensors in the bytes of its artifact, or the parameters of a training.
pub(crate) struct Encoder<W> {
    items: W,
    positions: W,
    layers: Vec<Layer<W>>,
}

struct Layer<W> {
    gate: Linear<W>,
    value: Linear<W>,
    query: Linear<W>,
    key: Linear<W>,
    output: Linear<W>,
    attention: SiluAttention<W>,
}

impl<W: Send + Sync> Encoder<W> {
    /// From weights by name.
    pub(in crate::families) fn new(config: &Config, weight: impl Fn(&str) -> Result<Option<W>>) -> Result<Self> {
        let needed = |name: &str| needed(name, weight(name)?);
        let layers = (0..config.blocks).map(|block| {
            let name = |part: &str| format!("blocks.{block}.{part}");
            let projection =
                |part: &str| -> Result<_> { Ok(Linear { weight: needed(&(name(part) + ".weight"))?, bias: None }) };
            let times = config.times.then(|| needed(&name("time_bias"))).transpose()?;
            Ok(Layer {
                gate: projection("gate")?,
                value: projection("value")?,
                query: projection("query")?,
                key: projection("key")?,
                output: Linear { weight: needed(&name("output.weight"))?, bias: Some(needed(&name("output.bias"))?) },
                attention: SiluAttention {
                    heads: config.heads,
                    bias: PairBias { positions: needed(&name("position_bias"))?, times },
                    divisor: config.padded as f32,
                },
            })
        });
        Ok(Self { items: needed(ITEMS)?, positions: needed("positions")?, layers: layers.collect::<Result<_>>()? })
    }

    /// The state after the last layer, one row a history (or, of [`Rows::All`], one an event, of the history up to it),
    /// `[rows, dim]`.
    pub(in crate::families) fn states<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        past: &mut impl Past<O>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        let x = dev.embed(&self.items, &self.positions, (config.dim as f32).sqrt(), batch);
        let mut x = dev.dropout(x, batch);
        for (depth, layer) in self.layers.iter().enumerate() {
            let rows = if depth + 1 == self.layers.len() { rows } else { Rows::All };
            let attend = |qkv, attention: &_| past.attend(dev, depth, qkv, attention, batch, rows);
            x = layer.forward(config, dev, x, batch, rows, attend);
        }
        x
    }
}

impl<W: Send + Sync> Layer<W> {
    /// y = W_o·dropout(u ∘ LN(A·v)) + b_o + x. Keys and values are needed of every event; the rest only of the rows
    /// that are asked for.
    fn forward<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        x: O::Matrix,
        batch: &Sequences<'_>,
        rows: Rows,
        attend: impl FnOnce([O::Matrix; 3], &SiluAttention<W>) -> O::Matrix,
    ) -> O::Matrix {
        let norm = LayerNorm { weight: None, bias: None, eps: config.norm_eps as f32 };
        let Self { gate, value, query, key, output, .. } = self;
        let (x, [k, v, q, u]) = match rows {
            Rows::Last => {
                let [k, v] = dev.norm_linear(&x, &norm, [key, value], Activation::Silu);
                let x = dev.last_rows(&x, batch);
                let [q, u] = dev.norm_linear(&x, &norm, [query, gate], Activation::Silu);
                (x, [k, v, q, u])
            }
            Rows::All | Rows::Tail => {
                let projected = dev.norm_linear(&x, &norm, [key, value, query, gate], Activation::Silu);
                (x, projected)
            }
        };
        let a = attend([q, k, v], &self.attention);
        dev.gated_linear(&u, &a, &norm, output, &x, batch)
    }
}
