//! Losses and their derivatives, with every instruction set of this processor, against double precision.

use super::super::reference::{Random, relative_error};
use super::super::{Cpu, Isa, Matrix};
use crate::{Losses, Negatives, TableGradient, Tensor};

const TOLERANCE: f64 = 1e-5;

fn cpus() -> Vec<Cpu> {
    Isa::ALL.into_iter().filter_map(Cpu::with_isa).collect()
}

/// Which loss, written as its formula.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Formula {
    Softmax,
    Binary(f32),
}

/// Operands of a loss.
#[derive(Clone)]
struct Case {
    formula: Formula,
    dim: usize,
    hidden: Vec<f32>,
    items: Vec<f32>,
    targets: Vec<u32>,
    negatives: Chosen,
    scale: f32,
    weight: f32,
}

#[derive(Clone)]
enum Chosen {
    All,
    Each(Vec<u32>),
    Shared(Vec<u32>, Option<Vec<f32>>),
}

/// A loss and its derivatives by `hidden` and `items`.
struct Answer<T> {
    loss: f64,
    dhidden: Vec<T>,
    ditems: Vec<T>,
}

impl Case {
    fn rows(&self) -> usize {
        self.targets.len()
    }

    fn negatives_of(&self, row: usize) -> Vec<(u32, f64)> {
        match &self.negatives {
            Chosen::All => (0..(self.items.len() / self.dim) as u32).map(|item| (item, 0.0)).collect(),
            Chosen::Each(items) => {
                let count = items.len() / self.rows();
                items[row * count..(row + 1) * count].iter().map(|&item| (item, 0.0)).collect()
            }
            Chosen::Shared(items, correction) => {
                let less = |n: usize| correction.as_ref().map_or(0.0, |all| f64::from(all[n]));
                items.iter().enumerate().map(|(n, &item)| (item, less(n))).collect()
            }
        }
    }

    fn in_double_precision(&self) -> Answer<f64> {
        let (dim, scale, weight) = (self.dim, f64::from(self.scale), f64::from(self.weight));
        let number = |all: &[f32], row: usize, d: usize| f64::from(all[row * dim + d]);
        let (mut dhidden, mut ditems) = (vec![0.0; self.hidden.len()], vec![0.0; self.items.len()]);
        let mut loss = 0.0;
        for (row, &target) in self.targets.iter().enumerate() {
            let score = |item: u32| -> f64 {
                scale
                    * (0..dim)
                        .map(|d| number(&self.hidden, row, d) * number(&self.items, item as usize, d))
                        .sum::<f64>()
            };
            let mut others = self.negatives_of(row);
            others.retain(|&(item, _)| item != target);
            let scores: Vec<f64> = others.iter().map(|&(item, less)| score(item) - less).collect();
            let answer = score(target);
            let mut slopes = Vec::new();
            match self.formula {
                Formula::Softmax => {
                    let largest = scores.iter().copied().fold(answer, f64::max);
                    let rest: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                    let lse = largest + (rest + (answer - largest).exp()).ln();
                    loss += weight * (lse - answer);
                    slopes.extend(others.iter().zip(&scores).map(|(&(item, _), s)| (item, (s - lse).exp())));
                    slopes.push((target, -scores.iter().map(|s| (s - lse).exp()).sum::<f64>()));
                }
                Formula::Binary(beta) => {
                    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
                    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
                    let beta = f64::from(beta);
                    loss += weight * (beta * softplus(-answer) + scores.iter().map(|&s| softplus(s)).sum::<f64>());
                    slopes.extend(others.iter().zip(&scores).map(|(&(item, _), &s)| (item, sigma(s))));
                    slopes.push((target, -beta * sigma(-answer)));
                }
            }
            for (item, slope) in slopes {
                for d in 0..dim {
                    let factor = weight * scale * slope;
                    dhidden[row * dim + d] += factor * number(&self.items, item as usize, d);
                    ditems[item as usize * dim + d] += factor * number(&self.hidden, row, d);
                }
            }
        }
        Answer { loss, dhidden, ditems }
    }

