//! Differences of time in buckets that widen: HSTU's temporal bias.

use std::ops::Range;
use std::sync::LazyLock;

/// How many buckets there are.
pub const TIME_BUCKETS: usize = 129;

/// ln of how much wider each bucket is than the one before, as in the authors' code.
const STEP: f64 = 0.301;

/// Where the buckets begin, in seconds.
static BEGINS: LazyLock<[f64; TIME_BUCKETS]> =
    LazyLock::new(|| std::array::from_fn(|bucket| if bucket == 0 { 0.0 } else { (STEP * bucket as f64).exp() }));

/// The bucket of a difference in seconds, in either direction: ⌊ln(max(1, |difference|))/0.301⌋, at most 128. What is
/// no number is the difference of two infinite times, of which nobody knows how far apart they are: the last bucket.
pub fn time_bucket(seconds: f64) -> usize {
    if seconds.is_nan() {
        return TIME_BUCKETS - 1;
    }
    BEGINS.partition_point(|&begin| begin <= seconds.abs()).max(1) - 1
}

/// Where the buckets begin, in seconds.
pub(crate) fn bucket_begins() -> &'static [f64; TIME_BUCKETS] {
    &BEGINS
}

/// Calls `run` for each stretch of `times`, which ascend, whose distance from `at` is in one bucket, in order.
pub(crate) fn for_runs(times: &[f64], at: f64, mut run: impl FnMut(Range<usize>, usize)) {
    let begins = &*BEGINS;
    let before = if times.last().is_none_or(|&last| last <= at) {
        times.len()
    } else {
        times.partition_point(|&time| time <= at)
    };
    let (mut start, mut bucket) = (0, TIME_BUCKETS - 1);
    while start < before {
        let distance = at - times[start];
        // The difference of two infinite times is no number, and leaves the last bucket as it is.
        while bucket > 0 && distance < begins[bucket] {
            bucket -= 1;
        }
        let end = match bucket {
            0 => before,
            _ => gallop(&times[..before], start, |time| at - time >= begins[bucket]),
        };
        run(start..end, bucket);
        start = end;
    }
    // The question may be asked of a time before the latest events.
    while start < times.len() {
        let bucket = time_bucket(times[start] - at);
        let end = match begins.get(bucket + 1) {
            None => times.len(),
            Some(&next) => gallop(times, start, |time| time - at < next),
        };
        run(start..end, bucket);
        start = end;
    }
}

/// The first place after `start` where `within` fails, which it does from there on: near places are tried first.
fn gallop(times: &[f64], start: usize, within: impl Fn(f64) -> bool) -> usize {
    let mut step = 1;
    while start + step < times.len() && within(times[start + step]) {
        step *= 2;
    }
    // Within at start + step/2, and beyond it nothing is known up to start + step.
    let from = start + step / 2 + 1;
    let to = times.len().min(start + step);
    from.min(to) + times[from.min(to)..to].partition_point(|&time| within(time))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cpu::reference::Random;

    #[test]
    fn buckets_are_those_of_the_formula() {
        let formula = |seconds: f64| ((seconds.abs().max(1.0).ln() / STEP) as usize).min(128);
        for seconds in [0.0, 0.5, 1.0, 1.3, 1.4, -2.0, 60.0, -3600.0, 1e6, 4e8, 1e16, 1e17, f64::MAX, f64::INFINITY] {
            assert_eq!(time_bucket(seconds), formula(seconds), "{seconds}");
        }
        assert_eq!(time_bucket(f64::INFINITY - f64::INFINITY), 128);
        for seconds in 0..200_000 {
            assert_eq!(time_bucket(f64::from(seconds)), formula(f64::from(seconds)), "{seconds}");
        }
    }

    #[test]
    fn runs_are_the_buckets_of_all_times_in_order() {
        let mut random = Random::new();
        for len in [0, 1, 2, 3, 31, 200] {
            for (spread, infinite) in [(1, 0), (10, 0), (1_000, 0), (10_000_000, 0), (100, 3), (10_000_000, 1)] {
                let mut times: Vec<f64> = (0..len).map(|_| random.below(spread) as f64).collect();
                for _ in 0..infinite * len / 4 {
                    times[random.below(len)] = [f64::NEG_INFINITY, f64::INFINITY][random.below(2)];
                }
                times.sort_by(f64::total_cmp);
                let spread = spread as f64;
                for at in [0.0, spread / 2.0, spread, 3.0 * spread, f64::INFINITY, f64::NEG_INFINITY] {
                    let mut found = Vec::new();
                    for_runs(&times, at, |range, bucket| {
                        assert_eq!(range.start, found.len());
                        assert!(!range.is_empty());
                        found.resize(range.end, bucket);
                    });
                    let wanted: Vec<usize> = times.iter().map(|time| time_bucket(at - time)).collect();
                    assert_eq!(found, wanted, "{len} times within {spread} at {at}");
                }
            }
        }
    }
}
