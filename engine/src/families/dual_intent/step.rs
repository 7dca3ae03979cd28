//! The loss of some edges and its derivatives (UDITSR): each item against others, in search and in
//! recommendation, what is generated against what was looked for, and a user with what they want near what they found.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Operators, TableGradient, Tensor};

use super::distances::Distances;
use super::graph::{Edge, Graph, NOBODY};
use super::layers::Layers;
use super::network::Network;
use super::ops::{Rows, beside, products, repeated, sum};
use super::{Params, Shape};
use crate::random::SplitMix;
use crate::train::{Gradients, Parameter, Slice, Tape, Var};
use crate::{Control, Result};

/// Edges that go through the network at a time.
const EDGES: usize = 64;

/// Everything that a step learns from.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) graph: &'a Graph,
    pub(super) params: &'a Params,
    pub(super) network: &'a Network<Parameter>,
    pub(super) layers: &'a Layers,
    /// `[items, dim]`
    pub(super) own: &'a [f32],
    /// `[queries, dim]`
    pub(super) queries: &'a [f32],
    /// `[items]`
    pub(super) bias: &'a [f32],
    /// Items that others are drawn among.
    pub(super) pool: &'a [u32],
    /// The edges of the step, by their numbers.
    pub(super) edges: &'a [u32],
    /// What draws depend on.
    pub(super) key: u64,
    pub(super) control: &'a Control,
}

/// What a slice of the edges says.
pub(super) struct Told {
    /// The sum of their losses.
    pub(super) loss: f64,
    /// Derivatives of the mean loss of the step by everything that is no weight of the network.
    pub(super) own: TableGradient,
    pub(super) star: TableGradient,
    pub(super) passed: TableGradient,
    pub(super) taken: TableGradient,
    pub(super) given: TableGradient,
    pub(super) queries: TableGradient,
    pub(super) bias: TableGradient,
}

/// Rows that a slice looks up.
struct Tables<'a> {
    own: Rows<'a>,
    star: Rows<'a>,
    passed: Rows<'a>,
    taken: Rows<'a>,
    given: Rows<'a>,
    queries: Rows<'a>,
    bias: Rows<'a>,
}

impl<'a> Tables<'a> {
    fn of(batch: &Batch<'a>) -> Self {
        let dim = batch.params.dim;
        Self {
            own: Rows::new(batch.own, dim),
            star: Rows::new(&batch.layers.star, dim),
            passed: Rows::new(&batch.layers.passed, dim),
            taken: Rows::new(&batch.layers.taken, dim),
            given: Rows::new(&batch.layers.given, dim),
            queries: Rows::new(batch.queries, dim),
            bias: Rows::new(batch.bias, 1),
        }
    }
}

impl Batch<'_> {
    /// What is generated for some edges, `[edges, dim]`.
    pub(super) fn generated(&self, weights: &[Tensor], edges: &[u32]) -> Matrix {
        let (cpu, edges): (Cpu, Vec<(usize, u32)>) = (Cpu::new(), edges.iter().copied().enumerate().collect());
        let intents = Edges::new(self, &edges, 0).intents(&Tape::of_rows(&cpu, weights), &Tables::of(self));
        Matrix::from_slice(intents.value().as_slice(), self.params.dim)
    }
}

impl Slice for Batch<'_> {
    type Told = Result<Told>;

    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> Result<Told> {
        let (tables, mut loss) = (Tables::of(self), 0.0);
        for rows in rows.chunks(EDGES) {
            self.control.check()?;
            let edges: Vec<(usize, u32)> = rows.iter().map(|&row| (row, self.edges[row])).collect();
            loss += Edges::new(self, &edges, self.params.negatives).learn(tape.another(), &tables, gradients);
        }
        let Tables { own, star, passed, taken, given, queries, bias } = tables;
        Ok(Told {
            loss,
            own: own.into_gradient(),
            star: star.into_gradient(),
            passed: passed.into_gradient(),
            taken: taken.into_gradient(),
            given: given.into_gradient(),
            queries: queries.into_gradient(),
            bias: bias.into_gradient(),
        })
    }
}

