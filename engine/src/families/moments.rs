//! Means and covariances of rows.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Device, Linear, Operators, Tensor};
use rayon::prelude::*;

use crate::Result;

/// Rows whose products one task adds up.
const RANGE: usize = 1 << 12;

/// The product of two matrices, row-major, the second of `cols` columns.
pub(crate) fn product(left: &[f32], right: Vec<f32>, cols: usize) -> Result<Vec<f32>> {
    let (cpu, inner) = (Cpu::new(), right.len() / cols);
    let layer = Linear { weight: Tensor::from_vec(right, vec![inner, cols])?, bias: None };
    let product = cpu.linear(&Matrix::from_slice(left, inner), &layer, Activation::Identity);
    Ok(cpu.download(&product)?.into_owned())
}

/// Rows and columns exchanged, every row of `rows` times its weight.
pub(crate) fn weighted_columns(rows: &[f32], cols: usize, weight: impl Fn(usize) -> f32) -> Vec<f32> {
    let count = rows.len() / cols;
    let mut columns = vec![0.0; rows.len()];
    for (place, row) in rows.chunks_exact(cols).enumerate() {
        let by = weight(place);
        row.iter().enumerate().for_each(|(at, x)| columns[at * count + place] = x * by);
    }
    columns
}

/// Mean (`[cols]`) and covariance (`[cols, cols]`) of rows that are weighted.
pub(crate) fn moments(rows: &[f32], cols: usize, weights: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
    let all: f64 = weights.iter().copied().map(f64::from).sum::<f64>().max(f64::MIN_POSITIVE);
    let mut mean = vec![0.0; cols];
    for (row, &weight) in rows.chunks_exact(cols).zip(weights) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(weight) / all * f64::from(*x));
    }
    let mean: Vec<f32> = mean.into_iter().map(|x| x as f32).collect();
    let part = |(rows, weights): (&[f32], &[f32])| {
        let centred: Vec<f32> =
            rows.chunks_exact(cols).flat_map(|row| row.iter().zip(&mean).map(|(x, mean)| x - mean)).collect();
        let columns = weighted_columns(&centred, cols, |row| (f64::from(weights[row]) / all) as f32);
        product(&columns, centred, cols)
    };
    let ranges = rows.par_chunks(RANGE * cols).zip(weights.par_chunks(RANGE));
    let parts = ranges.map(part).collect::<Result<Vec<_>>>()?;
    let mut covariance = vec![0.0; cols * cols];
    parts.iter().for_each(|part| covariance.iter_mut().zip(part).for_each(|(sum, x)| *sum += x));
    Ok((mean, covariance))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use crate::testing;

    #[test]
    fn moments_are_those_of_their_definition() {
        let mut random = SplitMix::new(testing::fresh_seed());
        for (count, cols) in [(1, 1), (7, 3), (RANGE + 5, 17)] {
            let rows: Vec<f32> = (0..count * cols).map(|_| 2.0 + random.truncated_normal()).collect();
            let weights: Vec<f32> =
                (0..count).map(|row| if row % 5 == 1 { 0.0 } else { random.uniform() + 0.1 }).collect();
            let all: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            let sum = |of: &dyn Fn(&[f32]) -> f64| -> f64 {
                rows.chunks(cols).zip(&weights).map(|(row, &weight)| f64::from(weight) * of(row)).sum::<f64>() / all
            };
            let (mean, covariance) = moments(&rows, cols, &weights).unwrap();
            let right: Vec<f64> = (0..cols).map(|at| sum(&|row| f64::from(row[at]))).collect();
            assert!(mean.iter().zip(&right).all(|(x, right)| (f64::from(*x) - right).abs() < 1e-5));
            for (at, x) in covariance.iter().enumerate() {
                let (a, b) = (at / cols, at % cols);
                let right = sum(&|row| (f64::from(row[a]) - right[a]) * (f64::from(row[b]) - right[b]));
                assert!((f64::from(*x) - right).abs() < 1e-4, "{count} {cols} {at}: {x}, not {right}");
            }
        }
    }
}
