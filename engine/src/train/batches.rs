//! Which parts of which histories make a step, packed end to end.

use std::ops::Range;

use pgrec_kernels::Sequences;

use super::options::Windows;
use crate::Corpus;
use crate::query::ascending;
use crate::random::SplitMix;

/// What a training may look at.
pub(crate) struct Histories<'a> {
    /// All of it.
    pub(crate) corpus: &'a Corpus,
    /// Last events of each user that are not learnt from, on top of the corpus' own cut.
    pub(crate) held_out: HeldOut,
}

/// Whose last event is kept for validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldOut {
    /// Nobody's: the corpus has been cut.
    Nobody,
    /// Every so manieth user's.
    Every(usize),
}

impl<'a> Histories<'a> {
    /// The events of a user that are learnt from.
    fn of(&self, user: usize) -> &'a [u32] {
        let history = self.corpus.history(user);
        match self.held_out {
            HeldOut::Every(step) if user.is_multiple_of(step) => &history[..history.len().saturating_sub(1)],
            _ => history,
        }
    }

    /// Their times, and perhaps one more; none where the corpus has none.
    fn times(&self, user: usize) -> &'a [f64] {
        self.corpus.history_times(user)
    }
}

/// A stretch of one user's history: inputs and, one later, answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    user: u32,
    /// First input.
    start: u32,
    /// Inputs; there is one more event after the last.
    len: u32,
}

/// What [`samples`] takes at most, in bytes.
pub(super) fn bytes(corpus: &Corpus, window: usize) -> usize {
    // A history is cut at one place more than whole windows fit, which may leave a shorter one on either side.
    size_of::<Sample>().saturating_mul(2 * corpus.users() + corpus.interactions() / window.max(1))
}

/// The samples of one epoch in the order in which steps take them.
///
/// With [`Windows::All`] each history is cut into windows at a place drawn anew, so that every event is an answer
/// once an epoch.
pub(super) fn samples(
    histories: &Histories<'_>,
    window: usize,
    windows: Windows,
    random: &mut SplitMix,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for user in 0..histories.corpus.users() {
        // An input needs an answer after it.
        let inputs = histories.of(user).len().saturating_sub(1);
        let user = user as u32;
        let mut end = inputs;
        if windows == Windows::All && inputs > window {
            // The last, shorter cut is at the end of the history or at its beginning, or in both places.
            let first = inputs - random.below(window);
            samples.push(Sample { user, start: first as u32, len: (inputs - first) as u32 });
            end = first;
        }
        while end > 0 {
            let start = end.saturating_sub(window);
            samples.push(Sample { user, start: start as u32, len: (end - start) as u32 });
            end = if windows == Windows::All { start } else { 0 };
        }
    }
    samples.retain(|sample| sample.len > 0);
    random.shuffle(&mut samples);
    samples
}

/// A slice of a step: what one worker computes at a time.
#[derive(Debug, Default)]
pub(super) struct Slice {
    items: Vec<u32>,
    positions: Vec<u32>,
    offsets: Vec<usize>,
    times: Vec<f64>,
    until: Vec<f64>,
    /// The event after each input.
    pub(super) answers: Vec<u32>,
    /// One a history, for dropout.
    pub(super) keys: Vec<u64>,
}

