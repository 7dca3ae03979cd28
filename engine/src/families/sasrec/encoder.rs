//! The forward pass: histories in, one vector a history out.

use pgrec_kernels::{Activation, LayerNorm, Linear, Operators, Rows, Sequences};

use super::config::{Block, Config};
use crate::Result;
use crate::families::sequential::{ITEMS, needed};

/// A model's weights: tensors in the bytes of its artifact, or the parameters of a training.
pub(crate) struct Encoder<W> {
    items: W,
    positions: W,
    body: Body<W>,
}

/// What comes after events are looked up: blocks, and the norms around them.
pub(crate) struct Body<W> {
    input_norm: Option<LayerNorm<W>>,
    blocks: Vec<BlockWeights<W>>,
    final_norm: Option<LayerNorm<W>>,
}

struct BlockWeights<W> {
    attention_norm: LayerNorm<W>,
    query: Linear<W>,
    key: Linear<W>,
    value: Linear<W>,
    output: Option<Linear<W>>,
    ffn_norm: LayerNorm<W>,
    ffn_in: Linear<W>,
    ffn_out: Linear<W>,
}

impl<W: Send + Sync> Encoder<W> {
    /// From weights by name; those that are not optional have to be there.
    pub(super) fn new(config: &Config, weight: impl Fn(&str) -> Result<Option<W>>) -> Result<Self> {
        let needed = |name: &str| needed(name, weight(name)?);
        Ok(Self { items: needed(ITEMS)?, positions: needed("positions")?, body: Body::new(config, &weight)? })
    }

    /// One vector a history (or, of [`Rows::All`], one an event, of the history up to it), `[rows, dim]`. The score
    /// of an item is its dot product with the item's row.
    pub(super) fn encode<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        let x = dev.embed(&self.items, &self.positions, config.item_scale as f32, batch);
        let x = self.body.forward(config, dev, x, batch, rows);
        if config.normalized { dev.l2_normalize(&x) } else { x }
    }
}

impl<W: Send + Sync> Body<W> {
    /// From weights by name; those that are not optional have to be there.
    pub(crate) fn new(config: &Config, weight: &impl Fn(&str) -> Result<Option<W>>) -> Result<Self> {
        let needed = |name: &str| needed(name, weight(name)?);
        let norm = |name: &str| -> Result<LayerNorm<W>> {
            Ok(LayerNorm {
                weight: weight(&format!("{name}.weight"))?,
                bias: weight(&format!("{name}.bias"))?,
                eps: config.norm_eps as f32,
            })
        };
        let norm_or_none = |name: &str| -> Result<_> { Ok(Some(norm(name)?).filter(|norm| norm.weight.is_some())) };
        let linear = |name: &str| -> Result<Linear<W>> {
            Ok(Linear { weight: needed(&format!("{name}.weight"))?, bias: weight(&format!("{name}.bias"))? })
        };
        let blocks = (0..config.blocks).map(|block| {
            let at = |layer: &str| format!("blocks.{block}.{layer}");
            let output = weight(&at("output.weight"))?;
            Ok(BlockWeights {
                attention_norm: norm(&at("attention_norm"))?,
                query: linear(&at("query"))?,
                key: linear(&at("key"))?,
                value: linear(&at("value"))?,
                output: output.map(|_| linear(&at("output"))).transpose()?,
                ffn_norm: norm(&at("ffn_norm"))?,
                ffn_in: linear(&at("ffn_in"))?,
                ffn_out: linear(&at("ffn_out"))?,
            })
        });
        Ok(Self {
            input_norm: norm_or_none("input_norm")?,
            blocks: blocks.collect::<Result<_>>()?,
            final_norm: norm_or_none("final_norm")?,
        })
    }

    /// From events that were looked up to one vector a history, or an event.
    pub(crate) fn forward<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        mut x: O::Matrix,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        if let Some(norm) = &self.input_norm {
            x = dev.layer_norm(&x, norm);
        }
        x = dev.dropout(x, batch);
        for (depth, block) in self.blocks.iter().enumerate() {
            let rows = if depth + 1 == self.blocks.len() { rows } else { Rows::All };
            x = block.forward(config, dev, x, batch, rows);
        }
        match &self.final_norm {
            Some(norm) => dev.layer_norm(&x, norm),
            None => x,
        }
    }
}

impl<W: Send + Sync> BlockWeights<W> {
    /// One block in the form the configuration names ([`Block`] has the equations). Keys and values are needed
    /// of every event; everything else only of the rows that are asked for.
    fn forward<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        x: O::Matrix,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        let form = config.block;
        let norm_after = |x: O::Matrix, norm| if form == Block::PostLn { dev.layer_norm(&x, norm) } else { x };

        let normed = (form == Block::PreLn).then(|| dev.layer_norm(&x, &self.attention_norm));
        let remembered = normed.as_ref().unwrap_or(&x);
        let last = (rows == Rows::Last).then(|| dev.last_rows(&x, batch));
        let asked = last.as_ref().unwrap_or(&x);
        let shared = normed.as_ref().filter(|_| rows == Rows::All);
        let own = (form != Block::PostLn && shared.is_none()).then(|| dev.layer_norm(asked, &self.attention_norm));
        let n = own.as_ref().or(shared);
        let q = dev.linear(n.unwrap_or(asked), &self.query, Activation::Identity);
        let heads = config.heads;
        let mut y = match rows {
            Rows::Last => dev.last_attention(&q, remembered, &self.key, &self.value, heads, batch),
            Rows::All | Rows::Tail => {
                let k = dev.linear(remembered, &self.key, Activation::Identity);
                let v = dev.linear(remembered, &self.value, Activation::Identity);
                dev.attention(&q, &k, &v, heads, batch, rows)
            }
        };
        if let Some(output) = &self.output {
            y = dev.linear(&y, output, Activation::Identity);
        }
        if form != Block::Original {
            y = dev.dropout(y, batch);
        }
        dev.add(&mut y, residual(form, n, asked));
        let y = norm_after(y, &self.attention_norm);

        let m = (form != Block::PostLn).then(|| dev.layer_norm(&y, &self.ffn_norm));
        let hidden = dev.linear(m.as_ref().unwrap_or(&y), &self.ffn_in, config.activation.into());
        let hidden = if form == Block::PostLn { hidden } else { dev.dropout(hidden, batch) };
        let z = dev.linear(&hidden, &self.ffn_out, Activation::Identity);
        let mut z = dev.dropout(z, batch);
        dev.add(&mut z, residual(form, m.as_ref(), &y));
        norm_after(z, &self.ffn_norm)
    }
}

/// What a half of a block is added to: its normalised input in the original form, its input in the others.
fn residual<'a, M>(form: Block, normed: Option<&'a M>, x: &'a M) -> &'a M {
    match normed {
        Some(normed) if form == Block::Original => normed,
        _ => x,
    }
}