    fn on(&self, cpu: Cpu, ditems: &mut TableGradient) -> Answer<f32> {
        let hidden = Matrix::from_slice(&self.hidden, self.dim);
        let items = Tensor::from_vec(self.items.clone(), vec![self.items.len() / self.dim, self.dim]).unwrap();
        let (targets, scale, weight) = (&self.targets[..], self.scale, self.weight);
        let negatives = match &self.negatives {
            Chosen::All => None,
            Chosen::Each(items) => Some(Negatives::EachRow { items, count: items.len() / self.rows() }),
            Chosen::Shared(items, correction) => Some(Negatives::Shared { items, correction: correction.as_deref() }),
        };
        let (loss, dhidden) = match (self.formula, negatives) {
            (Formula::Softmax, None) => cpu.softmax(&hidden, &items, targets, scale, weight, ditems),
            (Formula::Softmax, Some(negatives)) => {
                cpu.sampled_softmax(&hidden, &items, targets, negatives, scale, weight, ditems)
            }
            (Formula::Binary(beta), Some(negatives)) => {
                cpu.binary(&hidden, &items, targets, negatives, beta, weight, ditems)
            }
            (Formula::Binary(_), None) => unreachable!(),
        };
        let rows = (self.items.len() / self.dim) as u32;
        let mut sum = ditems.clone();
        let ditems = (0..rows).flat_map(|item| sum.row_mut(item).to_vec()).collect();
        Answer { loss, dhidden: dhidden.as_slice().to_vec(), ditems }
    }

    fn table(&self, sparse: bool) -> TableGradient {
        let rows = self.items.len() / self.dim;
        if sparse { TableGradient::sparse(rows, self.dim) } else { TableGradient::dense(rows, self.dim) }
    }

    /// Compares loss and derivatives with double precision, on every instruction set.
    fn check(&self, name: &str) {
        let wanted = self.in_double_precision();
        for cpu in cpus() {
            for sparse in [false, true] {
                if sparse && matches!(self.negatives, Chosen::All) {
                    continue;
                }
                let found = self.on(cpu, &mut self.table(sparse));
                let place = format!("{name}, {:?}, {}", cpu.isa(), if sparse { "sparse" } else { "dense" });
                assert!(
                    (found.loss - wanted.loss).abs() <= TOLERANCE * wanted.loss.abs().max(0.1),
                    "{place}: {} for {}",
                    found.loss,
                    wanted.loss
                );
                for (what, found, wanted) in
                    [("hidden", &found.dhidden, &wanted.dhidden), ("items", &found.ditems, &wanted.ditems)]
                {
                    assert!(found.iter().all(|x| x.is_finite()), "{place}: not finite by {what}");
                    let norm = wanted.iter().map(|x| x * x).sum::<f64>().sqrt();
                    // What nothing is left of in double precision has no relative error.
                    let error = relative_error(found, wanted) * (norm / (norm + 1e-6));
                    assert!(error < TOLERANCE, "{place}: {error} by {what}");
                }
            }
        }
    }
}

/// A case of so many rows and items, its scores about as large as they are in training.
fn case(random: &mut Random, formula: Formula, rows: usize, items: usize, dim: usize) -> Case {
    let size = 2.0 / (dim as f32).sqrt();
    let mut normals = |count: usize| random.normals(count).into_iter().map(|x| x * size).collect::<Vec<f32>>();
    let (hidden, table) = (normals(rows * dim), normals(items * dim));
    let targets = (0..rows).map(|_| random.below(items) as u32).collect();
    let scale = if formula == Formula::Softmax { 1.3 } else { 1.0 };
    Case { formula, dim, hidden, items: table, targets, negatives: Chosen::All, scale, weight: 0.25 }
}

fn ids(random: &mut Random, count: usize, below: usize) -> Vec<u32> {
    (0..count).map(|_| random.below(below) as u32).collect()
}

#[test]
fn the_whole_softmax_matches_double_precision_at_every_edge() {
    let mut random = Random::new();
    for (rows, items, dim) in [
        (1, 1, 1),
        (1, 7, 50),
        (2, 193, 64),
        (3, 12, 33),
        (16, 191, 16),
        (17, 192, 64),
        (31, 13, 100),
        (33, 577, 50),
        (64, 385, 7),
        (255, 40, 64),
        (257, 200, 12),
        (530, 30, 5),
        // More scores than are kept.
        (530, 1400, 5),
    ] {
        let mut case = case(&mut random, Formula::Softmax, rows, items, dim);
        // Answers at the edges of the blocks.
        for (target, edge) in case.targets.iter_mut().zip([0, items - 1, 191, 192, 11, 12]) {
            *target = edge.min(items - 1) as u32;
        }
        case.check(&format!("{rows} rows, {items} items, {dim} numbers"));
    }
}

