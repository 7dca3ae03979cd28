//! Training: parameters, and what the loop sees of the family.

use std::ops::Range;

use pgrec_kernels::{Operators, Rows, Sequences};
use serde::Deserialize;
use serde_json::Value;

use super::NAME;
use super::config::{CHOSEN, CODES, Config};
use super::model;
use super::network::Network;
use super::vocabulary::{self, Vocabulary};
use crate::families::semantic_ids::SemanticIds;
use crate::families::sequential::{Architecture, ITEMS, needed};
use crate::families::{Fitted, Model, Needs, Training, params, sasrec};
use crate::train::{self, CodeRows, Described, Options, Order, Parameter, Parameters, SequenceModel};
use crate::{Artifact, ArtifactBuilder, Corpus, Error, Result};

/// The family's own parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// Width of the vectors.
    dim: usize,
    /// Transformer blocks over events.
    blocks: usize,
    /// Their attention heads.
    heads: usize,
    /// Latest events that are looked at.
    window: usize,
    /// Feed-forward blocks of the decoder.
    depth: usize,
    /// Beams that are kept on each level, at least.
    beam: usize,
    /// In which order codes are told.
    order: Order,
    /// Whether codes are told by cosines.
    normalized: bool,
    /// In the order of confidence: how well the codes of a beam must agree with one another, from 0 to 1.
    consistency: f64,
    /// Weight of an item's own vector beside its codes where items are ranked; 0: items have none.
    fusion: f64,
    /// How often it is learnt what the items' attributes say: the share of the items whose words are learnt from in an
    /// epoch; words of the next item follow half that share of the histories.
    alignment: f64,
    /// How many words may be learnt: those that most items have.
    words: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            dim: 64,
            blocks: 2,
            heads: 2,
            window: 50,
            depth: 1,
            beam: 50,
            order: Order::Levels,
            normalized: true,
            consistency: 0.0,
            fusion: 0.0,
            alignment: 0.0,
            words: 10_000,
        }
    }
}

impl Params {
    fn config(&self, ids: &SemanticIds, options: &Options, words: usize) -> Config {
        let &Self { dim, blocks, heads, window, depth, beam, order, normalized, consistency, fusion, .. } = self;
        let codes = ids.config();
        Config {
            body: sasrec::Config {
                dim,
                blocks,
                heads,
                ffn: 4 * dim,
                window,
                block: sasrec::Block::PreLn,
                activation: sasrec::Nonlinearity::Gelu,
                // Of the sum over the levels.
                item_scale: (dim as f64 / codes.sizes.len().max(1) as f64).sqrt(),
                norm_eps: 1e-8,
                positions: sasrec::Positions::FromEnd,
                normalized,
            },
            order,
            temperature: options.temperature.unwrap_or(if normalized { 0.07 } else { 1.0 }),
            consistency,
            fusion,
            depth,
            hidden: 4 * dim,
            beam,
            words,
            codes,
        }
    }

    /// Refuses an alignment that is none.
    fn check_alignment(&self, corpus: &Corpus) -> Result<()> {
        if !(0.0..=1.0).contains(&self.alignment) {
            return Err(Error::Parameter("alignment is a share, from 0 to 1".into()));
        }
        if self.alignment > 0.0 && corpus.attributes().is_empty() {
            return Err(Error::Data("alignment learns from the items' attributes, and they have none".into()));
        }
        Ok(())
    }

