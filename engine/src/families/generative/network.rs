//! The forward pass: events to one vector, and from there to a vector a level.

use pgrec_kernels::{Activation, LayerNorm, Linear, Operators, Rows, Sequences};

use super::config::{CHOSEN, CHOSEN_LEVELS, CODES, Config};
use crate::Result;
use crate::families::sasrec::Body;
use crate::families::sequential::{ITEMS, needed};
use crate::train::Order;

/// A model's weights: tensors of its artifact, or the parameters of a training.
pub(super) struct Network<W> {
    codes: W,
    positions: W,
    code_levels: W,
    /// Vectors of the items beside those of their codes.
    items: Option<W>,
    body: Body<W>,
    /// Vectors of codes that have been told, and of their levels; none where all are told at once.
    chosen: Option<[W; 2]>,
    depth: Vec<Block<W>>,
    norm: LayerNorm<W>,
}

/// x + F(LN(x))
struct Block<W> {
    norm: LayerNorm<W>,
    ffn_in: Linear<W>,
    ffn_out: Linear<W>,
}

impl<W: Send + Sync> Network<W> {
    pub(super) fn new(config: &Config, weight: &impl Fn(&str) -> Result<Option<W>>) -> Result<Self> {
        let needed = |name: &str| needed(name, weight(name)?);
        let norm = |block: usize| -> Result<LayerNorm<W>> {
            let part = |part: &str| needed(&format!("depth.{block}.norm.{part}"));
            Ok(LayerNorm { weight: Some(part("weight")?), bias: Some(part("bias")?), eps: config.body.norm_eps as f32 })
        };
        let linear = |name: String| -> Result<Linear<W>> {
            Ok(Linear { weight: needed(&format!("{name}.weight"))?, bias: Some(needed(&format!("{name}.bias"))?) })
        };
        let block = |block: usize| -> Result<Block<W>> {
            Ok(Block {
                norm: norm(block)?,
                ffn_in: linear(format!("depth.{block}.ffn_in"))?,
                ffn_out: linear(format!("depth.{block}.ffn_out"))?,
            })
        };
        Ok(Self {
            codes: needed(CODES)?,
            positions: needed("positions")?,
            code_levels: needed("code_levels")?,
            items: if config.is_fused() { Some(needed(ITEMS)?) } else { None },
            body: Body::new(&config.body, weight)?,
            chosen: match config.order {
                Order::Together => None,
                Order::Levels | Order::Confidence => Some([needed(CHOSEN)?, needed(CHOSEN_LEVELS)?]),
            },
            depth: (0..config.depth).map(block).collect::<Result<_>>()?,
            norm: norm(config.depth)?,
        })
    }

    /// One vector a history, or an event. `coded` are the rows of the events' codes on every level, and then the events
    /// themselves where items have vectors of their own.
    pub(super) fn encode<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        batch: &Sequences<'_>,
        coded: &[Sequences<'_>],
        rows: Rows,
    ) -> O::Matrix {
        let scale = config.body.item_scale as f32;
        let mut x = dev.embed(&self.codes, &self.positions, scale, &coded[0]);
        let (codes, own) = coded.split_at(config.levels());
        for level in &codes[1..] {
            dev.add(&mut x, &dev.embed(&self.codes, &self.code_levels, scale, level));
        }
        for (items, own) in self.items.iter().zip(own) {
            dev.add(&mut x, &dev.embed(items, &self.code_levels, scale, own));
        }
        self.body.forward(&config.body, dev, x, batch, rows)
    }

    /// The state after one more code has been told, whose rows in the table are `rows`.
    pub(super) fn chosen<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        state: O::Matrix,
        rows: &Sequences<'_>,
    ) -> O::Matrix {
        let Some([vectors, levels]) = &self.chosen else { return state };
        let mut next = dev.embed(vectors, levels, config.body.item_scale as f32, rows);
        dev.add(&mut next, &state);
        next
    }

    /// f(s), whose products with code words' vectors, over τ, are the logits of those codes.
    pub(super) fn told<O: Operators<Weight = W>>(
        &self,
        config: &Config,
        dev: &O,
        state: &O::Matrix,
        batch: &Sequences<'_>,
    ) -> O::Matrix {
        let mut x: Option<O::Matrix> = None;
        for block in &self.depth {
            let input = x.as_ref().unwrap_or(state);
            let n = dev.layer_norm(input, &block.norm);
            let hidden = dev.linear(&n, &block.ffn_in, Activation::from(config.body.activation));
            let hidden = dev.dropout(hidden, batch);
            let mut y = dev.dropout(dev.linear(&hidden, &block.ffn_out, Activation::Identity), batch);
            dev.add(&mut y, input);
            x = Some(y);
        }
        let told = dev.layer_norm(x.as_ref().unwrap_or(state), &self.norm);
        if config.body.normalized { dev.l2_normalize(&told) } else { told }
    }
}
