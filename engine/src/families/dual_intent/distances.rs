//! What is to be near what (UDITSR): what is generated near what was typed, and user + intent near what
//! was found.

use pgrec_kernels::cpu::{Cpu, Matrix};

use super::ops::dot;
use crate::train::Var;

/// Losses of what is near what, and their derivatives by users, items, queries, and intents.
pub(super) struct Distances<'a> {
    /// How many items each edge has.
    each: usize,
    /// Whether a query led there.
    searched: Vec<bool>,
    /// Whether there is something to recommend by.
    told: &'a [bool],
    values: [&'a Matrix; 4],
    by: [Matrix; 4],
}

impl<'a> Distances<'a> {
    /// Of users, items (`each` for every user, the one that was found first), queries, and intents (as many as items).
    pub(super) fn new(each: usize, searched: Vec<bool>, told: &'a [bool], vars: [&'a Var<Matrix>; 4]) -> Self {
        let values = vars.map(Var::value);
        Self { each, searched, told, values, by: values.map(|value| Matrix::zeros(value.rows(), value.cols())) }
    }

    /// The mean squared error of what is generated for edges with queries.
    pub(super) fn supervise(&mut self, weight: f32) -> f64 {
        let (each, dim, mut loss) = (self.each, self.values[0].cols(), 0.0);
        if weight == 0.0 {
            return loss;
        }
        for (edge, _) in self.searched.iter().enumerate().filter(|(_, searched)| **searched) {
            let (asked, found) = (self.values[2].row(edge), self.values[3].row(edge * each));
            for n in 0..dim {
                let apart = found[n] - asked[n];
                loss += f64::from(weight * apart * apart / dim as f32);
                let by = 2.0 * weight * apart / dim as f32;
                self.by[3].as_mut_slice()[edge * each * dim + n] += by;
                self.by[2].as_mut_slice()[edge * dim + n] -= by;
            }
        }
        loss
    }

    /// −log σ of by how much another item's squared distance from user + intent is larger, on average over the others.
    pub(super) fn translate(&mut self, weight: f32) -> f64 {
        let (each, dim, mut loss) = (self.each, self.values[0].cols(), 0.0);
        if weight == 0.0 {
            return loss;
        }
        for edge in 0..self.searched.len() {
            // What was not looked for is what is generated.
            let (of, at) = if self.searched[edge] { (2, edge) } else { (3, edge * each) };
            if of == 3 && !self.told[edge] {
                continue;
            }
            let meant: Vec<f32> = self.values[0]
                .row(edge)
                .iter()
                .zip(self.values[of].row(at))
                .map(|(user, intent)| user + intent)
                .collect();
            let apart = |place: usize| -> Vec<f32> {
                meant.iter().zip(self.values[1].row(edge * each + place)).map(|(meant, item)| meant - item).collect()
            };
            let own = apart(0);
            let square = dot(&own, &own);
            let mut by_meant = vec![0.0; dim];
            for place in 1..each {
                let other = apart(place);
                let further = dot(&other, &other) - square;
                let share = weight / (each - 1) as f32;
                loss += f64::from(share) * f64::from(softplus(-further));
                let by = 2.0 * share / (1.0 + further.exp());
                for n in 0..dim {
                    by_meant[n] += by * (own[n] - other[n]);
                    self.by[1].as_mut_slice()[edge * each * dim + n] -= by * own[n];
                    self.by[1].as_mut_slice()[(edge * each + place) * dim + n] += by * other[n];
                }
            }
            let cpu = Cpu::new();
            cpu.add_scaled(&mut self.by[0].as_mut_slice()[edge * dim..][..dim], 1.0, &by_meant);
            cpu.add_scaled(&mut self.by[of].as_mut_slice()[at * dim..][..dim], 1.0, &by_meant);
        }
        loss
    }

    /// The derivatives times a number.
    pub(super) fn scaled(self, weight: f32) -> [Matrix; 4] {
        self.by.map(|mut by| {
            by.as_mut_slice().iter_mut().for_each(|x| *x *= weight);
            by
        })
    }
}

/// log(1 + eˣ)
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
