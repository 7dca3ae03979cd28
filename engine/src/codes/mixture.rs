//! Parallel codebooks by a mixture of experts (REG4Rec 2025): one encoder and one codebook a level, and a gate that says
//! how much of a vector each has to say.
//!
//! L = MSE(x, x̂) + mean over levels of ‖sg(h) − e‖² + β‖h − sg(e)‖² + λ_b·K·Σ_k (mean g_k)² + λ_d·mean cos²(h_j, h_k),
//! where x̂ is decoded from K·g_k·e_k of all levels side by side: the third keeps the gate from leaving experts without
//! work, the fourth keeps two experts from saying the same.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators};
use serde_json::Value;

use super::encoder::{Encoder, side_by_side};
use super::network::{self, Autoencoder, Training};
use super::{Decoder, Form, Learnt, Options, Quantizer, nearest, residual};
use crate::train::{Gradients, Parameter, Parameters, Slice, Tape};
use crate::{Control, Result};

/// β
const COMMITMENT: f32 = 0.25;
/// λ_b
const BALANCE: f32 = 0.01;
/// λ_d
const DECORRELATION: f32 = 0.01;

struct Mixture<'a> {
    vectors: &'a [f32],
    dim: usize,
    experts: Vec<Vec<Linear<Parameter>>>,
    gate: Linear<Parameter>,
    decoder: Vec<Linear<Parameter>>,
    books: Vec<Parameter>,
    /// Rows of the step under way.
    rows: usize,
}

/// Learns experts, gate, decoder and codebooks of `vectors` (`[n, dim]`).
///
/// # Errors
/// [`crate::Error::Data`] where there are no vectors, [`crate::Error::Parameter`] for sizes without meaning.
pub fn fit(
    vectors: &[f32],
    dim: usize,
    options: &Options,
    training: &Training,
    control: &Control,
) -> Result<(Learnt, Vec<Value>)> {
    options.check(vectors, dim)?;
    training.check()?;
    let (levels, seed) = (options.levels, options.seed);
    let mut parameters = Parameters::default();
    let widths = training.down(dim);
    let experts = (0..levels)
        .map(|level| network::layers(&mut parameters, &format!("expert.{level}"), &widths, seed))
        .collect::<Result<Vec<_>>>()?;
    let gate = network::layers(&mut parameters, "gate", &[dim, levels], seed)?.remove(0);
    let decoder = network::layers(&mut parameters, "decoder", &training.up(levels * training.latent, dim), seed)?;
    let books = network::books(&mut parameters, levels, options.size, training.latent, seed)?;
    let mut model = Mixture { vectors, dim, experts, gate, decoder, books, rows: 0 };
    for (level, rows) in model.coded(&parameters, control)?.iter().enumerate() {
        let one = Options { levels: 1, seed: seed ^ level as u64, ..options.clone() };
        let start = residual::fit(rows, training.latent, &one, control)?;
        parameters.tensor_mut(model.books[level]).to_mut().copy_from_slice(&start.codebooks[0].words);
    }
    let curve = network::train(&mut model, &mut parameters, vectors.len() / dim, training, options, control)?;
    let codebooks = model.books.iter().map(|&book| network::codebook(parameters.tensor(book))).collect();
    let networks = model.experts.iter().map(|layers| network::learnt(&parameters, layers)).collect();
    let gate = network::learnt(&parameters, std::slice::from_ref(&model.gate));
    let learnt = Learnt {
        encoder: Encoder { networks },
        quantizer: Quantizer { form: Form::Parallel, codebooks },
        decoder: Decoder::Gated { gate, network: network::learnt(&parameters, &model.decoder) },
    };
    Ok((learnt, curve))
}

/// Softmax of every row.
pub(super) fn shares(logits: &[f32], levels: usize) -> Vec<f32> {
    let softmax = |row: &[f32]| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = row.iter().map(|x| (x - most).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.into_iter().map(move |x| x / sum)
    };
    logits.chunks_exact(levels).flat_map(softmax).collect()
}

