//! Layers and derivatives against their definition in double precision, by a matrix of all users and items.
#![allow(clippy::unwrap_used)]

use pgrec_kernels::cpu::Cpu;

use super::contrast::{Comparison, Others, Pair};
use super::graph::{Graph, Sides};
use super::placing::Upstream;
use crate::content::{Content, Form, Network, Use};
use crate::random::SplitMix;
use crate::train::{Gradients, Parameters, Slice, Tape};
use crate::{Control, Corpus, testing};

/// Rows.
pub(super) type Rows = Vec<Vec<f64>>;

/// Users, then items, and which have touched which.
pub(super) struct Dense {
    users: usize,
    touched: Vec<Vec<bool>>,
}

impl Dense {
    pub(super) fn new(corpus: &Corpus, window: usize) -> Self {
        let (users, items) = (corpus.users(), corpus.items().len());
        let mut touched = vec![vec![false; users + items]; users + items];
        for (user, history) in corpus.histories().enumerate() {
            for &item in history.iter().rev().take(window) {
                touched[user][users + item as usize] = true;
                touched[users + item as usize][user] = true;
            }
        }
        Self { users, touched }
    }

    fn degree(&self, one: usize) -> f64 {
        self.touched[one].iter().filter(|&&touched| touched).count() as f64
    }

    /// How many have touched an item.
    pub(super) fn degree_of(&self, item: u32) -> f64 {
        self.degree(self.users + item as usize)
    }

    /// Every layer, of users and items, from where content places the items.
    pub(super) fn layers(&self, own: &Rows, layers: usize) -> Vec<Rows> {
        let (count, dim) = (self.touched.len(), own[0].len());
        let degrees: Vec<f64> = (0..count).map(|one| self.degree(one)).collect();
        let sum = |one: usize, of: &dyn Fn(usize) -> Vec<f64>| {
            let mut sum = vec![0.0; dim];
            for other in (0..count).filter(|&other| self.touched[one][other]) {
                sum.iter_mut().zip(of(other)).for_each(|(sum, x)| *sum += x);
            }
            sum
        };
        let begin = |one: usize| match one.checked_sub(self.users) {
            Some(item) => own[item].clone(),
            None => {
                let mean = |item: usize| own[item - self.users].iter().map(|x| x / degrees[one]).collect();
                sum(one, &mean)
            }
        };
        let mut all = vec![(0..count).map(begin).collect::<Rows>()];
        for layer in 0..layers {
            let next = |one: usize| {
                let part = |other: usize| {
                    all[layer][other].iter().map(|x| x / (degrees[one] * degrees[other]).sqrt()).collect()
                };
                sum(one, &part)
            };
            let next = (0..count).map(next).collect();
            all.push(next);
        }
        all
    }

    /// A user with this history who is attached to the graph, by the layers of all: the mean of their own.
    pub(super) fn attached(&self, all: &[Rows], history: &[u32]) -> Vec<f64> {
        let mut items = history.to_vec();
        items.sort_unstable();
        items.dedup();
        let (last, count) = (all.len() - 1, items.len() as f64);
        let mut sum = vec![0.0; all[0][0].len()];
        for &item in &items {
            let mut add = |row: &[f64], by: f64| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += by * x);
            let place = self.users + item as usize;
            add(&all[0][place], 1.0 / count);
            for rows in &all[..last] {
                add(&rows[place], 1.0 / (count * self.degree_of(item).max(1.0)).sqrt());
            }
        }
        sum.iter().map(|x| x / all.len() as f64).collect()
    }

    /// The items of a user.
    fn items_of(&self, user: usize) -> Vec<u32> {
        let items = 0..self.touched.len() - self.users;
        items.filter(|item| self.touched[user][self.users + item]).map(|item| item as u32).collect()
    }

    /// Where users and items are: the mean of their layers.
    pub(super) fn places(&self, own: &Rows, layers: usize) -> (Rows, Rows) {
        let all = self.layers(own, layers);
        let mean = |one: usize| {
            let columns = 0..own[0].len();
            columns.map(|column| all.iter().map(|rows| rows[one][column]).sum::<f64>() / all.len() as f64).collect()
        };
        let mut users: Rows = (0..self.touched.len()).map(mean).collect();
        let items = users.split_off(self.users);
        (users, items)
    }
}

pub(super) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

pub(super) fn wide(numbers: &[f32], dim: usize) -> Rows {
    numbers.chunks_exact(dim).map(|row| row.iter().copied().map(f64::from).collect()).collect()
}

/// The weights by name, in double precision.
type Weights = Vec<(String, Vec<f64>)>;

