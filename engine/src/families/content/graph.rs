//! Who has touched what, and what vectors become that spread over it (LightGCN, He et al. 2020, eq. 3–5).
//!
//! A layer Â gives every user Σ e_i/√(d_u·d_i) over their items, and every item the same over its users; d is how many
//! those are. Â is linear and symmetric, so derivatives go back the way vectors came. Rows are summed each by one thread, in
//! the order of its neighbours: the number of threads changes no bit.

use pgrec_kernels::cpu::Cpu;
use rayon::prelude::*;

use crate::{Control, Result};

/// Rows that one task sums.
const ROWS: usize = 256;

/// The items that a user is known by: the distinct ones of the latest `window` events, ascending. One that was touched
/// again counts once.
pub(super) fn distinct(history: &[u32], window: usize) -> Vec<u32> {
    let mut items = history[history.len().saturating_sub(window)..].to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

/// A vector for every user and every item.
#[derive(Debug, Clone)]
pub(super) struct Sides {
    /// `[users, dim]`
    pub(super) users: Vec<f32>,
    /// `[items, dim]`
    pub(super) items: Vec<f32>,
}

impl Sides {
    fn scaled(mut self, by: f32) -> Self {
        self.users.iter_mut().chain(&mut self.items).for_each(|x| *x *= by);
        self
    }
}

/// Neighbours of the users, or of the items, ascending.
#[derive(Debug)]
struct Neighbours {
    /// Where each one's begin, and the end of the last.
    offsets: Vec<usize>,
    all: Vec<u32>,
    /// 1/√d; of those who have none as if they had one.
    roots: Vec<f32>,
}

impl Neighbours {
    fn new(offsets: Vec<usize>, all: Vec<u32>) -> Self {
        let degrees = offsets.windows(2).map(|bounds| bounds[1] - bounds[0]);
        let roots = degrees.map(|degree| 1.0 / (degree.max(1) as f32).sqrt()).collect();
        Self { offsets, all, roots }
    }

    fn of(&self, one: usize) -> &[u32] {
        &self.all[self.offsets[one]..self.offsets[one + 1]]
    }

    /// Adds Σ weight·from over the neighbours of each to its row of `to`.
    fn add(
        &self,
        from: &[f32],
        to: &mut [f32],
        dim: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        control: &Control,
    ) -> Result<()> {
        let cpu = Cpu::new();
        to.par_chunks_mut(ROWS * dim).enumerate().try_for_each(|(task, rows)| {
            control.check()?;
            for (one, row) in (task * ROWS..).zip(rows.chunks_exact_mut(dim)) {
                for &other in self.of(one) {
                    let other = other as usize;
                    cpu.add_scaled(row, weight(one, other), &from[other * dim..][..dim]);
                }
            }
            Ok(())
        })
    }
}

/// Users and the items that they have touched.
#[derive(Debug)]
pub(super) struct Graph {
    items_of: Neighbours,
    users_of: Neighbours,
}

impl Graph {
    /// Of the latest `window` events of every history, over a catalogue of so many items.
    pub(super) fn new<'a>(histories: impl Iterator<Item = &'a [u32]>, window: usize, items: usize) -> Self {
        let (mut offsets, mut all) = (vec![0], Vec::new());
        for history in histories {
            all.extend(distinct(history, window));
            offsets.push(all.len());
        }
        let mut ends = vec![0; items + 1];
        all.iter().for_each(|&item| ends[item as usize + 1] += 1);
        (0..items).for_each(|item| ends[item + 1] += ends[item]);
        let (mut users, mut next) = (vec![0; all.len()], ends.clone());
        for user in 0..offsets.len() - 1 {
            for &item in &all[offsets[user]..offsets[user + 1]] {
                users[next[item as usize]] = user as u32;
                next[item as usize] += 1;
            }
        }
        Self { items_of: Neighbours::new(offsets, all), users_of: Neighbours::new(ends, users) }
    }

    /// Every user with every one of their items.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (u32, u32)> {
        let users = 0..self.items_of.roots.len();
        users.flat_map(|user| self.items_of.of(user).iter().map(move |&item| (user as u32, item)))
    }

    /// The items that somebody has touched, ascending.
    pub(super) fn touched(&self) -> Vec<u32> {
        let items = 0..self.users_of.roots.len();
        items.filter(|&item| !self.users_of.of(item).is_empty()).map(|item| item as u32).collect()
    }

    /// 1/√d of an item; 1 of one that nobody has touched.
    pub(super) fn root(&self, item: usize) -> f32 {
        self.users_of.roots[item]
    }

    /// Every user where their items are on average, beside these items (`[items, dim]`).
    pub(super) fn begin(&self, items: Vec<f32>, dim: usize, control: &Control) -> Result<Sides> {
        let mut users = vec![0.0; self.items_of.roots.len() * dim];
        let share = |user: usize, _| self.items_of.roots[user].powi(2);
        self.items_of.add(&items, &mut users, dim, share, control)?;
        Ok(Sides { users, items })
    }

    /// What [`Graph::begin`] makes of derivatives: that by the items, of which those by users are a part.
    fn begin_backward(&self, gradient: Sides, dim: usize, control: &Control) -> Result<Vec<f32>> {
        let Sides { users, mut items } = gradient;
        let share = |_, user: usize| self.items_of.roots[user].powi(2);
        self.users_of.add(&users, &mut items, dim, share, control)?;
        Ok(items)
    }

    /// Σ Âˡx for l from 0 to `layers`, as x + Â(x + Â(x + …)).
    pub(super) fn sum_of_layers(&self, x: &Sides, layers: usize, dim: usize, control: &Control) -> Result<Sides> {
        let mut sum = x.clone();
        for _ in 0..layers {
            let mut next = x.clone();
            let (users, items) = (&self.items_of, &self.users_of);
            let weight = |user: usize, item: usize| users.roots[user] * items.roots[item];
            users.add(&sum.items, &mut next.users, dim, weight, control)?;
            items.add(&sum.users, &mut next.items, dim, |item, user| weight(user, item), control)?;
            sum = next;
        }
        Ok(sum)
    }

    /// Where users and items are, the mean over layers, by where content places the items (`[items, dim]`).
    pub(super) fn forward(&self, items: Vec<f32>, layers: usize, dim: usize, control: &Control) -> Result<Sides> {
        let begun = self.begin(items, dim, control)?;
        Ok(self.sum_of_layers(&begun, layers, dim, control)?.scaled(1.0 / (layers + 1) as f32))
    }

    /// The derivative by where content places the items (`[items, dim]`), from that by where users and items are.
    pub(super) fn backward(&self, gradient: Sides, layers: usize, dim: usize, control: &Control) -> Result<Vec<f32>> {
        let gradient = gradient.scaled(1.0 / (layers + 1) as f32);
        self.begin_backward(self.sum_of_layers(&gradient, layers, dim, control)?, dim, control)
    }
}
