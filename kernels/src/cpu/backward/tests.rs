//! The derivatives together, with every instruction set of this processor.

use super::super::reference::Random;
use super::super::tests::{cpus, offsets, sequences, tensor};
use super::*;
use crate::Operators;

#[test]
fn last_rows_pass_derivatives_back_to_where_they_were() {
    let mut random = Random::new();
    let offsets = offsets(&[1, 3, 2]);
    let dy = random.normals(3 * 5);
    for cpu in cpus() {
        let dx = cpu.last_rows_backward(&Matrix::from_slice(&dy, 5), &sequences(&offsets));
        for (row, of) in (0..6).zip([Some(0), None, None, Some(1), None, Some(2)]) {
            let wanted = of.map_or(vec![0.0; 5], |n: usize| dy[n * 5..(n + 1) * 5].to_vec());
            assert_eq!(dx.row(row), wanted);
        }
    }
}

/// All operators that could mix histories, forth and back: the derivatives of the embedded rows.
fn there_and_back(cpu: Cpu, x: &Matrix, layer: &Linear, dy: &Matrix, offsets: &[usize], keys: &[u64]) -> Matrix {
    let (batch, noise) = (sequences(offsets), |site| Noise { keys, site, rate: 0.3 });
    let norm = LayerNorm { weight: None, bias: None, eps: 1e-6 };
    let mut normal = cpu.layer_norm(x, &norm);
    cpu.drop_out(&mut normal, &batch, noise(0));
    let y = cpu.linear(&normal, layer, Activation::Identity);
    let (out, lse) = cpu.attention_forward(&y, &y, &y, 2, &batch, Some(noise(1)));
    let a = cpu.activate(&out, Activation::Gelu);
    let mut da = cpu.l2_normalize_backward(&a, dy);
    cpu.activate_backward(&out, Activation::Gelu, &mut da);
    let [mut d, dk, dv] = cpu.attention_backward(&y, &y, &y, &out, &lse, &da, 2, &batch, Some(noise(1)));
    cpu.add(&mut d, &dk);
    cpu.add(&mut d, &dv);
    let mut dweight = cpu.zeros(x.cols(), x.cols());
    let mut d = cpu.linear_backward(&normal, layer, &d, &mut dweight, None);
    cpu.drop_out(&mut d, &batch, noise(0));
    cpu.layer_norm_backward(x, &norm, &d, None, None)
}

#[test]
fn a_history_gives_the_same_derivatives_alone_and_in_any_batch() {
    let mut random = Random::new();
    let dim = 50;
    let lengths: Vec<usize> = (0..20).map(|_| random.below(70)).collect();
    let offsets = offsets(&lengths);
    let events = *offsets.last().unwrap();
    let (x, dy) = (random.normals(events * dim), random.normals(events * dim));
    let keys: Vec<u64> = lengths.iter().map(|_| random.next()).collect();
    let layer = Linear { weight: tensor(random.normals(dim * dim), &[dim, dim]), bias: None };
    for cpu in cpus() {
        let part = |x: &[f32], w: &[usize]| Matrix::from_slice(&x[w[0] * dim..w[1] * dim], dim);
        let all = [0, events];
        let together = there_and_back(cpu, &part(&x, &all), &layer, &part(&dy, &all), &offsets, &keys);
        for (history, w) in offsets.windows(2).enumerate() {
            let own = [0, w[1] - w[0]];
            let alone = there_and_back(cpu, &part(&x, w), &layer, &part(&dy, w), &own, &keys[history..=history]);
            let wanted = &together.as_slice()[w[0] * dim..w[1] * dim];
            assert_eq!(alone.as_slice(), wanted, "{:?} history {history}", cpu.isa());
        }
    }
}

#[test]
fn derivatives_by_weights_are_the_same_bits_in_every_run() {
    let mut random = Random::new();
    let (x, dy) = (random.normals(300 * 50), random.normals(300 * 50));
    let layer = Linear { weight: tensor(random.normals(2500), &[50, 50]), bias: None };
    let norm = LayerNorm { weight: Some(tensor(random.normals(50), &[50])), bias: None, eps: 1e-8 };
    for cpu in cpus() {
        let run = || {
            let (x, dy) = (Matrix::from_slice(&x, 50), Matrix::from_slice(&dy, 50));
            let [mut a, mut b, mut c] = [50, 1, 1].map(|rows| cpu.zeros(rows, 50));
            cpu.linear_backward(&x, &layer, &dy, &mut a, Some(&mut b));
            cpu.layer_norm_backward(&x, &norm, &dy, Some(&mut c), Some(&mut b));
            [a, b, c].map(|x| x.as_slice().to_vec())
        };
        assert_eq!(run(), run(), "{:?}", cpu.isa());
    }
}

#[test]
fn an_empty_batch_has_empty_derivatives() {
    let layer = Linear { weight: tensor(vec![1.0; 16], &[4, 4]), bias: None };
    let batch = Sequences::default();
    let noise = Noise { keys: &[], site: 0, rate: 0.5 };
    for cpu in cpus() {
        let mut x = Matrix::zeros(0, 4);
        cpu.drop_out(&mut x, &batch, noise);
        let (out, lse) = cpu.attention_forward(&x, &x, &x, 2, &batch, Some(noise));
        let [dq, _, _] = cpu.attention_backward(&x, &x, &x, &out, &lse, &x, 2, &batch, Some(noise));
        let mut dweight = cpu.zeros(4, 4);
        let dx = cpu.linear_backward(&dq, &layer, &x, &mut dweight, None);
        assert_eq!((dx.rows(), cpu.last_rows_backward(&dx, &batch).rows()), (0, 0));
        assert!(dweight.as_slice().iter().all(|&x| x == 0.0));
    }
}