/// Code words of all levels side by side, each times K·g_k.
pub(super) fn gated(words: &[f32], shares: &[f32], levels: usize) -> Vec<f32> {
    let width = words.len() / shares.len().max(1);
    let parts = words.chunks_exact(width).zip(shares);
    parts.flat_map(|(part, share)| part.iter().map(move |x| levels as f32 * share * x)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

impl Slice for Mixture<'_> {
    /// Its share of the loss.
    type Told = f64;

    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> f64 {
        let levels = self.books.len();
        let target = network::gathered(self.vectors, self.dim, rows);
        let input = || tape.constant(network::gathered(self.vectors, self.dim, rows));
        let hidden: Vec<_> = self.experts.iter().map(|layers| network::forward(&tape, layers, input())).collect();
        let gate = tape.linear(&input(), &self.gate, Activation::Identity);
        let width = hidden[0].value().cols();
        let share = 1.0 / (levels * self.rows * width) as f32;
        let mut loss = 0.0f64;
        // Derivatives by what the experts say that do not come through the decoder.
        let mut own: Vec<Vec<f32>> = vec![vec![0.0; rows.len() * width]; levels];
        let mut words = Vec::with_capacity(levels);
        for level in 0..levels {
            let (book, said) = (network::codebook(&tape.tensor(self.books[level])), hidden[level].value().as_slice());
            let dwords = gradients.whole(self.books[level]).as_mut_slice();
            let mut chosen = Vec::with_capacity(said.len());
            for (row, (code, _)) in nearest::nearest_here(said, &book).into_iter().enumerate() {
                for (place, word) in book.word(code).iter().enumerate() {
                    let apart = said[row * width + place] - word;
                    loss += f64::from((1.0 + COMMITMENT) * share * apart * apart);
                    dwords[usize::from(code) * width + place] -= 2.0 * share * apart;
                    own[level][row * width + place] += 2.0 * COMMITMENT * share * apart;
                    chosen.push(*word);
                }
            }
            words.push(Matrix::from_slice(&chosen, width));
        }
        let said: Vec<&[f32]> = hidden.iter().map(|hidden| hidden.value().as_slice()).collect();
        loss += self.decorrelate(&said, width, &mut own);
        let words = side_by_side(&words);
        let shares = shares(gate.value().as_slice(), levels);
        let means: Vec<f32> = (0..levels)
            .map(|level| shares.iter().skip(level).step_by(levels).sum::<f32>() / rows.len().max(1) as f32)
            .collect();
        let balance = BALANCE * levels as f32 * rows.len() as f32 / self.rows as f32;
        loss += f64::from(balance * dot(&means, &means));

        let value = Matrix::from_slice(&gated(&words, &shares, levels), levels * width);
        let operands: Vec<_> = hidden.iter().chain([&gate]).collect();
        let total = self.rows as f32;
        let through = tape.apply(&operands, value, move |_, dy| {
            let mut by_share = vec![0.0; shares.len()];
            for (row, dy) in dy.as_slice().chunks_exact(levels * width).enumerate() {
                for (level, dy) in dy.chunks_exact(width).enumerate() {
                    let (at, scale) = (row * levels + level, levels as f32);
                    by_share[at] =
                        scale * dot(dy, &words[at * width..][..width]) + 2.0 * BALANCE * scale * means[level] / total;
                    let own = &mut own[level][row * width..][..width];
                    own.iter_mut().zip(dy).for_each(|(own, dy)| *own += scale * shares[at] * dy);
                }
            }
            let by_logit = by_share.chunks_exact(levels).zip(shares.chunks_exact(levels)).flat_map(|(by, shares)| {
                let mean = dot(by, shares);
                by.iter().zip(shares).map(move |(by, share)| share * (by - mean))
            });
            let by_logit = Matrix::from_slice(&by_logit.collect::<Vec<f32>>(), levels);
            own.iter().map(|own| Matrix::from_slice(own, width)).chain([by_logit]).collect()
        });
        let output = network::forward(&tape, &self.decoder, through);
        loss + network::reconstruct(tape, &output, &target, self.rows, gradients)
    }
}

impl Mixture<'_> {
    /// λ_d·mean over rows and pairs of cos²(h_j, h_k): adds its derivatives, gives its value.
    fn decorrelate(&self, said: &[&[f32]], width: usize, own: &mut [Vec<f32>]) -> f64 {
        let levels = said.len();
        let pairs = (levels * (levels - 1) / 2).max(1);
        let weight = DECORRELATION / (pairs * self.rows) as f32;
        let rows = said.first().map_or(0, |said| said.len() / width);
        let mut loss = 0.0f64;
        for at in (0..rows).map(|row| row * width) {
            let units: Vec<(f32, Vec<f32>)> = said
                .iter()
                .map(|said| {
                    let length = dot(&said[at..][..width], &said[at..][..width]).sqrt().max(1e-6);
                    (length, said[at..][..width].iter().map(|x| x / length).collect())
                })
                .collect();
            for (j, k) in (0..levels).flat_map(|j| (j + 1..levels).map(move |k| (j, k))) {
                let cosine = dot(&units[j].1, &units[k].1);
                loss += f64::from(weight * cosine * cosine);
                for (a, b) in [(j, k), (k, j)] {
                    let scale = 2.0 * weight * cosine / units[a].0;
                    let both = units[a].1.iter().zip(&units[b].1);
                    let own = own[a][at..][..width].iter_mut();
                    own.zip(both).for_each(|(own, (a, b))| *own += scale * (b - cosine * a));
                }
            }
        }
        loss
    }
}

