//! Gradients against differences of the loss in double precision.
#![allow(clippy::unwrap_used)]

use pgrec_kernels::cpu::Cpu;
use serde_json::json;

use super::Params;
use super::compare::{Candidates, Comparison};
use super::log::Log;
use super::projection::Projection;
use super::tests::{Made, made};
use crate::families::Training;
use crate::random::SplitMix;
use crate::train::{Gradients, Parameters, Slice, Tape};
use crate::{Control, testing};

/// The mean loss of all examples, by its definition; `weights`: those of the layers, row-major.
fn loss(log: &Log, weights: &[Vec<f64>], candidates: &[u32], temperature: f64) -> f64 {
    let dim = log.items.cols();
    let projected = |query: &[f32]| {
        let own: Vec<f64> = query.iter().map(|&x| f64::from(x)).collect();
        let mut added = own.clone();
        for layer in weights {
            let out = layer.len() / added.len();
            added =
                (0..out).map(|to| (0..added.len()).map(|from| added[from] * layer[from * out + to]).sum()).collect();
        }
        own.iter().zip(added).map(|(a, b)| a + b).collect::<Vec<f64>>()
    };
    let (mut sum, mut all) = (0.0, 0.0);
    for example in &log.learnt {
        let query = projected(log.query(example.query));
        let score = |row: u32| {
            let vector = log.items.row(row as usize);
            (0..dim).map(|at| query[at] * f64::from(vector[at])).sum::<f64>() / temperature
        };
        let shown = log.shown[example.shown.clone()].iter().copied();
        let drawn = candidates.iter().copied().filter(|&row| !log.led(example.query, row));
        let others: f64 = shown.chain(drawn).map(|row| score(row).exp()).sum();
        let opened = score(example.opened);
        sum += f64::from(example.weight) * ((opened.exp() + others).ln() - opened);
        all += f64::from(example.weight);
    }
    sum / all
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let seed = testing::fresh_seed();
    let corpus = made(&Made { items: 40, searches: 30, dim: 6, noise: 0.3, ..Made::new(seed) });
    let (control, mut random) = (Control::default(), SplitMix::new(seed));
    for rank in [0, 3] {
        let params = Params { rank, ..Params::default() };
        let none = json!({});
        let log = Log::of(&Training::new(&corpus, &none, &control), &params).unwrap();
        let mut parameters = Parameters::default();
        let projection = Projection::new(&mut parameters, 6, rank, seed).unwrap();
        let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
        for name in &names {
            let weight = parameters.find(name).unwrap();
            let numbers = parameters.tensor_mut(weight).to_mut();
            numbers.iter_mut().for_each(|x| *x = 0.3 * random.truncated_normal());
        }
        let mut rows: Vec<u32> = log.learnt.iter().map(|example| example.opened).collect();
        rows.extend((0..10).map(|_| random.below(40) as u32));
        rows.sort_unstable();
        rows.dedup();
        let comparison = Comparison {
            log: &log,
            projection: &projection,
            examples: &log.learnt,
            candidates: &Candidates::new(&log, rows.clone()).unwrap(),
            temperature: 0.2,
            weight: log.learnt.iter().map(|example| example.weight).sum(),
        };
        let cpu = Cpu::new();
        let mut gradients = Gradients::new(&cpu, &parameters, false);
        let all: Vec<usize> = (0..log.learnt.len()).collect();
        let told = comparison.compute(Tape::of_rows(&cpu, parameters.all()), &all, &mut gradients);

        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let weights: Vec<Vec<f64>> = parameters.all().iter().map(|tensor| wide(tensor.as_slice())).collect();
        let of = |weights: &[Vec<f64>]| loss(&log, weights, &rows, 0.2);
        let mean = told / f64::from(comparison.weight);
        assert!((mean - of(&weights)).abs() < 1e-4 * mean, "{mean} is not {}", of(&weights));
        for (layer, name) in names.iter().enumerate() {
            let gradient = gradients.whole(parameters.find(name).unwrap()).as_slice().to_vec();
            for (at, slope) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut weights = weights.clone();
                    weights[layer][at] += by;
                    of(&weights)
                };
                let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let near = (f64::from(*slope) - wanted).abs() < 1e-4 + 1e-3 * wanted.abs();
                assert!(near, "rank {rank}, {name} at {at}: {slope} is not {wanted}");
            }
        }
    }
}
