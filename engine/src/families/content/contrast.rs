//! The loss of some pairs of a user and an item that they have touched, and its derivatives (InfoNCE, Sheng et al. 2024,
//! section 3.2): −log softmax of cosines over a temperature, among the item and others.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Losses, Negatives, TableGradient, Tensor};
use rayon::prelude::*;

use super::graph::{Graph, Layers};
use crate::random::SplitMix;
use crate::{Control, Error, Result};

/// Pairs that one task compares, with the same other items.
const TASK: usize = 256;
/// Rows that one task makes as long as 1.
const ROWS: usize = 1024;

/// A user of whom less than this share is left without an item is nowhere: what is left is rounding.
const LEAST: f32 = 1e-4;

/// A user and an item that they have touched.
pub(super) type Pair = (u32, u32);

/// What pairs are compared with.
#[derive(Clone, Copy)]
pub(super) struct Others<'a> {
    /// The items that are drawn from, each as likely.
    pub(super) pool: &'a [u32],
    /// How many are drawn.
    pub(super) count: usize,
    /// What the draws depend on.
    pub(super) key: u64,
}

impl Others<'_> {
    /// Those of a task. Among them may be items of a user's own, as one in so many of all are.
    pub(super) fn of(&self, task: usize) -> Vec<u32> {
        let mut random = SplitMix::new(self.key ^ task as u64);
        (0..self.count).map(|_| self.pool[random.below(self.pool.len())]).collect()
    }
}

/// What pairs say of what was spread.
pub(super) struct Told {
    /// The sum of their losses.
    pub(super) loss: f64,
    /// The derivative of their mean.
    pub(super) gradient: Layers,
}

/// What is compared, and how.
#[derive(Clone, Copy)]
pub(super) struct Comparison<'a> {
    pub(super) graph: &'a Graph,
    pub(super) layers: &'a Layers,
    pub(super) dim: usize,
    pub(super) others: Others<'a>,
    pub(super) temperature: f32,
    /// Whether a user is where they would be without the item of the pair.
    pub(super) leave_out: bool,
}

/// The shares of what was spread in a user's vector.
struct Shares {
    /// Of the user's first layer, and of the item's.
    begun: [f32; 2],
    /// Of what was passed to the user, and of what the item passed on.
    passed: [f32; 2],
}

impl Comparison<'_> {
    /// The shares in the vector of a pair's user. The layers of a user of d items, of whom one is left out, are
    /// (Σ own − own)/(d − 1) and (Σ before/√dᵢ − before/√dᵢ)/√(d − 1), as whoever has touched the others would be served.
    fn shares(&self, (user, item): Pair) -> Shares {
        if !self.leave_out {
            return Shares { begun: [1.0, 0.0], passed: [1.0, 0.0] };
        }
        let all = self.graph.touched_by(user) as f32;
        let others = (all - 1.0).max(1.0);
        let root = self.graph.root(item as usize);
        Shares { begun: [all / others, -1.0 / others], passed: [(all / others).sqrt(), -root / others.sqrt()] }
    }

    /// Compares pairs with others. Tasks are of a fixed size and are added up in their order.
    pub(super) fn tell(&self, pairs: &[Pair], control: &Control) -> Result<Told> {
        let &Self { layers: Layers { begun, before, passed }, dim, .. } = self;
        let (cpu, row) = (Cpu::new(), |one: u32| one as usize * dim..(one as usize + 1) * dim);
        let items: Vec<f32> = begun.items.iter().zip(&passed.items).map(|(a, b)| a + b).collect();
        let mut unit = vec![0.0; items.len()];
        let rows = items.par_chunks(ROWS * dim).zip(unit.par_chunks_mut(ROWS * dim));
        rows.for_each(|(rows, unit)| cpu.unit_rows(rows, dim, unit));
        let count = unit.len() / dim;
        let unit = Tensor::from_vec(unit, vec![count, dim]).map_err(Error::from)?;

        let (scale, weight) = (1.0 / self.temperature, 1.0 / pairs.len() as f32);
        let compared = |(task, pairs): (usize, &[Pair])| {
            control.check()?;
            let mut users = vec![0.0; pairs.len() * dim];
            for (&pair, to) in pairs.iter().zip(users.chunks_exact_mut(dim)) {
                let (shares, (user, item)) = (self.shares(pair), pair);
                cpu.add_scaled(to, shares.begun[0], &begun.users[row(user)]);
                cpu.add_scaled(to, shares.begun[1], &begun.items[row(item)]);
                cpu.add_scaled(to, shares.passed[0], &passed.users[row(user)]);
                cpu.add_scaled(to, shares.passed[1], &before.items[row(item)]);
                let sum = |numbers: &[f32]| numbers.iter().map(|x| x.abs()).sum::<f32>();
                if sum(to) < LEAST * (sum(&begun.users[row(user)]) + sum(&passed.users[row(user)])) {
                    to.fill(0.0);
                }
            }
            let mut units = Matrix::zeros(pairs.len(), dim);
            cpu.unit_rows(&users, dim, units.as_mut_slice());
            let targets: Vec<u32> = pairs.iter().map(|&(_, item)| item).collect();
            let drawn = self.others.of(task);
            let drawn = Negatives::Shared { items: &drawn, correction: None };
            let mut by_items = TableGradient::sparse(count, dim);
            let (loss, mut by_users) =
                cpu.sampled_softmax(&units, &unit, &targets, drawn, scale, weight, &mut by_items);
            cpu.unit_rows_backward(&users, dim, by_users.as_mut_slice());
            // Who is nowhere is not drawn anywhere.
            for (user, by) in users.chunks_exact(dim).zip(by_users.as_mut_slice().chunks_exact_mut(dim)) {
                if user.iter().all(|&x| x == 0.0) {
                    by.fill(0.0);
                }
            }
            Ok((loss, by_users, by_items))
        };
        let tasks: Vec<(f64, Matrix, TableGradient)> =
            pairs.par_chunks(TASK).enumerate().map(compared).collect::<Result<_>>()?;

        let (mut gradient, mut loss) = (self.layers.nothing(), 0.0);
        for (_, _, by_items) in &tasks {
            for (&item, by) in by_items.ids().into_iter().flatten().zip(by_items.values().chunks_exact(dim)) {
                cpu.add_scaled(&mut gradient.passed.items[row(item)], 1.0, by);
            }
        }
        let rows = items.par_chunks(ROWS * dim).zip(gradient.passed.items.par_chunks_mut(ROWS * dim));
        rows.for_each(|(rows, gradient)| cpu.unit_rows_backward(rows, dim, gradient));
        gradient.begun.items.copy_from_slice(&gradient.passed.items);
        for (pairs, (share, by_users, _)) in pairs.chunks(TASK).zip(tasks) {
            loss += share;
            for (&pair, by) in pairs.iter().zip(by_users.as_slice().chunks_exact(dim)) {
                let (shares, (user, item)) = (self.shares(pair), pair);
                cpu.add_scaled(&mut gradient.begun.users[row(user)], shares.begun[0], by);
                cpu.add_scaled(&mut gradient.begun.items[row(item)], shares.begun[1], by);
                cpu.add_scaled(&mut gradient.passed.users[row(user)], shares.passed[0], by);
                cpu.add_scaled(&mut gradient.before.items[row(item)], shares.passed[1], by);
            }
        }
        Ok(Told { loss: loss / f64::from(weight), gradient })
    }
}
