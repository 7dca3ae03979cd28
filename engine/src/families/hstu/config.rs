//! What an HSTU model is made of.

use std::ops::Range;

use pgrec_kernels::{Device, Operators, Rows, Sequences, TIME_BUCKETS};
use serde::{Deserialize, Serialize};

use super::encoder::Encoder;
use super::past::Nothing;
use crate::families::sequential::{Architecture, ITEMS, Kept, SCORED, Weight, check_sizes};
use crate::train::Init;
use crate::{Error, Result};

/// The shape of a model. Stored with the artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of item and position vectors.
    pub dim: usize,
    /// Number of layers.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of queries and keys of a head.
    pub query_dim: usize,
    /// Width of values and gates of a head.
    pub value_dim: usize,
    /// How many of the latest events are looked at.
    pub window: usize,
    /// The authors' padded length N, not below the window: rows of the position table, what attention is divided by,
    /// and half of the biases by position.
    pub padded: usize,
    /// Whether the times of events are looked at.
    pub times: bool,
    /// Added to the variance in every layer norm.
    pub norm_eps: f64,
}

impl Architecture for Config {
    const FAMILY: &'static str = super::NAME;
    type Encoder<W: Send + Sync> = Encoder<W>;

    fn check(&self) -> Result<()> {
        let Self { dim, blocks, heads, query_dim, value_dim, window, padded, .. } = *self;
        let sizes = [
            ("dim", dim),
            ("blocks", blocks),
            ("heads", heads),
            ("query_dim", query_dim),
            ("value_dim", value_dim),
            ("window", window),
            ("padded", padded),
        ];
        check_sizes(Self::FAMILY, &sizes)?;
        let refuse = |what: &str| Err(Error::Malformed(format!("hstu configuration: {what}")));
        if padded < window {
            return refuse("padded is below window");
        }
        if heads * query_dim.max(value_dim) > 1 << 20 {
            return refuse("the heads together are too wide");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return refuse("norm_eps must be finite and not negative");
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

    /// The oldest event in the window has row 0.
    fn position_rows(&self, len: usize) -> Range<u32> {
        0..len as u32
    }

    fn normalized(&self) -> bool {
        true
    }

    fn timed(&self) -> bool {
        self.times
    }

    fn cost(&self, events: usize) -> usize {
        let (query, value) = (self.heads * self.query_dim, self.heads * self.value_dim);
        let projections = self.dim * (4 * query + 6 * value);
        events * self.blocks * (projections + events * (query + value))
    }

    fn weights(&self, items: usize) -> Vec<Weight> {
        let d = self.dim;
        let (query, value) = (self.heads * self.query_dim, self.heads * self.value_dim);
        let mut all = vec![
            Weight::needed(ITEMS, &[items, d], Init::Normal(0.02)),
            Weight::needed("positions", &[self.padded, d], Init::Normal(1.0 / (d as f32).sqrt())),
            Weight::optional(SCORED, &[items, d], Init::Normal(0.02)),
        ];
        for block in 0..self.blocks {
            let name = |part: &str| format!("blocks.{block}.{part}");
            for (part, outputs) in [("gate", value), ("value", value), ("query", query), ("key", query)] {
                all.push(Weight::needed(name(part) + ".weight", &[d, outputs], Init::Normal(0.02)));
            }
            all.push(Weight::needed(name("output.weight"), &[value, d], Init::Glorot));
            all.push(Weight::needed(name("output.bias"), &[d], Init::Zeros));
            all.push(Weight::needed(name("position_bias"), &[2 * self.padded - 1], Init::Normal(0.02)));
            if self.times {
                all.push(Weight::needed(name("time_bias"), &[TIME_BUCKETS], Init::Normal(0.02)));
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
        dev.l2_normalize(&encoder.states(self, dev, &mut Nothing, batch, rows))
    }

    fn remembers(&self) -> bool {
        true
    }

    fn encode_new<D: Device>(
        &self,
        encoder: &Encoder<D::Weight>,
        kept: &mut Kept<'_, D>,
        new: &Sequences<'_>,
    ) -> Result<D::Matrix> {
        Ok(kept.device.l2_normalize(&encoder.states(self, kept.device, kept, new, Rows::Last)))
    }
}
