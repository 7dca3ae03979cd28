//! The vector that fits a history: the minimum of what a user's vector is learnt by, Σᵢ Eⱼ −ln σ(x(i) − x(j)) + λ/2 ‖p‖² for
//! every event i, over all j at once.
//!
//! −ln σ(x) lies below the parabola −x/2 + h(ξ)x² + c that touches it at ±ξ, h(ξ) = tanh(ξ/2)/4ξ (Jaakkola & Jordan 2000). With
//! it the minimum is a system of linear equations, of which all j are known by their mean and covariance; and its solution
//! gives better ξ.

/// How often ξ is made better.
const ROUNDS: usize = 3;
/// The square of the residual at which equations are solved, as a share of that at the start.
const SOLVED: f64 = 1e-6;

/// What all other items are: rows of `dim` numbers and a bias.
#[derive(Debug, Clone)]
pub(super) struct Others<'a> {
    pub(super) dim: usize,
    /// `[dim + 1]`
    pub(super) mean: &'a [f32],
    /// `[dim + 1, dim + 1]`
    pub(super) covariance: &'a [f32],
}

/// A history's events against the mean of all items.
struct Events {
    /// q_i − E q_j, `[events, dim]`
    apart: Vec<f64>,
    /// b_i − E b_j
    bias: Vec<f64>,
    /// h(ξ) of each.
    bound: Vec<f64>,
}

/// The vector of a history whose items have these rows.
pub(super) fn fold<'r>(others: &Others<'_>, rows: impl Iterator<Item = &'r [f32]>, l2: f64) -> Vec<f32> {
    let dim = others.dim;
    let mut events = Events { apart: Vec::new(), bias: Vec::new(), bound: Vec::new() };
    for row in rows {
        let mut numbers = row.iter().zip(others.mean).map(|(x, mean)| f64::from(*x) - f64::from(*mean));
        events.apart.extend(numbers.by_ref().take(dim));
        events.bias.extend(numbers);
    }
    let mut user = vec![0.0; dim];
    for _ in 0..ROUNDS {
        events.bound = events.square_differences(others, &user).map(bound).collect();
        user = events.solve(others, user, l2);
    }
    user.into_iter().map(|x| x as f32).collect()
}

/// h(ξ), given ξ².
fn bound(square: f64) -> f64 {
    let x = square.max(0.0).sqrt();
    if x < 1e-4 { 0.125 } else { (x / 2.0).tanh() / (4.0 * x) }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Others<'_> {
    /// Covariance of q with p·q, `[dim]`.
    fn spread(&self, user: &[f64]) -> Vec<f64> {
        let row = |at: usize| &self.covariance[at * (self.dim + 1)..][..self.dim];
        (0..self.dim).map(|at| row(at).iter().zip(user).map(|(c, p)| f64::from(*c) * p).sum()).collect()
    }

    /// Covariance of q with b, `[dim]`.
    fn with_bias(&self) -> Vec<f64> {
        (0..self.dim).map(|at| f64::from(self.covariance[at * (self.dim + 1) + self.dim])).collect()
    }
}

impl Events {
    fn rows(&self, dim: usize) -> impl Iterator<Item = (&[f64], f64, f64)> {
        self.apart.chunks_exact(dim).zip(&self.bias).zip(&self.bound).map(|((row, &bias), &bound)| (row, bias, bound))
    }

    /// Eⱼ(x(i) − x(j))² of each event.
    fn square_differences(&self, others: &Others<'_>, user: &[f64]) -> impl Iterator<Item = f64> {
        let variance = f64::from(others.covariance[others.covariance.len() - 1])
            + dot(user, &others.spread(user))
            + 2.0 * dot(user, &others.with_bias());
        self.apart
            .chunks_exact(others.dim)
            .zip(&self.bias)
            .map(move |(row, bias)| (dot(row, user) + bias).powi(2) + variance)
    }

    /// What the parabolas' slopes add up to, without what does not depend on p: A·p.
    fn slope(&self, others: &Others<'_>, user: &[f64], l2: f64) -> Vec<f64> {
        let all: f64 = 2.0 * self.bound.iter().sum::<f64>();
        let mut sum: Vec<f64> = others.spread(user).iter().map(|x| all * x).collect();
        let cost = l2 * self.bias.len() as f64;
        sum.iter_mut().zip(user).for_each(|(sum, p)| *sum += cost * p);
        for (row, _, bound) in self.rows(others.dim) {
            let by = 2.0 * bound * dot(row, user);
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += by * x);
        }
        sum
    }

    /// Where the sum of the parabolas is least, by conjugate gradients (Hestenes & Stiefel 1952) from `user` on.
    fn solve(&self, others: &Others<'_>, mut user: Vec<f64>, l2: f64) -> Vec<f64> {
        let all: f64 = 2.0 * self.bound.iter().sum::<f64>();
        let mut rest: Vec<f64> = others.with_bias().iter().map(|c| -all * c).collect();
        for (row, bias, bound) in self.rows(others.dim) {
            let by = 0.5 - 2.0 * bound * bias;
            rest.iter_mut().zip(row).for_each(|(rest, x)| *rest += by * x);
        }
        let enough = SOLVED * dot(&rest, &rest);
        rest.iter_mut().zip(self.slope(others, &user, l2)).for_each(|(rest, x)| *rest -= x);
        let (mut along, mut left) = (rest.clone(), dot(&rest, &rest));
        for _ in 0..others.dim {
            if left <= enough {
                break;
            }
            let slope = self.slope(others, &along, l2);
            let by = left / dot(&along, &slope);
            user.iter_mut().zip(&along).for_each(|(p, x)| *p += by * x);
            rest.iter_mut().zip(&slope).for_each(|(rest, x)| *rest -= by * x);
            let before = std::mem::replace(&mut left, dot(&rest, &rest));
            along.iter_mut().zip(&rest).for_each(|(along, rest)| *along = rest + left / before * *along);
        }
        user
    }
}
