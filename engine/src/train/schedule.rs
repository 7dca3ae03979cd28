//! The learning rate and dropout over the steps of a training.

use super::options::{Options, Schedule};

/// Where the falling schedules end, as a share of the highest rate.
const LAST: f64 = 0.01;

/// The rate of step `step` (from 0) of `steps`.
pub(super) fn rate(options: &Options, step: u64, steps: u64) -> f64 {
    let warm = if step < options.warmup { (step + 1) as f64 / options.warmup as f64 } else { 1.0 };
    let rest = steps.saturating_sub(options.warmup).max(1) as f64;
    let done = (step.saturating_sub(options.warmup) as f64 / rest).min(1.0);
    let left = match options.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - (1.0 - LAST) * done,
        Schedule::Cosine => LAST + (1.0 - LAST) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
    };
    options.learning_rate * warm * left
}

/// What is left of dropout at step `step` (from 0) of `steps`, as a share of it, where it falls to nothing over the
/// last `annealing` of them.
pub(super) fn dropout_left(annealing: f64, step: u64, steps: u64) -> f64 {
    let left = steps.saturating_sub(step) as f64 / steps.max(1) as f64;
    if left < annealing { left / annealing } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_stays_and_then_falls_to_nothing() {
        let left = |annealing, step| dropout_left(annealing, step, 100);
        assert_eq!([left(0.0, 0), left(0.0, 99), left(0.0, 100)], [1.0; 3]);
        assert_eq!([left(0.2, 0), left(0.2, 80), left(0.2, 90), left(0.2, 100)], [1.0, 1.0, 0.5, 0.0]);
        assert_eq!([left(1.0, 0), left(1.0, 75)], [1.0, 0.25]);
        assert_eq!(dropout_left(1.0, 0, 0), 0.0);
    }

    #[test]
    fn the_rate_rises_then_falls_to_its_end() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            let options = Options { schedule, warmup: 10, learning_rate: 2.0, ..Options::default() };
            assert!((rate(&options, 0, 100) - 0.2).abs() < 1e-12);
            assert!((rate(&options, 9, 100) - 2.0).abs() < 1e-12);
            let rates: Vec<f64> = (10..100).map(|step| rate(&options, step, 100)).collect();
            assert!(rates.is_sorted_by(|a, b| a >= b) && rates[0] == 2.0);
            let last = if schedule == Schedule::Constant { 2.0 } else { 0.02 };
            assert!((rate(&options, 100, 100) - last).abs() < 1e-12);
            assert!(rate(&options, 5, 3) > 0.0, "a training shorter than its warm-up still learns");
        }
    }
}
