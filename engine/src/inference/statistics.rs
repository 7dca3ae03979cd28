//! What a worker counts, in memory that other processes read: plain counters, of which zeros are an empty one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of a histogram, four an octave, from a microsecond to more than a quarter of an hour.
const BUCKETS: usize = 120;
const AN_OCTAVE: f64 = 4.0;
/// Where the first bucket ends, in nanoseconds.
const FIRST: f64 = 1000.0;

/// How long things took. A quantile is exact to a tenth.
#[derive(Debug)]
#[repr(C)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Histogram {
    /// Counts one that took so many nanoseconds.
    pub fn record(&self, nanoseconds: u64) {
        let octaves = (nanoseconds as f64 / FIRST).log2();
        let bucket = ((octaves * AN_OCTAVE).floor() + 1.0).clamp(0.0, (BUCKETS - 1) as f64) as usize;
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The time within which this share (0 to 1) was done, in nanoseconds; nothing where nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = share.clamp(0.0, 1.0) * total as f64;
        let mut before = 0.0;
        for (bucket, &count) in counts.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && before + count >= wanted {
                // Evenly within the bucket, on the logarithmic scale.
                let within = (wanted - before) / count;
                return Some(FIRST * 2f64.powf((bucket as f64 - 1.0 + within) / AN_OCTAVE));
            }
            before += count;
        }
        None
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

/// Powers of two that sizes of batches are counted by.
pub const SIZES: usize = 16;

/// What the worker has done since the server started, or since it was reset.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Statistics {
    /// Questions that were taken.
    pub questions: AtomicU64,
    /// Of these, such as were answered by an error.
    pub errors: AtomicU64,
    /// Of these, such as nobody waited for any more.
    pub abandoned: AtomicU64,
    /// Batches that were computed.
    pub batches: AtomicU64,
    /// Of these by questions: bucket i has those of 2^i questions to fewer than 2^(i + 1).
    pub sizes: [AtomicU64; SIZES],
    /// From asking to the beginning of its computing.
    pub wait: Histogram,
    /// Of a batch, from the beginning of its computing to the end.
    pub compute: Histogram,
    /// From asking to the answer.
    pub total: Histogram,
}

impl Statistics {
    /// Counts a batch of so many questions, at least one.
    pub fn batch(&self, questions: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let size = (questions.max(1).ilog2() as usize).min(SIZES - 1);
        self.sizes[size].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        let counters = [&self.questions, &self.errors, &self.abandoned, &self.batches];
        counters.into_iter().chain(&self.sizes).for_each(|counter| counter.store(0, Ordering::Relaxed));
        [&self.wait, &self.compute, &self.total].into_iter().for_each(Histogram::reset);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        // 1 µs to 10 ms, evenly.
        (1..=10_000).for_each(|microseconds| histogram.record(microseconds * 1000));
        assert_eq!(histogram.count(), 10_000);
        for (share, truth) in [(0.5, 5.0e6), (0.95, 9.5e6), (0.99, 9.9e6), (0.01, 1.0e5)] {
            let found = histogram.quantile(share).unwrap();
            assert!((found / truth - 1.0).abs() < 0.1, "{share}: {found}");
        }
        histogram.reset();
        assert_eq!(histogram.count(), 0);
    }

    #[test]
    fn what_is_shorter_or_longer_than_the_scale_is_counted_at_its_ends() {
        let histogram = Histogram::default();
        histogram.record(0);
        assert!(histogram.quantile(1.0).unwrap() <= 1000.0);
        histogram.reset();
        histogram.record(u64::MAX);
        assert!(histogram.quantile(0.0).unwrap() > 1e11);
    }

    #[test]
    fn batches_are_counted_by_powers_of_two() {
        let statistics = Statistics::default();
        [1, 1, 2, 3, 64, 1 << 20].into_iter().for_each(|size| statistics.batch(size));
        let sizes: Vec<u64> = statistics.sizes.iter().map(|size| size.load(Ordering::Relaxed)).collect();
        assert_eq!((sizes[0], sizes[1], sizes[6], sizes[SIZES - 1]), (2, 2, 1, 1));
        assert_eq!(statistics.batches.load(Ordering::Relaxed), 6);
        statistics.reset();
        assert_eq!(statistics.batches.load(Ordering::Relaxed), 0);
    }
}