/// Some edges, and what was drawn for them.
struct Edges<'a> {
    batch: &'a Batch<'a>,
    /// How many items stand beside each other: one that was found, and others.
    each: usize,
    /// `[edges, each]`, the one that was found first.
    items: Vec<u32>,
    /// What is added to the row of each item, so that the one that was found is where it would be without its user: of what
    /// its users give it, and of what their items give.
    without: [Vec<Vec<(u32, f32)>>; 2],
    /// The items that make the user, and their shares: nothing where nothing is left of them.
    users: Vec<Vec<(u32, f32)>>,
    /// The latest queries, and their weights.
    wanted: Vec<Vec<(u32, f32)>>,
    /// The mean of the queries that led to the item.
    asked: Vec<Vec<(u32, f32)>>,
    /// One of these.
    query: Vec<Vec<(u32, f32)>>,
    /// Whether there is something to recommend by.
    told: Vec<bool>,
}

impl<'a> Edges<'a> {
    /// Edges by their place in the step and their number, each with so many others.
    fn new(batch: &'a Batch<'a>, edges: &[(usize, u32)], others: usize) -> Self {
        let Batch { graph, params, .. } = *batch;
        let mut all = Self {
            batch,
            each: 1 + others,
            items: Vec::new(),
            without: [Vec::new(), Vec::new()],
            users: Vec::new(),
            wanted: Vec::new(),
            asked: Vec::new(),
            query: Vec::new(),
            told: Vec::new(),
        };
        for &(row, edge) in edges {
            let edge = &graph.edges[edge as usize];
            let mut random = SplitMix::new(SplitMix::new(batch.key ^ row as u64).next());
            all.items.push(edge.item);
            all.items.extend((0..others).map(|_| batch.pool[random.below(batch.pool.len())]));
            let [taken, given] = if params.leave_out { item_without(graph, edge) } else { [Vec::new(), Vec::new()] };
            for (lists, own) in all.without.iter_mut().zip([taken, given]) {
                lists.push(own);
                lists.extend((0..others).map(|_| Vec::new()));
            }
            let unknown = (random.uniform() as f64) < params.user_dropout;
            let user = if unknown { Vec::new() } else { user_without(graph, edge) };
            let wanted = graph.wanted(edge, params, &mut random);
            all.told.push(edge.touched && !(user.is_empty() && wanted.is_empty()));
            all.users.push(user);
            all.wanted.push(wanted);
            let share = 1.0 / edge.queries.len() as f32;
            all.asked.push(edge.queries.iter().map(|&query| (query, share)).collect());
            let one = (!edge.queries.is_empty()).then(|| edge.queries[random.below(edge.queries.len())]);
            all.query.push(one.into_iter().map(|query| (query, 1.0)).collect());
        }
        all
    }

    /// Adds the derivatives, and gives the sum of the losses.
    fn learn(&self, tape: Tape<'_, Cpu>, tables: &Tables<'a>, gradients: &mut Gradients<Matrix>) -> f64 {
        let Batch { params, network, .. } = *self.batch;
        let (each, on) = (self.each, &tape);
        let user = tables.passed.sums(on, &self.users);
        let mut items = tables.star.some(on, &self.items);
        if params.leave_out {
            on.add(&mut items, &tables.taken.sums(on, &self.without[0]));
            on.add(&mut items, &tables.given.sums(on, &self.without[1]));
        }
        let asked = tables.queries.sums(on, &self.asked);

        let searched = self.asked.iter().any(|asked| !asked.is_empty()).then(|| {
            let query = tables.queries.sums(on, &self.query);
            let both = beside(on, &user, &query);
            let mut scores = network.search.score(on, &both, &items, None, each);
            let wanted = repeated(on, &sum(on, &user, &query), each);
            self.add_shape(on, tables, &mut scores, &wanted, &items);
            scores
        });
        let intents = self.intents(on, tables);
        let mut recommended = network.recommend.score(on, &user, &items, Some(&intents), each);
        let meant = sum(on, &repeated(on, &user, each), &intents);
        self.add_shape(on, tables, &mut recommended, &meant, &items);

        let weight = 1.0 / self.batch.edges.len() as f32;
        let searches = self.asked.iter().map(|asked| !asked.is_empty()).collect();
        let mut by = Distances::new(each, searches, &self.told, [&user, &items, &asked, &intents]);
        let mut loss = by.supervise(params.intent_weight as f32) + by.translate(params.translation_weight as f32);
        let mut outputs = Vec::new();
        if let Some(scores) = &searched {
            let (own, by_scores) = self.contrast(scores.value(), |edge| !self.asked[edge].is_empty(), weight);
            loss += own;
            outputs.push((scores, by_scores));
        }
        let (own_loss, by_scores) = self.contrast(recommended.value(), |edge| self.told[edge], weight);
        loss += own_loss;
        outputs.push((&recommended, by_scores));
        let [by_user, by_items, by_asked, by_intents] = by.scaled(weight);
        outputs.extend([(&user, by_user), (&items, by_items), (&asked, by_asked), (&intents, by_intents)]);
        tape.backward_of(outputs, gradients);
        loss
    }

