//! Who has touched what, and what vectors become that spread over it (LightGCN, He et al. 2020, eq. 3–5).
//!
//! A layer Â gives every user Σ e_i/√(d_u·d_i) over their items, and every item the same over its users; d is how many
//! those are. Â is linear and symmetric, so derivatives go back the way vectors came. Rows are summed each by one thread, in
//! the order of its neighbours: the number of threads changes no bit.

use pgrec_kernels::cpu::Cpu;
use rayon::prelude::*;

use crate::families::seen::distinct;
use crate::{Control, Result};

/// Rows that one task sums.
const ROWS: usize = 256;

/// A vector for every user and every item.
#[derive(Debug, Clone)]
pub(super) struct Sides {
    /// `[users, dim]`
    pub(super) users: Vec<f32>,
    /// `[items, dim]`
    pub(super) items: Vec<f32>,
}

impl Sides {
    /// Zeros, of as many numbers.
    fn nothing(&self) -> Self {
        Self { users: vec![0.0; self.users.len()], items: vec![0.0; self.items.len()] }
    }

    fn add(&mut self, other: &Self) {
        let add = |to: &mut [f32], x: &[f32]| to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
        add(&mut self.users, &other.users);
        add(&mut self.items, &other.items);
    }
}

/// Vectors that were spread, or derivatives by them. Where users and items are is the mean of their layers, which is along
/// `begun + passed`.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    /// The first layer.
    pub(super) begun: Sides,
    /// The sum of all layers but the last.
    pub(super) before: Sides,
    /// What becomes of that: the sum of all layers but the first.
    pub(super) passed: Sides,
}

impl Layers {
    /// Zeros, of as many numbers.
    pub(super) fn nothing(&self) -> Self {
        let zeros = self.begun.nothing();
        Self { begun: zeros.clone(), before: zeros.clone(), passed: zeros }
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

    /// How many items a user has touched.
    pub(super) fn touched_by(&self, user: u32) -> usize {
        self.items_of.of(user as usize).len()
    }

    /// Spreads vectors of the items (`[items, dim]`) over so many layers; users begin where their items are on average.
    pub(super) fn forward(&self, items: Vec<f32>, layers: usize, dim: usize, control: &Control) -> Result<Layers> {
        let mut users = vec![0.0; self.items_of.roots.len() * dim];
        let share = |user: usize, _| self.items_of.roots[user].powi(2);
        self.items_of.add(&items, &mut users, dim, share, control)?;
        let begun = Sides { users, items };
        if layers == 0 {
            return Ok(Layers { before: begun.nothing(), passed: begun.nothing(), begun });
        }
        let before = self.sum_of_layers(&begun, layers - 1, dim, control)?;
        let mut passed = begun.nothing();
        self.pass(&before, &mut passed, dim, control)?;
        Ok(Layers { begun, before, passed })
    }

    /// The derivative by the vectors of the items (`[items, dim]`), from those by all that [`Graph::forward`] gives.
    pub(super) fn backward(&self, by: Layers, layers: usize, dim: usize, control: &Control) -> Result<Vec<f32>> {
        let Layers { mut begun, mut before, passed } = by;
        if layers > 0 {
            self.pass(&passed, &mut before, dim, control)?;
            begun.add(&self.sum_of_layers(&before, layers - 1, dim, control)?);
        }
        let Sides { users, mut items } = begun;
        let share = |_, user: usize| self.items_of.roots[user].powi(2);
        self.users_of.add(&users, &mut items, dim, share, control)?;
        Ok(items)
    }

    /// Σ Âˡx for l from 0 to `more`, as x + Â(x + Â(x + …)).
    fn sum_of_layers(&self, x: &Sides, more: usize, dim: usize, control: &Control) -> Result<Sides> {
        let mut sum = x.clone();
        for _ in 0..more {
            let mut next = x.clone();
            self.pass(&sum, &mut next, dim, control)?;
            sum = next;
        }
        Ok(sum)
    }

    /// Adds Âx.
    fn pass(&self, x: &Sides, to: &mut Sides, dim: usize, control: &Control) -> Result<()> {
        let (users, items) = (&self.items_of, &self.users_of);
        let weight = |user: usize, item: usize| users.roots[user] * items.roots[item];
        users.add(&x.items, &mut to.users, dim, weight, control)?;
        items.add(&x.users, &mut to.items, dim, |item, user| weight(user, item), control)
    }
}
