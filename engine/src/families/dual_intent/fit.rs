//! What is learnt from, and its steps.

use std::sync::Arc;

use pgrec_kernels::{AdamW, TableGradient};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::graph::{Edge, Graph};
use super::layers::{self, ByLayers, Layers};
use super::learnt::{ByContent, Learnt};
use super::network::{self, Network};
use super::step::{Batch, Told};
use super::{Params, model, ranking, validated, weighed};
use crate::content::{Content, Use};
use crate::families::epochs::{self, Learner, Length, Progress};
use crate::families::neighbours::{SEGMENT_ABOVE, add_segment};
use crate::families::{self, Fitted, Training};
use crate::random::SplitMix;
use crate::train::{Metrics, Options, Parameter, Parameters, RowTrainer, Validation};
use crate::{Artifact, ArtifactBuilder, Control, Error, Result};

/// Into how many parts the edges of a step are cut, whose derivatives are added up in their order.
const SLICES: usize = 16;
/// Edges for which one task generates intents.
const EDGES: usize = 256;

/// Fits a model of all items where something is known of each, else of those that somebody has touched or found.
pub(super) fn fit(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    let touched = if params.features == Use::None { training.corpus.of_touched() } else { None };
    let Some(corpus) = touched else { return fit_items(training, params) };
    let &Training { leave_last, seed, memory, .. } = training;
    let training = Training { leave_last, seed, memory, ..Training::new(&corpus, training.params, training.control) };
    fit_items(&training, params)
}

fn fit_items(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    let corpus = training.corpus;
    if params.searches && !corpus.has_searches() {
        let why = "nobody has looked for anything: bind the relation of searches (searches => …), or set the parameter \
                   \"searches\" to false";
        return Err(Error::Data(why.into()));
    }
    check_memory(training, params)?;
    let learnt = corpus.without_last(training.leave_last);
    let (histories, validation) = Validation::split(training, &learnt, params.validation_users, Metrics::RANKING);
    let graph = Graph::new(&histories, params);
    let tells = |edge: &Edge| !edge.queries.is_empty() || graph.items_of[edge.user as usize].len() > 1;
    let edges: Vec<u32> = (0..graph.edges.len() as u32).filter(|&edge| tells(&graph.edges[edge as usize])).collect();
    if edges.is_empty() {
        return Err(Error::Data(
            "no history has the two items that one learns one from, and no search led to an item".into(),
        ));
    }
    let counts: Vec<f32> = learnt.counts().into_iter().map(|count| count as f32).collect();
    let content = Content::of(corpus, params.features)?;
    let (items, dim, mut random) = (counts.len(), params.dim, SplitMix::new(training.seed));
    let mut own = Learnt::random(items * dim, &mut random);
    let by_content = match &content {
        Some(content) => Some(ByContent::new(params, content, &graph.degrees, &mut own, training.seed)?),
        None => None,
    };
    let mut parameters = Parameters::default();
    let network = Network::new(&mut parameters, dim, training.seed)?;
    let options = Options {
        learning_rate: params.learning_rate,
        weight_decay: params.weight_decay,
        beta2: 0.999,
        ..Options::default()
    };
    let with_queries = graph.edges.iter().all(|edge| !edge.queries.is_empty());
    let run = Run {
        training,
        params,
        words: Learnt::random(graph.word_counts.len() * dim, &mut random),
        bias: Learnt::new(graph.degrees.iter().map(|degree| degree.ln_1p()).collect()),
        own,
        by_content,
        trainer: RowTrainer::in_slices(&options, &parameters, SLICES),
        parameters,
        network,
        generated: vec![0.0; items * dim],
        bare: if with_queries { Vec::new() } else { bare(&graph) },
        pool: (0..items as u32).filter(|&item| graph.degrees[item as usize] > 0.0).collect(),
        graph,
        edges,
        counts,
        step: 0,
        random,
    };
    let length = Length { epochs: params.epochs, patience: params.patience, every: 1 };
    completed(epochs::fit(run, training, &validation, length)?, params, &validation, training.control)
}

/// Adds to the best model how much it counts in a search, and what finds candidates in a large catalogue.
fn completed(mut fitted: Fitted, params: &Params, validation: &Validation, control: &Control) -> Result<Fitted> {
    let artifact = Arc::new(Artifact::from_vec(fitted.artifact.finish()?)?);
    let model = families::open(Arc::clone(&artifact))?;
    let weighed = match params.search_weight {
        Some(weight) => Some((weight, None)),
        None => weighed::weigh(&*model, validation, control)?.map(|(weight, measured)| (weight, Some(measured))),
    };
    if let Some((weight, measured)) = weighed {
        fitted.artifact.f32(model::SEARCH_WEIGHT, &[1], vec![weight as f32]);
        fitted.metrics.insert("search_weight".into(), json!(weight));
        measured.map(|measured| fitted.metrics.insert("search_mrr".into(), Value::Object(measured)));
    }
    let rows = artifact.tensor(ranking::STAR)?;
    add_segment(&mut fitted.artifact, rows.as_slice(), rows.cols(), SEGMENT_ABOVE, control)?;
    Ok(fitted)
}

