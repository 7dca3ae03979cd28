//! Training: parameters, their defaults, and how weights begin.

use std::ops::Range;

use pgrec_kernels::{Operators, Rows, Segment, SegmentOptions, Sequences};
use serde::Deserialize;

use super::config::SCORED;
use super::encoder::Encoder;
use super::{Block, Config, NAME, Nonlinearity, Positions, SEGMENT, SEGMENT_ABOVE};
use crate::families::{Fitted, Training, params};
use crate::train::{self, Init, LossKind, Options, Parameter, Parameters, SequenceModel, Windows};
use crate::{Artifact, ArtifactBuilder, Control, Corpus, Error, ItemIds, Result};

/// The family's own parameters. Absent: what the form has, or the model that training starts from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
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

impl Params {
    fn config(&self, corpus: &Corpus, loss: LossKind) -> Config {
        let binary = matches!(loss, LossKind::Bce | LossKind::Gbce);
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

    /// Whether a weight that a model can do without is part of this form.
    fn has(&self, name: &str) -> bool {
        let form = self.form.unwrap_or(Form::PreLn);
        match name.split('.').next() {
            Some(SCORED) => false,
            Some("input_norm") => form == Form::PostLn,
            Some("final_norm") => matches!(form, Form::Original | Form::PreLn),
            _ if name.contains("_norm.") => form != Form::HstuBaseline,
            _ if name.contains(".output.") => form != Form::Original,
            _ => true,
        }
    }
}

pub(super) fn fit(training: &Training<'_>) -> Result<Fitted> {
    let (params, options): (Params, Options) = params::read_trained(NAME, training.params, &defaults(training))?;
    let corpus = training.corpus;
    if corpus.interactions() == 0 {
        return Err(Error::Data("there are no interactions to train on".into()));
    }
    let (config, parameters) = match &training.start {
        Some(start) => continued(&params, start, corpus, training.seed)?,
        None => fresh(&params, corpus, options.loss, training.seed)?,
    };
    let encoder = Encoder::new(config, |name| Ok(parameters.find(name)))?;
    let counts = corpus.without_last(training.leave_last).counts().into_iter().map(|count| count as f32).collect();
    let model = Network { encoder, ids: corpus.items(), counts, control: training.control };
    train::fit(training, &options, &model, parameters)
}

/// What a training is without parameters.
fn defaults(training: &Training<'_>) -> Options {
    let options = Options::default();
    match training.start {
        None => options,
        // The vectors are good already, and learnt without dropout in the end: two careful passes over what is latest,
        // with little of it.
        Some(_) => Options {
            epochs: 2,
            // Ranking the validation items in between would be some 5 % of it all.
            validate_every: 2,
            learning_rate: 3e-4,
            patience: 0,
            windows: Windows::Latest,
            dropout: Some(0.1),
            ..options
        },
    }
}

/// Weights that begin at random.
fn fresh(params: &Params, corpus: &Corpus, loss: LossKind, seed: u64) -> Result<(Config, Parameters)> {
    let config = params.config(corpus, loss);
    config.check().map_err(|error| match error {
        Error::Malformed(why) => Error::Parameter(why),
        other => other,
    })?;
    let mut parameters = Parameters::default();
    for weight in config.weights(corpus.items().len()) {
        if weight.optional && !params.has(&weight.name) {
            continue;
        }
        let init = match weight.name.rsplit('.').next() {
            Some("bias") => Init::Zeros,
            Some("weight") if weight.shape.len() == 1 => Init::Ones,
            Some("weight") => Init::Glorot,
            _ => Init::Normal(0.02),
        };
        parameters.add(&weight.name, &weight.shape, init, seed)?;
    }
    mark_items(&mut parameters)?;
    Ok((config, parameters))
}

/// The weights of a model, its items carried over by their ids; new items begin at random.
fn continued(params: &Params, start: &Artifact, corpus: &Corpus, seed: u64) -> Result<(Config, Parameters)> {
    if start.header().family != NAME {
        let why = format!("init is a model of family \"{}\", not of \"{NAME}\"", start.header().family);
        return Err(Error::Parameter(why));
    }
    let config: Config = start.config()?;
    let differs = |given: Option<usize>, own: usize| given.is_some_and(|given| given != own);
    if differs(params.dim, config.dim)
        || differs(params.blocks, config.blocks)
        || differs(params.heads, config.heads)
        || differs(params.ffn, config.ffn)
        || differs(params.window, config.window)
        || params.form.is_some()
        || params.activation.is_some_and(|given| given != config.activation)
        || params.normalized.is_some_and(|given| given != config.normalized)
    {
        let why = "a training that continues a model has that model's form and sizes: leave them out, or init";
        return Err(Error::Parameter(why.into()));
    }
    let mut parameters = Parameters::default();
    let ids = corpus.items();
    for weight in config.weights(ids.len()) {
        if weight.name == SCORED || !start.has(&weight.name) {
            continue;
        }
        parameters.add(&weight.name, &weight.shape, Init::Normal(0.02), seed)?;
        let Some(parameter) = parameters.find(&weight.name) else { continue };
        let known = start.tensor(&weight.name)?;
        let own = parameters.tensor_mut(parameter);
        if weight.name != "items" {
            own.to_mut().copy_from_slice(known.as_slice());
            continue;
        }
        let dim = config.dim;
        for index in 0..ids.len() {
            if let Some(row) = start.catalogue().index_of(&ids.get(index)) {
                own.to_mut()[index * dim..(index + 1) * dim].copy_from_slice(known.row(row as usize));
            }
        }
    }
    mark_items(&mut parameters)?;
    Ok((config, parameters))
}

fn mark_items(parameters: &mut Parameters) -> Result<()> {
    let items = parameters.find("items").ok_or_else(|| Error::Malformed("a model without items".into()))?;
    parameters.mark_table(items);
    Ok(())
}

/// What the training loop sees of the family.
struct Network<'a> {
    encoder: Encoder<Parameter>,
    ids: &'a ItemIds,
    counts: Vec<f32>,
    control: &'a Control,
}

