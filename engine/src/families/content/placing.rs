//! The network that places items by their content, and what it learns of derivatives by places.

use pgrec_kernels::cpu::{Cpu, Matrix};
use rayon::prelude::*;

use super::model::Config;
use super::{DIM, Features, HIDDEN, NAME, Params};
use crate::content::{Content, Form, Network, Way};
use crate::train::{Gradients, Options, Parameters, RowTrainer, Slice, Tape};
use crate::{Artifact, Control, Error, Result};

/// Items that are placed at a time.
const ROWS: usize = 256;
/// Into how many parts the items of a step are cut, whose derivatives are added up in their order.
pub(super) const SLICES: usize = 16;
/// LeakyReLU's, as PyTorch has it.
const SLOPE: f32 = 0.01;

/// The form of the network: what is asked for, that of the model that is continued, or the default.
pub(super) fn form(params: &Params, start: Option<&Artifact>) -> Result<Form> {
    let Some(start) = start else {
        let (hidden, dim) = (params.hidden.unwrap_or(HIDDEN), params.dim.unwrap_or(DIM));
        return Ok(Form { hidden, dim, slope: SLOPE });
    };
    let given = &start.header().family;
    if given != NAME {
        return Err(Error::Parameter(format!("init is a model of family \"{given}\", not of \"{NAME}\"")));
    }
    let Config { hidden, dim, features, .. } = start.config()?;
    if params.hidden.is_some_and(|other| other != hidden) || params.dim.is_some_and(|other| other != dim) {
        let why = "a training that continues a model has that model's dim and hidden: leave them out, or init";
        return Err(Error::Parameter(why.into()));
    }
    if features != Features::Embedding {
        let why = "init is a model that looks at attributes, which are other ones in every catalogue: continue one by vectors";
        return Err(Error::Parameter(why.into()));
    }
    Ok(Form { hidden, dim, slope: SLOPE })
}

/// The network, its weights, and how it learns.
pub(super) struct Placing<'a> {
    content: &'a Content,
    network: Network,
    parameters: Parameters,
    trainer: RowTrainer,
    rate: f64,
    dim: usize,
}

impl<'a> Placing<'a> {
    /// One that begins at random, or as that of a model.
    pub(super) fn new(
        params: &Params,
        form: Form,
        content: &'a Content,
        start: Option<&Artifact>,
        seed: u64,
    ) -> Result<Self> {
        let mut parameters = Parameters::default();
        let network = Network::new(&mut parameters, content, form, seed)?;
        if let Some(start) = start {
            continue_from(&mut parameters, start)?;
        }
        let options = Options {
            learning_rate: params.learning_rate,
            weight_decay: params.weight_decay,
            beta2: 0.999,
            ..Options::default()
        };
        let trainer = RowTrainer::in_slices(&options, &parameters, SLICES);
        Ok(Self { content, network, parameters, trainer, rate: params.learning_rate, dim: form.dim })
    }

    /// The network as it is now, for a model to keep.
    pub(super) fn way(&self) -> Way {
        self.network.way(self.parameters.all(), self.content)
    }

    /// Where some of so many items are placed, `[items, dim]`; zeros for the others.
    pub(super) fn places(&self, of: &[u32], items: usize, control: &Control) -> Result<Vec<f32>> {
        let place = |of: &[u32]| {
            control.check()?;
            Ok(self.network.places(self.parameters.all(), self.content, of))
        };
        let placed: Vec<Vec<f32>> = of.par_chunks(ROWS).map(place).collect::<Result<_>>()?;
        let mut places = vec![0.0; items * self.dim];
        for (&item, place) in of.iter().zip(placed.iter().flat_map(|rows| rows.chunks_exact(self.dim))) {
            places[item as usize * self.dim..][..self.dim].copy_from_slice(place);
        }
        Ok(places)
    }

    /// One step by the derivative of a loss by the places of all items (`[items, dim]`), of which it learns by these.
    pub(super) fn step(&mut self, of: &[u32], derivative: &[f32], control: &Control) -> Result<()> {
        let rows: Vec<usize> = (0..of.len()).collect();
        let upstream = Upstream { network: &self.network, content: self.content, of, derivative, control };
        let told = self.trainer.step(&mut self.parameters, &rows, self.rate, &upstream);
        told.into_iter().collect()
    }
}

/// Takes over the weights of a model.
fn continue_from(parameters: &mut Parameters, start: &Artifact) -> Result<()> {
    let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let Some(parameter) = parameters.find(&name) else { continue };
        let (known, own) = (start.tensor(&name)?, parameters.tensor_mut(parameter));
        if known.shape() != own.shape() {
            let (of, here) = (known.rows(), own.rows());
            let why = format!("init places items by vectors of {of} numbers, the items have vectors of {here}");
            return Err(Error::Parameter(why));
        }
        own.to_mut().copy_from_slice(known.as_slice());
    }
    Ok(())
}

/// Takes derivatives by the places of items back through the network.
pub(super) struct Upstream<'a> {
    pub(super) network: &'a Network,
    pub(super) content: &'a Content,
    pub(super) of: &'a [u32],
    pub(super) derivative: &'a [f32],
    pub(super) control: &'a Control,
}

impl Slice for Upstream<'_> {
    type Told = Result<()>;

    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> Result<()> {
        for rows in rows.chunks(ROWS) {
            self.control.check()?;
            let items: Vec<u32> = rows.iter().map(|&row| self.of[row]).collect();
            let part = tape.another();
            let places = self.network.place(&part, self.content, &items);
            let dim = places.value().cols();
            let rows = items.iter().flat_map(|&item| &self.derivative[item as usize * dim..][..dim]);
            let derivative: Vec<f32> = rows.copied().collect();
            part.backward(&places, Matrix::from_slice(&derivative, dim), gradients);
        }
        Ok(())
    }
}
