//! How well codes are used.

use std::collections::HashMap;

use super::Codes;

/// One level of the codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Code words that some item has.
    pub used: usize,
    /// Entropy of how often each is used, in bits.
    pub entropy: f64,
    /// Entropy as a share of what it would be if all words were used alike.
    pub balance: f64,
}

/// Statistics of every level, whose codebooks have these sizes.
#[must_use]
pub fn levels(codes: &Codes<'_>, sizes: &[usize]) -> Vec<Level> {
    let of = |(level, &size): (usize, &usize)| {
        let mut counts = vec![0usize; size];
        (0..codes.len()).for_each(|item| counts[usize::from(codes.item(item)[level])] += 1);
        let share = |&count: &usize| count as f64 / codes.len().max(1) as f64;
        let used = counts.iter().filter(|count| **count > 0);
        let entropy = used.clone().map(share).map(|p| -p * p.log2()).sum::<f64>();
        Level { used: used.count(), entropy, balance: if size > 1 { entropy / (size as f64).log2() } else { 1.0 } }
    };
    sizes.iter().enumerate().map(of).collect()
}

/// Items whose code is also another's.
#[must_use]
pub fn collisions(codes: &Codes<'_>) -> usize {
    let mut counts: HashMap<&[u16], usize> = HashMap::new();
    (0..codes.len()).for_each(|item| *counts.entry(codes.item(item)).or_default() += 1);
    counts.values().filter(|count| **count > 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_entropy_and_collisions_are_counted() {
        let codes = Codes { levels: 2, of: vec![0, 1, 0, 1, 1, 1, 1, 3].into() };
        let found = levels(&codes, &[2, 4]);
        assert_eq!(found[0], Level { used: 2, entropy: 1.0, balance: 1.0 });
        let entropy = -(0.75f64 * 0.75f64.log2() + 0.25 * 0.25f64.log2());
        assert_eq!((found[1].used, found[1].balance), (2, found[1].entropy / 2.0));
        assert!((found[1].entropy - entropy).abs() < 1e-12);
        assert_eq!(collisions(&codes), 2);
    }
}
