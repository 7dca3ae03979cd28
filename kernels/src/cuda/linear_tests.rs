//! Linear layers against double precision.

use super::tests::{devices, tensor};
use super::*;
use crate::cpu::reference::{self, Random, relative_error};
use crate::{Activation, LayerNorm, Linear};

const ACTIVATIONS: [Activation; 4] = [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::Silu];

impl Cuda {
    /// Numbers as the device holds them.
    fn rounded(&self, values: Vec<f32>, cols: usize) -> Vec<f32> {
        self.numbers(&self.of(&values, cols))
    }
}

fn layer(weight: &[f32], bias: &[f32], inputs: usize) -> Linear {
    let cols = bias.len();
    Linear { weight: tensor(weight.to_vec(), &[inputs, cols]), bias: Some(tensor(bias.to_vec(), &[cols])) }
}

#[test]
fn linear_layers_match_double_precision_in_every_tail() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        let shapes = [(1, 1, 1), (0, 5, 7), (31, 7, 16), (33, 50, 33), (130, 64, 64), (64, 300, 50), (257, 33, 200)];
        for (place, (m, k, n)) in shapes.into_iter().enumerate() {
            // One number is all of the norm where there is but one.
            let sign = |x: f32| if m * n < 32 { x.abs() } else { x };
            let x = cuda.of(&random.normals(m * k).into_iter().map(sign).collect::<Vec<_>>(), k);
            let weight = random.normals(k * n).into_iter().map(|w| sign(w) / (k as f32).sqrt()).collect();
            let weight = cuda.rounded(weight, n);
            let bias: Vec<f32> = random.normals(n).into_iter().map(sign).collect();
            for activation in [ACTIVATIONS[place % 4], ACTIVATIONS[(place + 1) % 4]] {
                let out = cuda.linear_rows(&x, &layer(&weight, &bias, k), activation);
                let wanted = reference::linear(&cuda.numbers(&x), &weight, Some(&bias), [m, k, n], activation);
                let error = relative_error(&cuda.numbers(&out), &wanted);
                assert!(error < tolerance, "{:?} {activation:?} {m} {k} {n}: {error}", cuda.precision);
            }
        }
    }
}

#[test]
fn layers_of_normalised_and_of_gated_rows_match_double_precision() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        // Also rows of several tiles, and such as Hopper's blocks just keep and no longer keep.
        let shapes = [
            (33, 50, [50, 1, 70, 33]),
            (70, 128, [64, 64, 65, 64]),
            (300, 64, [64, 64, 64, 64]),
            (400, 257, [70, 200, 65, 64]),
            (129, 512, [64, 1, 128, 10]),
            (40, 513, [64, 1, 130, 10]),
        ];
        for (m, k, widths) in shapes {
            let rows = random.normals(m * k).into_iter().map(|x| 2.0 * x + 3.0).collect::<Vec<_>>();
            let x = cuda.of(&rows, k);
            let (norm_weight, norm_bias) = (random.normals(k), random.normals(k));
            let affine = k == 50;
            let vector = |values: &Vec<f32>| affine.then(|| tensor(values.clone(), &[k]));
            let norm = LayerNorm { weight: vector(&norm_weight), bias: vector(&norm_bias), eps: 1e-6 };
            let of_reference = |values: &'_ Vec<f32>| if affine { Some(values.clone()) } else { None };
            let (w, b) = (of_reference(&norm_weight), of_reference(&norm_bias));
            let normed = reference::layer_norm(&cuda.numbers(&x), k, w.as_deref(), b.as_deref(), 1e-6);

            let weights = widths.map(|n| {
                let scale = |w: f32| w / (k as f32).sqrt();
                (cuda.rounded(random.normals(k * n).into_iter().map(scale).collect(), n), random.normals(n))
            });
            let layers = weights.each_ref().map(|(weight, bias)| layer(weight, bias, k));
            let outs = cuda.norm_linear_rows(&x, &norm, layers.each_ref(), Activation::Silu);
            let product = |left: &[f64], (weight, bias): &(Vec<f32>, Vec<f32>), activation| {
                let double = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let (weight, bias) = (double(weight), double(bias));
                reference::linear(left, &weight, Some(&bias), [m, k, bias.len()], activation)
            };
            for (out, weights) in outs.iter().zip(&weights) {
                let error = relative_error(&cuda.numbers(out), &product(&normed, weights, Activation::Silu));
                assert!(error < tolerance, "{:?} {m} {k}: {error}", cuda.precision);
            }

            let (gate, residual) =
                (cuda.of(&random.normals(m * k), k), cuda.of(&random.normals(m * widths[2]), widths[2]));
            let out = cuda.gated_linear_rows(&gate, &x, &norm, &layers[2], &residual);
            let gated: Vec<f64> = normed.iter().zip(cuda.numbers(&gate)).map(|(x, u)| x * f64::from(u)).collect();
            let wanted = product(&gated, &weights[2], Activation::Identity);
            let wanted: Vec<f64> = wanted.iter().zip(cuda.numbers(&residual)).map(|(x, y)| x + f64::from(y)).collect();
            let error = relative_error(&cuda.numbers(&out), &wanted);
            assert!(error < tolerance, "{:?} gated {m} {k}: {error}", cuda.precision);
        }
    }
}
