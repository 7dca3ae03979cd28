//! Every operator, in both precisions, against double precision.

use super::*;
use crate::cpu::reference::{Random, layer_norm, relative_error};
use crate::{LayerNorm, Sequences};

/// Both precisions, Hopper's kernels beside those that run everywhere, and the error that is allowed of each.
pub(super) fn devices() -> Vec<(Cuda, f64)> {
    let [f32, bf16] = [(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)];
    let of = |(precision, tolerance)| (Cuda::for_tests(precision), tolerance);
    vec![of(f32), of(bf16), (Cuda::for_tests(bf16.0).portable(), bf16.1)]
}

impl Cuda {
    pub(super) fn of(&self, values: &[f32], cols: usize) -> Matrix {
        Matrix::upload(&self.driver, self.precision, values, cols).unwrap()
    }

    pub(super) fn numbers(&self, x: &Matrix) -> Vec<f32> {
        self.check().unwrap();
        x.download(&self.driver).unwrap()
    }
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape.to_vec()).unwrap()
}

#[test]
fn gathered_vectors_sums_and_products_match_double_precision() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        for dim in [1, 7, 16, 33, 64] {
            let (items, positions) = (random.normals(20 * dim), random.normals(10 * dim));
            let ids: Vec<u32> = (0..13).map(|_| random.below(20) as u32).collect();
            let places: Vec<u32> = (0..13).map(|_| random.below(10) as u32).collect();
            let batch = Sequences { items: &ids, positions: &places, offsets: &[0, 13], ..Sequences::default() };
            let [item_table, position_table] =
                [(&items, 20), (&positions, 10)].map(|(values, rows)| tensor(values.clone(), &[rows, dim]));
            let x = cuda.embed_rows(&item_table, &position_table, 1.7, &batch);
            let other = random.normals(13 * dim);
            let y = cuda.of(&other, dim);
            cuda.add_rows(&x, &y);
            let product = cuda.multiply_rows(&x, &y);
            let wanted = |at: usize| {
                let (event, column) = (at / dim, at % dim);
                let item = f64::from(items[ids[event] as usize * dim + column]) * f64::from(1.7f32);
                item + f64::from(positions[places[event] as usize * dim + column]) + f64::from(other[at])
            };
            let sums: Vec<f64> = (0..13 * dim).map(wanted).collect();
            let products: Vec<f64> = sums.iter().zip(&other).map(|(sum, y)| sum * f64::from(*y)).collect();
            for (x, wanted) in [(x, sums), (product, products)] {
                let error = relative_error(&cuda.numbers(&x), &wanted);
                assert!(error < tolerance, "{:?} dim {dim}: {error}", cuda.precision);
            }
        }
    }
}

#[test]
fn norms_match_double_precision() {
    let mut random = Random::new();
    for (cuda, tolerance) in devices() {
        for dim in [1, 2, 3, 31, 32, 33, 50, 64, 200] {
            for affine in [true, false] {
                let x: Vec<f32> = random.normals(19 * dim).into_iter().map(|x| 3.0 * x + 5.0).collect();
                let on_device = cuda.of(&x, dim);
                let x = cuda.numbers(&on_device);
                let (weight, bias) = (random.normals(dim), random.normals(dim));
                let (weight, bias) = if affine { (Some(weight), Some(bias)) } else { (None, None) };
                let wanted = layer_norm(&x, dim, weight.as_deref(), bias.as_deref(), 1e-3);
                let [weight, bias] = [weight, bias].map(|v| v.map(|v| tensor(v, &[dim])));
                let out = cuda.norm_rows(&on_device, &LayerNorm { weight, bias, eps: 1e-3 }, None);
                let error = relative_error(&cuda.numbers(&out), &wanted);
                assert!(error < tolerance, "{:?} dim {dim}: {error}", cuda.precision);
                let length = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let unit = |row: &[f32]| row.iter().map(|&x| f64::from(x) / length(row)).collect::<Vec<_>>();
                let wanted: Vec<f64> = x.chunks(dim).flat_map(unit).collect();
                let error = relative_error(&cuda.numbers(&cuda.unit_rows(&on_device)), &wanted);
                assert!(error < tolerance, "{:?} dim {dim}: {error}", cuda.precision);
            }
        }
    }
}

#[test]
fn rows_are_appended_truncated_and_picked() {
    let mut random = Random::new();
    for (cuda, _) in devices() {
        let (x, y) = (random.normals(5 * 33), random.normals(9 * 33));
        let mut grown = cuda.of(&x, 33);
        let (mut wanted, more) = (cuda.numbers(&grown), cuda.of(&y, 33));
        for rows in [14, 23, 3, 12] {
            if rows > grown.rows() {
                grown.append(&cuda.driver, &more).unwrap();
                wanted.extend(cuda.numbers(&more));
            } else {
                grown.truncate(rows);
                wanted.truncate(rows * 33);
            }
            assert_eq!((grown.rows(), cuda.numbers(&grown)), (rows, wanted.clone()));
        }
        let batch = Sequences { offsets: &[0, 1, 5, 12], ..Sequences::default() };
        let last: Vec<f32> = [0, 4, 11].iter().flat_map(|row| wanted[row * 33..(row + 1) * 33].to_vec()).collect();
        assert_eq!(cuda.numbers(&cuda.rows_asked(&grown, &batch)), last);
    }
}
