//! The nearest-neighbour index of a model over the rows that its items are scored by, for large catalogues.

use std::sync::{Arc, OnceLock};

use pgrec_kernels::{Segment, SegmentOptions};

use crate::artifact::Shared;
use crate::{Artifact, ArtifactBuilder, Control, Result};

/// Its name in the artifact.
pub(crate) const SEGMENT: &str = "segment";

/// Models of more items than this get one when they are made; the natural default of [`crate::Query::exact_limit`]. Scoring
/// 100,000 items 64 wide takes some 1.5 ms on one core, finding neighbours among them nearly as long, and building the index a
/// minute.
pub(crate) const SEGMENT_ABOVE: usize = 200_000;

/// A neighbour found costs about as much as this many items scored (64 wide, 100,000 items: 10 µs against 17 ns each), so a
/// question for more neighbours than that is answered exactly.
const ITEMS_A_NEIGHBOUR: usize = 500;

/// It is always asked for this many: what its search looks at anyway.
const LEAST: usize = 128;

/// Adds one over rows of `dim` numbers, where there are more than `above`.
pub(crate) fn add_segment(
    builder: &mut ArtifactBuilder,
    rows: &[f32],
    dim: usize,
    above: usize,
    control: &Control,
) -> Result<()> {
    let items = rows.len() / dim;
    if items > above {
        control.enter("weaving the item index", items as u64);
        let go_on = |vectors: usize| control.advance(vectors as u64).is_ok();
        let segment = Segment::build(rows, dim, &SegmentOptions::default(), &go_on)?;
        builder.bytes(SEGMENT, &segment);
    }
    Ok(())
}

/// The index of an open model, where it has one.
pub(crate) struct Neighbours {
    bytes: Option<Arc<Shared<u8>>>,
    items: usize,
    opened: OnceLock<Segment>,
}

impl Neighbours {
    pub(crate) fn of(artifact: &Artifact) -> Result<Self> {
        let bytes = if artifact.has(SEGMENT) { Some(Arc::new(artifact.raw(SEGMENT)?)) } else { None };
        Ok(Self { bytes, items: artifact.catalogue().len(), opened: OnceLock::new() })
    }

    /// Of the `reach` items of the largest products with a vector those that are not excluded (ascending), ascending; None
    /// where every item has to be looked at: there is no index, too much is asked of it, or fewer than `needed` are left.
    pub(crate) fn nearest(
        &self,
        vector: &[f32],
        reach: usize,
        exclude: &[u32],
        needed: usize,
    ) -> Result<Option<Vec<u32>>> {
        let (Some(bytes), reach) = (&self.bytes, reach.max(LEAST)) else { return Ok(None) };
        if reach > LEAST.max(self.items / ITEMS_A_NEIGHBOUR) {
            return Ok(None);
        }
        let found = self.segment(bytes)?.search(vector, reach);
        let mut allowed: Vec<u32> =
            found.iter().map(|scored| scored.item).filter(|item| exclude.binary_search(item).is_err()).collect();
        allowed.sort_unstable();
        allowed.dedup();
        Ok((allowed.len() >= needed).then_some(allowed))
    }

    /// Opened by the first query that needs it: a view costs private memory in every process.
    fn segment(&self, bytes: &Arc<Shared<u8>>) -> Result<&Segment> {
        if let Some(segment) = self.opened.get() {
            return Ok(segment);
        }
        let opened = Segment::view(Arc::clone(bytes) as _)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}