/// Where content places some items, and zeros for all others.
fn own(weights: &Weights, form: Form, corpus: &Corpus, content: &Content, placed: &[u32]) -> Rows {
    let of = |name: &str| weights.iter().find(|(own, _)| own == &format!("content.{name}")).map(|(_, all)| all);
    let first = if form.hidden > 0 { form.hidden } else { form.dim };
    let mut rows = vec![vec![0.0; form.dim]; corpus.items().len()];
    for &item in placed {
        let mut hidden = vec![0.0; first];
        let mut add = |table: &[f64], row: usize, by: f64| {
            hidden.iter_mut().zip(&table[row * first..][..first]).for_each(|(sum, x)| *sum += by * x);
        };
        if let (Some(weight), Some(bias)) = (of("vectors.weight"), of("vectors.bias")) {
            let vector = &corpus.vectors()[item as usize * corpus.vector_dim()..][..corpus.vector_dim()];
            let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-30);
            vector.iter().enumerate().for_each(|(row, &x)| add(weight, row, f64::from(x) / length));
            add(bias, 0, 1.0);
        }
        if let Some(words) = of("words") {
            let (tokens, by) = content.words_of(item as usize);
            tokens.iter().zip(by).for_each(|(&token, &by)| add(words, token as usize, f64::from(by)));
        }
        rows[item as usize] = match (of("out.weight"), of("out.bias")) {
            (Some(weight), Some(bias)) => {
                let active: Vec<f64> = hidden.iter().map(|&x| x.max(f64::from(form.slope) * x)).collect();
                let sum = |column: usize| {
                    active.iter().enumerate().map(|(row, x)| x * weight[row * form.dim + column]).sum::<f64>()
                };
                (0..form.dim).map(|column| sum(column) + bias[column]).collect()
            }
            _ => hidden,
        };
    }
    rows
}

/// The mean loss of pairs, by the others that the training draws for each of its tasks.
fn loss(dense: &Dense, own: &Rows, layers: usize, pairs: &[Pair], asked: &Comparison<'_>) -> f64 {
    let (all, (users, items)) = (dense.layers(own, layers), dense.places(own, layers));
    let Comparison { others, leave_out, temperature, .. } = *asked;
    let mut sum = 0.0;
    for (place, &(user, item)) in pairs.iter().enumerate() {
        let mut history = dense.items_of(user as usize);
        history.retain(|&other| other != item);
        let user = if leave_out { dense.attached(&all, &history) } else { users[user as usize].clone() };
        let score = |item: u32| cosine(&user, &items[item as usize]) / f64::from(temperature);
        let drawn = others.of(place / 256).into_iter().filter(|&other| other != item);
        sum += (score(item).exp() + drawn.map(|other| score(other).exp()).sum::<f64>()).ln() - score(item);
    }
    sum / pairs.len() as f64
}

#[test]
fn layers_are_those_of_the_whole_matrix() {
    let mut random = SplitMix::new(testing::fresh_seed());
    let (control, dim) = (Control::default(), 5);
    for (users, items, window, layers) in [(1, 3, 9, 1), (30, 40, 100, 2), (30, 40, 6, 3), (400, 300, 100, 0)] {
        let corpus = testing::random_corpus(random.next(), users, items);
        let items = corpus.items().len();
        let numbers: Vec<f32> = (0..items * dim).map(|_| random.truncated_normal()).collect();
        let dense = Dense::new(&corpus, window);
        let graph = Graph::new(corpus.histories(), window, items);
        let spread = graph.forward(numbers.clone(), layers, dim, &control).unwrap();
        let sum = |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
        let found_users = sum(&spread.begun.users, &spread.passed.users);
        let found_items = sum(&spread.begun.items, &spread.passed.items);
        let (of_users, of_items) = dense.places(&wide(&numbers, dim), layers);
        for (found, right) in [(&found_users, &of_users), (&found_items, &of_items)] {
            for (found, right) in found.iter().zip(right.iter().flatten()) {
                let found = f64::from(*found) / (layers + 1) as f64;
                assert!((found - right).abs() < 1e-5 * (1.0 + right.abs()), "{found}, not {right}");
            }
        }
        // ⟨Px, y⟩ = ⟨x, Pᵀy⟩, whatever y is.
        let mut at_random = spread.clone();
        for sides in [&mut at_random.begun, &mut at_random.before, &mut at_random.passed] {
            sides.users.iter_mut().chain(&mut sides.items).for_each(|x| *x = random.truncated_normal());
        }
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let both = |a: &Sides, b: &Sides| product(&a.users, &b.users) + product(&a.items, &b.items);
        let there = both(&spread.begun, &at_random.begun)
            + both(&spread.before, &at_random.before)
            + both(&spread.passed, &at_random.passed);
        let back = product(&numbers, &graph.backward(at_random, layers, dim, &control).unwrap());
        assert!((there - back).abs() < 1e-3 * (1.0 + there.abs()), "{there}, {back}");
    }
}

