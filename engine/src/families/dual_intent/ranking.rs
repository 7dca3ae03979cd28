//! Scoring items for one user, block by block, from the parts of the first layers that are stored for every item.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Device, Filter, Linear, Operators, Scored, Tensor};

use super::network::{Network, Scorer};
use super::ops::{attention, bend, dot, squash};
use super::{NAME, Shape};
use crate::artifact::Shared;
use crate::families::neighbours::Neighbours;
use crate::families::sequential::check_known;
use crate::{Artifact, Control, Error, Query, Result};

/// Items that are scored at a time: their rows stay in the second-level cache.
const BLOCK: usize = 256;

/// Items' own vectors, e⁰.
pub(super) const OWN: &str = "own";
/// What items say of those who have touched them.
pub(super) const PASSED: &str = "passed";
/// e*, what each item counts for by itself beside the network, and the same with the product with its mean intent: what
/// ranks candidates, for an intent and for none.
pub(super) const STAR: &str = "star";
/// Parts of first layers.
pub(super) const SEARCH: &str = "search.items";
pub(super) const RECOMMEND: &str = "recommend.items";
pub(super) const GENERATOR: &str = "generator.items";
/// Queries that led to items, their part of the generator's first layer, and which led to each item.
pub(super) const QUERIES: &str = "queries";
pub(super) const ASKED: &str = "generator.queries";
pub(super) const TOP: &str = "queries.top";
pub(super) const TOP_OFFSETS: &str = "queries.top.offsets";

/// A user as the networks know them.
pub(super) struct User {
    /// e*
    pub(super) star: Vec<f32>,
    /// e⁰
    pub(super) own: Vec<f32>,
    /// Their latest queries.
    pub(super) wanted: Vec<f32>,
}

/// All that items are scored by.
pub(super) struct Ranking {
    dim: usize,
    shape: Shape,
    /// How many candidates are scored in large catalogues.
    candidates: usize,
    network: Network<Tensor>,
    pub(super) own: Tensor,
    pub(super) passed: Tensor,
    star: Tensor,
    search: Tensor,
    recommend: Tensor,
    generator: Tensor,
    queries: Tensor,
    asked: Tensor,
    top: Shared<u32>,
    top_offsets: Shared<u64>,
    neighbours: Neighbours,
    cpu: Cpu,
}

impl Ranking {
    pub(super) fn open(artifact: &Artifact, dim: usize, shape: Shape, candidates: usize) -> Result<Self> {
        let items = artifact.catalogue().len();
        let queries = artifact.tensor(QUERIES)?.rows();
        let (top, top_offsets) = (artifact.u32s(TOP)?, artifact.u64s(TOP_OFFSETS)?);
        let within = top_offsets.first() == Some(&0) && top_offsets.last() == Some(&(top.len() as u64));
        let told = top_offsets.len() == items + 1 && within && top_offsets.is_sorted();
        if !told || top.iter().any(|&query| query as usize >= queries) {
            return Err(Error::Malformed(format!("{NAME}: the queries of its items are not those that it has")));
        }
        Ok(Self {
            dim,
            shape,
            candidates,
            network: Network::open(artifact, dim)?,
            own: artifact.tensor_of(OWN, &[items, dim])?,
            passed: artifact.tensor_of(PASSED, &[items, dim])?,
            star: artifact.tensor_of(STAR, &[items, dim + 2])?,
            search: artifact.tensor_of(SEARCH, &[items, 3 * dim / 2])?,
            recommend: artifact.tensor_of(RECOMMEND, &[items, 3 * dim / 2])?,
            generator: artifact.tensor_of(GENERATOR, &[items, 2 * dim])?,
            queries: artifact.tensor_of(QUERIES, &[queries, dim])?,
            asked: artifact.tensor_of(ASKED, &[queries, 2 * dim])?,
            top,
            top_offsets,
            neighbours: Neighbours::of(artifact)?,
            cpu: Cpu::new(),
        })
    }

    /// e* of an item.
    pub(super) fn star(&self, item: u32) -> &[f32] {
        &self.star.row(item as usize)[..self.dim]
    }

