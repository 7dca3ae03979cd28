//! Training: weights that begin at random or as those of a model, and the model that comes of them.

use std::ops::Range;

use pgrec_kernels::{Operators, Rows, Sequences};
use serde::de::DeserializeOwned;

use super::by_content;
use super::{Architecture, ITEMS, SCORED, Weight, config_json, needed, unit_rows};
use crate::families::neighbours::{SEGMENT_ABOVE, add_segment};
use crate::families::{Fitted, Training, params};
use crate::train::{self, ByContent, Options, Parameter, Parameters, SequenceModel};
use crate::{Artifact, ArtifactBuilder, Control, Corpus, Error, ItemIds, Result};

/// A family's own parameters of training.
pub(crate) trait Own: DeserializeOwned {
    /// What they describe.
    type Architecture: Architecture;

    /// The architecture of a new model.
    fn architecture(&self, corpus: &Corpus, options: &Options) -> Self::Architecture;
    /// Whether a weight that a model can do without is part of a new one.
    fn has(&self, weight: &Weight) -> bool;
    /// Whether they ask for another architecture than a model's that training continues from.
    fn differs(&self, from: &Self::Architecture) -> bool;
    /// Of every training, where the caller says nothing.
    fn defaults(options: Options) -> Options {
        options
    }
}

/// Fits a model of the family whose parameters `P` are.
pub(crate) fn fit<P: Own>(training: &Training<'_>) -> Result<Fitted> {
    let family = P::Architecture::FAMILY;
    let (content, others) = params::split(family, training.params, &by_content::Parameters::default())?;
    let (own, options): (P, Options) = params::read_trained(family, &others, &defaults::<P>(training))?;
    let corpus = training.corpus;
    if corpus.interactions() == 0 {
        return Err(Error::Data("there are no interactions to train on".into()));
    }
    let (architecture, parameters) = match &training.start {
        Some(start) => continued(&own, start, corpus, training.seed)?,
        None => fresh(&own, corpus, &options, training.seed)?,
    };
    if architecture.timed() && !corpus.has_times() {
        let why = format!("family \"{family}\" looks at the times of events, and there are none; set times to false");
        return Err(Error::Parameter(why));
    }
    check_outcomes(&architecture, corpus)?;
    let content = by_content::Items::of(&architecture, training, content)?;
    let model = Network { content, ..Network::new(architecture, &parameters, training)? };
    train::fit(training, &options, &model, parameters)
}

/// Refuses events of which it is not known what came of them, where that is to be learnt.
fn check_outcomes<A: Architecture>(architecture: &A, corpus: &Corpus) -> Result<()> {
    let combinations = architecture.outcomes();
    if combinations == 0 {
        return Ok(());
    }
    if !corpus.has_outcomes() {
        let why = format!("family \"{}\" learns what comes of events, and that is not known", A::FAMILY);
        return Err(Error::Data(why));
    }
    let mut outcomes = (0..corpus.users()).flat_map(|user| corpus.history_outcomes(user));
    match outcomes.find(|&&outcome| outcome as usize >= combinations) {
        Some(outcome) => Err(Error::Data(format!("outcome {outcome} is not one of {combinations}"))),
        None => Ok(()),
    }
}

/// What a training is without parameters.
fn defaults<P: Own>(training: &Training<'_>) -> Options {
    let options = P::defaults(Options::default());
    if training.start.is_some() { options.continuing() } else { options }
}

/// Weights that begin at random.
pub(super) fn fresh<P: Own>(
    own: &P,
    corpus: &Corpus,
    options: &Options,
    seed: u64,
) -> Result<(P::Architecture, Parameters)> {
    let architecture = own.architecture(corpus, options);
    architecture.check().map_err(|error| match error {
        Error::Malformed(why) => Error::Parameter(why),
        other => other,
    })?;
    let mut parameters = Parameters::default();
    for weight in architecture.weights(corpus.items().len()) {
        if !weight.optional || own.has(&weight) {
            parameters.add(&weight.name, &weight.shape, weight.init, seed)?;
        }
    }
    mark_items(&mut parameters)?;
    Ok((architecture, parameters))
}