    /// What is generated for every item.
    fn intents(&self, on: &Tape<'_, Cpu>, tables: &Tables<'a>) -> Var<Matrix> {
        let Batch { network, graph, .. } = *self.batch;
        let user = tables.own.sums(on, &self.users);
        let wanted = tables.queries.sums(on, &self.wanted);
        let items = tables.own.some(on, &self.items);
        let of_items = |asking: &Var<Matrix>| {
            let top: Vec<&[u32]> = self.items.iter().map(|&item| graph.top[item as usize].as_slice()).collect();
            tables.queries.attended(on, asking, self.each, &top)
        };
        network.generator.intents(on, (&user, &wanted), &items, of_items, self.each)
    }

    /// Adds what is scored beside the network.
    fn add_shape(
        &self,
        tape: &Tape<'_, Cpu>,
        tables: &Tables<'_>,
        scores: &mut Var<Matrix>,
        meant: &Var<Matrix>,
        items: &Var<Matrix>,
    ) {
        let shape: Shape = self.batch.params.scorer.shape();
        if shape.product == 0.0 {
            return;
        }
        tape.add(scores, &products(tape, meant, items, shape.product));
        if shape.square > 0.0 {
            tape.add(scores, &products(tape, items, items, -shape.square));
        }
        tape.add(scores, &tables.bias.some(tape, &self.items));
    }

    /// −log softmax of the first of every `each` scores among them, of edges that are asked, and its derivatives times
    /// `weight`: with one other item that is −log σ of the difference (BPR, Rendle et al. 2009). The item itself among the
    /// others counts nothing.
    fn contrast(&self, scores: &Matrix, asked: impl Fn(usize) -> bool, weight: f32) -> (f64, Matrix) {
        let mut by = Matrix::zeros(scores.rows(), 1);
        let mut loss = 0.0;
        let rows = scores.as_slice().chunks_exact(self.each).zip(by.as_mut_slice().chunks_exact_mut(self.each));
        for (edge, ((scores, by), items)) in rows.zip(self.items.chunks_exact(self.each)).enumerate() {
            if !asked(edge) {
                continue;
            }
            let counts = |place: usize| place == 0 || items[place] != items[0];
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (place, (by, score)) in by.iter_mut().zip(scores).enumerate() {
                *by = if counts(place) { (score - most).exp() } else { 0.0 };
            }
            let sum: f32 = by.iter().sum();
            loss += f64::from(sum.ln() + most - scores[0]);
            by.iter_mut().for_each(|by| *by *= weight / sum);
            by[0] -= weight;
        }
        (loss, by)
    }
}

/// The items that make an edge's user where its own item is not known, and their shares.
pub(super) fn user_without(graph: &Graph, edge: &Edge) -> Vec<(u32, f32)> {
    if edge.user == NOBODY {
        return Vec::new();
    }
    let others = graph.items_of[edge.user as usize].iter().filter(|&&item| item != edge.item);
    let share = 1.0 / others.clone().count() as f32;
    others.map(|&item| (item, share)).collect()
}

/// What is added to an edge's item, so that it is where it would be if its user had not found it: of the mean over its users
/// of what each gives, that over the others is left.
fn item_without(graph: &Graph, edge: &Edge) -> [Vec<(u32, f32)>; 2] {
    let users = graph.items[0].row(edge.item as usize).0.len();
    if edge.user == NOBODY || users == 0 {
        return [Vec::new(), Vec::new()];
    }
    if users == 1 {
        return [vec![(edge.item, -1.0)], Vec::new()];
    }
    let share = 1.0 / (users - 1) as f32;
    let (items, shares) = graph.users[0].row(edge.user as usize);
    [vec![(edge.item, share)], items.iter().zip(shares).map(|(&item, own)| (item, -share * own)).collect()]
}
