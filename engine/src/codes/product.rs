//! Optimised product quantisation (Ge et al. 2013): vectors are rotated such that their parts, each with a codebook of its
//! own, lose as little as possible.

use rayon::prelude::*;

use super::means::{improve, means};
use super::quantizer::columns;
use super::{Decoder, Encoder, Form, Learnt, Options, Quantizer};
use crate::random::SplitMix;
use crate::{Control, Error, Result};

/// Times that rotation and codebooks are improved in turn.
const TURNS: usize = 12;
/// Lloyd's iterations within a turn.
const ITERATIONS: usize = 3;
/// Newton and Schulz's iterations: singular values down to 1e-5 of the largest are 1 afterwards.
const POLAR: usize = 40;

/// Learns a rotation and codebooks of `levels` parts of the rotated vectors, which are as long as
/// they can be alike.
///
/// # Errors
/// [`Error::Data`] where there are no vectors, [`Error::Parameter`] for levels or sizes without meaning.
pub fn fit(vectors: &[f32], dim: usize, options: &Options, control: &Control) -> Result<Learnt> {
    options.check(vectors, dim)?;
    if options.levels > dim {
        return Err(Error::Parameter(format!("vectors of {dim} numbers have no {} parts", options.levels)));
    }
    let mut random = SplitMix::new(options.seed);
    let widths = (0..options.levels).map(|level| (level + 1) * dim / options.levels - level * dim / options.levels);
    let widths: Vec<usize> = widths.collect();
    let mut rotation = identity(dim);
    control.enter("learning codebooks", (TURNS + 1) as u64);
    let mut quantizer = Quantizer { form: Form::Parallel, codebooks: Vec::new() };
    for (part, &width) in parts(vectors, dim, &widths).iter().zip(&widths) {
        quantizer.codebooks.push(means(part, width, options, &mut random, control)?);
    }
    for _ in 0..TURNS {
        control.advance(1)?;
        let rotated = multiply(vectors, dim, &rotation)?;
        let codes = quantizer.encode(&rotated, control)?;
        let decoded: Vec<f32> = (0..codes.len()).flat_map(|item| quantizer.decode(codes.item(item))).collect();
        rotation = nearest_rotation(&products(vectors, &decoded, dim), &rotation, dim)?;
        let rotated = multiply(vectors, dim, &rotation)?;
        for (codebook, part) in quantizer.codebooks.iter_mut().zip(parts(&rotated, dim, &widths)) {
            improve(codebook, &part, ITERATIONS, control)?;
        }
    }
    Ok(Learnt { encoder: Encoder::rotation(rotation, dim), quantizer, decoder: Decoder::Same })
}

