//! What happens to a vector before it is coded: networks side by side, whose results stand one after the other.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};
use rayon::prelude::*;

use crate::Result;

/// Rows that a thread computes at a time.
const ROWS: usize = 256;

/// Linear layers with ReLU between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// In their order; weights are `[inputs, outputs]`.
    pub layers: Vec<Layer>,
}

/// One linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Numbers that go in.
    pub inputs: usize,
    /// `[inputs, outputs]`, row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`, where there is one.
    pub bias: Option<Vec<f32>>,
}

impl Layer {
    /// Numbers that come out.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.weight.len() / self.inputs.max(1)
    }

    fn linear(&self) -> Result<Linear> {
        let weight = Tensor::from_vec(self.weight.clone(), vec![self.inputs, self.outputs()])?;
        let bias = self.bias.as_ref().map(|bias| Tensor::from_vec(bias.clone(), vec![bias.len()])).transpose()?;
        Ok(Linear { weight, bias })
    }
}

/// Networks side by side; without any, vectors stay as they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoder {
    /// All of them get the whole vector.
    pub networks: Vec<Network>,
}

impl Encoder {
    /// x ↦ x·R.
    #[must_use]
    pub fn rotation(matrix: Vec<f32>, dim: usize) -> Self {
        Self { networks: vec![Network { layers: vec![Layer { inputs: dim, weight: matrix, bias: None }] }] }
    }

    /// What is coded of `vectors` (`[n, dim]`).
    ///
    /// # Errors
    /// Where a layer's numbers do not make a matrix.
    pub fn encode(&self, vectors: &[f32], dim: usize) -> Result<Vec<f32>> {
        if self.networks.is_empty() {
            return Ok(vectors.to_vec());
        }
        let networks: Vec<Vec<Linear>> =
            self.networks.iter().map(|n| n.layers.iter().map(Layer::linear).collect()).collect::<Result<_>>()?;
        let encoded = |rows: &[f32]| {
            let rows = Matrix::from_slice(rows, dim);
            side_by_side(&networks.iter().map(|layers| forward(layers, &rows)).collect::<Vec<_>>())
        };
        // A session codes a new item on its own thread, and starts no others.
        if vectors.len() <= ROWS * dim {
            return Ok(encoded(vectors));
        }
        let chunks: Vec<Vec<f32>> = vectors.par_chunks(ROWS * dim).map(encoded).collect();
        Ok(chunks.concat())
    }
}

fn forward(layers: &[Linear], rows: &Matrix) -> Matrix {
    let cpu = Cpu::new();
    let mut x = Matrix::from_slice(rows.as_slice(), rows.cols());
    for (place, layer) in layers.iter().enumerate() {
        let activation = if place + 1 < layers.len() { Activation::Relu } else { Activation::Identity };
        x = cpu.linear(&x, layer, activation);
    }
    x
}

/// Rows of several matrices, one after the other.
pub(super) fn side_by_side(parts: &[Matrix]) -> Vec<f32> {
    let rows = parts.first().map_or(0, Matrix::rows);
    (0..rows).flat_map(|row| parts.iter().flat_map(move |part| part.row(row))).copied().collect()
}