/// The edges without a query.
fn bare(graph: &Graph) -> Vec<u32> {
    let all = 0..graph.edges.len() as u32;
    all.filter(|&edge| graph.edges[edge as usize].queries.is_empty()).collect()
}

fn check_memory(training: &Training<'_>, params: &Params) -> Result<()> {
    let corpus = training.corpus;
    let (users, items, dim) = (corpus.users(), corpus.items().len(), params.dim);
    let searches: usize = (0..users).map(|user| corpus.searches(user).count()).sum();
    // Of items their vectors and AdamW's means, layers and what they are made of, derivatives, and what is stored of them now
    // and of the best epoch; of users what passes through them; of queries and words vectors and derivatives.
    let rows = items.saturating_mul(40).saturating_add(users.saturating_mul(4));
    let rows = rows.saturating_add(corpus.queries().saturating_mul(8)).saturating_add(corpus.lexicon().len() * 5);
    let network = network::weights(dim).saturating_mul(5 + SLICES);
    let rows_of_a_step = params.batch.saturating_mul(1 + params.negatives).saturating_mul(6);
    let numbers = rows.saturating_add(rows_of_a_step).saturating_mul(dim).saturating_add(network);
    // Edges from all sides, and the searches of users.
    let edges = (corpus.interactions().saturating_add(searches)).saturating_mul(size_of::<Edge>() + 80);
    let content = Content::bytes(corpus, params.features)
        .saturating_add(Content::inputs(corpus, params.features).saturating_mul(5 * dim * size_of::<f32>()));
    let needed = numbers.saturating_mul(size_of::<f32>()).saturating_add(edges).saturating_add(content);
    training.require_memory(needed, "vectors, edges and the network", "a smaller dim needs less")
}

/// A training under way.
struct Run<'a> {
    training: &'a Training<'a>,
    params: &'a Params,
    graph: Graph,
    /// Edges that are learnt from.
    edges: Vec<u32>,
    /// Edges without a query.
    bare: Vec<u32>,
    /// Items that others are drawn among: those that somebody has touched or found.
    pool: Vec<u32>,
    counts: Vec<f32>,
    own: Learnt,
    words: Learnt,
    bias: Learnt,
    by_content: Option<ByContent<'a>>,
    parameters: Parameters,
    network: Network<Parameter>,
    trainer: RowTrainer,
    /// Σ of generated intents over an item's edges, divided by how many edges it has.
    generated: Vec<f32>,
    step: u64,
    random: SplitMix,
}

impl Learner for Run<'_> {
    fn steps(&self) -> u64 {
        self.edges.len().div_ceil(self.params.batch) as u64
    }

    fn epoch(&mut self, _: u32, progress: &mut Progress<'_>) -> Result<f64> {
        let mut edges = std::mem::take(&mut self.edges);
        self.random.shuffle(&mut edges);
        self.generate()?;
        for batch in edges.chunks(self.params.batch) {
            progress.step(batch.len(), self.step(batch)?);
        }
        self.edges = edges;
        Ok(progress.mean())
    }

    fn artifact(&self) -> Result<ArtifactBuilder> {
        let (dim, control) = (self.params.dim, self.training.control);
        let mut own = self.own.weights.clone();
        if let Some(by_content) = &self.by_content {
            by_content.complete(&mut own, dim)?;
        }
        let queries = self.queries()?;
        let layers = Layers::new(&self.graph, &own, &queries, &self.generated, dim, control)?;
        let learnt = model::Learnt {
            own: &own,
            words: &self.words.weights,
            bias: &self.bias.weights,
            queries: &queries,
            layers: &layers,
            parameters: &self.parameters,
        };
        model::artifact(self.params, &self.graph, &learnt, self.training.corpus, &self.counts)
    }

    /// How well both is done: what counts is the geometric mean, so that a share that one gains weighs as much as the same
    /// share that the other loses.
    fn figures(
        &self,
        artifact: &ArtifactBuilder,
        validation: &Validation,
        control: &Control,
    ) -> Result<Option<[f64; 2]>> {
        let model = families::open(Arc::new(Artifact::from_vec(artifact.finish()?)?))?;
        let recommended = validated::recommended(&*model, validation, control)?;
        Ok(match validated::found(&*model, validation, control)? {
            Some(found) => recommended.map_or(Some(found), |own| Some([0, 1].map(|at| (own[at] * found[at]).sqrt()))),
            None => recommended,
        })
    }
}

