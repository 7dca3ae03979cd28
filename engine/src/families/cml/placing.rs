//! Items placed by their content, while both are learnt.

use super::Params;
use super::batch::Gradient;
use super::calibration::options;
use super::space::{Drawn, Space};
use crate::Result;
use crate::content::{Content, Learner, Way};

/// A network that learns where points are, and draws them to where it places them.
pub(super) struct Placing<'a> {
    learner: Learner<'a>,
    /// Items with content and events: those that something is learnt of.
    learnt: Vec<u32>,
    /// Items with content alone.
    cold: Vec<u32>,
    by: f32,
}

/// What it says of a batch.
pub(super) struct Told {
    items: Vec<u32>,
    places: Vec<f32>,
    by: f32,
}

impl Told {
    pub(super) fn drawn(&self) -> Drawn<'_> {
        Drawn { items: &self.items, places: &self.places, by: self.by }
    }
}

impl<'a> Placing<'a> {
    /// A new network, where whose places the points begin.
    pub(super) fn new(
        params: &Params,
        content: &'a Content,
        counts: &[f32],
        space: &mut Space,
        seed: u64,
    ) -> Result<Self> {
        let learner = Learner::new(content, params.content_hidden, params.dim, &options(params), seed)?;
        let (learnt, cold) = content.parted(counts);
        let placing = Self { learner, learnt, cold, by: params.content_weight as f32 };
        space.put(placing.learnt.iter().copied(), &placing.learner.places(&placing.learnt));
        Ok(placing)
    }

    /// One step towards the points of a batch's items.
    pub(super) fn step(&mut self, told: &Gradient, space: &Space) -> Told {
        let mut items = told.shares.compared();
        items.retain(|item| self.learnt.binary_search(item).is_ok());
        let points: Vec<f32> = items.iter().flat_map(|&item| space.point(item)).copied().collect();
        let places = self.learner.step(&items, &points);
        Told { items, places, by: self.by }
    }

    /// The network as it is now, for a model to keep.
    pub(super) fn way(&self) -> Way {
        self.learner.way()
    }

    /// The same space, in which items that nobody has touched are where their content places them.
    pub(super) fn completed(&self, space: &Space) -> Space {
        let mut space = space.clone();
        space.put(self.cold.iter().copied(), &self.learner.places(&self.cold));
        space
    }
}
