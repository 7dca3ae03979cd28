//! The network's derivatives against differences of a loss in double precision.
#![allow(clippy::unwrap_used)]

use pgrec_kernels::cpu::Cpu;

use super::network::{Form, Network, Pull};
use super::{Content, Use};
use crate::random::SplitMix;
use crate::train::{Gradients, Parameters, Slice, Tape};
use crate::{Corpus, Error, testing};

const HIDDEN: usize = 6;
const DIM: usize = 3;

/// Where items are, as the network's definition has it.
fn places(parameters: &Parameters, form: Form, corpus: &Corpus, content: &Content, items: &[u32]) -> Vec<f64> {
    let weight = |name: &str, row: usize, column: usize| {
        let found = parameters.find(&format!("content.{name}")).unwrap();
        let tensor = parameters.tensor(found);
        f64::from(tensor.as_slice()[row * tensor.cols() + column])
    };
    let mut all = Vec::new();
    for &item in items {
        let item = item as usize;
        let mut hidden = vec![0.0; if form.hidden > 0 { form.hidden } else { DIM }];
        for (column, hidden) in hidden.iter_mut().enumerate() {
            if content.vectors.is_some() {
                let vector = &corpus.vectors()[item * corpus.vector_dim()..][..corpus.vector_dim()];
                let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-30);
                let product = vector
                    .iter()
                    .enumerate()
                    .map(|(row, &x)| f64::from(x) / length * weight("vectors.weight", row, column));
                *hidden += product.sum::<f64>() + weight("vectors.bias", 0, column);
            }
            if let Some(words) = &content.words {
                let (tokens, weights) = words.of(item);
                let terms = tokens.iter().zip(weights);
                *hidden +=
                    terms.map(|(&token, &by)| f64::from(by) * weight("words", token as usize, column)).sum::<f64>();
            }
        }
        if form.hidden == 0 {
            all.extend(hidden);
            continue;
        }
        all.extend((0..DIM).map(|column| {
            let active = hidden.iter().map(|x| if *x < 0.0 { f64::from(form.slope) * x } else { *x });
            let sum = active.enumerate().map(|(row, x)| x * weight("out.weight", row, column));
            sum.sum::<f64>() + weight("out.bias", 0, column)
        }));
    }
    all
}

#[test]
fn derivatives_are_those_of_finite_differences() {
    let seed = testing::fresh_seed();
    let corpus = testing::random_corpus(seed, 5, 30);
    let mut random = SplitMix::new(seed);
    let form = |hidden: usize, slope: f32| Form { hidden, dim: DIM, slope };
    for (wanted, form) in [
        (Use::Embedding, form(HIDDEN, 0.0)),
        (Use::Attributes, form(HIDDEN, 0.2)),
        (Use::Both, form(HIDDEN, 0.0)),
        (Use::Both, form(HIDDEN, 0.2)),
        (Use::Both, form(0, 0.2)),
    ] {
        let content = Content::of(&corpus, wanted).unwrap().unwrap();
        let mut parameters = Parameters::default();
        let network = Network::new(&mut parameters, &content, form, seed).unwrap();
        let names: Vec<String> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
        for name in &names {
            let numbers = parameters.tensor_mut(parameters.find(name).unwrap()).to_mut();
            numbers.fill_with(|| 0.5 * random.truncated_normal());
        }
        let items: Vec<u32> = (0..30).filter(|item| item % 3 != 0).collect();
        let points: Vec<f32> = (0..items.len() * DIM).map(|_| random.truncated_normal()).collect();
        let loss = |parameters: &Parameters| {
            let placed = places(parameters, form, &corpus, &content, &items);
            placed.iter().zip(&points).map(|(x, &point)| (x - f64::from(point)).powi(2)).sum::<f64>()
                / items.len() as f64
        };
        let told = network.places(parameters.all(), &content, &items);
        let right = places(&parameters, form, &corpus, &content, &items);
        assert!(told.iter().zip(&right).all(|(x, right)| (f64::from(*x) - right).abs() < 1e-5));

        let (cpu, pull) = (Cpu::new(), Pull { network: &network, content: &content, items: &items, points: &points });
        let mut gradients = Gradients::new(&cpu, &parameters, true);
        // In two slices, as two threads have it.
        for rows in [0..7, 7..items.len()] {
            let rows: Vec<usize> = rows.collect();
            let placed = pull.compute(Tape::of_rows(&cpu, parameters.all()), &rows, &mut gradients);
            assert_eq!(placed, told[rows[0] * DIM..][..rows.len() * DIM]);
        }
        for name in names {
            let parameter = parameters.find(&name).unwrap();
            let found = match name.as_str() {
                "content.words" => gradients.table(parameter).values().to_vec(),
                _ => gradients.whole(parameter).as_slice().to_vec(),
            };
            for (place, found) in found.into_iter().enumerate() {
                let at = |by: f32| {
                    let mut moved = parameters.clone();
                    let numbers = moved.tensor_mut(parameter).to_mut();
                    numbers[place] += by;
                    (f64::from(numbers[place]), loss(&moved))
                };
                let ((from, low), (to, high)) = (at(-1e-6), at(1e-6));
                let expected = (high - low) / (to - from);
                assert!(
                    (f64::from(found) - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "{wanted:?} {form:?} {name}[{place}]: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_there_is_said() {
    let corpus = testing::corpus(&[&[1, 2], &[2, 3]]);
    assert!(Content::of(&corpus, Use::None).unwrap().is_none());
    for wanted in [Use::Embedding, Use::Attributes, Use::Both] {
        assert!(matches!(Content::of(&corpus, wanted), Err(Error::Data(_))));
    }
    let corpus = testing::random_corpus(testing::fresh_seed(), 3, 24);
    let content = Content::of(&corpus, Use::Both).unwrap().unwrap();
    // Every eleventh item has neither.
    assert!((0..24).all(|item| content.knows(item) == (item % 11 != 10)));
}
