//! Training: parameters and their defaults.

use serde::Deserialize;

use super::{Block, Config, Nonlinearity, Positions};
use crate::Corpus;
use crate::families::sequential::{Own, SCORED, Weight};
use crate::train::{self, LossKind, Options};

/// The family's own parameters. Absent: what the form has, or the model that training starts from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::families) struct Params {
    /// Which SASRec, see [`Form`].
    form: Option<Form>,
    /// Width of the vectors.
    dim: Option<usize>,
    /// Transformer blocks.
    blocks: Option<usize>,
    /// Attention heads.
    heads: Option<usize>,
    /// Width of the feed-forward half; absent: that of the vectors, four times in `post_ln` and `pre_ln`.
    ffn: Option<usize>,
    /// Latest events that are looked at.
    window: Option<usize>,
    /// Of the feed-forward half.
    activation: Option<Nonlinearity>,
    /// Whether scores are cosines; absent: in `hstu_baseline`, and with a softmax loss in `pre_ln` where histories
    /// have fewer than 20 events on average.
    normalized: Option<bool>,
}

/// The SASRecs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// Kang & McAuley 2018.
    Original,
    /// Norms before both halves of a block.
    PreLn,
    /// Norms after both halves, as in BERT.
    PostLn,
    /// The one HSTU is compared with in its authors' code: norms without weights, none at the end, cosines.
    HstuBaseline,
}

impl Own for Params {
    type Architecture = Config;

    fn architecture(&self, corpus: &Corpus, options: &Options) -> Config {
        let binary = matches!(options.loss, LossKind::Bce | LossKind::Gbce);
        let form = self.form.unwrap_or(Form::PreLn);
        let wide = matches!(form, Form::PreLn | Form::PostLn);
        let dim = self.dim.unwrap_or(64);
        Config {
            dim,
            blocks: self.blocks.unwrap_or(2),
            heads: self.heads.unwrap_or(if wide { 2 } else { 1 }),
            ffn: self.ffn.unwrap_or(if wide { 4 * dim } else { dim }),
            window: self.window.unwrap_or(200),
            block: match form {
                Form::Original | Form::HstuBaseline => Block::Original,
                Form::PreLn => Block::PreLn,
                Form::PostLn => Block::PostLn,
            },
            activation: self.activation.unwrap_or(if wide { Nonlinearity::Gelu } else { Nonlinearity::Relu }),
            item_scale: (dim as f64).sqrt(),
            norm_eps: 1e-8,
            positions: Positions::FromEnd,
            normalized: self
                .normalized
                .unwrap_or(form == Form::HstuBaseline || form == Form::PreLn && train::is_sparse(corpus) && !binary),
        }
    }

    fn has(&self, weight: &Weight) -> bool {
        let (form, name) = (self.form.unwrap_or(Form::PreLn), &weight.name);
        match name.split('.').next() {
            Some(SCORED) => false,
            Some("input_norm") => form == Form::PostLn,
            Some("final_norm") => matches!(form, Form::Original | Form::PreLn),
            _ if name.contains("_norm.") => form != Form::HstuBaseline,
            _ if name.contains(".output.") => form != Form::Original,
            _ => true,
        }
    }

    fn differs(&self, from: &Config) -> bool {
        let differs = |given: Option<usize>, own: usize| given.is_some_and(|given| given != own);
        differs(self.dim, from.dim)
            || differs(self.blocks, from.blocks)
            || differs(self.heads, from.heads)
            || differs(self.ffn, from.ffn)
            || differs(self.window, from.window)
            || self.form.is_some()
            || self.activation.is_some_and(|given| given != from.activation)
            || self.normalized.is_some_and(|given| given != from.normalized)
    }
}
