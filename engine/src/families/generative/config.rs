//! What a generative model is made of.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::families::sasrec;
use crate::families::semantic_ids;
use crate::families::sequential::{Architecture, Weight, check_sizes};
use crate::train::Init;

use super::NAME;

/// The shape of a model. Stored with the artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The transformer over events.
    pub body: sasrec::Config,
    /// Feed-forward blocks of the decoder.
    pub depth: usize,
    /// Width of their hidden layers.
    pub hidden: usize,
    /// Beams that are kept on each level, at least.
    pub beam: usize,
    /// Whose codes are generated.
    pub codes: semantic_ids::Config,
}

/// Table of code words' vectors at the input, level after level.
pub(super) const CODES: &str = "code_vectors";
/// Table of code words' vectors in the decoder.
pub(super) const CHOSEN: &str = "chosen_vectors";

/// The table by which codes of a level are scored.
pub(super) fn head(level: usize) -> String {
    format!("heads.{level}")
}

impl Config {
    pub(super) fn levels(&self) -> usize {
        self.codes.sizes.len()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.body.check()?;
        check_sizes(NAME, &[("hidden", self.hidden), ("beam", self.beam), ("levels", self.levels())])?;
        check_sizes(NAME, &[("depth", self.depth.max(1))])
    }

    /// The tensors of a model.
    pub(super) fn weights(&self) -> Vec<Weight> {
        let (d, levels) = (self.body.dim, self.levels());
        let rows: usize = self.codes.sizes.iter().sum();
        let vectors = Init::Normal(0.02);
        let mut all = vec![
            Weight::needed(CODES, &[rows, d], vectors),
            Weight::needed("code_levels", &[levels, d], vectors),
            Weight::needed(CHOSEN, &[rows, d], vectors),
            Weight::needed("chosen_levels", &[levels, d], vectors),
        ];
        for (level, &size) in self.codes.sizes.iter().enumerate() {
            all.push(Weight::needed(head(level), &[size, d], vectors));
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
