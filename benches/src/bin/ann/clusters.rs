//! Generated vectors that lie as the item vectors of a model do.

use xtask::generate::Random;

/// Vectors of a cluster on average, where there are as many as were expected.
const MEMBERS: usize = 300;
/// The least and most clusters.
const CLUSTERS: (usize, usize) = (10, 1_000);
/// The cluster at rank r has a share of rows that goes with (r + 1) to the power of minus this.
const ZIPF_EXPONENT: f64 = 0.9;
/// Directions in which the vectors of a cluster differ most.
const DIRECTIONS: usize = 16;
/// Spread along the first of them; along the others it falls with the root of their number. A centre's is 1.
const SPREAD: f64 = 0.6;
/// Spread in all directions.
const NOISE: f64 = 0.25;
/// Spread of the logarithm of lengths.
const LENGTHS: f64 = 0.3;

/// A mixture: clusters of unequal sizes, each flat in directions of its own, vectors of unequal lengths.
pub struct Clusters {
    random: Random,
    centres: Vec<Vec<f64>>,
    /// For each cluster its directions, one after the other.
    directions: Vec<Vec<f64>>,
    /// The running sum of the clusters' shares.
    shares: Vec<f64>,
}

impl Clusters {
    /// For about so many vectors; the same for the same seed.
    pub fn new(expected: usize, dim: usize, seed: u64) -> Self {
        let count = (expected / MEMBERS).clamp(CLUSTERS.0, CLUSTERS.1);
        let mut random = Random::new(seed);
        let mut gaussian = |numbers: usize| -> Vec<f64> { (0..numbers).map(|_| random.normal()).collect() };
        let centres = (0..count).map(|_| gaussian(dim)).collect();
        let directions = (0..count).map(|_| gaussian(DIRECTIONS * dim)).collect();
        let shares = (0..count).scan(0.0, |sum, rank| {
            *sum += (rank as f64 + 1.0).powf(-ZIPF_EXPONENT);
            Some(*sum)
        });
        Self { centres, directions, shares: shares.collect(), random }
    }

    /// The next ones.
    pub fn take(&mut self, count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|_| self.one()).collect()
    }

    fn one(&mut self) -> Vec<f32> {
        let point = self.random.unit() * self.shares.last().copied().unwrap_or(0.0);
        let cluster = self.shares.partition_point(|&sum| sum <= point).min(self.centres.len() - 1);
        let mut vector = self.centres[cluster].clone();
        for (rank, direction) in self.directions[cluster].chunks_exact(vector.len()).enumerate() {
            let along = SPREAD / (rank as f64 + 1.0).sqrt() * self.random.normal();
            vector.iter_mut().zip(direction).for_each(|(x, d)| *x += along * d);
        }
        let length = (LENGTHS * self.random.normal()).exp();
        vector.iter().map(|x| (length * (x + NOISE * self.random.normal())) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_vectors_and_the_next_ones_differ() {
        let mut clusters = Clusters::new(5, 8, 3);
        let first = clusters.take(5);
        assert_eq!(first, Clusters::new(5, 8, 3).take(5));
        assert_ne!(first, clusters.take(5));
        assert_ne!(first, Clusters::new(5, 8, 4).take(5));
    }

    #[test]
    fn neighbours_are_nearer_than_strangers_and_lengths_differ() {
        let vectors = Clusters::new(2_000, 32, 1).take(2_000);
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let (first, rest) = (&vectors[0], &vectors[1..]);
        let mut distances: Vec<f32> = rest.iter().map(|other| distance(first, other)).collect();
        distances.sort_by(f32::total_cmp);
        assert!(distances[0] < 0.7 * distances[1_000], "{} and {}", distances[0], distances[1_000]);
        let lengths: Vec<f32> = vectors.iter().map(|vector| distance(vector, &[0.0; 32])).collect();
        let (short, long) = lengths.iter().fold((f32::INFINITY, 0.0_f32), |(s, l), &x| (s.min(x), l.max(x)));
        assert!(long > 2.0 * short, "{short} and {long}");
    }
}
