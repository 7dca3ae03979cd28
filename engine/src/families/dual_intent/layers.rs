//! What items and users are along the graph (UDITSR): e' of an item the mean of e + q over its users, e' of
//! a user the mean of e − q over their items, and e* = e⁰ + e¹/2 + e²/3.
//!
//! Users begin as the mean of their items, and of an edge of theirs q is the mean intent of its item: what a user is along the
//! graph is then a mean over their items of something that every item has (`passed`), whoever they are, and all of it is
//! linear in the items' vectors and intents.

use super::graph::Graph;
use crate::{Control, Result};

/// What is known of all items at one time, `[items, dim]` each.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers {
    /// e*
    pub(super) star: Vec<f32>,
    /// What an item says of those who have touched it: users are the mean of it.
    pub(super) passed: Vec<f32>,
    /// The mean intent of its edges.
    pub(super) intent: Vec<f32>,
    /// What of e* its users give it: the mean over them of the mean over their items of `given`.
    pub(super) taken: Vec<f32>,
    pub(super) given: Vec<f32>,
}

impl Layers {
    /// From the items' own vectors, those of the queries, and the sum of generated intents over an item's edges.
    pub(super) fn new(
        graph: &Graph,
        own: &[f32],
        queries: &[f32],
        generated: &[f32],
        dim: usize,
        control: &Control,
    ) -> Result<Self> {
        let mut intent = graph.intents[0].times(queries, dim, control)?;
        intent.iter_mut().zip(generated).for_each(|(to, x)| *to += x);
        let both = beside(own, &intent, dim);
        let spread = graph.items[0].times(&graph.users[0].times(&both, 2 * dim, control)?, 2 * dim, control)?;
        let [mut star, mut passed, mut taken] = [(); 3].map(|()| vec![0.0; own.len()]);
        let pairs = own.iter().zip(&intent);
        let given = pairs.map(|(own, intent)| STAR[0] * own + STAR[1] * intent).collect();
        for (at, spread) in spread.chunks_exact(2 * dim).enumerate() {
            let (of_own, of_intent) = spread.split_at(dim);
            for n in 0..dim {
                let (place, q) = (at * dim + n, intent[at * dim + n]);
                taken[place] = STAR[0] * of_own[n] + STAR[1] * of_intent[n];
                star[place] = own[place] + taken[place] + STAR[2] * q;
                passed[place] = PASSED[0] * own[place] + PASSED[1] * of_own[n] + PASSED[2] * q;
            }
        }
        Ok(Self { star, passed, intent, taken, given })
    }
}

/// With P, the mean over an item's users of the mean over their items: e_i¹ = Pe + q, e_i² = P(e − q) + q, so that
/// e_i* = e + (1/2 + 1/3)·Pe − 1/3·Pq + (1/2 + 1/3)·q.
const STAR: [f32; 3] = [5.0 / 6.0, -1.0 / 3.0, 5.0 / 6.0];
/// e_u* is the mean of e + (e − q)/2 + (Pe + q − q)/3.
const PASSED: [f32; 3] = [1.5, 1.0 / 3.0, -0.5];

/// Derivatives by what [`Layers`] has, `[items, dim]` each.
pub(super) struct ByLayers {
    pub(super) star: Vec<f32>,
    pub(super) passed: Vec<f32>,
    pub(super) taken: Vec<f32>,
    pub(super) given: Vec<f32>,
}

/// From those the derivatives by the items' own vectors and by the queries'.
pub(super) fn backward(graph: &Graph, by: &ByLayers, dim: usize, control: &Control) -> Result<(Vec<f32>, Vec<f32>)> {
    let ByLayers { star, passed, taken, given } = by;
    let of_own: Vec<f32> = sum([(STAR[0], star), (STAR[0], taken), (PASSED[1], passed)]);
    let of_intent: Vec<f32> = sum([(STAR[1], star), (STAR[1], taken), (0.0, passed)]);
    let both = beside(&of_own, &of_intent, dim);
    let spread = graph.users[1].times(&graph.items[1].times(&both, 2 * dim, control)?, 2 * dim, control)?;
    let mut own: Vec<f32> = sum([(1.0, star), (PASSED[0], passed), (STAR[0], given)]);
    let mut intent: Vec<f32> = sum([(STAR[2], star), (PASSED[2], passed), (STAR[1], given)]);
    for (at, spread) in spread.chunks_exact(2 * dim).enumerate() {
        let add = |to: &mut [f32], x: &[f32]| to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
        add(&mut own[at * dim..][..dim], &spread[..dim]);
        add(&mut intent[at * dim..][..dim], &spread[dim..]);
    }
    Ok((own, graph.intents[1].times(&intent, dim, control)?))
}

/// Σ weight·x
fn sum(terms: [(f32, &Vec<f32>); 3]) -> Vec<f32> {
    let mut sum = vec![0.0; terms[0].1.len()];
    terms.iter().for_each(|(weight, x)| sum.iter_mut().zip(*x).for_each(|(sum, x)| *sum += weight * x));
    sum
}

fn beside(a: &[f32], b: &[f32], dim: usize) -> Vec<f32> {
    a.chunks_exact(dim).zip(b.chunks_exact(dim)).flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
}
