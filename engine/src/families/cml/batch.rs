//! The loss of some events, and what it makes of every point (Hsieh et al. 2017, section 3).

use std::borrow::Cow;

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Device, Optimizers};
use rayon::prelude::*;

use super::Params;
use super::space::{Directions, Share, Space};
use crate::families::moments::{product, weighted_columns};
use crate::families::seen::Own;
use crate::random::SplitMix;
use crate::{Control, Result};

/// Events whose gradients one task makes.
const TASK: usize = 32;
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
    /// Ascending by item.
    pub(super) shares: Vec<Share>,
    pub(super) directions: Directions,
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
    let task = |(place, events): (usize, &[Event])| {
        control.check()?;
        let mut part = Part::new(space, params, pool, events.len());
        for (at, event) in events.iter().enumerate() {
            let number = place * TASK + at;
            part.add(number as u32, *event, history(event.user), random(key, number))?;
        }
        Ok(part.told)
    };
    let parts = events.par_chunks(TASK).enumerate().map(task).collect::<Result<Vec<Gradient>>>()?;
    let (shares, directions) = parts.iter().fold((events.len(), 0), |(shares, directions), part| {
        (shares + part.shares.len(), directions + part.directions.len())
    });
    let mut all = Gradient {
        loss: 0.0,
        shares: Vec::with_capacity(shares),
        directions: Vec::with_capacity(directions),
        recency: vec![0.0; params.window],
    };
    for part in parts {
        all.loss += part.loss;
        all.shares.extend(part.shares);
        all.directions.extend(part.directions);
        Cpu::new().accumulate(&mut all.recency, &part.recency);
    }
    if params.covariance > 0.0 {
        let items: Vec<u32> = events.iter().map(|event| history(event.user).events[event.place as usize]).collect();
        all.loss += covariance(space, params.covariance as f32, &items, &mut all)?;
    }
    all.shares = by_item(&all.shares, space.attention.len());
    Ok(all)
}

/// The shares of each item together, in their order, items ascending (counting sort: a step has as many shares as a
/// catalogue of some size has items).
fn by_item(shares: &[Share], items: usize) -> Vec<Share> {
    let mut next = vec![0u32; items + 1];
    shares.iter().for_each(|share| next[share.item as usize + 1] += 1);
    (1..next.len()).for_each(|item| next[item] += next[item - 1]);
    let Some(&first) = shares.first() else { return Vec::new() };
    let mut sorted = vec![first; shares.len()];
    for share in shares {
        let place = &mut next[share.item as usize];
        sorted[*place as usize] = *share;
        *place += 1;
    }
    sorted
}

impl Gradient {
    /// The items that the batch compares users with, ascending.
    pub(super) fn compared(&self) -> Vec<u32> {
        let mut items: Vec<u32> = self.shares.iter().filter(|s| s.own != 0.0).map(|share| share.item).collect();
        items.dedup();
        items
    }
}

/// What draws the other items of an event of a batch.
pub(super) fn random(key: u64, event: usize) -> SplitMix {
    SplitMix::new(key ^ (event as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// What a task makes.
struct Part<'a> {
    space: &'a Space,
    params: &'a Params,
    pool: Pool<'a>,
    cpu: Cpu,
    told: Gradient,
}

impl<'a> Part<'a> {
    fn new(space: &'a Space, params: &'a Params, pool: Pool<'a>, events: usize) -> Self {
        let told = Gradient {
            loss: 0.0,
            shares: Vec::with_capacity(events * (params.window + 2)),
            directions: Vec::with_capacity(events * 3 * params.dim),
            recency: vec![0.0; params.window],
        };
        Self { space, params, pool, cpu: Cpu::new(), told }
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
        let Self { space, params, pool, cpu, told } = self;
        let (dim, items) = (space.dim, space.attention.len());
        let item = history.events[place as usize];
        let context = context(history.events, place as usize, params);
        let shares = space.pooling().shares(&context);
        let first = told.directions.len();
        told.directions.resize(first + 3 * dim, 0.0);
        let (user, rest) = told.directions[first..].split_at_mut(dim);
        let pull = &mut rest[..dim];
        for (&item, &share) in context.iter().zip(&shares) {
            cpu.add_scaled(user, share, space.point(item));
        }
        let mut asked = vec![item];
        asked.extend(others(history, params, *pool, &mut random));
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
        told.loss += f64::from(weight * (own - least));
        let (by, other) = (2.0 * weight, asked[1 + nearest]);
        cpu.add_scaled(pull, by, space.point(other));
        cpu.add_scaled(pull, -by, space.point(item));
        let share = |item, of, own| Share { item, event, of, own, attention: 0.0 };
        told.shares.push(share(item, [-by, 0.0, 0.0], by));
        told.shares.push(share(other, [by, 0.0, 0.0], -by));
        // u = Σ aₖ vₖ with a = softmax(logits): ∂/∂logitₖ = aₖ g·(vₖ − u).
        let toward: f32 = pull.iter().zip(&*user).map(|(g, u)| g * u).sum();
        let along = cpu.scores(pull, &space.points, &context)?;
        let ago = (0..context.len()).rev();
        for (((&item, &a), along), ago) in context.iter().zip(&shares).zip(along).zip(ago) {
            let attention = a * (along - toward);
            told.shares.push(Share { attention, ..share(item, [0.0, a, 0.0], 0.0) });
            if params.ordered {
                told.recency[ago] += attention;
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

/// λ Σ C²ₐᵦ over a ≠ b for every event, of C the covariance of the points of their items; its gradient is each event's third
/// direction. The published code adds up the entries themselves, which lets negative ones pay for positive ones.
fn covariance(space: &Space, by: f32, items: &[u32], told: &mut Gradient) -> Result<f64> {
    let (dim, events) = (space.dim, items.len());
    let mut mean = vec![0.0; dim];
    items.iter().for_each(|&item| Cpu::new().add_scaled(&mut mean, 1.0 / events as f32, space.point(item)));
    let mut rows = Vec::with_capacity(events * dim);
    items.iter().for_each(|&item| rows.extend(space.point(item).iter().zip(&mean).map(|(x, mean)| x - mean)));
    let columns = weighted_columns(&rows, dim, |_| 1.0 / events as f32);
    let mut between = product(&columns, rows.clone(), dim)?;
    (0..dim).for_each(|at| between[at * dim + at] = 0.0);
    let cost: f64 = between.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() * f64::from(by) * events as f64;
    for (event, (push, &item)) in product(&rows, between, dim)?.chunks_exact(dim).zip(items).enumerate() {
        told.directions[(event * 3 + 2) * dim..][..dim].copy_from_slice(push);
        let share = Share { item, event: event as u32, of: [0.0, 0.0, 4.0 * by], own: 0.0, attention: 0.0 };
        told.shares.push(share);
    }
    Ok(cost)
}
