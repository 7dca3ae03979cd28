//! The nearest code word of many vectors.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};
use rayon::prelude::*;

use super::Codebook;
use crate::{Control, Result};

/// Vectors that a thread compares at a time.
const ROWS: usize = 256;

/// For every row of `vectors` (`[n, dim]`) the nearest code word and the squared distance to it, ties by the lower number.
pub(super) fn nearest(vectors: &[f32], codebook: &Codebook, control: &Control) -> Result<Vec<(u16, f32)>> {
    let words = Words::new(codebook);
    let chunks: Result<Vec<Vec<(u16, f32)>>> = vectors
        .par_chunks(ROWS * codebook.dim)
        .map(|rows| {
            control.check()?;
            Ok(words.nearest(rows))
        })
        .collect();
    Ok(chunks?.concat())
}

/// The same on the calling thread.
pub(super) fn nearest_here(vectors: &[f32], codebook: &Codebook) -> Vec<(u16, f32)> {
    let words = Words::new(codebook);
    vectors.chunks(ROWS * codebook.dim).flat_map(|rows| words.nearest(rows)).collect()
}

/// ‖x − c‖² = ‖x‖² − 2·(x·c − ‖c‖²/2): a matrix product with a bias.
struct Words {
    dim: usize,
    layer: Linear,
}

impl Words {
    fn new(codebook: &Codebook) -> Self {
        let (dim, size) = (codebook.dim, codebook.size);
        let mut transposed = vec![0.0; dim * size];
        for (code, word) in codebook.words.chunks_exact(dim).enumerate() {
            word.iter().enumerate().for_each(|(row, &x)| transposed[row * size + code] = x);
        }
        let bias: Vec<f32> = codebook.words.chunks_exact(dim).map(|word| -0.5 * squared(word)).collect();
        let tensor = |values, shape: Vec<usize>| {
            Tensor::from_vec(values, shape).unwrap_or_else(|_| panic!("a codebook holds size × dim numbers"))
        };
        Self {
            dim,
            layer: Linear { weight: tensor(transposed, vec![dim, size]), bias: Some(tensor(bias, vec![size])) },
        }
    }

    fn nearest(&self, rows: &[f32]) -> Vec<(u16, f32)> {
        let products = Cpu::new().linear(&Matrix::from_slice(rows, self.dim), &self.layer, Activation::Identity);
        let best = |(row, x): (usize, &[f32])| {
            let (code, product) = largest(products.row(row));
            (code, (squared(x) - 2.0 * product).max(0.0))
        };
        rows.chunks_exact(self.dim).enumerate().map(best).collect()
    }
}

/// Where the largest number is, the first of several.
fn largest(row: &[f32]) -> (u16, f32) {
    let better = |best: (u16, f32), (place, &x): (usize, &f32)| if x > best.1 { (place as u16, x) } else { best };
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), better)
}

/// The sum of squares.
pub(super) fn squared(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum()
}
