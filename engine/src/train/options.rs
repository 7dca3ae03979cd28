//! What a user may say about a training, whatever the family.

use serde::{Deserialize, Serialize};

use super::tape::Dropout;
use crate::{Corpus, Error, Result};

/// Parameters of every family that is trained by gradients, beside the family's own. The defaults of a family may
/// differ from these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// What is minimised.
    pub loss: LossKind,
    /// Items an event's answer is told from: in the sampled losses; absent: 1 for `bce`, 256 for `gbce`, 512
    /// for `sampled_softmax`.
    pub negatives: Option<usize>,
    /// Where they come from.
    pub negative_source: NegativeSource,
    /// Whether the events of a slice (some 256) share their negatives, which is much cheaper.
    pub shared_negatives: bool,
    /// Whether the scores of negatives are corrected by how likely they were drawn, so that the sampled softmax
    /// estimates the whole one; absent: where negatives are shared.
    pub correction: Option<bool>,
    /// τ: scores are divided by it in the softmax losses; absent: 0.07 for normalised vectors, else 1.
    pub temperature: Option<f64>,
    /// gBCE's t: 0 is plain BCE, 1 unbiased scores.
    pub calibration: f64,
    /// `adamw` or `adagrad`.
    pub optimizer: OptimizerKind,
    /// Learning rate at its highest.
    pub learning_rate: f64,
    /// AdamW's decay of the mean of gradients.
    pub beta1: f64,
    /// AdamW's decay of the mean of their squares.
    pub beta2: f64,
    /// AdamW's decoupled weight decay; not of norms and biases.
    pub weight_decay: f64,
    /// Gradients longer than this are shortened to it; 0: never.
    pub clip: f64,
    /// How the learning rate goes after the warm-up.
    pub schedule: Schedule,
    /// Steps over which the learning rate rises from 0.
    pub warmup: u64,
    /// Epochs at most; 0 only where a model is continued, which is then the same but for what its answers depend on.
    pub epochs: u32,
    /// Epochs without a better validation metric after which training stops; 0: never.
    pub patience: u32,
    /// Histories in a step; absent: as many as have some 4,000 events together, from 32 to 128.
    pub batch: Option<usize>,
    /// Which parts of histories longer than the window are learnt from.
    pub windows: Windows,
    /// Stochastic Length's α, above 1 and up to 2 (Zhai et al. 2024): of a stretch longer than N^(α/2), where the window
    /// is N, only so many events, drawn anew every epoch, are learnt from and looked back at, but with probability
    /// N^α/length² all. What follows an event stays what is learnt of it. Absent: always all.
    pub stochastic_length: Option<f64>,
    /// Share of the numbers between layers that falls away; absent: 0.5 where histories have fewer than 20 events
    /// on average, else 0.2.
    pub dropout: Option<f64>,
    /// Share of the attention weights that falls away; absent: as `dropout`.
    pub attention_dropout: Option<f64>,
    /// Share of the training, at its end, over which dropout falls to nothing in a straight line (annealed dropout,
    /// Rennie, Goel & Thomas 2014); 0: it stays; absent: 0.4 where histories have fewer than 20 events on average,
    /// else 1.
    pub anneal_dropout: Option<f64>,
    /// Users whose validation event is ranked after each epoch, at most.
    pub validation_users: usize,
    /// Epochs between validations.
    pub validate_every: u32,
    /// The weights that are kept are the decayed mean of those of each step, with this decay; 0: the latest.
    pub average: f64,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// `softmax` where data is sparse and the catalogue has no more than 30,000 items, else `sampled_softmax`: with
    /// long histories that is as good in half the time.
    Auto,
    /// Cross-entropy over the whole catalogue.
    Softmax,
    /// Cross-entropy over the answer and some negatives.
    SampledSoftmax,
    /// Binary cross-entropy of the answer and of negatives (Kang & McAuley 2018).
    Bce,
    /// The same, calibrated for how few negatives there are (Petrov & Macdonald 2023).
    Gbce,
}

/// The largest catalogue for which [`LossKind::Auto`] takes the whole softmax.
pub(super) const FULL_SOFTMAX: usize = 30_000;

/// Where negatives come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeSource {
    /// Any item, each as likely.
    Uniform,
    /// The answers of the other events of a slice, then uniform ones.
    InBatch,
}

/// The optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Loshchilov & Hutter 2019.
    Adamw,
    /// Duchi et al. 2011.
    Adagrad,
}

