//! Derivatives against differences of the loss, and layers against their definition edge by edge.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use pgrec_kernels::cpu::{Cpu, Matrix};

use super::fit::gradient;
use super::graph::{Graph, NOBODY};
use super::layers::Layers;
use super::network::Network;
use super::step::{Batch, Told};
use super::tests::shop;
use super::{Params, Scoring};
use crate::random::SplitMix;
use crate::train::{Gradients, HeldOut, Histories, Parameter, Parameters, Slice, Tape};
use crate::{Control, Corpus, testing};

const DIM: usize = 8;

/// All numbers that are learnt.
#[derive(Clone)]
struct Point {
    own: Vec<f32>,
    words: Vec<f32>,
    bias: Vec<f32>,
    parameters: Parameters,
}

struct Case {
    graph: Graph,
    params: Params,
    network: Network<Parameter>,
    edges: Vec<u32>,
    pool: Vec<u32>,
    generated: Vec<f32>,
    at: Point,
}

impl Case {
    fn new(corpus: &Corpus, params: Params, seed: u64) -> Self {
        let histories = Histories { corpus, held_out: HeldOut::Nobody, described: None };
        let graph = Graph::new(&histories, &params);
        let (items, mut random) = (corpus.items().len(), SplitMix::new(seed));
        let mut numbers = |len: usize| (0..len).map(|_| 0.5 * random.truncated_normal()).collect::<Vec<f32>>();
        let mut parameters = Parameters::default();
        let network = Network::new(&mut parameters, DIM, seed).unwrap();
        // Biases that are nothing would hide what is wrong with them.
        let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names.iter().filter(|name| name.ends_with("bias")) {
            let bias = parameters.find(name).unwrap();
            let len = parameters.tensor(bias).as_slice().len();
            parameters.tensor_mut(bias).to_mut().copy_from_slice(&numbers(len));
        }
        let at = Point {
            own: numbers(items * DIM),
            words: numbers(graph.word_counts.len() * DIM),
            bias: numbers(items),
            parameters,
        };
        let generated = numbers(items * DIM);
        let edges = (0..graph.edges.len() as u32).collect();
        Self { graph, params, network, edges, pool: (0..items as u32).collect(), generated, at }
    }

    fn queries(&self, at: &Point) -> Vec<f32> {
        self.graph.words[0].times(&at.words, DIM, &Control::default()).unwrap()
    }

    fn layers(&self, at: &Point) -> Layers {
        Layers::new(&self.graph, &at.own, &self.queries(at), &self.generated, DIM, &Control::default()).unwrap()
    }

    fn told(&self, at: &Point) -> (Told, Gradients<Matrix>) {
        let (cpu, control) = (Cpu::new(), Control::default());
        let batch = Batch {
            graph: &self.graph,
            params: &self.params,
            network: &self.network,
            layers: &self.layers(at),
            own: &at.own,
            queries: &self.queries(at),
            bias: &at.bias,
            pool: &self.pool,
            edges: &self.edges,
            key: 7,
            control: &control,
        };
        let mut gradients = Gradients::new(&cpu, &at.parameters, false);
        let rows: Vec<usize> = (0..self.edges.len()).collect();
        let told = batch.compute(Tape::of_rows(&cpu, at.parameters.all()), &rows, &mut gradients).unwrap();
        (told, gradients)
    }

    fn loss(&self, at: &Point) -> f64 {
        self.told(at).0.loss / self.edges.len() as f64
    }

    /// Whether the derivative along most of some directions is the difference of the loss along each: partly the derivative's
    /// own, so that the difference is not lost in rounding, partly a random one.
    fn agrees(&self, random: &mut SplitMix, by: &[f32], moved: impl Fn(&[f32]) -> Point) -> bool {
        const STEP: f32 = 1e-4;
        let unit = |x: Vec<f32>| -> Vec<f32> {
            let length = x.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            x.into_iter().map(|x| x / length).collect()
        };
        let own = unit(by.to_vec());
        let mut compared = || {
            let other = unit(by.iter().map(|_| random.truncated_normal()).collect());
            let along = |step: f32| -> Vec<f32> { own.iter().zip(&other).map(|(a, b)| step * (a + b)).collect() };
            let right = (self.loss(&moved(&along(STEP))) - self.loss(&moved(&along(-STEP)))) / f64::from(2.0 * STEP);
            let found: f64 = along(1.0).iter().zip(by).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (found, right)
        };
        let all: Vec<(f64, f64)> = (0..7).map(|_| compared()).collect();
        let agree = all.iter().filter(|(found, right)| (found - right).abs() < 0.04 * right.abs() + 1e-3).count();
        agree >= 4
    }

