//! What a generative model is made of.

use serde::{Deserialize, Serialize};

use crate::families::sasrec;
use crate::families::semantic_ids;
use crate::families::sequential::{Architecture, ITEMS, Weight, check_sizes};
use crate::train::{EventRows, Init, Order};
use crate::{Error, Result};

use super::NAME;

/// The shape of a model. Stored with the artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The transformer over events. Where it is `normalized`, codes are told by cosines.
    pub body: sasrec::Config,
    /// In which order codes are told.
    pub order: Order,
    /// τ: logits are products divided by it.
    pub temperature: f64,
    /// In the order of confidence: of beams whose codes agree less with one another than this, from 0 to 1, no item is
    /// given but to fill up a list.
    pub consistency: f64,
    /// Weight of an item's own vector beside its codes where items are ranked: its cosine with the history's over τ, times
    /// this, is added to log p of the codes. 0: items have no vectors of their own.
    pub fusion: f64,
    /// Feed-forward blocks of the decoder.
    pub depth: usize,
    /// Width of their hidden layers.
    pub hidden: usize,
    /// Beams that are kept on each level, at least.
    pub beam: usize,
    /// Words that may follow a history, or stand alone; models of earlier versions know none.
    #[serde(default)]
    pub words: usize,
    /// Whose codes are generated.
    pub codes: semantic_ids::Config,
}

/// Table of code words' vectors, level after level: those of events, and what codes are scored by. Those of words follow, and
/// one that stands in for the codes which words do not have.
pub(super) const CODES: &str = "code_vectors";
/// Table of their vectors where they are what has been told so far.
pub(super) const CHOSEN: &str = "chosen_vectors";
/// Added to those, by level.
pub(super) const CHOSEN_LEVELS: &str = "chosen_levels";

impl Config {
    pub(super) fn levels(&self) -> usize {
        self.codes.sizes.len()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.body.check()?;
        check_sizes(NAME, &[("hidden", self.hidden), ("beam", self.beam), ("levels", self.levels())])?;
        check_sizes(NAME, &[("depth", self.depth.max(1))])?;
        if !(0.0..=1.0).contains(&self.consistency) {
            return Err(Error::Malformed(format!("{NAME}: consistency is {}, not a share", self.consistency)));
        }
        if !(self.fusion >= 0.0 && self.fusion.is_finite()) {
            return Err(Error::Malformed(format!("{NAME}: fusion is {}, not from 0 on", self.fusion)));
        }
        if self.is_fused() && !self.body.normalized {
            return Err(Error::Malformed(format!("{NAME}: fusion is of cosines: leave normalized true")));
        }
        if self.is_fused() && self.words > 0 {
            return Err(Error::Malformed(format!(
                "{NAME}: items with vectors of their own (fusion) are not learnt from words: set alignment to 0"
            )));
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::Malformed(format!("{NAME}: temperature is {}, not above 0", self.temperature)));
        }
        Ok(())
    }

    /// Whether items have vectors of their own.
    pub(super) fn is_fused(&self) -> bool {
        self.fusion > 0.0
    }

    /// The tensors of a model of so many items.
    pub(super) fn weights(&self, items: usize) -> Vec<Weight> {
        let (d, levels) = (self.body.dim, self.levels());
        let rows: usize = self.codes.sizes.iter().sum();
        let events = EventRows::count(&self.codes.sizes, self.words);
        let vectors = Init::Normal(0.02);
        let mut all =
            vec![Weight::needed(CODES, &[events, d], vectors), Weight::needed("code_levels", &[levels, d], vectors)];
        if self.is_fused() {
            all.push(Weight::needed(ITEMS, &[items, d], vectors));
        }
        if self.order != Order::Together {
            all.push(Weight::needed(CHOSEN, &[rows, d], vectors));
            all.push(Weight::needed(CHOSEN_LEVELS, &[levels, d], vectors));
        }
        for block in 0..=self.depth {
            all.push(Weight::needed(format!("depth.{block}.norm.weight"), &[d], Init::Ones));
            all.push(Weight::needed(format!("depth.{block}.norm.bias"), &[d], Init::Zeros));
        }
        for block in 0..self.depth {
            for (layer, inputs, outputs) in [("ffn_in", d, self.hidden), ("ffn_out", self.hidden, d)] {
                let name = format!("depth.{block}.{layer}");
                all.push(Weight::needed(format!("{name}.weight"), &[inputs, outputs], Init::Glorot));
                all.push(Weight::needed(format!("{name}.bias"), &[outputs], Init::Zeros));
            }
        }
        // Of a body without items.
        all.extend(self.body.weights(0).into_iter().filter(|weight| {
            let name = weight.name.as_str();
            !weight.shape.contains(&0) && !name.starts_with("input_norm")
        }));
        all
    }
}
