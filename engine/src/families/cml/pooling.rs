//! A user's point: a mean of the points in their history, with learnt weights.

/// What weights are made of.
#[derive(Clone, Copy)]
pub(super) struct Pooling<'a> {
    /// Of each item.
    pub(super) attention: &'a [f32],
    /// Of each number of events ago, the latest being 0.
    pub(super) recency: &'a [f32],
}

impl Pooling<'_> {
    /// The share of each of some events, oldest first, in their user's point: softmax of what their item and their age
    /// weigh.
    pub(super) fn shares(self, events: &[u32]) -> Vec<f32> {
        let ago = (0..events.len()).rev();
        let logit = |(&item, ago): (&u32, usize)| self.attention[item as usize] + self.recency[ago];
        let mut shares: Vec<f32> = events.iter().zip(ago).map(logit).collect();
        let most = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        shares.iter_mut().for_each(|share| *share = (*share - most).exp());
        let sum: f32 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
        shares
    }
}