impl Autoencoder for Mixture<'_> {
    fn begin(&mut self, rows: usize) {
        self.rows = rows;
    }

    fn coded(&self, parameters: &Parameters, control: &Control) -> Result<Vec<Vec<f32>>> {
        control.check()?;
        let expert = |layers: &Vec<Linear<Parameter>>| {
            Encoder { networks: vec![network::learnt(parameters, layers)] }.encode(self.vectors, self.dim)
        };
        self.experts.iter().map(expert).collect()
    }

    fn books(&self) -> &[Parameter] {
        &self.books
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::gradient_tests::{
        DIM, ROWS, Rows, apart, check, chosen, draw, forward, plus, rows, vectors, words,
    };
    use super::*;

    fn softmax(row: &[f64]) -> Vec<f64> {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x.exp() / sum).collect()
    }

    fn squared_cosines(a: &Rows, b: &Rows) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        a.iter().zip(b).map(|(a, b)| dot(a, b).powi(2) / (dot(a, a) * dot(b, b))).sum()
    }

    #[test]
    fn derivatives_are_those_of_finite_differences() {
        let (vectors, levels, width) = (vectors(), 3, 2);
        let mut parameters = Parameters::default();
        let expert = |level: usize, parameters: &mut Parameters| {
            network::layers(parameters, &format!("expert.{level}"), &[DIM, 4, width], 1).unwrap()
        };
        let experts = (0..levels).map(|level| expert(level, &mut parameters)).collect();
        let gate = network::layers(&mut parameters, "gate", &[DIM, levels], 1).unwrap().remove(0);
        let decoder = network::layers(&mut parameters, "decoder", &[levels * width, 4, DIM], 1).unwrap();
        let books = network::books(&mut parameters, levels, 3, width, 1).unwrap();
        draw(&mut parameters);
        let model = Mixture { vectors: &vectors, dim: DIM, experts, gate, decoder, books, rows: ROWS };
        let input = rows(&vectors, DIM);
        check(&model, &parameters, |moved, start| {
            let share = 1.0 / (levels * ROWS * width) as f64;
            let said = |parameters: &Parameters| -> Vec<Rows> {
                model.experts.iter().map(|layers| forward(parameters, layers, &input)).collect()
            };
            let (fixed, hidden) = (said(start), said(moved));
            let gates = forward(moved, std::slice::from_ref(&model.gate), &input);
            let gates: Rows = gates.iter().map(|row| softmax(row)).collect();
            let mut loss = 0.0;
            let mut through: Rows = vec![Vec::new(); ROWS];
            for (level, &book) in model.books.iter().enumerate() {
                let codes = chosen(start, book, &fixed[level]);
                let word = words(start, book, &codes);
                loss += share * apart(&fixed[level], &words(moved, book, &codes));
                loss += f64::from(COMMITMENT) * share * apart(&hidden[level], &word);
                let straight = plus(&plus(&hidden[level], &fixed[level], -1.0), &word, 1.0);
                for (row, part) in straight.iter().enumerate() {
                    through[row].extend(part.iter().map(|x| levels as f64 * gates[row][level] * x));
                }
                let mean = gates.iter().map(|row| row[level]).sum::<f64>() / ROWS as f64;
                loss += f64::from(BALANCE) * levels as f64 * mean * mean;
                for other in level + 1..levels {
                    let pairs = (levels * (levels - 1) / 2 * ROWS) as f64;
                    loss += f64::from(DECORRELATION) / pairs * squared_cosines(&hidden[level], &hidden[other]);
                }
            }
            loss + apart(&forward(moved, &model.decoder, &through), &input) / (ROWS * DIM) as f64
        });
    }
}
