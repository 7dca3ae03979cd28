//! Beam search over the codes there are, whatever the order in which they are told.

use pgrec_kernels::Scored;

/// Logits, a row a beam that asks.
pub(super) struct Logits<'a> {
    /// `[beams, cols]`
    pub(super) values: &'a [f32],
    pub(super) cols: usize,
    /// The code word of the first column.
    pub(super) first: u32,
}

impl Logits<'_> {
    /// Those of one beam, by code word.
    pub(super) fn of(&self, beam: usize) -> impl Fn(u32) -> f32 + Copy + '_ {
        let row = &self.values[beam * self.cols..][..self.cols];
        move |word| row[(word - self.first) as usize]
    }
}

/// Some codes that items have.
pub(super) trait Beam: Clone {
    /// Whether its items differ in codes that have not been told.
    fn asks(&self) -> bool;

    /// Which asking beam of the step before it comes from.
    fn parent(&self) -> usize;

    /// Its latest code: the level, and the row in the table of all code words.
    fn chosen(&self) -> (u32, u32);

    /// log p of its codes.
    fn score(&self) -> f32;
}

/// An item, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generated {
    /// The item, and log p.
    pub found: Scored,
    /// How well what was expected of its codes went with what was told of them, from 0 to 1, where that was watched.
    pub agreement: Option<f32>,
    /// Whether that was enough. Where it was not, the item only fills up a list.
    pub kept: bool,
}

/// Ways to a query's items.
pub(super) trait Walk {
    type Beam: Beam;

    /// Before the first code; nothing where no item may be found.
    fn roots(&self) -> Vec<Self::Beam>;

    /// The best `width` of what follows `beams`, best first: one more code, among those that some item has; `logits` are
    /// of those that ask. Beams that do not ask stay. No beam is without an item that may be found.
    fn follow(&self, beams: Vec<Self::Beam>, logits: &Logits<'_>, width: usize) -> Vec<Self::Beam>;

    /// The items of beams that ask nothing any more, best first, ties by ascending index.
    fn found(&self, beams: &[Self::Beam]) -> Vec<Generated>;
}

/// log Σ exp x
pub(super) fn log_sum(numbers: impl Iterator<Item = f32> + Clone) -> f32 {
    let most = numbers.clone().fold(f32::NEG_INFINITY, f32::max);
    most + numbers.map(|x| (x - most).exp()).sum::<f32>().ln()
}
