//! What a ranking model is made of.

use std::ops::Range;

use pgrec_kernels::{Activation, LayerNorm, Linear, Operators, Rows, Sequences};
use serde::{Deserialize, Serialize};

use crate::families::hstu::{self, Encoder, Nothing};
use crate::families::sequential::{Architecture, SCORED, Weight, check_sizes, needed};
use crate::train::Init;
use crate::{Error, Result, Task, task};

/// The shape of a model. Stored with the artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is predicted.
    pub tasks: Vec<Task>,
    /// Width of the layer between states and logits.
    pub hidden: usize,
    /// The network below it, whose window holds two rows an event and one more for the candidate.
    pub body: hstu::Config,
}

/// A model's weights.
pub(crate) struct Weights<W> {
    pub body: Encoder<W>,
    /// From states to logits, with a SiLU in between.
    head: [Linear<W>; 2],
}

impl<W: Send + Sync> Weights<W> {
    /// Logits `[rows, tasks]` of states `[rows, dim]`.
    pub(super) fn logits<O: Operators<Weight = W>>(&self, config: &Config, dev: &O, states: &O::Matrix) -> O::Matrix {
        let norm = LayerNorm { weight: None, bias: None, eps: config.body.norm_eps as f32 };
        let [hidden, output] = &self.head;
        let x = dev.linear(&dev.layer_norm(states, &norm), hidden, Activation::Silu);
        dev.linear(&x, output, Activation::Identity)
    }
}

impl Architecture for Config {
    const FAMILY: &'static str = super::NAME;
    type Encoder<W: Send + Sync> = Weights<W>;

    fn check(&self) -> Result<()> {
        task::check(&self.tasks)?;
        check_sizes(Self::FAMILY, &[("hidden", self.hidden), ("window", self.window())])?;
        if self.body.window.is_multiple_of(2) {
            let why = format!(
                "{} configuration: a window of {} rows has none for the candidate",
                Self::FAMILY,
                self.body.window
            );
            return Err(Error::Malformed(why));
        }
        self.body.check()
    }

    fn blocks(&self) -> usize {
        self.body.blocks
    }

    fn dim(&self) -> usize {
        self.body.dim
    }

    fn window(&self) -> usize {
        self.body.window / 2
    }

    fn position_rows(&self, len: usize) -> Range<u32> {
        self.body.position_rows(len)
    }

    fn normalized(&self) -> bool {
        false
    }

    fn timed(&self) -> bool {
        self.body.times
    }

    fn outcomes(&self) -> usize {
        task::combinations(&self.tasks)
    }

    fn cost(&self, events: usize) -> usize {
        self.body.cost(2 * events + 1)
    }

    fn weights(&self, items: usize) -> Vec<Weight> {
        let (dim, hidden, tasks) = (self.body.dim, self.hidden, self.tasks.len());
        let mut all = self.body.weights(items + self.outcomes());
        all.retain(|weight| weight.name != SCORED);
        all.push(Weight::needed("head.hidden.weight", &[dim, hidden], Init::Glorot));
        all.push(Weight::needed("head.hidden.bias", &[hidden], Init::Zeros));
        all.push(Weight::needed("head.output.weight", &[hidden, tasks], Init::Glorot));
        all.push(Weight::needed("head.output.bias", &[tasks], Init::Zeros));
        all
    }

    fn encoder<W: Send + Sync>(&self, weight: impl Fn(&str) -> Result<Option<W>>) -> Result<Weights<W>> {
        let needed = |name: &str| needed(name, weight(name)?);
        let layer = |name: &str| -> Result<Linear<W>> {
            let bias = Some(needed(&format!("head.{name}.bias"))?);
            Ok(Linear { weight: needed(&format!("head.{name}.weight"))?, bias })
        };
        let head = [layer("hidden")?, layer("output")?];
        Ok(Weights { body: Encoder::new(&self.body, &weight)?, head })
    }

    /// Logits in the place of vectors, `[rows, tasks]`.
    fn encode<O: Operators>(
        &self,
        encoder: &Weights<O::Weight>,
        dev: &O,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> O::Matrix {
        let states = encoder.body.states(&self.body, dev, &mut Nothing, batch, rows);
        encoder.logits(self, dev, &states)
    }
}
