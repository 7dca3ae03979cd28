//! Training: parameters and their defaults.

use serde::Deserialize;

use super::{Config, PADDING};
use crate::Corpus;
use crate::families::sequential::{Own, SCORED, Weight};
use crate::train::{LossKind, Options};

/// The family's own parameters. Absent: the defaults, or what the model that training starts from has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::families) struct Params {
    /// Width of the vectors.
    pub(in crate::families) dim: Option<usize>,
    /// Layers.
    pub(in crate::families) blocks: Option<usize>,
    /// Attention heads.
    pub(in crate::families) heads: Option<usize>,
    /// Width of queries and keys of a head; absent: the width of the vectors divided by the heads.
    pub(in crate::families) query_dim: Option<usize>,
    /// Width of values and gates of a head; absent: that of queries and keys.
    pub(in crate::families) value_dim: Option<usize>,
    /// Latest events that are looked at.
    pub(in crate::families) window: Option<usize>,
    /// Whether the times of events are looked at; absent: where there are times.
    pub(in crate::families) times: Option<bool>,
}

impl Own for Params {
    type Architecture = Config;

    fn architecture(&self, corpus: &Corpus, _options: &Options) -> Config {
        let (dim, heads) = (self.dim.unwrap_or(64), self.heads.unwrap_or(1));
        let query_dim = self.query_dim.unwrap_or(dim / heads.max(1));
        let window = self.window.unwrap_or(200);
        Config {
            dim,
            blocks: self.blocks.unwrap_or(2),
            heads,
            query_dim,
            value_dim: self.value_dim.unwrap_or(query_dim),
            window,
            padded: window.saturating_add(PADDING),
            times: self.times.unwrap_or(corpus.has_times()),
            norm_eps: 1e-6,
        }
    }

    fn has(&self, weight: &Weight) -> bool {
        weight.name != SCORED
    }

    fn differs(&self, from: &Config) -> bool {
        let differs = |given: Option<usize>, own: usize| given.is_some_and(|given| given != own);
        differs(self.dim, from.dim)
            || differs(self.blocks, from.blocks)
            || differs(self.heads, from.heads)
            || differs(self.query_dim, from.query_dim)
            || differs(self.value_dim, from.value_dim)
            || differs(self.window, from.window)
            || self.times.is_some_and(|given| given != from.times)
    }

    /// Sampled, whatever the data. The authors' 128 negatives and temperature of .05 are a little worse by validation
    /// than the defaults of every training: .196 against .198 on ml-1m.
    fn defaults(options: Options) -> Options {
        Options { loss: LossKind::SampledSoftmax, ..options }
    }
}
