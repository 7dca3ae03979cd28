//! Segments of a catalogue's item vectors, for the largest inner products.
//!
//! The graph is searched by inner products themselves (ip-NSW: Morozov & Babenko 2018, "Non-metric similarity
//! graphs for maximum inner product search"), and woven by a·b/√(|a|·|b|). Weaving by inner products as well
//! links few vectors to the short ones; by cosines, few to the long ones. The usual reduction to distances,
//! which appends √(M² − |v|²) to every vector, pulls short vectors together and away from every query. On 10,000
//! clustered vectors of 64 with lengths from 1 to 4 and these defaults (`examples/segment.rs`), recall at 10 and
//! at 100 was:
//!
//! | woven by | queries near the clusters | queries anywhere |
//! |---|---|---|
//! | this | 1.000, .999 | .999, .992 |
//! | inner products | 1.000, .995 | .999, .989 |
//! | cosines | 1.000, .992 | .990, .949 |
//! | distances | 1.000, .804 | .610, .508 |
//!
//! The reduction, measured with a connectivity of 16 and expansions of 128, gave .946 and .521 at 10 where inner
//! products gave .999 and .989, and found nothing at all for some queries.

use rayon::prelude::*;

use super::{Format, Metric, Query, Scalar, Segment, SegmentBuilder, SegmentOptions, Walk};
use crate::{KernelError, Scored};

/// Inner products up to here, and the sums on the way to them, are far from overflowing.
const LARGEST_PRODUCT: f64 = f32::MAX as f64 / 16.0;

/// So many vectors are added between two questions whether to go on.
const SLICE: usize = 32;

impl Default for SegmentOptions {
    /// Recall at 10 of .9995 on 100,000 clustered vectors of 64, for queries near the clusters
    /// (`examples/segment.rs`).
    fn default() -> Self {
        Self { connectivity: 32, expansion_add: 128, expansion_search: 256 }
    }
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

impl Segment {
    /// Builds a segment of row-major vectors of `dim` numbers, on all threads of the current rayon pool. Vector
    /// `i` is item `i`. `go_on` is told of every few dozen vectors, from any thread, before they are added; false
    /// stops.
    ///
    /// Threads race for places in the graph, so two builds of the same vectors differ in bytes and, rarely, in
    /// what they find.
    ///
    /// Fails where the numbers do not make rows, are not finite, or memory runs out.
    pub fn build(
        vectors: &[f32],
        dim: usize,
        options: &SegmentOptions,
        go_on: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<u8>, KernelError> {
        if dim == 0 || !vectors.len().is_multiple_of(dim) || vectors.len() / dim > u32::MAX as usize {
            return Err(KernelError::Shape { shape: vec![vectors.len(), dim], bytes: size_of_val(vectors) });
        }
        let lengths: Vec<f64> = vectors.par_chunks(dim).map(length).collect();
        if let Some(row) = lengths.iter().position(|length| !length.is_finite()) {
            return Err(KernelError::NotFinite { row });
        }
        if lengths.iter().any(|length| length * length > LARGEST_PRODUCT) {
            return Err(KernelError::Segment("vectors are too long for inner products in f32".to_owned()));
        }
        let format = Format::new(Metric::InnerProduct, Scalar::F32, dim)?;
        let builder = SegmentBuilder::new(format, options, lengths.len(), rayon::current_num_threads())?;
        vectors.par_chunks(dim).enumerate().try_for_each(|(row, vector)| {
            if row.is_multiple_of(SLICE) && !go_on(SLICE.min(lengths.len() - row)) {
                return Err(KernelError::Cancelled);
            }
            builder.add(row as u64, bytemuck::cast_slice(vector), 0.0)
        })?;
        builder.finish()
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.header.format.dim()
    }

    /// About the `k` items with the largest inner products, best first. Scores have the bits of
    /// [`crate::Device::scores`] on a [`crate::cpu::Cpu::new`].
    ///
    /// A query that is not finite, or so long that products overflow, finds nothing. Panics if its length is not
    /// the segment's.
    pub fn search(&self, query: &[f32], k: usize) -> Vec<Scored> {
        self.search_filtered(query, k, |_| true)
    }

    /// Like [`Segment::search`], among the items for which `allowed` holds. The fewer they are, the longer it
    /// takes; below a tenth of all, scoring them exactly is faster.
    pub fn search_filtered(&self, query: &[f32], k: usize, allowed: impl Fn(u32) -> bool) -> Vec<Scored> {
        assert_eq!(query.len(), self.dim(), "query and item vectors differ in length");
        let k = k.min(self.header.len);
        let largest = length(query) * f64::from(self.header.longest);
        if k == 0 || !largest.is_finite() || largest > LARGEST_PRODUCT {
            return Vec::new();
        }
        // The last few that the beam holds are not reliable.
        let wanted = (2 * k).max(self.header.options.expansion_search).min(self.header.len);
        let query: Query = self.header.format.query(query);
        let found = Walk::new(self, wanted, false).next(self, &query, &|slot| allowed(self.key(slot) as u32));
        let scored = found.iter().map(|f| Scored { item: self.key(f.slot) as u32, score: -f.distance });
        scored.take(k).collect()
    }
}
