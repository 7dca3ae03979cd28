//! What stays on a device between calls: weights as long as their tensor lives, and the batch under way.

use std::collections::HashMap;
use std::sync::Arc;

use super::driver::{Buffer, Driver};
use super::{CudaError, Matrix, Precision};
use crate::tensor::Watch;
use crate::{Sequences, Tensor};

/// Rows of queries that one block of an attention kernel computes.
pub(super) const TILE: usize = 64;
/// The same on Hopper.
pub(super) const WIDE_TILE: usize = 128;

/// Weights on the device. A tensor's memory cannot be another's while it lives, and when it does not, its copy goes.
#[derive(Default)]
pub(super) struct Weights {
    matrices: HashMap<(usize, usize, Precision), (Watch, Arc<Matrix>)>,
    vectors: HashMap<(usize, usize), (Watch, Arc<Buffer>)>,
}

impl Weights {
    /// A tensor as a matrix of its rows.
    pub(super) fn matrix(
        &mut self,
        driver: &Arc<dyn Driver>,
        precision: Precision,
        tensor: &Tensor,
    ) -> Result<Arc<Matrix>, CudaError> {
        let values = tensor.as_slice();
        let key = (values.as_ptr() as usize, values.len(), precision);
        if let Some((watch, matrix)) = self.matrices.get(&key)
            && watch.lives()
            && matrix.cols() == tensor.cols()
        {
            return Ok(Arc::clone(matrix));
        }
        self.sweep();
        let matrix = Arc::new(Matrix::upload(driver, precision, values, tensor.cols())?);
        self.matrices.insert(key, (tensor.watch(), Arc::clone(&matrix)));
        Ok(matrix)
    }

    /// A tensor as f32 numbers without gaps.
    pub(super) fn vector(&mut self, driver: &Arc<dyn Driver>, tensor: &Tensor) -> Result<Arc<Buffer>, CudaError> {
        let values = tensor.as_slice();
        let key = (values.as_ptr() as usize, values.len());
        if let Some((watch, buffer)) = self.vectors.get(&key)
            && watch.lives()
        {
            return Ok(Arc::clone(buffer));
        }
        self.sweep();
        let buffer = Arc::new(Buffer::of(driver, values)?);
        self.vectors.insert(key, (tensor.watch(), Arc::clone(&buffer)));
        Ok(buffer)
    }

    pub(super) fn sweep(&mut self) {
        self.matrices.retain(|_, (watch, _)| watch.lives());
        self.vectors.retain(|_, (watch, _)| watch.lives());
    }
}

/// Seconds as the sum of two f32s, of which the first is a multiple of 256, so that differences are exact in whole
/// seconds over a hundred years. What f32 cannot hold is infinite, in the first alone.
pub(super) fn seconds(seconds: f64) -> [f32; 2] {
    let high = ((seconds / 256.0).round() * 256.0) as f32;
    [high, if high.is_finite() { (seconds - f64::from(high)) as f32 } else { 0.0 }]
}

/// Times of a history since its first that is not infinite: events without a time come before all others.
fn since_first(times: &[f64], first: Option<f64>) -> impl Iterator<Item = [f32; 2]> {
    let first = first.unwrap_or(0.0);
    times.iter().map(move |time| seconds(time - first))
}

/// A batch on the device.
pub(super) struct Batch {
    /// [`Sequences::identity`].
    identity: u64,
    pub items: Buffer,
    pub positions: Buffer,
    pub offsets: Buffer,
    /// The time since the first of its history ([`seconds`]); empty where there are none.
    pub times: Buffer,
    /// The same of what comes after every event.
    pub until: Buffer,
    /// Of [`TILE`] rows.
    pub tiles: Tiles,
    /// Of [`WIDE_TILE`] rows.
    pub wide_tiles: Tiles,
}

/// History and first row of every so many rows of a history or less, those with the most rows before them first.
pub(super) struct Tiles {
    pub of: Buffer,
    pub count: usize,
}

impl Tiles {
    fn new(driver: &Arc<dyn Driver>, offsets: &[u32], rows: usize) -> Result<Self, CudaError> {
        let mut tiles: Vec<[u32; 2]> = Vec::new();
        for (history, bounds) in (0..).zip(offsets.windows(2)) {
            tiles.extend((0..bounds[1] - bounds[0]).step_by(rows).map(|first| [history, first]));
        }
        tiles.sort_by_key(|&[_, first]| std::cmp::Reverse(first));
        Ok(Self { of: Buffer::of(driver, &tiles)?, count: tiles.len() })
    }
}

impl Batch {
    pub(super) fn new(driver: &Arc<dyn Driver>, batch: &Sequences<'_>) -> Result<Self, CudaError> {
        let offsets: Result<Vec<u32>, _> = batch.offsets.iter().map(|&offset| u32::try_from(offset)).collect();
        let offsets = offsets.ok().filter(|offsets| offsets.last().is_none_or(|&last| last < 1 << 31));
        let offsets = offsets.ok_or(CudaError::TooLarge { what: "events of a batch" })?;
        let (mut times, mut until) = (Vec::with_capacity(batch.times.len()), Vec::with_capacity(batch.until.len()));
        for bounds in batch.offsets.windows(2) {
            let [events, after] =
                [batch.times, batch.until].map(|times| times.get(bounds[0]..bounds[1]).unwrap_or_default());
            let first = events.iter().chain(after).copied().find(|time| time.is_finite());
            times.extend(since_first(events, first));
            until.extend(since_first(after, first));
        }
        Ok(Self {
            identity: batch.identity,
            items: Buffer::of(driver, batch.items)?,
            positions: Buffer::of(driver, batch.positions)?,
            offsets: Buffer::of(driver, &offsets)?,
            times: Buffer::of(driver, &times)?,
            until: Buffer::of(driver, &until)?,
            tiles: Tiles::new(driver, &offsets, TILE)?,
            wide_tiles: Tiles::new(driver, &offsets, WIDE_TILE)?,
        })
    }

    /// Whether it is this batch.
    pub(super) fn is(&self, batch: &Sequences<'_>) -> bool {
        batch.identity != 0 && batch.identity == self.identity
    }
}
