//! How alike two items are by what is known of them: attributes (TF-IDF) or vectors.

use crate::{Corpus, Error, Result};

/// Item features, rows of unit length: a dot product is a cosine.
#[derive(Debug, Clone)]
pub(crate) enum Features {
    /// Nothing is known.
    None,
    /// Sparse rows over the attribute vocabulary.
    Attributes {
        /// Start of each item's row, and the end of the last.
        offsets: Vec<u64>,
        /// Attribute tokens, ascending within a row.
        tokens: Vec<u32>,
        /// Their weights.
        weights: Vec<f32>,
    },
    /// Dense rows.
    Vectors {
        /// Numbers in a row.
        dim: usize,
        /// `[items, dim]`
        rows: Vec<f32>,
    },
}

impl Features {
    /// Binary attributes weighted idf = max(0, ln((items + 1)/(1 + df))), df being the number of items that have
    /// the attribute; rows l2-normalised.
    pub(crate) fn attributes(corpus: &Corpus) -> Result<Self> {
        let n = corpus.items().len();
        if corpus.attribute_offsets().len() != n + 1 {
            return Err(Error::Data("the items have no attributes".into()));
        }
        let idf = idf(corpus);
        let (mut offsets, mut tokens, mut weights) = (vec![0u64], Vec::new(), Vec::new());
        for item in 0..n {
            let row = corpus.attributes_of(item);
            let norm = row.iter().map(|&token| idf[token as usize].powi(2)).sum::<f64>().sqrt();
            // A token that every item has weighs nothing: it is left out.
            for &token in row.iter().filter(|&&token| idf[token as usize] > 0.0) {
                tokens.push(token);
                weights.push((idf[token as usize] / norm) as f32);
            }
            offsets.push(tokens.len() as u64);
        }
        Ok(Self::Attributes { offsets, tokens, weights })
    }

    /// The items' own vectors, l2-normalised; a row of zeros stays one.
    pub(crate) fn vectors(corpus: &Corpus) -> Result<Self> {
        let dim = corpus.vector_dim();
        if corpus.vectors().is_empty() || dim == 0 {
            return Err(Error::Data("the items have no vectors".into()));
        }
        let mut rows = corpus.vectors().to_vec();
        rows.chunks_exact_mut(dim).for_each(to_unit);
        Ok(Self::Vectors { dim, rows })
    }

    /// The features as slices.
    pub(crate) fn view(&self) -> FeaturesView<'_> {
        match self {
            Self::None => FeaturesView::None,
            Self::Attributes { offsets, tokens, weights } => FeaturesView::Attributes { offsets, tokens, weights },
            Self::Vectors { dim, rows } => FeaturesView::Vectors { dim: *dim, rows },
        }
    }
}

/// Brings a row to length 1; zeros stay zeros.
pub(crate) fn to_unit(row: &mut [f32]) {
    let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// What each attribute of a corpus weighs: max(0, ln((items + 1)/(1 + df))).
pub(crate) fn idf(corpus: &Corpus) -> Vec<f64> {
    let mut idf = vec![0f64; corpus.vocabulary().len()];
    corpus.attributes().iter().for_each(|&token| idf[token as usize] += 1.0);
    let items = corpus.items().len() as f64;
    idf.iter_mut().for_each(|x| *x = ((items + 1.0) / (1.0 + *x)).ln().max(0.0));
    idf
}

/// [`Features`], wherever they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FeaturesView<'a> {
    /// Nothing is known.
    None,
    /// Sparse rows: offsets, tokens, weights.
    Attributes {
        /// Start of each item's row, and the end of the last.
        offsets: &'a [u64],
        /// Attribute tokens, ascending within a row.
        tokens: &'a [u32],
        /// Their weights.
        weights: &'a [f32],
    },
    /// Dense rows.
    Vectors {
        /// Numbers in a row.
        dim: usize,
        /// `[items, dim]`
        rows: &'a [f32],
    },
}

impl<'a> FeaturesView<'a> {
    /// Whether there are any.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Cosine of two items in [−1, 1]; 0 where one of them has no features.
    pub(crate) fn cosine(&self, a: u32, b: u32) -> f32 {
        match *self {
            Self::None => 0.0,
            Self::Attributes { offsets, tokens, weights } => {
                let row = |item: u32| offsets[item as usize] as usize..offsets[item as usize + 1] as usize;
                sparse_dot((&tokens[row(a)], &weights[row(a)]), (&tokens[row(b)], &weights[row(b)]))
            }
            Self::Vectors { dim, rows } => {
                let row = |item: u32| &rows[item as usize * dim..(item as usize + 1) * dim];
                dot(row(a), row(b))
            }
        }
    }
}

/// Dot product of two sparse rows, tokens ascending.
fn sparse_dot(a: (&[u32], &[f32]), b: (&[u32], &[f32])) -> f32 {
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    while i < a.0.len() && j < b.0.len() {
        match a.0[i].cmp(&b.0[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                sum += a.1[i] * b.1[j];
                (i, j) = (i + 1, j + 1);
            }
        }
    }
    sum
}

/// Dot product in eight running sums, which the compiler keeps in one vector register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0f32; LANES];
    let (a_rows, b_rows) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_rows.remainder().iter().zip(b_rows.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_rows.zip(b_rows) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}