    /// The queries that most often led to an item.
    fn top(&self, item: u32) -> &[u32] {
        &self.top[self.top_offsets[item as usize] as usize..self.top_offsets[item as usize + 1] as usize]
    }

    /// The best items of a query, for an intent where there is one, else for those that are generated.
    pub(super) fn best(
        &self,
        user: &User,
        intent: Option<&[f32]>,
        query: &Query<'_>,
        control: &Control,
    ) -> Result<Vec<Scored>> {
        let Filter { exclude, candidates } = query.filter;
        let reach = candidates.map_or(self.star.rows(), <[u32]>::len);
        let items: Vec<u32> = match candidates {
            _ if reach > query.exact_limit && reach > self.candidates => self.nearest(user, intent, query)?,
            Some(some) => some.iter().copied().filter(|item| exclude.binary_search(item).is_err()).collect(),
            None => (0..reach as u32).filter(|item| exclude.binary_search(item).is_err()).collect(),
        };
        let scores = self.scores(user, intent, &items, control)?;
        let mut scored: Vec<Scored> =
            items.into_iter().zip(scores).map(|(item, score)| Scored { item, score }).collect();
        scored.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
        scored.truncate(query.k);
        Ok(scored)
    }

    /// The items nearest to user + intent, of which as many are scored as the model says, or as are wanted.
    fn nearest(&self, user: &User, intent: Option<&[f32]>, query: &Query<'_>) -> Result<Vec<u32>> {
        let product = if self.shape.product > 0.0 { self.shape.product } else { ALONE.product };
        let mut asked: Vec<f32> = user.star.iter().map(|x| product * x).collect();
        if let Some(intent) = intent {
            self.cpu.add_scaled(&mut asked, product, intent);
        }
        let known = intent.is_some();
        asked.extend([f32::from(known), f32::from(!known)]);
        let Filter { exclude, candidates } = query.filter;
        let k = self.candidates.max(query.k).min(self.star.rows());
        if candidates.is_none() {
            let reach = k.saturating_add(exclude.len());
            if let Some(found) = self.neighbours.nearest(&asked, reach, exclude, query.k.min(self.star.rows()))? {
                check_known(self.star.rows(), &found)?;
                return Ok(found);
            }
        }
        let lists = self.cpu.top_k(&asked, &self.star, &[k], &[query.filter])?;
        Ok(lists.into_iter().flatten().map(|scored| scored.item).collect())
    }

    /// The items most like one: those whose e* is nearest.
    pub(super) fn alike(&self, item: u32, query: &Query<'_>) -> Vec<Scored> {
        let own = self.star(item);
        let Filter { exclude, candidates } = query.filter;
        let open = |&other: &u32| other != item && exclude.binary_search(&other).is_err();
        let apart = |other: u32| {
            let score = -own.iter().zip(self.star(other)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            Scored { item: other, score }
        };
        let mut scored: Vec<Scored> = match candidates {
            Some(some) => some.iter().copied().filter(open).map(apart).collect(),
            None => (0..self.star.rows() as u32).filter(open).map(apart).collect(),
        };
        scored.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
        scored.truncate(query.k);
        scored
    }

    /// Scores of items, in their order.
    pub(super) fn scores(
        &self,
        user: &User,
        intent: Option<&[f32]>,
        items: &[u32],
        control: &Control,
    ) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(items.len());
        let known = intent.map(|intent| self.known(user, intent));
        let unknown = known.is_none().then(|| self.unknown(user));
        for items in items.chunks(BLOCK) {
            control.check()?;
            let (scorer, first, meant) = match (&known, &unknown) {
                (Some((first, meant)), _) => {
                    let rows = self.rows(&self.search, first, items);
                    (&self.network.search, rows, Meant::One(meant))
                }
                (None, Some((first, asked))) => {
                    let intents = self.generated(asked, items);
                    let mut rows = self.rows(&self.recommend, first, items);
                    if let Some(layer) = &self.network.recommend.intent {
                        self.cpu.add(&mut rows, &self.cpu.linear(&intents, layer, Activation::Identity));
                    }
                    (&self.network.recommend, rows, Meant::Each(&user.star, intents))
                }
                (None, None) => continue,
            };
            let place = scores.len();
            scores.extend_from_slice(self.finish(scorer, first).as_slice());
            for (row, (score, &item)) in scores[place..].iter_mut().zip(items).enumerate() {
                *score += self.beside(&meant, row, item);
            }
        }
        Ok(scores)
    }