/// How the learning rate goes after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls in a straight line, to a hundredth at the last step of the last epoch.
    Linear,
    /// It falls as half a cosine, to a hundredth at the last step of the last epoch.
    Cosine,
}

/// Which parts of long histories are learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// The latest window.
    Latest,
    /// All, cut into windows at places that change with every epoch.
    All,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loss: LossKind::Auto,
            negatives: None,
            negative_source: NegativeSource::Uniform,
            shared_negatives: true,
            correction: None,
            temperature: None,
            calibration: 0.75,
            optimizer: OptimizerKind::Adamw,
            learning_rate: 2e-3,
            beta1: 0.9,
            beta2: 0.98,
            weight_decay: 0.05,
            clip: 0.0,
            schedule: Schedule::Linear,
            warmup: 100,
            epochs: 30,
            patience: 10,
            batch: None,
            windows: Windows::All,
            stochastic_length: None,
            dropout: None,
            attention_dropout: None,
            anneal_dropout: None,
            validation_users: 10_000,
            validate_every: 1,
            average: 0.995,
        }
    }
}

impl Options {
    /// Of a training that continues a model. Its vectors are good already, and learnt without dropout in the end: two
    /// careful passes over what is latest, with little of it.
    pub(crate) fn continuing(self) -> Self {
        Self {
            epochs: 2,
            // Ranking the validation items in between would be some 5 % of it all.
            validate_every: 2,
            learning_rate: 3e-4,
            patience: 0,
            windows: Windows::Latest,
            dropout: Some(0.1),
            ..self
        }
    }
}

/// Events of a step where no number of histories is given.
const STEP_EVENTS: f64 = 4096.0;

/// Below so many events a history on average, data is sparse.
const SPARSE: f64 = 20.0;

/// Whether there are few events a history.
pub(crate) fn is_sparse(corpus: &Corpus) -> bool {
    (corpus.interactions() as f64) < SPARSE * corpus.users() as f64
}

impl Options {
    /// Histories in a step, of so many events on average.
    pub(super) fn histories_a_step(&self, events: f64) -> usize {
        self.batch.unwrap_or((STEP_EVENTS / events.max(1.0)).clamp(32.0, 128.0) as usize)
    }

    /// What falls away.
    pub(super) fn dropout_for(&self, sparse: bool) -> Dropout {
        let hidden = self.dropout.unwrap_or(if sparse { 0.5 } else { 0.2 }) as f32;
        Dropout { hidden, attention: self.attention_dropout.map_or(hidden, |rate| rate as f32) }
    }

    /// The share of the training over which that becomes nothing.
    pub(super) fn annealing_for(&self, sparse: bool) -> f64 {
        self.anneal_dropout.unwrap_or(if sparse { 0.4 } else { 1.0 })
    }

    /// Refuses what makes no training.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::Parameter(what.to_owned()));
        let share = |x: f64| (0.0..1.0).contains(&x);
        if ![self.dropout, self.attention_dropout].into_iter().flatten().all(share) {
            return wrong("dropout and attention_dropout are shares, from 0 to below 1");
        }
        if !self.anneal_dropout.is_none_or(|part| (0.0..=1.0).contains(&part)) {
            return wrong("anneal_dropout is a share, from 0 to 1");
        }
        if !(share(self.beta1) && share(self.beta2) && share(self.average)) {
            return wrong("beta1, beta2 and average are decays, from 0 to below 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return wrong("learning_rate is a number above 0");
        }
        if !(self.weight_decay >= 0.0 && self.clip >= 0.0 && self.weight_decay.is_finite() && self.clip.is_finite()) {
            return wrong("weight_decay and clip are numbers from 0 on");
        }
        if !self.temperature.is_none_or(|t| t > 0.0 && t.is_finite()) {
            return wrong("temperature is a number above 0");
        }
        if !self.stochastic_length.is_none_or(|alpha| alpha > 1.0 && alpha <= 2.0) {
            return wrong("stochastic_length is a number above 1, up to 2");
        }
        if !(0.0..=1.0).contains(&self.calibration) {
            return wrong("calibration is a number from 0 to 1");
        }
        if self.batch == Some(0) || self.validate_every == 0 || self.negatives == Some(0) {
            return wrong("batch, validate_every and negatives are whole numbers above 0");
        }
        Ok(())
    }
}
