//! The loss of some events, and what it makes of every point (Hsieh et al. 2017, section 3).

use std::borrow::Cow;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Device, Optimizers};
use rayon::prelude::*;

use super::Params;
use super::shares::{EVENTS, Part, Share, Shares, VECTORS};
use super::space::Space;
use crate::families::moments::{product, weighted_columns};
use crate::families::seen::Own;
use crate::random::SplitMix;
use crate::{Control, Result};

/// How often another item is drawn where it is one of the user's own.
const DRAWS: usize = 10;

/// An event that is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) user: u32,
    /// Its place in the user's history.
    pub(super) place: u32,
}

/// A user's events: in their order, and as the distinct items.
#[derive(Clone, Copy)]
pub(super) struct History<'a> {
    pub(super) events: &'a [u32],
    pub(super) seen: Own<'a>,
}

/// The items among which others are drawn.
#[derive(Clone, Copy)]
pub(super) enum Pool<'a> {
    /// So many: all.
    All(usize),
    /// These.
    Some(&'a [u32]),
}

impl Pool<'_> {
    fn draw(self, random: &mut SplitMix) -> u32 {
        match self {
            Self::All(items) => random.below(items) as u32,
            Self::Some(items) => items[random.below(items.len())],
        }
    }
}

/// What some events make of the points.
pub(super) struct Gradient {
    /// The sum of the events' losses.
    pub(super) loss: f64,
    pub(super) shares: Shares,
    pub(super) recency: Vec<f32>,
}

/// The gradient of the loss of a batch, in which `key` draws the other items from a pool.
pub(super) fn gradient<'h>(
    space: &Space,
    params: &Params,
    pool: Pool<'_>,
    history: impl Fn(u32) -> History<'h> + Sync,
    events: &[Event],
    key: u64,
    control: &Control,
) -> Result<Gradient> {
    let stretches = space.stretches();
    let task = |(place, events): (usize, &[Event])| {
        control.check()?;
        let mut task = Task::new(space, params, pool, events.len());
        for (at, event) in events.iter().enumerate() {
            let number = place * EVENTS + at;
            task.add(number as u32, *event, history(event.user), random(key, number))?;
        }
        Ok((Part::new(&task.shares, task.vectors, stretches), task.loss, task.recency))
    };
    let items: Vec<u32> = events.iter().map(|event| history(event.user).events[event.place as usize]).collect();
    // The covariance needs nothing of the events but their items.
    let (told, pushes) = rayon::join(
        || events.par_chunks(EVENTS).enumerate().map(task).collect::<Result<Vec<_>>>(),
        || {
            if params.covariance > 0.0 {
                covariance(space, params.covariance as f32, &items).map(Some)
            } else {
                Ok(None)
            }
        },
    );
    let mut all = Gradient { loss: 0.0, shares: Shares::default(), recency: vec![0.0; params.window] };
    for (part, loss, recency) in told? {
        all.loss += loss;
        all.shares.0.push(part);
        Cpu::new().accumulate(&mut all.recency, &recency);
    }
    if let Some((cost, pushes)) = pushes? {
        all.loss += cost;
        let events = all.shares.0.iter_mut().flat_map(|part| part.vectors.chunks_exact_mut(VECTORS * space.dim));
        for (vectors, push) in events.zip(pushes.chunks_exact(space.dim)) {
            vectors[PUSH * space.dim..].copy_from_slice(push);
        }
    }
    Ok(all)
}

