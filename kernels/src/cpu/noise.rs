//! The random numbers of dropout: a hash of a counter, so that the same number can be had again at any place.

use crate::Noise;

/// The decisions of one dropout within one history: decision `n` is a hash of `n` and of the seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    /// One half is mixed in before the first round of the hash, the other before the second.
    pub seed: [u32; 2],
    /// What stays has a hash that is, as a signed number, at least this.
    pub least: i32,
}

/// Multipliers of the rounds of `Stream::hash`: those of lowbias32 (Wellons, hash-prospector).
pub(super) const MULTIPLIERS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

impl Stream {
    /// The stream of a history of the batch.
    pub(super) fn new(noise: &Noise<'_>, history: usize) -> Self {
        // Sites are spread before they meet the key: keys may be small numbers in a row.
        let seed = mix(mix(noise.keys[history]) ^ (u64::from(noise.site) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dropped = (f64::from(noise.rate) * 4_294_967_296.0) as i64;
        let least = (dropped + i64::from(i32::MIN)).min(i64::from(i32::MAX)) as i32;
        Self { seed: [seed as u32, (seed >> 32) as u32], least }
    }

    /// 32 random bits, of which the upper ones are the best. The vector types compute the same.
    #[inline(always)]
    pub(super) fn hash(&self, n: u32) -> u32 {
        let x = n ^ self.seed[0];
        let x = (x ^ x >> 16).wrapping_mul(MULTIPLIERS[0]) ^ self.seed[1];
        (x ^ x >> 15).wrapping_mul(MULTIPLIERS[1])
    }

    /// Whether number `n` stays.
    #[inline(always)]
    pub(super) fn keeps(&self, n: u32) -> bool {
        self.hash(n) as i32 >= self.least
    }
}

/// What the numbers that stay are multiplied with.
pub(super) fn growth(noise: &Noise<'_>) -> f32 {
    1.0 / (1.0 - noise.rate)
}

/// Panics unless the noise is one for a batch of so many histories.
pub(super) fn check_noise(noise: &Noise<'_>, histories: usize) {
    assert_eq!(noise.keys.len(), histories, "a key for every history");
    assert!((0.0..1.0).contains(&noise.rate), "a dropout rate of {}", noise.rate);
}

/// The finaliser of splitmix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