    /// Refuses an alignment by no words, and words beside vectors of the items.
    fn check_words(&self, words: &[String], continues: bool) -> Result<()> {
        match (words.is_empty(), continues) {
            (true, true) if self.alignment > 0.0 => Err(Error::Parameter(
                "the model that init names knows no words, which alignment learns: leave one of them out".into(),
            )),
            (true, false) if self.alignment > 0.0 && self.words > 0 => {
                Err(Error::Data("alignment learns attributes that several items share, and there are none".into()))
            }
            (true, _) if self.alignment > 0.0 => {
                Err(Error::Parameter("alignment learns words, of which there may be none: set words above 0".into()))
            }
            (false, true) if self.fusion > 0.0 => Err(Error::Parameter(
                "the model that init names knows words: items cannot have vectors of their own (fusion) then".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// Attributes, where words are learnt.
pub(super) fn needs(params: &Value) -> Needs {
    let aligned = params.get("alignment").and_then(Value::as_f64).is_some_and(|share| share > 0.0);
    Needs { attributes: aligned, ..Needs::NOTHING }
}

pub(super) fn fit(training: &Training<'_>) -> Result<Fitted> {
    let Some(ids) = training.base.as_ref().and_then(|base| base.semantic_ids()) else {
        let why = "family \"generative\" needs codes: name a model that has semantic IDs as \"base\"";
        return Err(Error::Parameter(why.into()));
    };
    let mut subject = Subject::new(training.params, ids, training)?;
    if let Some(start) = &training.start {
        subject.continue_from(start, ids)?;
    }
    let learnt = subject.corpus.without_last(training.leave_last);
    if learnt.interactions() == 0 {
        return Err(Error::Data("there are no interactions with items that have a code".into()));
    }
    let counts = learnt.counts().into_iter().map(|count| count as f32).collect();
    let learner = Learner { counts, ..subject.learner(ids)? };
    let Subject { corpus, options, parameters, .. } = subject;
    train::fit(
        &Training { corpus: &corpus, base: None, start: training.start.clone(), ..*training },
        &options,
        &learner,
        parameters,
    )
}

/// What is trained, by what a training is given.
pub(super) struct Subject {
    config: Config,
    /// The events on items that have a code, over the codes' catalogue.
    pub(super) corpus: Corpus,
    pub(super) options: Options,
    pub(super) parameters: Parameters,
    /// Words that it may learn, and how often it does.
    words: Vec<String>,
    alignment: f64,
}

impl Subject {
    pub(super) fn new(params: &Value, ids: &SemanticIds, training: &Training<'_>) -> Result<Self> {
        let defaults = if training.start.is_some() { defaults().continuing() } else { defaults() };
        let (own, options): (Params, Options) = params::read_trained(NAME, params, &defaults)?;
        let corpus = training.corpus.over(ids.catalogue().to_ids());
        own.check_alignment(&corpus)?;
        let alignment = own.alignment;
        let words = match &training.start {
            Some(start) => Vocabulary::open(start, &start.config()?)?.to_words(),
            None if alignment > 0.0 => vocabulary::chosen(&corpus, own.words),
            None => Vec::new(),
        };
        own.check_words(&words, training.start.is_some())?;
        let config = own.config(ids, &options, words.len());
        config.check().map_err(|error| match error {
            Error::Malformed(why) => Error::Parameter(why),
            other => other,
        })?;
        let mut parameters = Parameters::default();
        for weight in config.weights(ids.catalogue().len()) {
            parameters.add(&weight.name, &weight.shape, weight.init, training.seed)?;
        }
        for table in [CODES, CHOSEN, ITEMS].map(|name| parameters.find(name)).into_iter().flatten() {
            parameters.mark_table(table);
        }
        Ok(Self { config, corpus, options, parameters, words, alignment })
    }

    /// Takes the weights of a model of the same sizes, over the same codes.
    fn continue_from(&mut self, start: &Artifact, ids: &SemanticIds) -> Result<()> {
        let known: Config = start.config()?;
        let codes = SemanticIds::open_as(start, known.codes.clone())?;
        // The same weights serve whatever these are.
        let weights = |config: &Config| Config {
            beam: 0,
            consistency: 0.0,
            fusion: f64::from(config.is_fused()),
            order: if config.order == Order::Together { Order::Together } else { Order::Levels },
            ..config.clone()
        };
        if weights(&known) != weights(&self.config) || codes.codes() != ids.codes() {
            let why =
                "a training that continues a model has that model's sizes and codes: name its base, or leave init out";
            return Err(Error::Parameter(why.into()));
        }
        for weight in self.config.weights(ids.catalogue().len()) {
            let own = needed(&weight.name, self.parameters.find(&weight.name))?;
            let known = start.tensor_of(&weight.name, &weight.shape)?;
            self.parameters.tensor_mut(own).to_mut().copy_from_slice(known.as_slice());
        }
        Ok(())
    }

    /// What learns it, which knows of no counts.
    pub(super) fn learner<'a>(&self, ids: &'a SemanticIds) -> Result<Learner<'a>> {
        let find = |name: &str| needed(name, self.parameters.find(name));
        let Config { order, temperature, codes, .. } = &self.config;
        Ok(Learner {
            network: Network::new(&self.config, &|name| Ok(self.parameters.find(name)))?,
            config: self.config.clone(),
            table: find(CODES)?,
            beside: self.parameters.find(ITEMS),
            rows: CodeRows::new(*order, &codes.sizes, self.words.len(), &ids.codes(), (1.0 / temperature) as f32),
            described: (self.alignment > 0.0 && !self.words.is_empty()).then(|| {
                Described::new(vocabulary::of_items(&self.corpus, &self.words).into_iter(), self.alignment as f32)
            }),
            words: self.words.clone(),
            ids,
            counts: vec![0.0; ids.catalogue().len()],
        })
    }
}

fn defaults() -> Options {
    Options { epochs: 40, patience: 8, learning_rate: 1e-3, dropout: Some(0.3), ..Options::default() }
}

/// What the training loop sees of the family.
pub(super) struct Learner<'a> {
    config: Config,
    network: Network<Parameter>,
    table: Parameter,
    /// Vectors of the items themselves.
    beside: Option<Parameter>,
    rows: CodeRows,
    described: Option<Described>,
    words: Vec<String>,
    ids: &'a SemanticIds,
    /// How often each item was touched.
    counts: Vec<f32>,
}

impl SequenceModel for Learner<'_> {
    fn window(&self) -> usize {
        self.config.body.window
    }

    fn positions(&self, len: usize) -> Range<u32> {
        self.config.body.position_rows(len)
    }

    fn items(&self) -> Parameter {
        self.table
    }

    fn beside(&self) -> Option<Parameter> {
        self.beside
    }

    fn normalized(&self) -> bool {
        self.config.body.normalized
    }

    fn timed(&self) -> bool {
        false
    }

    fn codes(&self) -> Option<&CodeRows> {
        Some(&self.rows)
    }

    fn described(&self) -> Option<&Described> {
        self.described.as_ref()
    }

    fn cost(&self) -> usize {
        let Config { body, depth, hidden, order, codes, .. } = &self.config;
        let steps = if *order == Order::Together { 1 } else { codes.sizes.len() };
        let words: usize = codes.sizes.iter().sum();
        let scored = if *order == Order::Confidence { steps * words / 2 } else { words };
        3 * (body.cost(body.window) / body.window + 2 * body.dim * (2 * depth * hidden * steps + scored))
    }

    fn encode<O: Operators<Weight = Parameter>>(
        &self,
        operators: &O,
        batch: &Sequences<'_>,
        coded: &[Sequences<'_>],
    ) -> Vec<O::Matrix> {
        let (config, network) = (&self.config, &self.network);
        let (events, answers) = coded.split_at(config.levels() + usize::from(self.beside.is_some()));
        let mut state = network.encode(config, operators, batch, events, Rows::All);
        let beside = self.beside.map(|_| operators.l2_normalize(&state));
        let mut told = vec![network.told(config, operators, &state, batch)];
        for chosen in answers {
            state = network.chosen(config, operators, state, chosen);
            told.push(network.told(config, operators, &state, batch));
        }
        told.extend(beside);
        told
    }

    fn artifact(&self, parameters: &Parameters, _search: bool) -> Result<ArtifactBuilder> {
        model::artifact(&self.config, parameters, self.ids, &self.counts, &self.words)
    }
}
