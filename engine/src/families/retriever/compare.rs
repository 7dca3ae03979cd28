//! The loss: InfoNCE of the opened result against what was shown, what other searches led to, and what is drawn.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};

use super::log::{Example, Log};
use super::projection::Projection;
use crate::Result;
use crate::train::{Gradients, Parameter, Slice, Tape};

/// Items that every search of a step is compared with.
pub(super) struct Candidates {
    /// Their rows, ascending, without repeats.
    rows: Vec<u32>,
    /// Their vectors, `[dim, rows]` and `[rows, dim]`.
    columns: Linear,
    vectors: Linear,
}

impl Candidates {
    /// These rows.
    pub(super) fn new(log: &Log, mut rows: Vec<u32>) -> Result<Self> {
        rows.sort_unstable();
        rows.dedup();
        let (count, dim) = (rows.len(), log.items.cols());
        let vectors: Vec<f32> = rows.iter().flat_map(|&row| log.items.row(row as usize)).copied().collect();
        let mut columns = vec![0.0; vectors.len()];
        for (place, vector) in vectors.chunks_exact(dim).enumerate() {
            vector.iter().enumerate().for_each(|(at, x)| columns[at * count + place] = *x);
        }
        Ok(Self {
            rows,
            columns: Linear { weight: Tensor::from_vec(columns, vec![dim, count])?, bias: None },
            vectors: Linear { weight: Tensor::from_vec(vectors, vec![count, dim])?, bias: None },
        })
    }
}

/// A step's searches.
pub(super) struct Comparison<'a> {
    pub(super) log: &'a Log,
    pub(super) projection: &'a Projection<Parameter>,
    pub(super) examples: &'a [Example],
    pub(super) candidates: &'a Candidates,
    pub(super) temperature: f32,
    /// Σ of the examples' weights.
    pub(super) weight: f32,
}

impl Slice for Comparison<'_> {
    /// The sum of the weighted losses.
    type Told = f64;

    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> f64 {
        let dim = self.log.items.cols();
        let queries = rows.iter().flat_map(|&row| self.log.query(self.examples[row].query));
        let queries = tape.constant(Matrix::from_slice(&queries.copied().collect::<Vec<f32>>(), dim));
        let projected = self.projection.of(&tape, queries);
        let cpu = Cpu::new();
        // Of every search, what its loss falls by each candidate's score; scores at first.
        let mut by_score = cpu.linear(projected.value(), &self.candidates.columns, Activation::Identity);
        let (mut loss, mut own) = (0.0, vec![0.0; rows.len() * dim]);
        let count = self.candidates.rows.len();
        for (place, &row) in rows.iter().enumerate() {
            let query = &projected.value().as_slice()[place * dim..][..dim];
            let common = &mut by_score.as_mut_slice()[place * count..][..count];
            loss += self.compare(&self.examples[row], query, common, &mut own[place * dim..][..dim]);
        }
        let mut derivative = cpu.linear(&by_score, &self.candidates.vectors, Activation::Identity);
        derivative.as_mut_slice().iter_mut().zip(&own).for_each(|(sum, x)| *sum += x);
        tape.backward(&projected, derivative, gradients);
        loss
    }
}

impl Comparison<'_> {
    /// The weighted loss of a search. `common`: scores of the candidates, which become derivatives by them; to `own` the
    /// derivative by the query is added of what only this search is compared with.
    fn compare(&self, example: &Example, query: &[f32], common: &mut [f32], own: &mut [f32]) -> f64 {
        let vector = |row: u32| self.log.items.row(row as usize);
        let score = |row: u32| vector(row).iter().zip(query).map(|(v, q)| v * q).sum::<f32>() / self.temperature;
        let opened = score(example.opened);
        let shown = &self.log.shown[example.shown.clone()];
        let of_shown: Vec<f32> = shown.iter().map(|&row| score(row)).collect();
        for (score, &row) in common.iter_mut().zip(&self.candidates.rows) {
            // What was opened for the same query by others is no wrong answer.
            *score = if self.log.led(example.query, row) { f32::NEG_INFINITY } else { *score / self.temperature };
        }
        let largest = of_shown.iter().chain(&*common).copied().fold(opened, f32::max);
        let part = |score: f32| f64::from(score - largest).exp();
        let others = of_shown.iter().chain(&*common).map(|&score| part(score)).sum::<f64>();
        let sum = part(opened) + others;
        let by = f64::from(example.weight / (self.weight * self.temperature));
        for (&row, &score) in shown.iter().zip(&of_shown) {
            add(own, (by * part(score) / sum) as f32, vector(row));
        }
        add(own, (-by * others / sum) as f32, vector(example.opened));
        common.iter_mut().for_each(|score| *score = (by * part(*score) / sum) as f32);
        f64::from(example.weight) * (sum.ln() - f64::from(opened - largest))
    }
}

fn add(sum: &mut [f32], by: f32, vector: &[f32]) {
    sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += by * x);
}
