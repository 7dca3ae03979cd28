//! k-means: code words that are the means of the vectors nearest to them.

use super::nearest::nearest;
use super::{Codebook, Options};
use crate::random::SplitMix;
use crate::{Control, Result};

/// Vectors for each code word from which the means are learnt.
const SAMPLED: usize = 256;
/// An iteration that makes the mean error smaller by less than this share is the last.
const TOLERANCE: f64 = 1e-4;

/// Means by Lloyd's iterations from a k-means++ start (Arthur & Vassilvitskii 2007). A word to which nothing is nearest is
/// put where the error is largest.
pub(super) fn means(
    rows: &[f32],
    dim: usize,
    options: &Options,
    random: &mut SplitMix,
    control: &Control,
) -> Result<Codebook> {
    let rows = &sample(rows, dim, SAMPLED * options.size, random);
    let mut codebook = start(rows, dim, options.size, random, control)?;
    improve(&mut codebook, rows, options.iterations, control)?;
    Ok(codebook)
}

/// Lloyd's iterations on `rows`.
pub(super) fn improve(codebook: &mut Codebook, rows: &[f32], iterations: usize, control: &Control) -> Result<()> {
    let dim = codebook.dim;
    let mut before = f64::INFINITY;
    for _ in 0..iterations {
        let found = nearest(rows, codebook, control)?;
        let error: f64 = found.iter().map(|&(_, distance)| f64::from(distance)).sum();
        if error >= before * (1.0 - TOLERANCE) {
            break;
        }
        before = error;
        let mut sums = vec![0.0f64; codebook.words.len()];
        let mut counts = vec![0u32; codebook.size];
        for (row, &(code, _)) in rows.chunks_exact(dim).zip(&found) {
            counts[usize::from(code)] += 1;
            let sum = &mut sums[usize::from(code) * dim..][..dim];
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        // Rows of the largest errors, the last of which goes first.
        let mut worst: Vec<usize> = (0..found.len()).collect();
        worst.sort_by(|&a, &b| found[a].1.total_cmp(&found[b].1));
        for (code, &count) in counts.iter().enumerate() {
            let word = &mut codebook.words[code * dim..][..dim];
            if count > 0 {
                let sum = &sums[code * dim..][..dim];
                word.iter_mut().zip(sum).for_each(|(word, sum)| *word = (sum / f64::from(count)) as f32);
            } else if let Some(row) = worst.pop() {
                word.copy_from_slice(&rows[row * dim..][..dim]);
            }
        }
    }
    Ok(())
}

/// Some `most` rows, or all where there are no more.
fn sample(rows: &[f32], dim: usize, most: usize, random: &mut SplitMix) -> Vec<f32> {
    let count = rows.len() / dim;
    if count <= most {
        return rows.to_vec();
    }
    let mut order: Vec<usize> = (0..count).collect();
    random.shuffle(&mut order);
    order[..most].iter().flat_map(|&row| &rows[row * dim..][..dim]).copied().collect()
}

/// Rows drawn one after the other, each as likely as its squared distance to those before.
fn start(rows: &[f32], dim: usize, size: usize, random: &mut SplitMix, control: &Control) -> Result<Codebook> {
    let count = rows.len() / dim;
    let row = |at: usize| &rows[at * dim..][..dim];
    let mut words = row(random.below(count)).to_vec();
    let mut distances = vec![f32::INFINITY; count];
    while words.len() < size * dim {
        control.check()?;
        let last = &words[words.len() - dim..];
        for (at, distance) in distances.iter_mut().enumerate() {
            let own = row(at).iter().zip(last).map(|(x, y)| (x - y) * (x - y)).sum();
            *distance = distance.min(own);
        }
        let total: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        let mut left = f64::from(random.uniform()) * total;
        let drawn = distances.iter().position(|&d| {
            left -= f64::from(d);
            left < 0.0
        });
        // Where all rows are among the words, any does.
        words.extend_from_slice(row(drawn.unwrap_or_else(|| random.below(count))));
    }
    Ok(Codebook { size, dim, words })
}