impl Slice {
    pub(super) fn sequences(&self) -> Sequences<'_> {
        let Self { items, positions, offsets, times, until, .. } = self;
        Sequences { items, positions, offsets, times, until }
    }

    /// Packs samples. `position` gives the rows of the position table for a history of so many events; `timed` is
    /// whether times are looked at; `key` is that of the epoch.
    pub(super) fn pack(
        &mut self,
        samples: &[Sample],
        histories: &Histories<'_>,
        position: &impl Fn(usize) -> Range<u32>,
        timed: bool,
        key: u64,
    ) {
        self.items.clear();
        self.positions.clear();
        self.answers.clear();
        self.keys.clear();
        self.offsets.clear();
        self.times.clear();
        self.until.clear();
        self.offsets.push(0);
        for sample in samples {
            let (start, len) = (sample.start as usize, sample.len as usize);
            let events = &histories.of(sample.user as usize)[start..start + len + 1];
            self.items.extend_from_slice(&events[..len]);
            self.answers.extend_from_slice(&events[1..]);
            self.positions.extend(position(len));
            self.offsets.push(self.items.len());
            // The question after an input was asked when its answer happened.
            if timed {
                let times = histories.times(sample.user as usize).get(start..start + len + 1).unwrap_or(&[]);
                self.times.extend(ascending(times).take(len));
                self.until.extend(ascending(times).skip(1));
            }
            let place = u64::from(sample.user) << 32 | u64::from(sample.start);
            self.keys.push(SplitMix::new(key ^ SplitMix::new(place).next()).next());
        }
    }
}

/// Cuts the samples of a step into slices of about `events` inputs, histories of like length together. Slices do not
/// depend on how many workers there are.
pub(super) fn slices(samples: &mut [Sample], events: usize) -> Vec<Range<usize>> {
    samples.sort_unstable_by_key(|sample| (std::cmp::Reverse(sample.len), sample.user, sample.start));
    let mut slices = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (place, sample) in samples.iter().enumerate() {
        if place > start && held + sample.len as usize > events {
            slices.push(start..place);
            (start, held) = (place, 0);
        }
        held += sample.len as usize;
    }
    if start < samples.len() {
        slices.push(start..samples.len());
    }
    slices
}

/// Inputs of some samples together.
pub(super) fn events(samples: &[Sample]) -> usize {
    samples.iter().map(|sample| sample.len as usize).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;

    fn answers(corpus: &Corpus, held_out: HeldOut, windows: Windows, seed: u64) -> Vec<u32> {
        let histories = Histories { corpus, held_out };
        let mut all = samples(&histories, 4, windows, &mut SplitMix::new(seed));
        let mut found = Vec::new();
        let (mut slice, mut inputs) = (Slice::default(), 0);
        inputs += events(&all);
        for range in slices(&mut all, 6) {
            let part = &all[range];
            assert!(events(part) <= 6 || part.len() == 1);
            slice.pack(part, &histories, &|len| 4 - len as u32..4, false, 1);
            assert_eq!(slice.keys.len(), part.len());
            let batch = slice.sequences();
            assert_eq!(batch.offsets.last(), Some(&batch.items.len()));
            assert_eq!((batch.items.len(), batch.positions.len()), (slice.answers.len(), slice.answers.len()));
            assert!(batch.positions.iter().all(|&position| position < 4));
            for bounds in batch.offsets.windows(2) {
                let (start, end) = (bounds[0], bounds[1]);
                assert!(end > start && end - start <= 4);
                assert_eq!(batch.items[start + 1..end], slice.answers[start..end - 1]);
            }
            found.extend_from_slice(&slice.answers);
        }
        assert_eq!(inputs, found.len());
        found.sort_unstable();
        found
    }

    #[test]
    fn every_event_but_the_first_is_an_answer_once_an_epoch() {
        let long: Vec<i64> = (100..123).collect();
        let corpus = testing::corpus(&[&[1, 2, 3], &[7], &[], &long]);
        let id = |item: i64| corpus.history(3)[(item - 100) as usize];
        for seed in 0..20 {
            let mut all: Vec<u32> = corpus.history(0)[1..].to_vec();
            all.extend((101..123).map(id));
            all.sort_unstable();
            assert_eq!(answers(&corpus, HeldOut::Nobody, Windows::All, seed), all);
        }
        let mut latest: Vec<u32> = corpus.history(0)[1..].to_vec();
        latest.extend((119..123).map(id));
        latest.sort_unstable();
        assert_eq!(answers(&corpus, HeldOut::Nobody, Windows::Latest, 1), latest);
        let held = answers(&corpus, HeldOut::Every(3), Windows::All, 1);
        assert!(!held.contains(&id(122)) && !held.contains(&corpus.history(0)[2]));
        assert_eq!(held.len(), 1 + 21);
    }
}
