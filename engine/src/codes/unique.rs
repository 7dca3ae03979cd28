//! A code of its own for every item.
//!
//! Of items that collide the nearest keeps the code, and the others get the nearest one that is free, on whatever levels it
//! differs. Before that, uniform semantic mapping (Zheng et al. 2023, LC-Rec, section 3.1) may choose the last level anew, by
//! an optimal transport that spreads a group over its words. Where the last level is blank ([`super::Codebook::blank`], as
//! in TIGER), it only numbers the items of a group.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use super::{Codes, Quantizer};
use crate::{Control, Error, Result};

/// Rounds of uniform mapping, as published.
pub const ROUNDS: usize = 20;
/// Iterations of Sinkhorn & Knopp (1967) for a group.
const ITERATIONS: usize = 50;
/// Distances are centred to −1 … 1 and divided by this.
const SHARPNESS: f64 = 0.003;

/// What became of the collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resolved {
    /// Items whose greedy code was another's too.
    pub collided: usize,
    /// Of these, such as the uniform mapping gave a code of their own, or the greedy one was left to.
    pub mapped: usize,
    /// The rest, which got the nearest free one.
    pub placed: usize,
}

/// Changes `codes` of `vectors` (`[n, dim]`) until no two are alike, after so many rounds of uniform mapping.
///
/// # Errors
/// [`Error::Data`] where there are more items than codes.
pub fn make_unique(
    vectors: &[f32],
    quantizer: &Quantizer,
    codes: &mut Codes<'_>,
    rounds: usize,
    control: &Control,
) -> Result<Resolved> {
    let Some(last) = quantizer.codebooks.last() else {
        return Err(Error::Malformed("codes without a codebook".into()));
    };
    let room = quantizer.room();
    if codes.len() as u128 > room {
        let items = codes.len();
        return Err(Error::Data(format!("{items} items need more than {room} codes: raise levels or codes")));
    }
    let mut groups = colliding(codes);
    let collided = groups.iter().map(Vec::len).sum();
    let rounds = if last.is_blank() { 0 } else { rounds };
    for _ in 0..rounds {
        if groups.is_empty() {
            break;
        }
        for group in &groups {
            control.check()?;
            map(vectors, quantizer, codes, group);
        }
        groups = colliding(codes);
    }
    let placed = place(vectors, quantizer, codes, &groups, control)?;
    Ok(Resolved { collided, mapped: collided.saturating_sub(placed), placed })
}

/// Groups of items that share a code, in the order of their codes.
fn colliding(codes: &Codes<'_>) -> Vec<Vec<usize>> {
    let order = codes.order();
    let same = |a: &u32, b: &u32| codes.item(*a as usize) == codes.item(*b as usize);
    let groups = order.chunk_by(same).filter(|group| group.len() > 1);
    groups.map(|group| group.iter().map(|&item| item as usize).collect()).collect()
}

fn vector<'a>(vectors: &'a [f32], quantizer: &Quantizer, item: usize) -> &'a [f32] {
    let dim = quantizer.dim();
    &vectors[item * dim..][..dim]
}

/// Spreads a group over the words of the last level.
fn map(vectors: &[f32], quantizer: &Quantizer, codes: &mut Codes<'_>, group: &[usize]) {
    let last = codes.levels - 1;
    let distances = group
        .iter()
        .flat_map(|&item| quantizer.distances(vector(vectors, quantizer, item), &codes.item(item)[..last]))
        .collect::<Vec<f64>>();
    for (&item, code) in group.iter().zip(spread(&distances, group.len())) {
        codes.item_mut(item)[last] = code;
    }
}

