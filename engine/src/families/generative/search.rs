//! Beam search over the codes there are, whatever the order in which they are told.

use std::cmp::Ordering;

use pgrec_kernels::Scored;
use pgrec_kernels::cpu::Cpu;

/// Some codes that items have.
pub(super) trait Beam: Send {
    /// Whether its items differ in codes that have not been told.
    fn asks(&self) -> bool;

    /// Which row of the step that told it comes from.
    fn parent(&self) -> usize;

    /// Its latest code: the level, and the row in the table of all code words.
    fn chosen(&self) -> (u32, u32);

    /// log p of its codes, which is never below that of what follows.
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

impl Generated {
    /// Kept ones first, then the best, ties by ascending index.
    fn order(&self, other: &Self) -> Ordering {
        let (one, two) = (self.found, other.found);
        other.kept.cmp(&self.kept).then(two.score.total_cmp(&one.score)).then(one.item.cmp(&two.item))
    }
}

/// What was told of a beam.
#[derive(Clone, Copy)]
pub(super) struct Told<F> {
    /// The logit of each code word that may follow.
    pub(super) logit: F,
    /// The row that they were told in.
    pub(super) parent: usize,
    /// log p that is needed: what is less likely may be left out.
    pub(super) needed: f32,
}

/// Ways to a query's items.
pub(super) trait Walk: Sync {
    type Beam: Beam;

    /// Before the first code; nothing where no item may be found.
    fn roots(&self) -> Vec<Self::Beam>;

    /// Gives `take` what follows a beam that asks: one more code, among those that some item has, of items that may be
    /// found. `told.logit` gives those of code words.
    fn follow(&self, beam: &Self::Beam, told: Told<impl Fn(u32) -> f32 + Copy>, take: &mut impl FnMut(Self::Beam));

    /// Whether what it leads to does not only fill up a list.
    fn keeps(&self, beam: &Self::Beam) -> bool;

    /// Which of two equally good beams comes first.
    fn tie(&self, one: &Self::Beam, other: &Self::Beam) -> Ordering;

    /// The item of a beam that asks nothing any more.
    fn found(&self, beam: &Self::Beam) -> Generated;
}

/// The search of one query, at one step.
pub(super) struct Search<'w, W: Walk> {
    walk: &'w W,
    /// Beams that ask that are kept at a step.
    width: usize,
    /// Items that are wanted.
    wanted: usize,
    /// What asks, best first.
    asking: Vec<W::Beam>,
    /// Of those, how many have been told.
    told: usize,
    /// What has followed.
    next: Vec<W::Beam>,
    /// What asks nothing any more.
    done: Vec<W::Beam>,
    /// The least score that an item still needs: that of as many kept ones as are wanted.
    needed: f32,
}

impl<'w, W: Walk> Search<'w, W> {
    pub(super) fn new(walk: &'w W, width: usize, wanted: usize) -> Self {
        let (asking, done): (Vec<_>, Vec<_>) = walk.roots().into_iter().partition(Beam::asks);
        Self { walk, width, wanted, asking, told: 0, next: Vec::new(), done, needed: f32::NEG_INFINITY }
    }

    /// The next beams to tell, up to `most`: none where nothing that is left is needed.
    pub(super) fn due(&self, most: usize) -> &[W::Beam] {
        let left = &self.asking[self.told..];
        let needed = left.iter().rposition(|beam| beam.score() >= self.needed).map_or(0, |last| last + 1);
        &left[..needed.min(most)]
    }

    /// How many have been told.
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// Whether there are beams to tell.
    pub(super) fn is_due(&self) -> bool {
        !self.due(1).is_empty()
    }

    /// Takes the logits of the next beam that was due, which were told in row `parent`.
    pub(super) fn tell(&mut self, logit: impl Fn(u32) -> f32 + Copy, parent: usize) {
        let Self { walk, asking, told, next, done, needed, .. } = self;
        walk.follow(&asking[*told], Told { logit, parent, needed: *needed }, &mut |beam| {
            if beam.asks() { next.push(beam) } else { done.push(beam) }
        });
        *told += 1;
    }

    /// After some were told: what has come to an end says what the others need.
    pub(super) fn settle(&mut self) {
        let kept = self.done.iter().filter(|beam| self.walk.keeps(beam));
        let mut scores: Vec<f32> = kept.map(Beam::score).collect();
        if self.wanted > 0 && scores.len() >= self.wanted {
            let (_, least, _) = scores.select_nth_unstable_by(self.wanted - 1, |a, b| b.total_cmp(a));
            self.needed = *least;
            let needed = self.needed;
            self.done.retain(|beam| beam.score() >= needed);
        }
    }

    /// Goes on with the best of what has followed, and gives what asks of it.
    pub(super) fn step(&mut self) -> &[W::Beam] {
        let walk = self.walk;
        let mut all = std::mem::replace(&mut self.next, std::mem::take(&mut self.asking));
        self.next.clear();
        all.retain(|beam| beam.score() >= self.needed);
        let better = |a: &W::Beam, b: &W::Beam| {
            walk.keeps(b).cmp(&walk.keeps(a)).then(b.score().total_cmp(&a.score())).then_with(|| walk.tie(a, b))
        };
        if self.width < all.len() {
            all.select_nth_unstable_by(self.width, better);
            all.truncate(self.width);
        }
        all.sort_unstable_by(better);
        (self.asking, self.told) = (all, 0);
        &self.asking
    }

    /// The items that were found, best first.
    pub(super) fn found(&self) -> Vec<Generated> {
        let mut found: Vec<Generated> = self.done.iter().map(|beam| self.walk.found(beam)).collect();
        found.sort_by(Generated::order);
        found
    }

    /// The best beam, where there is one.
    pub(super) fn best(&self) -> Option<&W::Beam> {
        self.asking.iter().chain(&self.done).next()
    }
}

/// log Σ exp x
pub(super) fn log_sum(numbers: &[f32]) -> f32 {
    Cpu::new().log_sum_exp(numbers)
}