/// What draws the other items of an event of a batch.
pub(super) fn random(key: u64, event: usize) -> SplitMix {
    SplitMix::new(key ^ (event as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Vectors of an event, by their places: the user's point, and what pulls it and pushes the event's item.
const USER: usize = 0;
const PULL: usize = 1;
const PUSH: usize = 2;

/// What a task makes.
struct Task<'a> {
    space: &'a Space,
    params: &'a Params,
    pool: Pool<'a>,
    cpu: Cpu,
    loss: f64,
    /// In the order in which events added them.
    shares: Vec<Share>,
    /// `[events, VECTORS, dim]`
    vectors: Vec<f32>,
    recency: Vec<f32>,
}

impl<'a> Task<'a> {
    fn new(space: &'a Space, params: &'a Params, pool: Pool<'a>, events: usize) -> Self {
        Self {
            space,
            params,
            pool,
            cpu: Cpu::new(),
            loss: 0.0,
            shares: Vec::with_capacity(events * (params.window + 5)),
            vectors: Vec::with_capacity(events * VECTORS * params.dim),
            recency: vec![0.0; params.window],
        }
    }

    /// Adds w·[m + d(u,i) − d(u,j)]₊ of an event on item i, and its gradient: j is the nearest of the items that were drawn,
    /// and w = log(1 + items·share of those that are too near). d is the squared distance.
    fn add(
        &mut self,
        event: u32,
        Event { user: _, place }: Event,
        history: History<'_>,
        mut random: SplitMix,
    ) -> Result<()> {
        let Self { space, params, pool, cpu, .. } = *self;
        let (dim, items) = (space.dim, space.attention.len());
        let item = history.events[place as usize];
        let context = context(history.events, place as usize, params);
        let shares = space.pooling().shares(&context);
        let first = self.vectors.len();
        self.vectors.resize(first + VECTORS * dim, 0.0);
        let (user, rest) = self.vectors[first..].split_at_mut(dim);
        let pull = &mut rest[..dim];
        cpu.add_weighted(user, context.iter().zip(&shares).map(|(&item, &share)| (share, space.point(item))));
        if params.covariance > 0.0 {
            self.shares.push(Share::of(item, event, PUSH, 4.0 * params.covariance as f32));
        }
        let mut asked = vec![item];
        asked.extend(others(history, params, pool, &mut random));
        let user_square: f32 = user.iter().map(|x| x * x).sum();
        let products = cpu.scores(user, &space.points, &asked)?;
        let distances: Vec<f32> = asked
            .iter()
            .zip(&products)
            .map(|(&item, product)| user_square + space.squares[item as usize] - 2.0 * product)
            .collect();
        let (own, drawn) = (distances[0] + params.margin as f32, &distances[1..]);
        let Some((nearest, &least)) = drawn.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)) else { return Ok(()) };
        if least >= own {
            return Ok(());
        }
        let impostors = drawn.iter().filter(|&&distance| distance < own).count();
        let weight = (items as f32 * impostors as f32 / drawn.len() as f32).ln_1p();
        self.loss += f64::from(weight * (own - least));
        let (by, other) = (2.0 * weight, asked[1 + nearest]);
        cpu.add_scaled(pull, by, space.point(other));
        cpu.add_scaled(pull, -by, space.point(item));
        for (item, by) in [(item, -by), (other, by)] {
            self.shares.extend([Share::of(item, event, USER, by), Share::own(item, -by)]);
        }
        // u = Σ aₖ vₖ with a = softmax(logits): ∂/∂logitₖ = aₖ g·(vₖ − u).
        let toward: f32 = pull.iter().zip(&*user).map(|(g, u)| g * u).sum();
        let along = cpu.scores(pull, &space.points, &context)?;
        let ago = (0..context.len()).rev();
        for (((&item, &a), along), ago) in context.iter().zip(&shares).zip(along).zip(ago) {
            let attention = a * (along - toward);
            self.shares.push(Share::of(item, event, PULL, a).weighing(attention));
            if params.ordered {
                self.recency[ago] += attention;
            }
        }
        Ok(())
    }
}

/// Items that the user has not touched, drawn at random: fewer where hardly any are left.
pub(super) fn others<'a>(
    history: History<'a>,
    params: &'a Params,
    pool: Pool<'a>,
    random: &'a mut SplitMix,
) -> impl Iterator<Item = u32> + 'a {
    (0..params.negatives).filter_map(move |_| {
        let mut draws = (0..DRAWS).map(|_| pool.draw(random));
        draws.find(|drawn| !history.seen.holds(*drawn))
    })
}

/// The events that make the point by which an event is learnt, oldest first.
pub(super) fn context<'a>(events: &'a [u32], place: usize, params: &Params) -> Cow<'a, [u32]> {
    if params.ordered {
        return Cow::Borrowed(&events[place.saturating_sub(params.window)..place]);
    }
    let latest = events.len().saturating_sub(params.window + usize::from(place + params.window >= events.len()));
    let others = (latest..events.len()).filter(|&other| other != place).map(|other| events[other]);
    Cow::Owned(others.collect())
}

/// λ Σ C²ₐᵦ over a ≠ b for every event, of C the covariance of the points of their items, and what pushes each of these
/// (`[events, dim]`). The published code adds up the entries themselves, which lets negative ones pay for positive ones.
fn covariance(space: &Space, by: f32, items: &[u32]) -> Result<(f64, Vec<f32>)> {
    let (dim, events) = (space.dim, items.len());
    let mut mean = vec![0.0; dim];
    items.iter().for_each(|&item| Cpu::new().add_scaled(&mut mean, 1.0 / events as f32, space.point(item)));
    let mut rows = Vec::with_capacity(events * dim);
    items.iter().for_each(|&item| rows.extend(space.point(item).iter().zip(&mean).map(|(x, mean)| x - mean)));
    let columns = weighted_columns(&rows, dim, |_| 1.0 / events as f32);
    let mut between = product(&columns, rows.clone(), dim)?;
    (0..dim).for_each(|at| between[at * dim + at] = 0.0);
    let cost: f64 = between.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() * f64::from(by) * events as f64;
    Ok((cost, product(&rows, between, dim)?))
}