/// For each of `rows` rows of distances a column, such that columns are used alike: the transport that Sinkhorn's
/// iterations find, and of each row its largest entry.
fn spread(distances: &[f64], rows: usize) -> Vec<u16> {
    let columns = distances.len() / rows;
    let (least, most) = distances.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &d| (a.min(d), b.max(d)));
    let (middle, half) = ((least + most) / 2.0, (most - least) / 2.0 + 1e-5);
    let mut plan: Vec<f64> = distances.iter().map(|d| (-(d - middle) / half / SHARPNESS).exp()).collect();
    for _ in 0..ITERATIONS {
        for row in plan.chunks_exact_mut(columns) {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum * rows as f64);
        }
        let mut sums = vec![0.0; columns];
        plan.chunks_exact(columns).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        for row in plan.chunks_exact_mut(columns) {
            row.iter_mut().zip(&sums).filter(|(_, sum)| **sum > 0.0).for_each(|(x, sum)| *x /= sum * columns as f64);
        }
    }
    let largest = |row: &[f64]| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        best.map_or(0, |(column, _)| column as u16)
    };
    plan.chunks_exact(columns).map(largest).collect()
}

/// Gives all items of a group but the nearest one the nearest codes that are free. How many were given one.
fn place(
    vectors: &[f32],
    quantizer: &Quantizer,
    codes: &mut Codes<'_>,
    groups: &[Vec<usize>],
    control: &Control,
) -> Result<usize> {
    if groups.is_empty() {
        return Ok(0);
    }
    let mut taken = Taken::new(codes);
    let mut placed = 0;
    for group in groups {
        let error = |&item: &usize| quantizer.error(vector(vectors, quantizer, item), codes.item(item));
        let mut nearest: Vec<(f32, usize)> = group.iter().map(|item| (error(item), *item)).collect();
        nearest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for &(_, item) in &nearest[1..] {
            control.check()?;
            let code = taken.nearest_free(quantizer, vector(vectors, quantizer, item));
            let code = code.ok_or_else(|| Error::Malformed("no code is free".into()))?;
            codes.item_mut(item).copy_from_slice(&code);
            taken.add(&code);
            placed += 1;
        }
    }
    Ok(placed)
}

/// Codes that are taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// By all levels but the last, which codes of the last are.
    below: HashMap<Vec<u16>, HashSet<u16>>,
}

impl Taken {
    /// Those of `codes`.
    #[must_use]
    pub fn new(codes: &Codes<'_>) -> Self {
        let mut taken = Self::default();
        (0..codes.len()).for_each(|item| taken.add(codes.item(item)));
        taken
    }

    /// Takes a code.
    pub fn add(&mut self, code: &[u16]) {
        if let Some((&last, prefix)) = code.split_last() {
            self.below.entry(prefix.to_vec()).or_default().insert(last);
        }
    }

    /// The nearest code that is not taken, see [`Quantizer::nearest_free`].
    #[must_use]
    pub fn nearest_free(&self, quantizer: &Quantizer, vector: &[f32]) -> Option<Vec<u16>> {
        let mut below = |prefix: &[u16]| Ok::<_, Infallible>(self.below.get(prefix).cloned().unwrap_or_default());
        match quantizer.nearest_free(vector, &mut below) {
            Ok(code) => code,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Codebook, Form, Options, product, residual};
    use super::*;
    use crate::random::SplitMix;

    fn vectors(count: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix::new(seed);
        (0..count * dim).map(|_| random.truncated_normal()).collect()
    }

    fn distinct(codes: &Codes<'_>) -> usize {
        (0..codes.len()).map(|item| codes.item(item)).collect::<HashSet<_>>().len()
    }

    fn options(levels: usize, size: usize) -> Options {
        Options { levels, size, iterations: 10, seed: 1 }
    }

    fn resolved(vectors: &[f32], quantizer: &Quantizer, rounds: usize) -> (Codes<'static>, Codes<'static>, Resolved) {
        let control = Control::default();
        let greedy = quantizer.encode(vectors, &control).unwrap();
        let mut codes = greedy.clone();
        let resolved = make_unique(vectors, quantizer, &mut codes, rounds, &control).unwrap();
        (greedy, codes, resolved)
    }

    #[test]
    fn every_item_gets_a_code_of_its_own_and_most_keep_theirs() {
        let control = Control::default();
        for (count, levels, size) in [(500, 3, 16), (300, 2, 18), (64, 2, 8), (1, 1, 2), (16, 1, 16)] {
            let vectors = vectors(count, 6, 7);
            let parallel = product::fit(&vectors, 6, &options(levels, size), &control).unwrap().quantizer;
            for quantizer in [residual::fit(&vectors, 6, &options(levels, size), &control).unwrap(), parallel] {
                let error = |codes: &Codes<'_>| -> f64 {
                    (0..count).map(|item| f64::from(quantizer.error(&vectors[item * 6..][..6], codes.item(item)))).sum()
                };
                let (greedy, nearest, placed) = resolved(&vectors, &quantizer, 0);
                assert_eq!((distinct(&nearest), placed.mapped), (count, placed.collided - placed.placed));
                let kept = (0..count).filter(|&item| nearest.item(item) == greedy.item(item)).count();
                assert_eq!(count - kept, placed.placed, "only those move whose code is another's");
                let (_, codes, resolved) = resolved(&vectors, &quantizer, ROUNDS);
                assert_eq!(distinct(&codes), count, "{count} {levels} {size}");
                assert!(error(&nearest) <= 1.05 * error(&codes), "{} {}", error(&nearest), error(&codes));
                let kept = (0..count).filter(|&item| codes.item(item) == greedy.item(item)).count();
                // One whose code was its own can be drawn in by another's move.
                assert!(10 * kept >= 9 * (count - resolved.collided), "{kept} of {count}, {resolved:?}");
                assert_eq!(resolved.mapped + resolved.placed, resolved.collided);
            }
        }
    }

