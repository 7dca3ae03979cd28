//! The points while they are learnt, and AdaGrad's steps.

use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::{AdaGrad, Optimizers, Tensor};
use rayon::prelude::*;

use super::Params;
use super::batch::Gradient;
use super::pooling::Pooling;
use super::shares::Stretches;
use crate::Result;
use crate::random::SplitMix;

/// What AdaGrad's sums of squares begin with, as in the authors' code.
const ACCUMULATED: f32 = 0.1;

/// Everything that is learnt.
#[derive(Clone)]
pub(super) struct Space {
    pub(super) dim: usize,
    /// `[items, dim]`, none longer than 1.
    pub(super) points: Tensor,
    /// Their squared lengths.
    pub(super) squares: Vec<f32>,
    pub(super) attention: Vec<f32>,
    pub(super) recency: Vec<f32>,
}

/// AdaGrad's sums of squared gradients.
pub(super) struct Sums {
    points: Vec<f32>,
    attention: Vec<f32>,
    recency: Vec<f32>,
}

/// Where the content of some items places them, and how strongly that draws their points there.
#[derive(Clone, Copy)]
pub(super) struct Drawn<'a> {
    /// Ascending.
    pub(super) items: &'a [u32],
    /// `[items, dim]`
    pub(super) places: &'a [f32],
    /// λ_f
    pub(super) by: f32,
}

impl Drawn<'_> {
    /// Adds the gradient of λ‖v − place‖², where `item` is one of these.
    fn add(&self, item: u32, point: &[f32], gradient: &mut [f32]) {
        let Ok(at) = self.items.binary_search(&item) else { return };
        let place = &self.places[at * point.len()..][..point.len()];
        gradient.iter_mut().zip(point).zip(place).for_each(|((g, x), place)| *g += 2.0 * self.by * (x - place));
    }
}

impl Space {
    /// Points N(0, 1/d), and all events of equal weight.
    pub(super) fn new(params: &Params, items: usize, random: &mut SplitMix) -> Result<Self> {
        let dim = params.dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut points: Vec<f32> = (0..items * dim).map(|_| scale * random.truncated_normal()).collect();
        let squares = points.chunks_exact_mut(dim).map(into_ball).collect();
        let points = Tensor::from_vec(points, vec![items, dim])?;
        Ok(Self { dim, points, squares, attention: vec![0.0; items], recency: vec![0.0; params.window] })
    }

    /// Puts points of items where their places are (`[items, dim]`), within the ball.
    pub(super) fn put(&mut self, items: impl Iterator<Item = u32>, places: &[f32]) {
        let points = self.points.to_mut();
        for (item, place) in items.zip(places.chunks_exact(self.dim)) {
            let point = &mut points[item as usize * self.dim..][..self.dim];
            point.copy_from_slice(place);
            self.squares[item as usize] = into_ball(point);
        }
    }

    pub(super) fn pooling(&self) -> Pooling<'_> {
        Pooling { attention: &self.attention, recency: &self.recency }
    }

    /// How the table is parted for steps beside each other.
    pub(super) fn stretches(&self) -> Stretches {
        Stretches::of(self.attention.len())
    }

    pub(super) fn point(&self, item: u32) -> &[f32] {
        self.points.row(item as usize)
    }

    /// Sums of squares before the first step.
    pub(super) fn sums(&self) -> Sums {
        let of = |numbers: &[f32]| vec![ACCUMULATED; numbers.len()];
        Sums { points: of(self.points.as_slice()), attention: of(&self.attention), recency: of(&self.recency) }
    }

    /// One step along a gradient, whose shares of an item are added in their order.
    pub(super) fn step(&mut self, sums: &mut Sums, rate: f32, told: &Gradient, drawn: Option<Drawn<'_>>) {
        let Gradient { shares, recency, .. } = told;
        // Sums begin above 0.
        let (cpu, adagrad) = (Cpu::new(), AdaGrad { rate, eps: 0.0 });
        let (dim, stretches) = (self.dim, self.stretches());
        let stretch = stretches.len();
        let table = self.points.to_mut().par_chunks_mut(stretch * dim).zip(self.squares.par_chunks_mut(stretch));
        let table = table.zip(sums.points.par_chunks_mut(stretch * dim));
        let weights = self.attention.par_chunks_mut(stretch).zip(sums.attention.par_chunks_mut(stretch));
        table.zip(weights).enumerate().for_each(|(place, (((points, squares), sums), (weights, weight_sums)))| {
            let mut gradient = vec![0.0; dim];
            for own in shares.of_stretch(place, stretches).chunk_by(|a, b| a.item == b.item) {
                let row = own[0].item as usize - place * stretch;
                let point = &mut points[row * dim..][..dim];
                gradient.fill(0.0);
                let terms = own.iter().map(|share| (share.by, shares.vector(share, dim).unwrap_or(&*point)));
                cpu.add_weighted(&mut gradient, terms);
                if let Some(drawn) = drawn {
                    drawn.add(own[0].item, point, &mut gradient);
                }
                cpu.adagrad(&adagrad, point, &gradient, 1.0, &mut sums[row * dim..][..dim]);
                squares[row] = into_ball(point);
                let weight: f32 = own.iter().map(|share| share.attention).sum();
                cpu.adagrad(&adagrad, &mut weights[row..=row], &[weight], 1.0, &mut weight_sums[row..=row]);
            }
        });
        cpu.adagrad(&adagrad, &mut self.recency, recency, 1.0, &mut sums.recency);
    }
}

/// Puts a point outside the unit ball on its surface; gives its squared length.
pub(super) fn into_ball(point: &mut [f32]) -> f32 {
    let square = |point: &[f32]| point.iter().map(|x| x * x).sum::<f32>();
    let length = square(point).sqrt();
    if length > 1.0 {
        // A little less, so that rounding leaves no point outside.
        let by = (1.0 - 4.0 * f32::EPSILON) / length;
        point.iter_mut().for_each(|x| *x *= by);
    }
    square(point)
}
