//! The forward pass: histories in, one vector a history out.

use pgrec_kernels::{Activation, Device, LayerNorm, Linear, Rows, Sequences, Tensor};

use super::config::{Block, Config, Positions};
use crate::{Artifact, Error, Result};

/// A model's weights, in the bytes of its artifact.
pub(super) struct Encoder {
    pub(super) config: Config,
    pub(super) items: Tensor,
    positions: Tensor,
    input_norm: Option<LayerNorm>,
    blocks: Vec<BlockWeights>,
    final_norm: Option<LayerNorm>,
}

struct BlockWeights {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Option<Linear>,
    ffn_norm: LayerNorm,
    ffn_in: Linear,
    ffn_out: Linear,
}

impl Encoder {
    /// Finds the weights and checks their shapes against the configuration.
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        config.check()?;
        for weight in config.weights(artifact.catalogue().len()) {
            if artifact.has(&weight.name) || !weight.optional {
                artifact.tensor_of(&weight.name, &weight.shape)?;
            }
        }
        let optional = |name: String| artifact.has(&name).then(|| artifact.tensor(&name)).transpose();
        let norm = |name: &str| -> Result<LayerNorm> {
            Ok(LayerNorm {
                weight: optional(format!("{name}.weight"))?,
                bias: optional(format!("{name}.bias"))?,
                eps: config.norm_eps as f32,
            })
        };
        let linear = |name: &str| -> Result<Linear> {
            Ok(Linear { weight: artifact.tensor(&format!("{name}.weight"))?, bias: optional(format!("{name}.bias"))? })
        };
        let blocks = (0..config.blocks).map(|block| {
            let at = |layer: &str| format!("blocks.{block}.{layer}");
            Ok(BlockWeights {
                attention_norm: norm(&at("attention_norm"))?,
                query: linear(&at("query"))?,
                key: linear(&at("key"))?,
                value: linear(&at("value"))?,
                output: artifact.has(&at("output.weight")).then(|| linear(&at("output"))).transpose()?,
                ffn_norm: norm(&at("ffn_norm"))?,
                ffn_in: linear(&at("ffn_in"))?,
                ffn_out: linear(&at("ffn_out"))?,
            })
        });
        Ok(Self {
            items: artifact.tensor("items")?,
            positions: artifact.tensor("positions")?,
            input_norm: artifact.has("input_norm.weight").then(|| norm("input_norm")).transpose()?,
            blocks: blocks.collect::<Result<_>>()?,
            final_norm: artifact.has("final_norm.weight").then(|| norm("final_norm")).transpose()?,
            config,
        })
    }

    /// One vector a history, `[histories, dim]`. The score of an item is its dot product with the item's row.
    pub(super) fn encode<D: Device>(&self, dev: &D, batch: &Sequences<'_>) -> D::Matrix {
        let mut x = dev.embed(&self.items, &self.positions, self.config.item_scale as f32, batch);
        if let Some(norm) = &self.input_norm {
            x = dev.layer_norm(&x, norm);
        }
        for (depth, block) in self.blocks.iter().enumerate() {
            let rows = if depth + 1 == self.blocks.len() { Rows::Last } else { Rows::All };
            x = self.block(dev, x, block, batch, rows);
        }
        match &self.final_norm {
            Some(norm) => dev.layer_norm(&x, norm),
            None => x,
        }
    }

    /// One block in the form the configuration names ([`Block`] has the equations). Keys and values are needed
    /// of every event; everything else only of the rows that are asked for.
    fn block<D: Device>(
        &self,
        dev: &D,
        x: D::Matrix,
        weights: &BlockWeights,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> D::Matrix {
        let form = self.config.block;
        let norm_before = |x: &D::Matrix, norm| (form != Block::PostLn).then(|| dev.layer_norm(x, norm));
        let norm_after = |x: D::Matrix, norm| if form == Block::PostLn { dev.layer_norm(&x, norm) } else { x };

        let normed = if form == Block::PreLn { norm_before(&x, &weights.attention_norm) } else { None };
        let remembered = normed.as_ref().unwrap_or(&x);
        let last = (rows == Rows::Last).then(|| dev.last_rows(&x, batch));
        let asked = last.as_ref().unwrap_or(&x);
        let n = norm_before(asked, &weights.attention_norm);
        let q = dev.linear(n.as_ref().unwrap_or(asked), &weights.query, Activation::Identity);
        let heads = self.config.heads;
        let mut y = match rows {
            Rows::Last => dev.last_attention(&q, remembered, &weights.key, &weights.value, heads, batch),
            Rows::All => {
                let k = dev.linear(remembered, &weights.key, Activation::Identity);
                let v = dev.linear(remembered, &weights.value, Activation::Identity);
                dev.attention(&q, &k, &v, heads, batch, rows)
            }
        };
        if let Some(output) = &weights.output {
            y = dev.linear(&y, output, Activation::Identity);
        }
        dev.add(&mut y, residual(form, &n, asked));
        let y = norm_after(y, &weights.attention_norm);

        let m = norm_before(&y, &weights.ffn_norm);
        let hidden = dev.linear(m.as_ref().unwrap_or(&y), &weights.ffn_in, self.config.activation.into());
        let mut z = dev.linear(&hidden, &weights.ffn_out, Activation::Identity);
        dev.add(&mut z, residual(form, &m, &y));
        norm_after(z, &weights.ffn_norm)
    }
}

/// What a half of a block is added to: its normalised input in the original form, its input in the others.
fn residual<'a, M>(form: Block, normed: &'a Option<M>, x: &'a M) -> &'a M {
    match normed {
        Some(normed) if form == Block::Original => normed,
        _ => x,
    }
}

/// Histories laid end to end, cut to the window.
#[derive(Default)]
pub(super) struct Batch {
    items: Vec<u32>,
    positions: Vec<u32>,
    offsets: Vec<usize>,
}

impl Batch {
    /// Lays out histories of known items, none of them empty.
    pub(super) fn new<'a>(config: &Config, items: usize, histories: impl Iterator<Item = &'a [u32]>) -> Result<Self> {
        let mut batch = Self { offsets: vec![0], ..Self::default() };
        for history in histories {
            let latest = &history[history.len().saturating_sub(config.window)..];
            if latest.is_empty() {
                return Err(Error::Data("the history holds no item that the model knows".into()));
            }
            if let Some(unknown) = latest.iter().find(|&&item| item as usize >= items) {
                return Err(Error::Parameter(format!("item index {unknown} is not below {items}")));
            }
            let first = match config.positions {
                Positions::FromEnd => config.window - latest.len(),
                Positions::FromStart => 0,
            };
            batch.items.extend_from_slice(latest);
            batch.positions.extend((first..first + latest.len()).map(|position| position as u32));
            batch.offsets.push(batch.items.len());
        }
        Ok(batch)
    }

    pub(super) fn sequences(&self) -> Sequences<'_> {
        Sequences { items: &self.items, positions: &self.positions, offsets: &self.offsets }
    }
}