impl SequenceModel for Network<'_> {
    fn window(&self) -> usize {
        self.encoder.config.window
    }

    fn positions(&self, len: usize) -> Range<u32> {
        self.encoder.config.position_rows(len)
    }

    fn items(&self) -> Parameter {
        self.encoder.items
    }

    fn normalized(&self) -> bool {
        self.encoder.config.normalized
    }

    fn cost(&self) -> usize {
        let c = &self.encoder.config;
        6 * c.blocks * (4 * c.dim * c.dim + 2 * c.dim * c.ffn + c.window * c.dim)
    }

    fn encode<O: Operators<Weight = Parameter>>(&self, operators: &O, batch: &Sequences<'_>) -> O::Matrix {
        self.encoder.encode(operators, batch, Rows::All)
    }

    fn artifact(&self, parameters: &Parameters, search: bool) -> Result<ArtifactBuilder> {
        let config = &self.encoder.config;
        let json = serde_json::to_value(config).map_err(|e| Error::Malformed(format!("sasrec configuration: {e}")))?;
        let mut builder = ArtifactBuilder::new(NAME, &json, self.ids, &self.counts);
        for (name, tensor) in parameters.iter() {
            builder.f32(name, tensor.shape(), tensor.as_slice().to_vec());
        }
        let mut scored = parameters.tensor(self.encoder.items).clone();
        if config.normalized {
            for row in scored.to_mut().chunks_exact_mut(config.dim) {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
                row.iter_mut().for_each(|x| *x /= length);
            }
            builder.f32(SCORED, scored.shape(), scored.as_slice().to_vec());
        }
        if search && self.ids.len() > SEGMENT_ABOVE {
            let cancelled = || self.control.check().is_err();
            let segment = Segment::build(scored.as_slice(), config.dim, &SegmentOptions::default(), &cancelled)?;
            builder.bytes(SEGMENT, &segment);
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod gradient_tests;
