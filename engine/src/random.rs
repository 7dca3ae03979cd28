//! The random numbers of the engine: the same for a seed on every machine and in every version.

/// SplitMix64 (Steele, Lea & Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// A generator; any seed is as good as any other.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// What a generator goes on with that is to give the same numbers.
    pub(crate) fn state(&self) -> u64 {
        self.0
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0 ..< 1, of 24 bits.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Normally distributed (Box & Muller 1958), cut at two deviations.
    pub(crate) fn truncated_normal(&mut self) -> f32 {
        loop {
            let radius = (-2.0 * f64::ln(1.0 - f64::from(self.uniform()))).sqrt();
            let x = radius * (std::f64::consts::TAU * f64::from(self.uniform())).cos();
            if x.abs() <= 2.0 {
                return x as f32;
            }
        }
    }

    /// Puts a list into random order (Fisher & Yates).
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }

    /// A number below `n`, which is not 0 (Lemire 2019, without the rejection: the bias is n/2⁶⁴).
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_the_published_code() {
        let mut random = SplitMix::new(0);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
        assert!((0..1000).all(|_| random.below(7) < 7 && random.below(1) == 0));
    }
}