impl Run<'_> {
    /// One step by some edges. Gives the sum of their losses.
    fn step(&mut self, edges: &[u32]) -> Result<f64> {
        let (dim, control) = (self.params.dim, self.training.control);
        let queries = self.queries()?;
        let layers = Layers::new(&self.graph, &self.own.weights, &queries, &self.generated, dim, control)?;
        let batch = Batch {
            graph: &self.graph,
            params: self.params,
            network: &self.network,
            layers: &layers,
            own: &self.own.weights,
            queries: &queries,
            bias: &self.bias.weights,
            pool: &self.pool,
            edges,
            key: self.random.next(),
            control,
        };
        let rows: Vec<usize> = (0..edges.len()).collect();
        let told = self.trainer.step(&mut self.parameters, &rows, self.params.learning_rate, &batch);
        let told: Vec<Told> = told.into_iter().collect::<Result<_>>()?;
        let loss: f64 = told.iter().map(|told| told.loss).sum();
        if !loss.is_finite() {
            return Err(Error::Data(format!("the loss is {loss}: lower learning_rate")));
        }
        let gradient = gradient(
            &self.graph,
            &told,
            [self.own.weights.len(), queries.len(), self.bias.weights.len()],
            dim,
            control,
        )?;
        self.step += 1;
        let (rate, decay) = (self.params.learning_rate as f32, self.params.weight_decay as f32);
        let adamw = AdamW { rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay, step: self.step };
        self.own.step(&adamw, &gradient.own);
        self.words.step(&adamw, &gradient.words);
        self.bias.step(&adamw, &gradient.bias);
        if let Some(by_content) = &mut self.by_content {
            by_content.step(&mut self.own.weights, &gradient.own, dim)?;
        }
        Ok(loss)
    }

    /// The vectors of the queries: means of their words'.
    fn queries(&self) -> Result<Vec<f32>> {
        self.graph.words[0].times(&self.words.weights, self.params.dim, self.training.control)
    }

    /// Generates the intents of the edges without a query.
    fn generate(&mut self) -> Result<()> {
        if self.bare.is_empty() {
            return Ok(());
        }
        let (dim, control) = (self.params.dim, self.training.control);
        let queries = self.queries()?;
        // The generator looks at no layer but the first.
        let layers = Layers::default();
        let batch = Batch {
            graph: &self.graph,
            params: self.params,
            network: &self.network,
            layers: &layers,
            own: &self.own.weights,
            queries: &queries,
            bias: &self.bias.weights,
            pool: &self.pool,
            edges: &[],
            key: self.random.next(),
            control,
        };
        let intents = self.bare.par_chunks(EDGES).map(|edges| {
            control.check()?;
            Ok(batch.generated(self.parameters.all(), edges))
        });
        let intents: Vec<_> = intents.collect::<Result<_>>()?;
        self.generated.fill(0.0);
        for (&edge, intent) in self.bare.iter().zip(intents.iter().flat_map(|rows| rows.as_slice().chunks_exact(dim))) {
            let item = self.graph.edges[edge as usize].item as usize;
            let share = 1.0 / self.graph.degrees[item];
            self.generated[item * dim..][..dim].iter_mut().zip(intent).for_each(|(sum, x)| *sum += share * x);
        }
        Ok(())
    }
}

/// The derivative of a step's loss by all that is no network.
pub(super) struct Gradient {
    pub(super) own: Vec<f32>,
    pub(super) words: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// From what the slices of a step tell, through the layers; `sizes`: numbers of items, queries and biases.
pub(super) fn gradient(
    graph: &Graph,
    told: &[Told],
    sizes: [usize; 3],
    dim: usize,
    control: &Control,
) -> Result<Gradient> {
    let [items, queries, biases] = sizes;
    let sum = |len: usize, dim: usize, of: &dyn Fn(&Told) -> &TableGradient| {
        let mut sum = vec![0.0; len];
        for told in told {
            let rows = of(told).ids().into_iter().flatten().zip(of(told).values().chunks_exact(dim));
            rows.for_each(|(&row, by)| {
                sum[row as usize * dim..][..dim].iter_mut().zip(by).for_each(|(sum, x)| *sum += x);
            });
        }
        sum
    };
    let by = ByLayers {
        star: sum(items, dim, &|told| &told.star),
        passed: sum(items, dim, &|told| &told.passed),
        taken: sum(items, dim, &|told| &told.taken),
        given: sum(items, dim, &|told| &told.given),
    };
    let (through, queries_through) = layers::backward(graph, &by, dim, control)?;
    let add = |mut sum: Vec<f32>, more: Vec<f32>| {
        sum.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
        sum
    };
    let by_queries = add(sum(queries, dim, &|told| &told.queries), queries_through);
    Ok(Gradient {
        own: add(sum(items, dim, &|told| &told.own), through),
        words: graph.words[1].times(&by_queries, dim, control)?,
        bias: sum(biases, 1, &|told| &told.bias),
    })
}
