//! The loss of a slice: which one, against which negatives.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Losses, Negatives, TableGradient, Tensor};

use super::SequenceModel;
use super::coded::{Choices, CodeRows};
use super::options::{FULL_SOFTMAX, LossKind, NegativeSource, Options, is_sparse};
use crate::random::SplitMix;
use crate::{Corpus, Error, Result};

/// What is minimised.
pub(super) enum Objective<'a> {
    /// Not finding the item that came next.
    Next(NextItem),
    /// Not telling what came of an event.
    Outcome,
    /// Not finding the codes of the item that came next, and perhaps the item by a vector of its own.
    Codes(&'a CodeRows, Option<NextItem>),
}

impl<'a> Objective<'a> {
    /// For a model that learns from `corpus`.
    pub(super) fn new(options: &Options, corpus: &Corpus, model: &'a impl SequenceModel) -> Result<Self> {
        if let Some(codes) = model.codes() {
            if !matches!(options.loss, LossKind::Auto | LossKind::Softmax) {
                return Err(Error::Parameter(
                    "codes are learnt by a softmax over those there are: leave loss out".into(),
                ));
            }
            let beside = model.beside().map(|_| NextItem::new(options, corpus, model.normalized()));
            return Ok(Self::Codes(codes, beside.transpose()?));
        }
        if model.first_outcome().is_none() {
            return NextItem::new(options, corpus, model.normalized()).map(Self::Next);
        }
        match options.loss {
            LossKind::Auto => Ok(Self::Outcome),
            _ => Err(Error::Parameter("what comes of events is learnt by its own loss: leave loss out".into())),
        }
    }

    /// Whether a step touches every row of the item table.
    pub(super) fn is_dense(&self) -> bool {
        match self {
            Self::Next(next) | Self::Codes(_, Some(next)) => next.kind == LossKind::Softmax,
            Self::Outcome => false,
            Self::Codes(_, None) => true,
        }
    }

    /// Floating-point operations of one event.
    pub(super) fn cost(&self, dim: usize) -> usize {
        match self {
            Self::Next(next) | Self::Codes(_, Some(next)) => next.cost(dim),
            Self::Outcome | Self::Codes(_, None) => 0,
        }
    }
}

/// The cross-entropy of a level: of the softmax over the codes that an answer's is told from. As [`Losses`] have it
/// otherwise.
#[allow(clippy::too_many_arguments, reason = "what a loss depends on")]
pub(super) fn surprise(
    device: &Cpu,
    told: &Matrix,
    table: &Tensor,
    codes: &CodeRows,
    level: usize,
    answers: &[u32],
    weight: f32,
    into: &mut TableGradient,
) -> (f64, Matrix) {
    let targets: Vec<u32> = answers.iter().map(|&item| codes.row(item, level)).collect();
    let choices = codes.choices(level);
    if let Choices::All(rows) = choices {
        let all = Negatives::Shared { items: rows, correction: None };
        return device.sampled_softmax(told, table, &targets, all, codes.scale, weight, into);
    }
    let count = answers.iter().map(|&item| choices.of(item).len()).max().unwrap_or(0);
    let mut rows = Vec::with_capacity(answers.len() * count);
    for (&item, &target) in answers.iter().zip(&targets) {
        // The answer itself counts nothing among its negatives.
        rows.extend(choices.of(item).iter().copied().chain(std::iter::repeat(target)).take(count));
    }
    device.sampled_softmax(told, table, &targets, Negatives::EachRow { items: &rows, count }, codes.scale, weight, into)
}

/// How the next item is told from others, worked out for one catalogue.
pub(super) struct NextItem {
    kind: LossKind,
    negatives: usize,
    source: NegativeSource,
    shared: bool,
    /// log of each item's share of the answers, where scores of negatives are corrected.
    log_share: Option<Vec<f32>>,
    /// 1/τ
    scale: f32,
    /// Weight of the positive part of the binary losses.
    beta: f32,
    items: usize,
}

