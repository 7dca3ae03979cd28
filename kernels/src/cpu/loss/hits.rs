//! Accidental hits: shared negatives that are some row's target.

/// A negative, by its place among the negatives, and a row whose target it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    pub item: u32,
    pub row: u32,
}

/// All hits, ascending.
pub(super) fn hits(negatives: &[u32], targets: &[u32]) -> Vec<Hit> {
    let mut rows: Vec<(u32, u32)> = targets.iter().zip(0..).map(|(&target, row)| (target, row)).collect();
    rows.sort_unstable();
    // Most negatives are nobody's target: a bit for every target answers for them.
    let mut seen = [0u64; 128];
    let bit = |item: u32| ((item / 64 % 128) as usize, 1u64 << (item % 64));
    for &target in targets {
        let (word, bit) = bit(target);
        seen[word] |= bit;
    }
    let mut hits = Vec::new();
    for (&negative, item) in negatives.iter().zip(0..) {
        let (word, bit) = bit(negative);
        if seen[word] & bit != 0 {
            let first = rows.partition_point(|&(target, _)| target < negative);
            let same = rows[first..].iter().take_while(|&&(target, _)| target == negative);
            hits.extend(same.map(|&(_, row)| Hit { item, row }));
        }
    }
    hits
}

/// The hits of the negatives from `begin` up to `end`.
pub(super) fn between(hits: &[Hit], begin: usize, end: usize) -> &[Hit] {
    let at = |place: usize| hits.partition_point(|hit| (hit.item as usize) < place);
    &hits[at(begin)..at(end)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_hits_every_row_whose_target_it_is_and_no_other() {
        // 8192 items apart, targets share a bit.
        let targets = [3, 8195, 7, 3, u32::MAX];
        let found = hits(&[16387, 3, 5, 8195, 3, u32::MAX], &targets);
        let wanted = [(1, 0), (1, 3), (3, 1), (4, 0), (4, 3), (5, 4)];
        assert_eq!(found, wanted.map(|(item, row)| Hit { item, row }));
        assert_eq!(between(&found, 2, 5), &found[2..5]);
        assert!(hits(&[], &targets).is_empty() && hits(&[1], &[]).is_empty());
    }
}