#[test]
fn derivatives_are_those_of_finite_differences() {
    let mut random = SplitMix::new(testing::fresh_seed());
    let (control, temperature, dim) = (Control::default(), 0.3, 3);
    for (wanted, hidden, layers, leave_out) in [
        (Use::Embedding, 6, 2, true),
        (Use::Embedding, 6, 2, false),
        (Use::Both, 5, 1, true),
        (Use::Attributes, 0, 3, true),
        (Use::Embedding, 4, 0, true),
    ] {
        let seed = random.next();
        let corpus = testing::random_corpus(seed, 14, 30);
        let content = Content::of(&corpus, wanted).unwrap().unwrap();
        let form = Form { hidden, dim, slope: 0.1 };
        let mut parameters = Parameters::default();
        let network = Network::new(&mut parameters, &content, form, seed).unwrap();
        let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
        for name in &names {
            let numbers = parameters.tensor_mut(parameters.find(name).unwrap()).to_mut();
            numbers.fill_with(|| 0.5 * random.truncated_normal());
        }
        let items = corpus.items().len();
        let graph = Graph::new(corpus.histories(), 100, items);
        let touched = graph.touched();
        let placed: Vec<u32> = touched.iter().copied().filter(|&item| content.knows(item as usize)).collect();
        let all: Vec<Pair> = graph.pairs().filter(|&(user, _)| graph.touched_by(user) > 1).collect();
        // Enough for two tasks.
        let pairs: Vec<Pair> = (0..300).map(|_| all[random.below(all.len())]).collect();
        let others = Others { pool: &touched, count: 7, key: random.next() };

        let mut begin = vec![0.0; items * dim];
        for (&item, place) in placed.iter().zip(network.places(parameters.all(), &content, &placed).chunks(dim)) {
            begin[item as usize * dim..][..dim].copy_from_slice(place);
        }
        let spread = graph.forward(begin, layers, dim, &control).unwrap();
        let asked = Comparison { graph: &graph, layers: &spread, dim, others, temperature, leave_out };
        let told = asked.tell(&pairs, &control).unwrap();
        let derivative = graph.backward(told.gradient, layers, dim, &control).unwrap();
        let cpu = Cpu::new();
        let upstream =
            Upstream { network: &network, content: &content, of: &placed, derivative: &derivative, control: &control };
        let mut gradients = Gradients::new(&cpu, &parameters, true);
        for rows in (0..placed.len()).collect::<Vec<_>>().chunks(5) {
            upstream.compute(Tape::of_rows(&cpu, parameters.all()), rows, &mut gradients).unwrap();
        }

        let dense = Dense::new(&corpus, 100);
        let at = |weights: &Weights| {
            let begun = own(weights, form, &corpus, &content, &placed);
            loss(&dense, &begun, layers, &pairs, &asked)
        };
        let mut weights: Weights = parameters
            .iter()
            .map(|(name, tensor)| (name.to_owned(), tensor.as_slice().iter().copied().map(f64::from).collect()))
            .collect();
        let value = at(&weights);
        assert!((told.loss / 300.0 - value).abs() < 1e-4 * (1.0 + value), "{}, not {value}", told.loss / 300.0);
        let mut largest = 0.0f64;
        for (which, name) in names.iter().enumerate() {
            let parameter = parameters.find(name).unwrap();
            let found = match name.as_str() {
                "content.words" => gradients.table(parameter).values().to_vec(),
                _ => gradients.whole(parameter).as_slice().to_vec(),
            };
            for (place, found) in found.into_iter().enumerate() {
                let weight = weights[which].1[place];
                let mut moved = |by: f64| {
                    weights[which].1[place] = weight + by;
                    let value = at(&weights);
                    weights[which].1[place] = weight;
                    value
                };
                let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                largest = largest.max(expected.abs());
                assert!(
                    (f64::from(found) - expected).abs() < 1e-3 * (0.1 + expected.abs()),
                    "{wanted:?} {hidden} {layers} {leave_out} {name}[{place}]: {found}, not {expected}"
                );
            }
        }
        assert!(largest > 1e-3, "derivatives up to {largest} say nothing");
    }
}