impl NextItem {
    /// For learning from `corpus` by vectors of length 1 or of any.
    fn new(options: &Options, corpus: &Corpus, normalized: bool) -> Result<Self> {
        let counts = corpus.counts();
        let items = counts.len();
        let kind = match options.loss {
            LossKind::Auto if is_sparse(corpus) && items <= FULL_SOFTMAX => LossKind::Softmax,
            LossKind::Auto => LossKind::SampledSoftmax,
            kind => kind,
        };
        let binary = matches!(kind, LossKind::Bce | LossKind::Gbce);
        if binary && (normalized || options.temperature.is_some() || options.correction == Some(true)) {
            let why = "normalised vectors, temperature and correction belong to the softmax losses";
            return Err(Error::Parameter(why.into()));
        }
        let negatives = options.negatives.unwrap_or(match kind {
            LossKind::Bce => 1,
            LossKind::Gbce => 256,
            _ => 512,
        });
        let in_batch = options.negative_source == NegativeSource::InBatch;
        if in_batch && !options.shared_negatives {
            return Err(Error::Parameter("in-batch negatives are shared: leave shared_negatives true".into()));
        }
        let log_share = (kind == LossKind::SampledSoftmax && options.correction.unwrap_or(options.shared_negatives))
            .then(|| {
                let total = counts.iter().map(|&count| f64::from(count)).sum::<f64>().max(1.0);
                counts.iter().map(|&count| (f64::from(count.max(1)) / total).ln() as f32).collect()
            });
        let alpha = negatives as f64 / (items.max(2) - 1) as f64;
        let beta = match kind {
            LossKind::Gbce => alpha * (options.calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha),
            _ => 1.0,
        };
        let temperature = options.temperature.unwrap_or(if normalized { 0.07 } else { 1.0 });
        Ok(Self {
            kind,
            negatives,
            source: options.negative_source,
            shared: options.shared_negatives,
            log_share,
            scale: (1.0 / temperature) as f32,
            beta: beta as f32,
            items,
        })
    }

    fn cost(&self, dim: usize) -> usize {
        let scored = if self.kind == LossKind::Softmax { self.items } else { self.negatives + 1 };
        8 * scored * dim
    }

    /// The loss of a slice (the sum over its events times `weight`) and its derivative by `hidden`. `items` is the
    /// table that answers are scored by. `key` is that of the slice: negatives are a function of it.
    #[allow(clippy::too_many_arguments, reason = "what a loss depends on")]
    pub(super) fn of<D: Losses>(
        &self,
        device: &D,
        hidden: &D::Matrix,
        items: &Tensor,
        answers: &[u32],
        key: u64,
        weight: f32,
        ditems: &mut TableGradient,
    ) -> (f64, D::Matrix) {
        if self.kind == LossKind::Softmax {
            return device.softmax(hidden, items, answers, self.scale, weight, ditems);
        }
        let drawn = self.draw(answers, key);
        let negatives = match self.shared {
            true => Negatives::Shared { items: &drawn.items, correction: drawn.correction.as_deref() },
            false => Negatives::EachRow { items: &drawn.items, count: self.negatives },
        };
        match self.kind {
            LossKind::Bce | LossKind::Gbce => {
                device.binary(hidden, items, answers, negatives, self.beta, weight, ditems)
            }
            _ => device.sampled_softmax(hidden, items, answers, negatives, self.scale, weight, ditems),
        }
    }

    /// The negatives of a slice.
    pub(super) fn draw(&self, answers: &[u32], key: u64) -> Drawn {
        let mut random = SplitMix::new(key);
        let uniform = if self.shared { self.negatives } else { self.negatives * answers.len() };
        let mut items: Vec<u32> = (0..uniform).map(|_| random.below(self.items) as u32).collect();
        let mut correction = self.log_share.as_ref().map(|_| {
            // log of how often a uniform negative is expected among them.
            vec![(self.negatives as f32 / self.items as f32).ln(); if self.shared { uniform } else { 0 }]
        });
        if self.source == NegativeSource::InBatch {
            items.extend_from_slice(answers);
            if let (Some(correction), Some(log_share)) = (&mut correction, &self.log_share) {
                let drawn = (answers.len() as f32).ln();
                correction.extend(answers.iter().map(|&item| log_share[item as usize] + drawn));
            }
        }
        Drawn { items, correction }
    }
}

/// Negatives: of all events of a slice, or so many of each.
pub(super) struct Drawn {
    pub(super) items: Vec<u32>,
    /// What is subtracted from their scores.
    pub(super) correction: Option<Vec<f32>>,
}