#[test]
fn losses_over_shared_negatives_match_double_precision() {
    let mut random = Random::new();
    for formula in [Formula::Softmax, Formula::Binary(1.0), Formula::Binary(0.37)] {
        for (rows, items, dim, count) in
            [(1, 1, 3, 1), (1, 9, 64, 5), (5, 20, 50, 12), (33, 1000, 64, 193), (40, 60, 16, 400), (270, 90, 33, 30)]
        {
            for corrected in [false, true] {
                let mut case = case(&mut random, formula, rows, items, dim);
                let negatives = ids(&mut random, count, items);
                case.negatives = Chosen::Shared(negatives, corrected.then(|| random.normals(count)));
                case.check(&format!("{formula:?}, {rows} rows, {count} of {items} items, {dim} numbers"));
            }
        }
    }
}

#[test]
fn losses_over_negatives_of_each_row_match_double_precision() {
    let mut random = Random::new();
    for formula in [Formula::Softmax, Formula::Binary(1.0), Formula::Binary(0.37)] {
        for (rows, items, dim, count) in [
            (1, 1, 3, 1),
            (1, 9, 64, 5),
            (5, 20, 50, 15),
            (20, 1000, 64, 128),
            (7, 30, 16, 17),
            (9, 90, 100, 31),
            (4, 50, 129, 3),
            (3, 5, 8, 0),
        ] {
            let mut case = case(&mut random, formula, rows, items, dim);
            case.negatives = Chosen::Each(ids(&mut random, rows * count, items));
            case.check(&format!("{formula:?}, {rows} rows, {count} of {items} items, {dim} numbers"));
        }
    }
}

#[test]
fn the_answers_of_other_rows_serve_as_negatives() {
    let mut random = Random::new();
    for formula in [Formula::Softmax, Formula::Binary(1.0)] {
        let mut case = case(&mut random, formula, 70, 40, 24);
        case.negatives = Chosen::Shared(case.targets.clone(), Some(random.normals(70)));
        case.check(&format!("{formula:?}"));
    }
}