    #[test]
    fn a_blank_level_numbers_those_that_collide_and_changes_nothing_else() {
        for form in [Form::Residual, Form::Parallel] {
            let vectors = vectors(300, 6, 9);
            let control = Control::default();
            let mut quantizer = match form {
                Form::Residual => residual::fit(&vectors, 6, &options(2, 8), &control).unwrap(),
                Form::Parallel => product::fit(&vectors, 6, &options(2, 8), &control).unwrap().quantizer,
            };
            let coarse = quantizer.encode(&vectors, &control).unwrap();
            let width = if form == Form::Residual { 6 } else { 0 };
            quantizer.codebooks.push(Codebook::blank(64, width));
            let (_, codes, _) = resolved(&vectors, &quantizer, ROUNDS);
            assert_eq!(distinct(&codes), 300);
            let mut numbers: HashMap<&[u16], Vec<u16>> = HashMap::new();
            for item in 0..300 {
                let (last, prefix) = codes.item(item).split_last().unwrap();
                assert_eq!(prefix, coarse.item(item));
                numbers.entry(prefix).or_default().push(*last);
            }
            for mut group in numbers.into_values() {
                group.sort_unstable();
                assert!(group.iter().zip(0..).all(|(&number, place)| number == place), "{group:?}");
            }
        }
    }

    #[test]
    fn items_that_are_all_alike_are_told_apart_and_too_many_are_an_error() {
        let control = Control::default();
        let alike = vec![0.5f32; 9 * 4];
        let quantizer = residual::fit(&alike, 4, &options(2, 3), &control).unwrap();
        assert_eq!([0, ROUNDS].map(|rounds| distinct(&resolved(&alike, &quantizer, rounds).1)), [9, 9]);
        let more = vec![0.5f32; 10 * 4];
        let mut codes = quantizer.encode(&more, &control).unwrap();
        assert!(matches!(make_unique(&more, &quantizer, &mut codes, ROUNDS, &control), Err(Error::Data(_))));
    }

    #[test]
    fn a_free_code_is_the_greedy_one_while_that_is_free() {
        let control = Control::default();
        let vectors = vectors(40, 5, 11);
        let quantizer = residual::fit(&vectors, 5, &options(3, 4), &control).unwrap();
        let greedy = quantizer.encode(&vectors, &control).unwrap();
        let mut taken = Taken::default();
        for item in 0..40 {
            assert_eq!(taken.nearest_free(&quantizer, &vectors[item * 5..][..5]).unwrap(), greedy.item(item));
        }
        for _ in 0..64 {
            let code = taken.nearest_free(&quantizer, &vectors[..5]).unwrap();
            taken.add(&code);
        }
        assert_eq!(taken.nearest_free(&quantizer, &vectors[..5]), None);
    }
}