    /// What the intents of some items are, `[items, dim]`.
    pub(super) fn intents(&self, user: &User, items: &[u32]) -> Matrix {
        self.generated(&self.unknown(user).1, items)
    }

    /// What a known intent and the user make of the first layer, and user + intent.
    fn known(&self, user: &User, intent: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let both = [&user.star[..], intent].concat();
        let meant = user.star.iter().zip(intent).map(|(user, intent)| user + intent).collect();
        (self.row(&both, &self.network.search.user), meant)
    }

    /// What the user makes of the scorer's first layer, and of the generator's and of what asks.
    fn unknown(&self, user: &User) -> (Vec<f32>, [Vec<f32>; 2]) {
        let both = [&user.own[..], &user.wanted].concat();
        let generator = &self.network.generator;
        let asked = [self.row(&both, &generator.user), self.row(&both, &generator.attention)];
        (self.row(&user.star, &self.network.recommend.user), asked)
    }

    fn row(&self, x: &[f32], layer: &Linear) -> Vec<f32> {
        self.cpu.linear(&Matrix::from_slice(x, x.len()), layer, Activation::Identity).as_slice().to_vec()
    }

    /// The same row for every item, and the part of a first layer that is the item's.
    fn rows(&self, parts: &Tensor, of_user: &[f32], items: &[u32]) -> Matrix {
        let mut rows = Matrix::zeros(items.len(), of_user.len());
        for (&item, row) in items.iter().zip(rows.as_mut_slice().chunks_exact_mut(of_user.len())) {
            let numbers = row.iter_mut().zip(of_user).zip(parts.row(item as usize));
            numbers.for_each(|((to, user), item)| *to = user + item);
        }
        rows
    }

    fn generated(&self, [of_user, asking]: &[Vec<f32>; 2], items: &[u32]) -> Matrix {
        let mut first = self.rows(&self.generator, of_user, items);
        for (&item, row) in items.iter().zip(first.as_mut_slice().chunks_exact_mut(2 * self.dim)) {
            let top = self.top(item);
            let shares = attention(asking, top.iter().map(|&query| self.queries.row(query as usize)));
            self.cpu.add_weighted(
                row,
                top.iter().zip(&shares).map(|(&query, &share)| (share, self.asked.row(query as usize))),
            );
        }
        squash(first.as_mut_slice());
        let mut second = self.cpu.linear(&first, &self.network.generator.hidden, Activation::Identity);
        squash(second.as_mut_slice());
        self.cpu.linear(&second, &self.network.generator.out, Activation::Identity)
    }

    fn finish(&self, scorer: &Scorer<Tensor>, mut first: Matrix) -> Matrix {
        bend(first.as_mut_slice());
        let mut second = self.cpu.linear(&first, &scorer.hidden, Activation::Identity);
        bend(second.as_mut_slice());
        self.cpu.linear(&second, &scorer.out, Activation::Identity)
    }

    /// What an item counts for beside the network.
    fn beside(&self, meant: &Meant<'_>, row: usize, item: u32) -> f32 {
        if self.shape.product == 0.0 {
            return 0.0;
        }
        let product = match meant {
            Meant::One(meant) => dot(meant, self.star(item)),
            Meant::Each(user, intents) => {
                let star = self.star(item);
                dot(user, star) + dot(intents.row(row), star)
            }
        };
        self.shape.product * product + self.star.row(item as usize)[self.dim]
    }
}

/// How candidates are found where the networks alone score: by distance.
pub(super) const ALONE: Shape = Shape { product: 2.0, square: 1.0 };

/// User + intent: one for all items, or the user and an intent for each.
enum Meant<'a> {
    One(&'a [f32]),
    Each(&'a [f32], Matrix),
}
