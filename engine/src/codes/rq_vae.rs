//! RQ-VAE (Lee et al. 2022; as LC-Rec, Zheng et al. 2023): an autoencoder whose latent vector is coded by residual
//! quantisation, learnt together with the code words.
//!
//! L = MSE(x, x̂) + mean over levels of ‖sg(r) − e‖² + β‖r − sg(e)‖², straight through the quantiser. As in the published
//! code, what a level leaves carries no derivative, so that the first level's commitment alone reaches the encoder.

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Linear, Operators};
use serde_json::Value;

use super::encoder::{Encoder, Network};
use super::network::{self, Autoencoder, Training};
use super::quantizer::subtract;
use super::{Decoder, Form, Learnt, Options, Quantizer, nearest, residual};
use crate::train::{Gradients, Parameter, Parameters, Slice, Tape};
use crate::{Control, Result};

/// β
const COMMITMENT: f32 = 0.25;

struct RqVae<'a> {
    vectors: &'a [f32],
    dim: usize,
    encoder: Vec<Linear<Parameter>>,
    decoder: Vec<Linear<Parameter>>,
    books: Vec<Parameter>,
    /// Rows of the step under way.
    rows: usize,
}

/// Learns encoder, decoder and codebooks of `vectors` (`[n, dim]`).
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
    let mut parameters = Parameters::default();
    let seed = options.seed;
    let encoder = network::layers(&mut parameters, "encoder", &training.down(dim), seed)?;
    let decoder = network::layers(&mut parameters, "decoder", &training.up(training.latent, dim), seed)?;
    let books = network::books(&mut parameters, options.levels, options.size, training.latent, seed)?;
    // Words begin where vectors are, as in the published code.
    let latent = encoded(&parameters, &encoder, vectors, dim)?;
    let start = residual::fit(&latent, training.latent, options, control)?;
    for (&book, words) in books.iter().zip(&start.codebooks) {
        parameters.tensor_mut(book).to_mut().copy_from_slice(&words.words);
    }
    let mut model = RqVae { vectors, dim, encoder, decoder, books, rows: 0 };
    let curve = network::train(&mut model, &mut parameters, vectors.len() / dim, training, options, control)?;
    let codebooks = model.books.iter().map(|&book| network::codebook(parameters.tensor(book))).collect();
    let learnt = Learnt {
        encoder: Encoder { networks: vec![network::learnt(&parameters, &model.encoder)] },
        quantizer: Quantizer { form: Form::Residual, codebooks },
        decoder: Decoder::Network(network::learnt(&parameters, &model.decoder)),
    };
    Ok((learnt, curve))
}

fn encoded(parameters: &Parameters, layers: &[Linear<Parameter>], vectors: &[f32], dim: usize) -> Result<Vec<f32>> {
    let network: Network = network::learnt(parameters, layers);
    Encoder { networks: vec![network] }.encode(vectors, dim)
}

impl Slice for RqVae<'_> {
    /// Its share of the loss.
    type Told = f64;

    fn compute(&self, tape: Tape<'_, Cpu>, rows: &[usize], gradients: &mut Gradients<Matrix>) -> f64 {
        let target = network::gathered(self.vectors, self.dim, rows);
        let input = tape.constant(network::gathered(self.vectors, self.dim, rows));
        let latent = network::forward(&tape, &self.encoder, input);
        let width = latent.value().cols();
        let share = 1.0 / (self.books.len() * self.rows * width) as f32;
        let mut rest = latent.value().as_slice().to_vec();
        let mut coded = vec![0.0f32; rest.len()];
        let (mut loss, mut commitment) = (0.0f64, Vec::new());
        for (level, &book) in self.books.iter().enumerate() {
            let words = network::codebook(&tape.tensor(book));
            let found = nearest::nearest_here(&rest, &words);
            let dwords = gradients.whole(book).as_mut_slice();
            for (row, (code, _)) in found.into_iter().enumerate() {
                let (word, at) = (words.word(code), row * width);
                for place in 0..width {
                    let apart = rest[at + place] - word[place];
                    loss += f64::from((1.0 + COMMITMENT) * share * apart * apart);
                    dwords[usize::from(code) * width + place] -= 2.0 * share * apart;
                    if level == 0 {
                        commitment.push(2.0 * COMMITMENT * share * apart);
                    }
                    coded[at + place] += word[place];
                    rest[at + place] = apart;
                }
            }
        }
        let commitment = Matrix::from_slice(&commitment, width);
        let through = tape.apply(&[&latent], Matrix::from_slice(&coded, width), move |device, mut dy| {
            device.add(&mut dy, &commitment);
            vec![dy]
        });
        let output = network::forward(&tape, &self.decoder, through);
        loss + network::reconstruct(tape, &output, &target, self.rows, gradients)
    }
}

impl Autoencoder for RqVae<'_> {
    fn begin(&mut self, rows: usize) {
        self.rows = rows;
    }

    fn coded(&self, parameters: &Parameters, control: &Control) -> Result<Vec<Vec<f32>>> {
        let mut rest = encoded(parameters, &self.encoder, self.vectors, self.dim)?;
        let mut all = Vec::with_capacity(self.books.len());
        for &book in &self.books {
            all.push(rest.clone());
            subtract(&mut rest, &network::codebook(parameters.tensor(book)), control)?;
        }
        Ok(all)
    }

    fn books(&self) -> &[Parameter] {
        &self.books
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::gradient_tests::{DIM, ROWS, apart, check, chosen, draw, forward, plus, rows, vectors, words};
    use super::*;

    #[test]
    fn derivatives_are_those_of_finite_differences() {
        let (vectors, levels, width) = (vectors(), 3, 2);
        let mut parameters = Parameters::default();
        let encoder = network::layers(&mut parameters, "encoder", &[DIM, 4, width], 1).unwrap();
        let decoder = network::layers(&mut parameters, "decoder", &[width, 4, DIM], 1).unwrap();
        let books = network::books(&mut parameters, levels, 3, width, 1).unwrap();
        draw(&mut parameters);
        let model = RqVae { vectors: &vectors, dim: DIM, encoder, decoder, books, rows: ROWS };
        let input = rows(&vectors, DIM);
        check(&model, &parameters, |moved, start| {
            let share = 1.0 / (levels * ROWS * width) as f64;
            let (fixed, latent) = (forward(start, &model.encoder, &input), forward(moved, &model.encoder, &input));
            let (mut rest, mut coded, mut loss) = (fixed.clone(), plus(&fixed, &fixed, -1.0), 0.0);
            for (level, &book) in model.books.iter().enumerate() {
                let codes = chosen(start, book, &rest);
                let word = words(start, book, &codes);
                loss += share * apart(&rest, &words(moved, book, &codes));
                if level == 0 {
                    loss += f64::from(COMMITMENT) * share * apart(&latent, &word);
                }
                coded = plus(&coded, &word, 1.0);
                rest = plus(&rest, &word, -1.0);
            }
            let through = plus(&plus(&latent, &fixed, -1.0), &coded, 1.0);
            loss + apart(&forward(moved, &model.decoder, &through), &input) / (ROWS * DIM) as f64
        });
    }
}
