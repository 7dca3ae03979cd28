//! What is learnt: from vectors to codes, and back as far as codes go.

use super::encoder::{Encoder, Network};
use super::mixture::{gated, shares};
use super::{Codes, Quantizer};
use crate::Result;

/// From vectors to codes and back.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// What is coded of a vector.
    pub encoder: Encoder,
    /// Codebooks.
    pub quantizer: Quantizer,
    /// From code words to a vector.
    pub decoder: Decoder,
}

/// From code words to the vector that was coded.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoder {
    /// What is coded is the vector, or a rotation of it, whose distances are the vector's.
    Same,
    /// A network of code words.
    Network(Network),
    /// A network of code words times what a gate gives each of the vector.
    Gated {
        /// One logit a level.
        gate: Network,
        /// Of the words of all levels, side by side.
        network: Network,
    },
}

impl Learnt {
    /// Mean squared distance of `vectors` (`[n, dim]`) to what their codes give back, as a share of their variance.
    /// `coded` is what the encoder makes of them.
    ///
    /// # Errors
    /// Where a layer's numbers do not make a matrix.
    pub fn error(&self, vectors: &[f32], coded: &[f32], dim: usize, codes: &Codes<'_>) -> Result<f64> {
        let words: Vec<f32> = (0..codes.len()).flat_map(|item| self.quantizer.decode(codes.item(item))).collect();
        let alone = |network: &Network| Encoder { networks: vec![network.clone()] };
        let (given, back) = match &self.decoder {
            Decoder::Same => (coded, words),
            Decoder::Network(network) => (vectors, alone(network).encode(&words, self.quantizer.dim())?),
            Decoder::Gated { gate, network } => {
                let levels = gate.layers.last().map_or(1, super::encoder::Layer::outputs);
                let shares = shares(&alone(gate).encode(vectors, dim)?, levels);
                // A level that only numbers items has no words.
                let words = gated(&words, &shares, levels);
                (vectors, alone(network).encode(&words, self.quantizer.dim())?)
            }
        };
        let lost: f64 = given.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        Ok(lost / variance(given, given.len() / codes.len().max(1)).max(f64::MIN_POSITIVE))
    }
}

/// Squared distances of rows to their mean, all together.
fn variance(rows: &[f32], dim: usize) -> f64 {
    let rows = || rows.chunks_exact(dim.max(1));
    let count = rows().len().max(1) as f64;
    let mut mean = vec![0.0f64; dim];
    rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / count));
    rows().map(|row| row.iter().zip(&mean).map(|(x, mean)| (f64::from(*x) - mean).powi(2)).sum::<f64>()).sum()
}
