//! What searches found and took: recall, and speed as a function of it.

use std::collections::HashSet;

/// What one query gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Time in the server.
    pub seconds: f64,
    /// Id and distance of every row, in the order in which they came.
    pub found: Vec<(i64, f64)>,
}

/// A width of the search, and what all queries together gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Candidates that were kept.
    pub width: usize,
    /// Mean recall.
    pub recall: f64,
    /// The least recall of a query.
    pub lowest: f64,
    /// Mean time of a query in the server.
    pub seconds: f64,
    /// The time that 99 of 100 queries do not exceed.
    pub p99: f64,
}

/// Speed at a recall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Queries a second.
    pub qps: f64,
    /// The least recall of a query at the narrowest width that reaches it.
    pub lowest: f64,
}

impl Point {
    /// Sums up the answers at a width; `truth` has those of exact search, for the same queries.
    pub fn of(width: usize, answers: &[Answer], truth: &[Answer]) -> Self {
        let recalls: Vec<f64> = answers.iter().zip(truth).map(|(answer, truth)| recall(answer, truth)).collect();
        let mut times: Vec<f64> = answers.iter().map(|answer| answer.seconds).collect();
        times.sort_by(f64::total_cmp);
        let p99 = times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN);
        let lowest = recalls.iter().copied().fold(1.0, f64::min);
        Self { width, recall: mean(&recalls), lowest, seconds: mean(&times), p99 }
    }

    /// Queries a second on one connection.
    pub fn qps(&self) -> f64 {
        1.0 / self.seconds
    }
}

/// Share of the nearest rows that were found. A row as near as the farthest of the true ones is as good as it.
fn recall(answer: &Answer, truth: &Answer) -> f64 {
    let farthest = truth.found.iter().map(|&(_, distance)| distance).fold(f64::NEG_INFINITY, f64::max);
    let near = answer.found.iter().filter(|&&(_, distance)| distance <= farthest);
    // A row that was given twice counts once.
    let ids: HashSet<i64> = near.map(|&(id, _)| id).collect();
    match truth.found.len() {
        0 => 1.0,
        wanted => ids.len().min(wanted) as f64 / wanted as f64,
    }
}

/// The arithmetic mean; not a number for nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Answers to the same queries in several rounds as one round, with the shortest time of each query: what else the
/// machine did meanwhile never made one shorter.
pub fn fastest(rounds: &[Vec<Answer>]) -> Vec<Answer> {
    let Some((first, others)) = rounds.split_first() else { return Vec::new() };
    let mut best = first.clone();
    for other in others {
        for (best, other) in best.iter_mut().zip(other) {
            best.seconds = best.seconds.min(other.seconds);
        }
    }
    best
}

/// The speed at a mean recall: between two widths on the straight line of log time, never beyond what was measured.
/// None where no width reaches it.
pub fn speed_at(points: &[Point], target: f64) -> Option<Speed> {
    let frontier = frontier(points);
    let above = frontier.partition_point(|point| point.recall < target);
    let high = frontier.get(above)?;
    let Some(low) = above.checked_sub(1).map(|below| &frontier[below]) else {
        return Some(Speed { qps: high.qps(), lowest: high.lowest });
    };
    let share = (target - low.recall) / (high.recall - low.recall);
    let log = low.qps().ln() + share * (high.qps().ln() - low.qps().ln());
    Some(Speed { qps: log.exp(), lowest: high.lowest })
}

/// The points that no other beats in both recall and speed, by ascending recall.
fn frontier(points: &[Point]) -> Vec<Point> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| b.recall.total_cmp(&a.recall).then(a.seconds.total_cmp(&b.seconds)));
    let mut fastest = f64::INFINITY;
    sorted.retain(|point| {
        let better = point.seconds < fastest;
        fastest = fastest.min(point.seconds);
        better
    });
    sorted.reverse();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(found: &[(i64, f64)]) -> Answer {
        Answer { seconds: 0.001, found: found.to_vec() }
    }

    fn point(recall: f64, qps: f64) -> Point {
        Point { width: 0, recall, lowest: recall / 2.0, seconds: 1.0 / qps, p99: 0.0 }
    }

    #[test]
    fn rows_as_near_as_the_farthest_true_one_are_found_and_doubles_are_not() {
        let truth = answer(&[(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3)]);
        assert_eq!(recall(&truth, &truth), 1.0);
        assert_eq!(recall(&answer(&[(1, 0.1), (2, 0.2), (9, 0.3), (8, 0.3)]), &truth), 1.0, "other rows of a tie");
        assert_eq!(recall(&answer(&[(1, 0.1), (1, 0.1), (2, 0.2), (7, 0.4)]), &truth), 0.5, "one of them twice");
        assert_eq!(recall(&answer(&[]), &truth), 0.0);
        assert_eq!(recall(&answer(&[(5, 0.05), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3)]), &truth), 1.0);
    }

    #[test]
    fn a_filter_that_no_row_passes_leaves_nothing_to_be_found() {
        assert_eq!(recall(&answer(&[]), &answer(&[])), 1.0);
    }

    #[test]
    fn the_mean_and_the_worst_query_are_told_apart() {
        let truth = vec![answer(&[(1, 0.1), (2, 0.2)]); 2];
        let answers = [answer(&[(1, 0.1), (2, 0.2)]), Answer { seconds: 0.003, found: vec![(1, 0.1)] }];
        let point = Point::of(40, &answers, &truth);
        assert_eq!((point.width, point.recall, point.lowest, point.p99), (40, 0.75, 0.5, 0.003));
        assert!((point.qps() - 500.0).abs() < 1e-9);
    }

    #[test]
    fn speed_is_read_between_two_widths() {
        let points = [point(0.8, 4000.0), point(0.9, 1000.0), point(0.99, 100.0)];
        let qps = |target| speed_at(&points, target).map_or(0.0, |speed| speed.qps);
        assert!((qps(0.85) - 2000.0).abs() < 1e-6 && (qps(0.9) - 1000.0).abs() < 1e-6);
        assert_eq!(speed_at(&points, 0.85).map(|speed| speed.lowest), Some(0.45));
    }

    #[test]
    fn speed_is_never_read_beyond_what_was_measured() {
        let points = [point(0.97, 1000.0), point(0.99, 100.0)];
        assert_eq!(speed_at(&points, 0.9).map(|speed| speed.qps), Some(1000.0), "the narrowest finds more");
        assert_eq!(speed_at(&points, 0.995), None);
        assert_eq!(speed_at(&[], 0.5), None);
    }

    #[test]
    fn a_width_that_others_beat_in_both_does_not_count() {
        let points = [point(0.8, 4000.0), point(0.85, 500.0), point(0.9, 1000.0), point(0.9, 900.0)];
        assert_eq!(frontier(&points), [point(0.8, 4000.0), point(0.9, 1000.0)]);
    }

    #[test]
    fn of_several_rounds_the_shortest_time_of_each_query_counts() {
        let round = |times: [f64; 2]| times.map(|seconds| Answer { seconds, found: vec![(1, 0.1)] }).to_vec();
        let best = fastest(&[round([3.0, 5.0]), round([2.0, 6.0]), round([4.0, 4.0])]);
        assert_eq!(best, round([2.0, 4.0]));
        assert!(fastest(&[]).is_empty());
    }
}
