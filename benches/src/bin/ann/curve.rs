//! Speed as a function of recall.

/// A width of the search, and what it gave.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Mean recall.
    pub recall: f64,
    /// Queries a second.
    pub qps: f64,
}

/// Queries a second at a recall: between two widths on the straight line of log QPS, never beyond what was measured.
/// None where no width reaches it.
pub fn qps_at(points: &[Point], recall: f64) -> Option<f64> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.recall.total_cmp(&b.recall));
    let above = points.partition_point(|point| point.recall < recall);
    let high = points.get(above)?;
    // A narrower search that finds as much is slower only by chance.
    let Some(low) = above.checked_sub(1).map(|below| points[below]) else {
        return Some(points.iter().map(|point| point.qps).fold(0.0, f64::max));
    };
    let share = (recall - low.recall) / (high.recall - low.recall);
    Some((low.qps.ln() + share * (high.qps.ln() - low.qps.ln())).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_read_between_two_widths_and_never_beyond_them() {
        let points = [(0.9, 1000.0), (0.8, 4000.0), (0.99, 100.0)].map(|(recall, qps)| Point { recall, qps });
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap_or(0.0) - b).abs() < 1e-6 * b, "{a:?}, not {b}");
        close(qps_at(&points, 0.9), 1000.0);
        close(qps_at(&points, 0.85), 2000.0);
        close(qps_at(&points, 0.5), 4000.0);
        assert!(qps_at(&points, 0.995).is_none() && qps_at(&[], 0.5).is_none());
    }
}
