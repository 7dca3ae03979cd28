//! The loss of some pairs of a user and an item that they have touched, and its derivatives (InfoNCE, Sheng et al. 2024,
//! section 3.2): −log softmax of cosines over a temperature, among the item and others.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Losses, Negatives, TableGradient, Tensor};
use rayon::prelude::*;

use super::graph::Sides;
use crate::random::SplitMix;
use crate::{Control, Error, Result};

/// Pairs that one task compares, with the same other items.
const TASK: usize = 256;
/// Rows that one task makes as long as 1.
const ROWS: usize = 1024;

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

/// What pairs say of where users and items are.
pub(super) struct Told {
    /// The sum of their losses.
    pub(super) loss: f64,
    /// The derivative of their mean.
    pub(super) gradient: Sides,
}

/// Compares pairs with others. Tasks are of a fixed size and are added up in their order.
pub(super) fn compare(
    places: &Sides,
    dim: usize,
    pairs: &[Pair],
    others: Others<'_>,
    temperature: f32,
    control: &Control,
) -> Result<Told> {
    let cpu = Cpu::new();
    let mut unit = vec![0.0; places.items.len()];
    let rows = places.items.par_chunks(ROWS * dim).zip(unit.par_chunks_mut(ROWS * dim));
    rows.for_each(|(rows, unit)| cpu.unit_rows(rows, dim, unit));
    let count = unit.len() / dim;
    let unit = Tensor::from_vec(unit, vec![count, dim]).map_err(Error::from)?;

    let (scale, weight) = (1.0 / temperature, 1.0 / pairs.len() as f32);
    let compared = |(task, pairs): (usize, &[Pair])| {
        control.check()?;
        let users: Vec<f32> =
            pairs.iter().flat_map(|&(user, _)| &places.users[user as usize * dim..][..dim]).copied().collect();
        let mut units = Matrix::zeros(pairs.len(), dim);
        cpu.unit_rows(&users, dim, units.as_mut_slice());
        let items: Vec<u32> = pairs.iter().map(|&(_, item)| item).collect();
        let drawn = others.of(task);
        let drawn = Negatives::Shared { items: &drawn, correction: None };
        let mut by_items = TableGradient::sparse(count, dim);
        let (loss, mut by_users) = cpu.sampled_softmax(&units, &unit, &items, drawn, scale, weight, &mut by_items);
        cpu.unit_rows_backward(&users, dim, by_users.as_mut_slice());
        Ok((loss, by_users, by_items))
    };
    let tasks: Vec<(f64, Matrix, TableGradient)> =
        pairs.par_chunks(TASK).enumerate().map(compared).collect::<Result<_>>()?;

    let mut gradient = Sides { users: vec![0.0; places.users.len()], items: vec![0.0; places.items.len()] };
    let mut loss = 0.0;
    for (pairs, (share, by_users, by_items)) in pairs.chunks(TASK).zip(tasks) {
        loss += share;
        for (&(user, _), row) in pairs.iter().zip(by_users.as_slice().chunks_exact(dim)) {
            cpu.add_scaled(&mut gradient.users[user as usize * dim..][..dim], 1.0, row);
        }
        for (&item, row) in by_items.ids().into_iter().flatten().zip(by_items.values().chunks_exact(dim)) {
            cpu.add_scaled(&mut gradient.items[item as usize * dim..][..dim], 1.0, row);
        }
    }
    let rows = places.items.par_chunks(ROWS * dim).zip(gradient.items.par_chunks_mut(ROWS * dim));
    rows.for_each(|(rows, gradient)| cpu.unit_rows_backward(rows, dim, gradient));
    Ok(Told { loss: loss / f64::from(weight), gradient })
}