    /// What the derivatives do not agree by.
    fn wrong(&self, random: &mut SplitMix) -> BTreeSet<String> {
        let (at, mut wrong) = (&self.at, BTreeSet::new());
        let (told, mut gradients) = self.told(at);
        let sizes = [at.own.len(), self.queries(at).len(), at.bias.len()];
        let whole = gradient(&self.graph, &[told], sizes, DIM, &Control::default()).unwrap();
        let mut note = |what: &str, agrees: bool| _ = (!agrees).then(|| wrong.insert(what.to_owned()));
        note("items", self.agrees(random, &whole.own, |by| Point { own: moved(&at.own, by), ..at.clone() }));
        note("words", self.agrees(random, &whole.words, |by| Point { words: moved(&at.words, by), ..at.clone() }));
        note("biases", self.agrees(random, &whole.bias, |by| Point { bias: moved(&at.bias, by), ..at.clone() }));
        for (name, _) in at.parameters.iter() {
            let parameter = at.parameters.find(name).unwrap();
            let by = gradients.whole(parameter).as_slice().to_vec();
            let there = |by: &[f32]| {
                let mut point = at.clone();
                let tensor = point.parameters.tensor_mut(parameter);
                let values = moved(tensor.as_slice(), by);
                tensor.to_mut().copy_from_slice(&values);
                point
            };
            note(name, self.agrees(random, &by, there));
        }
        wrong
    }
}

fn moved(at: &[f32], by: &[f32]) -> Vec<f32> {
    at.iter().zip(by).map(|(x, by)| x + by).collect()
}

/// At a point where a number is near a bend of LeakyReLU the difference is another than the derivative: what is wrong is so
/// at every point.
#[test]
fn derivatives_are_those_of_the_loss() {
    let seed = testing::fresh_seed();
    for scorer in [Scoring::Mlp, Scoring::Product, Scoring::Translation] {
        let at_points = (0..3).map(|point| {
            let seed = seed.wrapping_add(point);
            let params = Params { dim: DIM, negatives: 3, scorer, item_queries: 2, ..Params::default() };
            let case = Case::new(&shop(seed, 12, 0.7), params, seed);
            assert!(case.graph.edges.iter().any(|edge| edge.queries.is_empty()));
            case.wrong(&mut SplitMix::new(!seed))
        });
        let wrong = at_points.reduce(|a, b| &a & &b).unwrap();
        assert!(wrong.is_empty(), "{scorer:?}: {wrong:?}");
    }
}

#[test]
fn layers_are_the_means_over_edges_that_the_paper_has() {
    let seed = testing::fresh_seed();
    let corpus = shop(seed, 15, 1.0);
    let mut case = Case::new(&corpus, Params { dim: DIM, ..Params::default() }, seed);
    case.generated.fill(0.0);
    let (own, queries) = (wide(&case.at.own), wide(&case.queries(&case.at)));
    let (items, users) = (corpus.items().len(), corpus.users());
    // The mean intent of an item's edges, each the mean of its queries.
    let of_edges = |item: usize| case.graph.edges.iter().filter(move |edge| edge.item as usize == item);
    let mean = |rows: Vec<Vec<f64>>| -> Vec<f64> {
        (0..DIM).map(|n| rows.iter().map(|row| row[n]).sum::<f64>() / rows.len().max(1) as f64).collect()
    };
    let plus = |a: &[f64], by: f64, b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + by * b).collect() };
    let intent: Vec<Vec<f64>> = (0..items)
        .map(|item| {
            let of =
                |edge: &super::graph::Edge| mean(edge.queries.iter().map(|&q| queries[q as usize].clone()).collect());
            mean(of_edges(item).map(of).collect())
        })
        .collect();
    let users_of = |item: usize| of_edges(item).filter(|edge| edge.user != NOBODY).map(|edge| edge.user as usize);
    let user_layer = |of: &dyn Fn(usize) -> Vec<f64>| -> Vec<Vec<f64>> {
        (0..users).map(|user| mean(case.graph.items_of[user].iter().map(|&item| of(item as usize)).collect())).collect()
    };
    let item_layer = |users: &[Vec<f64>]| -> Vec<Vec<f64>> {
        (0..items)
            .map(|item| plus(&mean(users_of(item).map(|user| users[user].clone()).collect()), 1.0, &intent[item]))
            .collect()
    };
    let users_0 = user_layer(&|item| own[item].clone());
    let items_1 = item_layer(&users_0);
    let users_1 = user_layer(&|item| plus(&own[item], -1.0, &intent[item]));
    let items_2 = item_layer(&users_1);
    let users_2 = user_layer(&|item| plus(&items_1[item], -1.0, &intent[item]));
    let star = |zero: &[f64], one: &[f64], two: &[f64]| plus(&plus(zero, 0.5, one), 1.0 / 3.0, two);
    let layers = case.layers(&case.at);
    let (found, passed) = (wide(&layers.star), wide(&layers.passed));
    let close = |found: &[f64], right: &[f64], what: &str| {
        found.iter().zip(right).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{what}: {found:?}, not {right:?}"));
    };
    for item in 0..items {
        close(&found[item], &star(&own[item], &items_1[item], &items_2[item]), &format!("item {item}"));
    }
    for user in 0..users {
        let mine = mean(case.graph.items_of[user].iter().map(|&item| passed[item as usize].clone()).collect());
        close(&mine, &star(&users_0[user], &users_1[user], &users_2[user]), &format!("user {user}"));
    }
}

fn wide(rows: &[f32]) -> Vec<Vec<f64>> {
    rows.chunks_exact(DIM).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}
