//! Derivatives of the autoencoders against finite differences in double precision.
//!
//! What the losses hold fixed (sg) is taken at the parameters where the derivative is asked for, so that the losses become
//! ordinary functions of the parameters.
#![allow(clippy::unwrap_used)]

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{Linear, Tensor};

use super::Codebook;
use super::nearest::nearest_here;
use super::network::codebook;
use crate::random::SplitMix;
use crate::train::{Gradients, Parameter, Parameters, Slice, Tape};

/// Examples, and numbers of each.
pub(super) const ROWS: usize = 7;
pub(super) const DIM: usize = 5;

pub(super) fn vectors() -> Vec<f32> {
    let mut random = SplitMix::new(17);
    (0..ROWS * DIM).map(|_| random.truncated_normal()).collect()
}

/// Numbers for all weights, none of which is 0.
pub(super) fn draw(parameters: &mut Parameters) {
    let mut random = SplitMix::new(5);
    let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let parameter = parameters.find(&name).unwrap();
        parameters.tensor_mut(parameter).to_mut().fill_with(|| 0.5 * random.truncated_normal());
    }
}

/// Numbers in double precision, rows of equal length.
pub(super) type Rows = Vec<Vec<f64>>;

pub(super) fn rows(values: &[f32], dim: usize) -> Rows {
    values.chunks(dim).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}

/// Linear layers with ReLU between them.
pub(super) fn forward(parameters: &Parameters, layers: &[Linear<Parameter>], input: &Rows) -> Rows {
    let mut x = input.clone();
    for (place, layer) in layers.iter().enumerate() {
        let weight = rows(parameters.tensor(layer.weight).as_slice(), parameters.tensor(layer.weight).cols());
        let bias = layer.bias.map(|bias| rows(parameters.tensor(bias).as_slice(), 1));
        let relu = place + 1 < layers.len();
        let output = |row: &Vec<f64>, column: usize| {
            let sum: f64 = row.iter().zip(&weight).map(|(x, weight)| x * weight[column]).sum();
            let y = sum + bias.as_ref().map_or(0.0, |bias| bias[column][0]);
            if relu { y.max(0.0) } else { y }
        };
        x = x.iter().map(|row| (0..weight[0].len()).map(|column| output(row, column)).collect()).collect();
    }
    x
}

/// The nearest words of `codebook` to rows.
pub(super) fn chosen(parameters: &Parameters, book: Parameter, of: &Rows) -> Vec<usize> {
    let book: Codebook = codebook(parameters.tensor(book));
    let flat: Vec<f32> = of.iter().flatten().map(|&x| x as f32).collect();
    nearest_here(&flat, &book).into_iter().map(|(code, _)| usize::from(code)).collect()
}

/// The words with these numbers.
pub(super) fn words(parameters: &Parameters, book: Parameter, codes: &[usize]) -> Rows {
    let tensor: &Tensor = parameters.tensor(book);
    codes.iter().map(|&code| tensor.row(code).iter().map(|&x| f64::from(x)).collect()).collect()
}

/// a + scale·b
pub(super) fn plus(a: &Rows, b: &Rows, scale: f64) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + scale * b).collect()).collect()
}

/// Sum of squared differences.
pub(super) fn apart(a: &Rows, b: &Rows) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Compares what a slice computes for all examples with `loss` of other parameters, given the ones it starts at.
pub(super) fn check(
    slice: &impl Slice<Told = f64>,
    parameters: &Parameters,
    loss: impl Fn(&Parameters, &Parameters) -> f64,
) {
    let device = Cpu::new();
    let mut gradients = Gradients::new(&device, parameters, true);
    let tape = Tape::of_rows(&device, parameters.all());
    let all: Vec<usize> = (0..ROWS).collect();
    assert!(slice.compute(tape, &all, &mut gradients).is_finite());
    let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let parameter = parameters.find(&name).unwrap();
        let found = gradients.whole(parameter).as_slice().to_vec();
        for (place, found) in found.into_iter().enumerate() {
            let moved = |by: f32| {
                let mut moved = parameters.clone();
                let numbers = moved.tensor_mut(parameter).to_mut();
                numbers[place] += by;
                (f64::from(numbers[place]), loss(&moved, parameters))
            };
            let ((from, low), (to, high)) = (moved(-1e-3), moved(1e-3));
            let expected = (high - low) / (to - from);
            let close = (expected - f64::from(found)).abs() <= 2e-4 + 2e-3 * expected.abs();
            assert!(close, "{name}[{place}]: {found}, not {expected}");
        }
    }
}
