//! The operators in double precision, as plain loops: what gradients are checked against.

use std::cell::Cell;

use pgrec_kernels::{Activation, LayerNorm, Linear, Operators, Rows, Sequences, SiluAttention, time_bucket};

use super::parameters::{Parameter, Parameters};

/// Row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix64 {
    pub(crate) cols: usize,
    pub(crate) values: Vec<f64>,
}

impl Matrix64 {
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.cols)
    }

    fn map_rows(&self, cols: usize, row: impl FnMut(&[f64]) -> Vec<f64>) -> Self {
        Self { cols, values: self.rows().flat_map(row).collect() }
    }
}

/// A copy of all weights, by [`Parameter`].
pub(crate) struct Double {
    /// Vectors are matrices of one row.
    pub(crate) weights: Vec<Matrix64>,
    /// The distance from 0 of what came nearest to it in a ReLU: there the loss has no derivative.
    pub(crate) nearest_kink: Cell<f64>,
}

impl Double {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let weights = parameters.all().iter().map(|tensor| Matrix64 {
            cols: tensor.shape().last().copied().unwrap_or(1),
            values: tensor.as_slice().iter().copied().map(f64::from).collect(),
        });
        Self { weights: weights.collect(), nearest_kink: Cell::new(f64::INFINITY) }
    }

    pub(crate) fn weight(&self, parameter: Parameter) -> &Matrix64 {
        &self.weights[parameter.0]
    }

    fn activate(&self, x: f64, activation: Activation) -> f64 {
        match activation {
            Activation::Identity => x,
            Activation::Relu => {
                self.nearest_kink.set(self.nearest_kink.get().min(x.abs()));
                x.max(0.0)
            }
            Activation::Gelu => x * normal_distribution(x),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

/// Φ(x) = ½ + φ(x)·(x + x³/3 + x⁵/(3·5) + …) (Marsaglia 2004), for |x| of some units.
fn normal_distribution(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A row divided by its length, or by 1e-6 where it is shorter.
pub(crate) fn unit(row: &[f64]) -> Vec<f64> {
    let length = dot(row, row).sqrt().max(1e-6);
    row.iter().map(|x| x / length).collect()
}

impl Operators for Double {
    type Matrix = Matrix64;
    type Weight = Parameter;

    fn embed(&self, items: &Parameter, positions: &Parameter, scale: f32, batch: &Sequences<'_>) -> Matrix64 {
        let (items, positions) = (self.weight(*items), self.weight(*positions));
        let cols = items.cols;
        let row = |table: &Matrix64, row: u32| table.values[row as usize * cols..][..cols].to_vec();
        let events = batch.items.iter().zip(batch.positions);
        let sum = events.flat_map(|(&item, &position)| {
            let (item, position) = (row(items, item), row(positions, position));
            item.into_iter().zip(position).map(|(item, position)| f64::from(scale) * item + position)
        });
        Matrix64 { cols, values: sum.collect() }
    }

    fn layer_norm(&self, x: &Matrix64, norm: &LayerNorm<Parameter>) -> Matrix64 {
        let part = |parameter: Option<Parameter>, else_all: f64| match parameter {
            Some(parameter) => self.weight(parameter).values.clone(),
            None => vec![else_all; x.cols],
        };
        let (weight, bias) = (part(norm.weight, 1.0), part(norm.bias, 0.0));
        x.map_rows(x.cols, |row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let deviation = (variance + f64::from(norm.eps)).sqrt();
            let affine = weight.iter().zip(&bias);
            row.iter().zip(affine).map(|(x, (weight, bias))| (x - mean) / deviation * weight + bias).collect()
        })
    }

    fn linear(&self, x: &Matrix64, layer: &Linear<Parameter>, activation: Activation) -> Matrix64 {
        let weight = self.weight(layer.weight);
        let bias = layer.bias.map_or_else(|| vec![0.0; weight.cols], |bias| self.weight(bias).values.clone());
        x.map_rows(weight.cols, |row| {
            let column = |j: usize| weight.values.iter().skip(j).step_by(weight.cols);
            let product = |j: usize| row.iter().zip(column(j)).map(|(x, w)| x * w).sum::<f64>();
            (0..weight.cols).map(|j| self.activate(product(j) + bias[j], activation)).collect()
        })
    }

    fn add(&self, x: &mut Matrix64, y: &Matrix64) {
        x.values.iter_mut().zip(&y.values).for_each(|(x, y)| *x += y);
    }

    fn attention(
        &self,
        q: &Matrix64,
        k: &Matrix64,
        v: &Matrix64,
        heads: usize,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Matrix64 {
        assert_eq!(rows, Rows::All, "training looks at every event");
        let (cols, width) = (q.cols, q.cols / heads);
        let mut out = Matrix64 { cols, values: vec![0.0; q.values.len()] };
        for history in batch.offsets.windows(2) {
            for (event, head) in (history[0]..history[1]).flat_map(|event| (0..heads).map(move |head| (event, head))) {
                let part = |row: usize| row * cols + head * width..row * cols + (head + 1) * width;
                let past = history[0]..event + 1;
                let score = |past| dot(&q.values[part(event)], &k.values[part(past)]) / (width as f64).sqrt();
                let weights: Vec<f64> = past.clone().map(|past| score(past).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, past) in weights.iter().zip(past) {
                    let value = &v.values[part(past)];
                    out.values[part(event)].iter_mut().zip(value).for_each(|(out, v)| *out += weight / sum * v);
                }
            }
        }
        out
    }

    fn silu_attention(
        &self,
        q: &Matrix64,
        k: &Matrix64,
        v: &Matrix64,
        attention: &SiluAttention<Parameter>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Matrix64 {
        assert_eq!(rows, Rows::All, "training looks at every event");
        let &SiluAttention { heads, ref bias, divisor } = attention;
        let positions = &self.weight(bias.positions).values;
        let by_time = |event: usize, past: usize| match bias.times {
            Some(times) => self.weight(times).values[time_bucket(batch.until[event] - batch.times[past])],
            None => 0.0,
        };
        let (dim, width) = (q.cols / heads, v.cols / heads);
        let mut out = Matrix64 { cols: v.cols, values: vec![0.0; v.values.len()] };
        for history in batch.offsets.windows(2) {
            for (event, head) in (history[0]..history[1]).flat_map(|event| (0..heads).map(move |head| (event, head))) {
                let part = |row: usize| row * q.cols + head * dim..row * q.cols + (head + 1) * dim;
                let value = |row: usize| row * v.cols + head * width..row * v.cols + (head + 1) * width;
                for past in history[0]..event + 1 {
                    let product = dot(&q.values[part(event)], &k.values[part(past)]);
                    let score = product + positions[positions.len() / 2 + past - event] + by_time(event, past);
                    let weight = self.activate(score, Activation::Silu) / f64::from(divisor);
                    let values = &v.values[value(past)];
                    out.values[value(event)].iter_mut().zip(values).for_each(|(out, v)| *out += weight * v);
                }
            }
        }
        out
    }

    fn multiply(&self, x: &Matrix64, y: &Matrix64) -> Matrix64 {
        Matrix64 { cols: x.cols, values: x.values.iter().zip(&y.values).map(|(x, y)| x * y).collect() }
    }

    fn last_rows(&self, x: &Matrix64, batch: &Sequences<'_>) -> Matrix64 {
        let last = batch.offsets[1..].iter().flat_map(|&end| x.values[(end - 1) * x.cols..end * x.cols].to_vec());
        Matrix64 { cols: x.cols, values: last.collect() }
    }

    fn l2_normalize(&self, x: &Matrix64) -> Matrix64 {
        x.map_rows(x.cols, unit)
    }
}