#[test]
fn negatives_that_are_all_the_answer_count_nothing() {
    let mut random = Random::new();
    for count in [1, 5, 200] {
        for formula in [Formula::Softmax, Formula::Binary(0.5)] {
            let mut case = case(&mut random, formula, 3, 10, 20);
            case.targets = vec![4; 3];
            for negatives in [Chosen::Each(vec![4; 3 * count]), Chosen::Shared(vec![4; count], None)] {
                case.negatives = negatives;
                case.check(&format!("{formula:?}, {count} negatives"));
                for cpu in cpus() {
                    let found = case.on(cpu, &mut case.table(false));
                    if formula == Formula::Softmax {
                        assert!(found.loss.abs() < 1e-6, "{:?} {}", cpu.isa(), found.loss);
                        assert!(found.dhidden.iter().chain(&found.ditems).all(|x| x.abs() < 1e-6), "{:?}", cpu.isa());
                    }
                    let others = found.ditems.iter().enumerate().filter(|(at, _)| at / 20 != 4);
                    assert!(others.into_iter().all(|(_, &x)| x == 0.0), "{:?}", cpu.isa());
                }
            }
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_lose_the_derivative() {
    let mut random = Random::new();
    for size in [80.0, 3000.0] {
        for formula in [Formula::Softmax, Formula::Binary(1.0)] {
            let mut case = case(&mut random, formula, 40, 300, 4);
            // Whole numbers: dot products without rounding, of which some are equal and the largest are far apart.
            let mut whole = |count: usize, most: f32| -> Vec<f32> {
                random.normals(count).into_iter().map(|x| (x * most / 3.0).round()).collect()
            };
            (case.hidden, case.items) = (whole(40 * 4, 4.0), whole(300 * 4, size / 8.0));
            case.scale = 1.0;
            let mut kinds =
                vec![Chosen::Each(ids(&mut random, 40 * 20, 300)), Chosen::Shared(ids(&mut random, 250, 300), None)];
            kinds.extend((formula == Formula::Softmax).then_some(Chosen::All));
            for negatives in kinds {
                case.negatives = negatives;
                case.check(&format!("{formula:?}, scores of {size}"));
            }
        }
    }
}

#[test]
fn derivatives_are_added_to_what_is_there_and_repeat_to_the_bit() {
    let mut random = Random::new();
    for cpu in cpus() {
        for formula in [Formula::Softmax, Formula::Binary(0.5)] {
            let mut case = case(&mut random, formula, 50, 400, 50);
            let mut kinds =
                vec![Chosen::Each(ids(&mut random, 50 * 9, 400)), Chosen::Shared(ids(&mut random, 250, 400), None)];
            kinds.extend((formula == Formula::Softmax).then_some(Chosen::All));
            for negatives in kinds {
                case.negatives = negatives;
                let mut table = case.table(false);
                let first = case.on(cpu, &mut table);
                let again = case.on(cpu, &mut case.table(false));
                assert_eq!(first.loss.to_bits(), again.loss.to_bits());
                assert_eq!((&first.dhidden, &first.ditems), (&again.dhidden, &again.ditems));
                let twice: Vec<f64> = first.ditems.iter().map(|&x| 2.0 * f64::from(x)).collect();
                let sum = case.on(cpu, &mut table);
                assert!(relative_error(&sum.ditems, &twice) < 1e-6);
                assert_eq!(sum.dhidden, first.dhidden);
            }
        }
    }
}

#[test]
fn no_rows_are_no_loss() {
    for cpu in cpus() {
        for (formula, negatives) in [
            (Formula::Softmax, Chosen::All),
            (Formula::Softmax, Chosen::Shared(vec![1, 2], None)),
            (Formula::Binary(1.0), Chosen::Shared(vec![], None)),
        ] {
            let case = Case {
                formula,
                dim: 4,
                hidden: Vec::new(),
                items: vec![1.0; 20],
                targets: Vec::new(),
                negatives,
                scale: 1.0,
                weight: 1.0,
            };
            let found = case.on(cpu, &mut case.table(false));
            assert_eq!((found.loss, found.dhidden.len()), (0.0, 0));
            assert!(found.ditems.iter().all(|&x| x == 0.0));
        }
    }
}

#[test]
fn derivatives_by_rows_of_length_1_become_those_by_the_rows() {
    let mut random = Random::new();
    for cpu in cpus() {
        for dim in [1, 7, 50, 64] {
            let rows = 71;
            let mut table = random.normals(rows * dim);
            // One row too short to be divided by its length, and one of zeros.
            table[..dim].iter_mut().for_each(|x| *x *= 1e-8);
            table[dim..2 * dim].fill(0.0);
            let dy = random.normals(rows * dim);
            let (mut unit, mut dx) = (vec![0.0; rows * dim], dy.clone());
            cpu.unit_rows(&table, dim, &mut unit);
            cpu.unit_rows_backward(&table, dim, &mut dx);
            let (mut wanted, mut slopes) = (Vec::new(), Vec::new());
            for (x, dy) in table.chunks(dim).zip(dy.chunks(dim)) {
                let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let by = length.max(f64::from(1e-6f32));
                let along: f64 = x.iter().zip(dy).map(|(&x, &dy)| f64::from(x) * f64::from(dy)).sum();
                for (&x, &dy) in x.iter().zip(dy) {
                    wanted.push(f64::from(x) / by);
                    let along = if length < by { 0.0 } else { f64::from(x) * along / by / by };
                    slopes.push((f64::from(dy) - along) / by);
                }
            }
            assert!(relative_error(&unit, &wanted) < TOLERANCE, "{:?} dim {dim}", cpu.isa());
            let size = 2 * dim;
            assert!(relative_error(&dx[..size], &slopes[..size]) < TOLERANCE, "{:?} dim {dim}", cpu.isa());
            if dim > 1 {
                let error = relative_error(&dx[size..], &slopes[size..]);
                assert!(error < TOLERANCE, "{:?} dim {dim}: {error}", cpu.isa());
            }
        }
    }
}