/// The weights of a model, its items carried over by their ids; new items begin at random.
fn continued<P: Own>(own: &P, start: &Artifact, corpus: &Corpus, seed: u64) -> Result<(P::Architecture, Parameters)> {
    let (family, given) = (P::Architecture::FAMILY, &start.header().family);
    if given != family {
        return Err(Error::Parameter(format!("init is a model of family \"{given}\", not of \"{family}\"")));
    }
    let architecture: P::Architecture = start.config()?;
    if own.differs(&architecture) {
        let why = "a training that continues a model has that model's form and sizes: leave them out, or init";
        return Err(Error::Parameter(why.into()));
    }
    let mut parameters = Parameters::default();
    let (ids, dim) = (corpus.items(), architecture.dim());
    for weight in architecture.weights(ids.len()) {
        if weight.name == SCORED || !start.has(&weight.name) {
            continue;
        }
        parameters.add(&weight.name, &weight.shape, weight.init, seed)?;
        let Some(parameter) = parameters.find(&weight.name) else { continue };
        let known = start.tensor(&weight.name)?;
        let own = parameters.tensor_mut(parameter);
        if weight.name != ITEMS {
            own.to_mut().copy_from_slice(known.as_slice());
            continue;
        }
        let mut copy = |to: usize, from: usize| own.to_mut()[to * dim..(to + 1) * dim].copy_from_slice(known.row(from));
        for index in 0..ids.len() {
            if let Some(row) = start.catalogue().index_of(&ids.get(index)) {
                copy(index, row as usize);
            }
        }
        (0..architecture.outcomes()).for_each(|outcome| copy(ids.len() + outcome, start.catalogue().len() + outcome));
    }
    mark_items(&mut parameters)?;
    Ok((architecture, parameters))
}

fn mark_items(parameters: &mut Parameters) -> Result<()> {
    let items = needed(ITEMS, parameters.find(ITEMS))?;
    parameters.mark_table(items);
    Ok(())
}

/// What the training loop sees of a family.
pub(crate) struct Network<'a, A: Architecture> {
    architecture: A,
    encoder: A::Encoder<Parameter>,
    items: Parameter,
    ids: &'a ItemIds,
    counts: Vec<f32>,
    content: Option<by_content::Items>,
    control: &'a Control,
}

impl<'a, A: Architecture> Network<'a, A> {
    pub(crate) fn new(architecture: A, parameters: &Parameters, training: &Training<'a>) -> Result<Self> {
        let encoder = architecture.encoder(|name| Ok(parameters.find(name)))?;
        let counts = training.corpus.without_last(training.leave_last).counts().into_iter();
        Ok(Self {
            architecture,
            encoder,
            items: needed(ITEMS, parameters.find(ITEMS))?,
            ids: training.corpus.items(),
            counts: counts.map(|count| count as f32).collect(),
            content: None,
            control: training.control,
        })
    }
}

impl<A: Architecture> SequenceModel for Network<'_, A> {
    fn window(&self) -> usize {
        self.architecture.window()
    }

    fn positions(&self, len: usize) -> Range<u32> {
        self.architecture.position_rows(len)
    }

    fn items(&self) -> Parameter {
        self.items
    }

    fn normalized(&self) -> bool {
        self.architecture.normalized()
    }

    fn timed(&self) -> bool {
        self.architecture.timed()
    }

    fn first_outcome(&self) -> Option<u32> {
        (self.architecture.outcomes() > 0).then_some(self.ids.len() as u32)
    }

    fn content(&self) -> Option<ByContent<'_>> {
        self.content.as_ref().map(|items| items.by(&self.counts))
    }

    fn cost(&self) -> usize {
        // Backward takes twice as long as forward.
        3 * self.architecture.cost(self.window()) / self.window()
    }

    fn encode<O: Operators<Weight = Parameter>>(
        &self,
        operators: &O,
        batch: &Sequences<'_>,
        _coded: &[Sequences<'_>],
    ) -> Vec<O::Matrix> {
        vec![self.architecture.encode(&self.encoder, operators, batch, Rows::All)]
    }

    fn artifact(&self, parameters: &Parameters, search: bool) -> Result<ArtifactBuilder> {
        let mut builder = ArtifactBuilder::new(A::FAMILY, &config_json(&self.architecture)?, self.ids, &self.counts);
        for (name, tensor) in parameters.iter() {
            builder.f32(name, tensor.shape(), tensor.as_slice().to_vec());
        }
        let dim = self.architecture.dim();
        let items = parameters.tensor(self.items);
        let unit = self.architecture.normalized().then(|| unit_rows(items.as_slice(), dim));
        if search && self.first_outcome().is_none() {
            let scored = unit.as_deref().unwrap_or(items.as_slice());
            add_segment(&mut builder, scored, dim, SEGMENT_ABOVE, self.control)?;
        }
        if let Some(unit) = unit {
            builder.f32(SCORED, items.shape(), unit);
        }
        Ok(builder)
    }
}
