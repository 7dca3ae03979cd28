//! Finite differences in double precision, for tests of derivatives.

use super::super::Matrix;
use super::super::reference::Random;

const TOLERANCE: f64 = 1e-4;

/// Some numbers of each input, and the finite differences of a loss by them.
pub(in crate::cpu) struct Differences {
    samples: Vec<Vec<usize>>,
    wanted: Vec<Vec<f64>>,
}

impl Differences {
    /// Of the loss at `inputs`, by up to `count` numbers of each.
    pub(in crate::cpu) fn new(
        random: &mut Random,
        inputs: &[&[f32]],
        count: usize,
        loss: impl Fn(&[Vec<f64>]) -> f64,
    ) -> Self {
        const STEP: f64 = 1e-5;
        let mut inputs: Vec<Vec<f64>> =
            inputs.iter().map(|input| input.iter().map(|&x| f64::from(x)).collect()).collect();
        let samples: Vec<Vec<usize>> = inputs
            .iter()
            .map(|input| match input.len() {
                len if len <= count => (0..len).collect(),
                len => (0..count).map(|_| random.below(len)).collect(),
            })
            .collect();
        let mut wanted = Vec::new();
        for (i, sample) in samples.iter().enumerate() {
            let mut slope = |at: usize| {
                let x = inputs[i][at];
                let mut at_distance = |step: f64| {
                    inputs[i][at] = x + step;
                    loss(&inputs)
                };
                let slope = (at_distance(STEP) - at_distance(-STEP)) / (2.0 * STEP);
                inputs[i][at] = x;
                slope
            };
            wanted.push(sample.iter().map(|&at| slope(at)).collect());
        }
        Self { samples, wanted }
    }

    /// Panics where the derivatives, one an input, differ.
    pub(in crate::cpu) fn check(&self, derivatives: &[&[f32]], case: &str) {
        assert_eq!(derivatives.len(), self.samples.len());
        for (i, derivative) in derivatives.iter().enumerate() {
            let (mut distance, mut norm) = (0.0, 0.0);
            for (&at, wanted) in self.samples[i].iter().zip(&self.wanted[i]) {
                distance += (f64::from(derivative[at]) - wanted).powi(2);
                norm += wanted * wanted;
            }
            // Some derivatives are 0, such as that of the softmax of one number.
            let floor = 0.03 * (self.samples[i].len() as f64).sqrt();
            let error = distance.sqrt() / norm.sqrt().max(floor);
            assert!(error < TOLERANCE, "{case}, derivative {i}: {error}");
        }
    }
}

/// Σ x·y: a loss whose derivative by x is y.
pub(in crate::cpu) fn inner(x: &[f64], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, &y)| x * f64::from(y)).sum()
}

/// Accumulators begin with other numbers than zero, which must still be there.
pub(in crate::cpu) struct Accumulator {
    before: Vec<f32>,
    pub matrix: Matrix,
}

impl Accumulator {
    pub(in crate::cpu) fn new(random: &mut Random, rows: usize, cols: usize) -> Self {
        let before = random.normals(rows * cols);
        Self { matrix: Matrix::from_slice(&before, cols), before }
    }

    /// What was added since.
    pub(in crate::cpu) fn added(&self) -> Vec<f32> {
        self.matrix.as_slice().iter().zip(&self.before).map(|(x, before)| x - before).collect()
    }
}