fn identity(dim: usize) -> Vec<f32> {
    (0..dim * dim).map(|at| if at % (dim + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

fn parts(rows: &[f32], dim: usize, widths: &[usize]) -> Vec<Vec<f32>> {
    let starts = widths.iter().scan(0, |start, width| Some(std::mem::replace(start, *start + width)));
    starts.zip(widths).map(|(start, &width)| columns(rows, dim, start, width)).collect()
}

/// `rows`·`matrix`.
fn multiply(rows: &[f32], dim: usize, matrix: &[f32]) -> Result<Vec<f32>> {
    Encoder::rotation(matrix.to_vec(), dim).encode(rows, dim)
}

/// Xᵀ·Y of matrices of as many rows, `[dim, dim]`, in f64.
fn products(x: &[f32], y: &[f32], dim: usize) -> Vec<f64> {
    let sum = |rows: std::ops::Range<usize>| {
        let mut sum = vec![0.0f64; dim * dim];
        for row in rows {
            let y = &y[row * dim..][..dim];
            for (x, sum) in x[row * dim..][..dim].iter().zip(sum.chunks_exact_mut(dim)) {
                sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += f64::from(*x) * f64::from(*y));
            }
        }
        sum
    };
    let count = x.len() / dim;
    let slice = count.div_ceil(rayon::current_num_threads()).max(1);
    let starts: Vec<usize> = (0..count).step_by(slice).collect();
    let sums: Vec<Vec<f64>> = starts.into_par_iter().map(|start| sum(start..(start + slice).min(count))).collect();
    sums.into_iter().fold(vec![0.0; dim * dim], |mut all, part| {
        all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
        all
    })
}

/// The rotation that brings X nearest to Y, of Xᵀ·Y: the orthogonal factor of its polar decomposition, by the iteration of
/// Newton and Schulz, Z ← Z·(3 − ZᵀZ)/2. A little of the rotation before decides where XᵀY says nothing.
fn nearest_rotation(products: &[f64], before: &[f32], dim: usize) -> Result<Vec<f32>> {
    let length = products.iter().map(|x| x * x).sum::<f64>().sqrt();
    let near = 1e-3 * length / (dim as f64).sqrt();
    let mixed = products.iter().zip(before).map(|(x, r)| x + near * f64::from(*r));
    let mixed: Vec<f64> = mixed.collect();
    let length = mixed.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let mut z: Vec<f32> = mixed.iter().map(|x| (x / length) as f32).collect();
    for _ in 0..POLAR {
        let gram = multiply(&transposed(&z, dim), dim, &z)?;
        let step: Vec<f32> =
            gram.iter().enumerate().map(|(at, x)| if at % (dim + 1) == 0 { 1.5 - 0.5 * x } else { -0.5 * x }).collect();
        z = multiply(&z, dim, &step)?;
    }
    Ok(z)
}

fn transposed(matrix: &[f32], dim: usize) -> Vec<f32> {
    (0..dim * dim).map(|at| matrix[at % dim * dim + at / dim]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_of_the_vectors_costs_little_once_it_is_learnt() {
        // Parts of clusters each, mixed by a rotation that no cut along the axes undoes.
        let (dim, count, mut random) = (8, 2000, SplitMix::new(3));
        let centres: Vec<f32> = (0..2 * 4 * 4).map(|_| 3.0 * random.truncated_normal()).collect();
        let rows: Vec<f32> = (0..count)
            .flat_map(|_| {
                let part = |half: usize, random: &mut SplitMix| {
                    let centre = half * 16 + 4 * random.below(4);
                    (0..4).map(|at| centres[centre + at] + 0.05 * random.truncated_normal()).collect::<Vec<f32>>()
                };
                let first = part(0, &mut random);
                [first, part(1, &mut random)].concat()
            })
            .collect();
        let noise: Vec<f64> = (0..dim * dim).map(|_| f64::from(random.truncated_normal())).collect();
        let mixing = nearest_rotation(&noise, &identity(dim), dim).unwrap();
        let mixed = multiply(&rows, dim, &mixing).unwrap();
        let options = Options { levels: 2, size: 4, iterations: 20, seed: 1 };
        let control = Control::default();
        let error = |quantizer: &Quantizer, rows: &[f32]| {
            let codes = quantizer.encode(rows, &control).unwrap();
            let errors = rows.chunks(dim).enumerate().map(|(at, row)| quantizer.error(row, codes.item(at)));
            errors.sum::<f32>() / count as f32
        };
        let Learnt { encoder, quantizer: learnt, .. } = fit(&mixed, dim, &options, &control).unwrap();
        let rotation = &encoder.networks[0].layers[0].weight;
        let unit = multiply(&transposed(rotation, dim), dim, rotation).unwrap();
        assert!(unit.iter().zip(identity(dim)).all(|(a, b)| (a - b).abs() < 1e-3), "{unit:?}");
        let learnt = error(&learnt, &multiply(&mixed, dim, rotation).unwrap());
        let plain = parts(&mixed, dim, &[4, 4]);
        let mut seeded = SplitMix::new(1);
        let plain = Quantizer {
            form: Form::Parallel,
            codebooks: plain.iter().map(|part| means(part, 4, &options, &mut seeded, &control).unwrap()).collect(),
        };
        let plain = error(&plain, &mixed);
        assert!(learnt < 0.5 * plain, "{learnt} {plain}");
    }
}
