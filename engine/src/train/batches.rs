//! Which parts of which histories make a step, packed end to end.

use std::ops::Range;

use pgrec_kernels::{Sequences, UNASKED};

use super::described::Described;
use super::options::Windows;
use super::{CodeRows, SequenceModel};
use crate::Corpus;
use crate::query::ascending;
use crate::random::SplitMix;

/// What a training may look at.
pub(crate) struct Histories<'a> {
    /// All of it.
    pub(crate) corpus: &'a Corpus,
    /// Last events of each user that are not learnt from, on top of the corpus' own cut.
    pub(crate) held_out: HeldOut,
    /// What the items are described by, where that is learnt too.
    pub(crate) described: Option<&'a Described>,
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
    pub(crate) fn of(&self, user: usize) -> &'a [u32] {
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

    /// What came of them, and perhaps of one more; nothing where the corpus does not know.
    fn outcomes(&self, user: usize) -> &'a [u32] {
        self.corpus.history_outcomes(user)
    }
}

/// Inputs and, one later, answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    of: Of,
    /// The first event of the stretch.
    start: u32,
    /// Events of the stretch; there is one more after the last.
    span: u32,
    /// How many of them are inputs, all or some drawn at random.
    len: u32,
    /// How many words of the last answer follow.
    words: u32,
}

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// A stretch of a user's history.
    User(u32),
    /// Words of an item alone.
    Item(u32),
}

/// How histories are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Most events of a stretch.
    pub(super) window: usize,
    pub(super) windows: Windows,
    /// Stochastic Length's α.
    pub(super) stochastic_length: Option<f64>,
}

impl Cut {
    /// How many events of a stretch of so many are inputs (Stochastic Length, Zhai et al. 2024, section 3.3): where it is
    /// longer than N^(α/2), of a window of N, all with probability N^α/span², else N^(α/2).
    fn inputs(&self, span: usize, random: &mut SplitMix) -> usize {
        let Some(alpha) = self.stochastic_length else { return span };
        let most = (self.window as f64).powf(alpha / 2.0);
        let part = (most / span as f64).powi(2);
        if part >= 1.0 || f64::from(random.uniform()) < part { span } else { (most as usize).max(1) }
    }
}

/// What [`samples`] takes at most, in bytes.
pub(super) fn bytes(corpus: &Corpus, window: usize) -> usize {
    // A history is cut at one place more than whole windows fit, which may leave a shorter one on either side.
    let items = corpus.items().len();
    size_of::<Sample>().saturating_mul(2 * corpus.users() + corpus.interactions() / window.max(1) + items)
}

/// The samples of one epoch in the order in which steps take them.
///
/// With [`Windows::All`] each history is cut into windows at a place drawn anew, so that every event is an answer
/// once an epoch.
pub(super) fn samples(histories: &Histories<'_>, cut: &Cut, random: &mut SplitMix) -> Vec<Sample> {
    let &Cut { window, windows, .. } = cut;
    let mut samples = Vec::new();
    let mut push = |user, range: Range<usize>, random: &mut SplitMix| {
        if range.is_empty() {
            return;
        }
        let answer = histories.of(user)[range.end];
        let words = histories.described.map_or(0, |words| words.some(answer, window, false, random));
        // As in serving, words take the place of the oldest events.
        let start = range.start.max(range.end.saturating_sub(window - words));
        let (span, of) = (range.end - start, Of::User(user as u32));
        let len = cut.inputs(span, random);
        samples.push(Sample { of, start: start as u32, span: span as u32, len: len as u32, words: words as u32 });
    };
    for user in 0..histories.corpus.users() {
        // An input needs an answer after it.
        let inputs = histories.of(user).len().saturating_sub(1);
        let mut end = inputs;
        if windows == Windows::All && inputs > window {
            // The last, shorter cut is at the end of the history or at its beginning, or in both places.
            let first = inputs - random.below(window);
            push(user, first..inputs, random);
            end = first;
        }
        while end > 0 {
            let start = end.saturating_sub(window);
            push(user, start..end, random);
            end = if windows == Windows::All { start } else { 0 };
        }
    }
    if let Some(words) = histories.described {
        samples.extend((0..words.items() as u32).map(|item| Sample {
            of: Of::Item(item),
            start: 0,
            span: 0,
            len: 0,
            words: words.some(item, window, true, random) as u32,
        }));
    }
    samples.retain(|sample| sample.events() > 0);
    random.shuffle(&mut samples);
    samples
}

impl Sample {
    /// Inputs, words among them.
    fn events(&self) -> usize {
        (self.len + self.words) as usize
    }

    /// What the random choices of an epoch for it are made from.
    fn key(&self, epoch: u64) -> u64 {
        let place = match self.of {
            Of::User(user) => u64::from(user) << 32 | u64::from(self.start),
            Of::Item(item) => !u64::from(item),
        };
        SplitMix::new(epoch ^ SplitMix::new(place).next()).next()
    }

    /// The inputs among the events of the stretch, in their order; each choice is as likely (Knuth's algorithm S).
    fn inputs(&self, key: u64) -> Vec<usize> {
        let (span, len) = (self.span as usize, self.len as usize);
        if len == span {
            return (0..span).collect();
        }
        let mut random = SplitMix::new(key);
        let mut wanted = len;
        let mut chosen = |event: &usize| {
            let is_chosen = random.below(span - event) < wanted;
            wanted -= usize::from(is_chosen);
            is_chosen
        };
        (0..span).filter(|event| chosen(event)).collect()
    }
}

/// A slice of a step: what one worker computes at a time.
#[derive(Debug, Default)]
pub(super) struct Slice {
    items: Vec<u32>,
    positions: Vec<u32>,
    offsets: Vec<usize>,
    times: Vec<f64>,
    until: Vec<f64>,
    /// The event that came after each input; in sequences with outcomes what came of each input, [`UNASKED`] of
    /// those that are outcomes themselves.
    pub(super) answers: Vec<u32>,
    /// One a history, for dropout.
    pub(super) keys: Vec<u64>,
    /// Of items that are known by codes: the rows of the inputs' codes on every level, perhaps the inputs themselves, then
    /// the rows of the answers' codes that others are told after.
    coded: Vec<Looked>,
    /// The order in which their levels are told.
    pub(super) levels: Vec<usize>,
}

/// Rows of a table, and of the one that is added.
#[derive(Debug, Default)]
struct Looked {
    rows: Vec<u32>,
    positions: Vec<u32>,
}

impl Slice {
    pub(super) fn sequences(&self) -> Sequences<'_> {
        let Self { items, positions, offsets, times, until, .. } = self;
        Sequences { items, positions, offsets, times, until, ..Sequences::default() }
    }

    /// What is looked up of codes.
    pub(super) fn coded(&self) -> Vec<Sequences<'_>> {
        self.coded
            .iter()
            .map(|Looked { rows, positions }| Sequences {
                items: rows,
                positions,
                offsets: &self.offsets,
                ..Sequences::default()
            })
            .collect()
    }

    /// Packs samples for a model; `key` is that of the epoch.
    pub(super) fn pack(&mut self, samples: &[Sample], histories: &Histories<'_>, model: &impl SequenceModel, key: u64) {
        self.items.clear();
        self.positions.clear();
        self.answers.clear();
        self.keys.clear();
        self.offsets.clear();
        self.times.clear();
        self.until.clear();
        self.offsets.push(0);
        for sample in samples {
            let (start, key) = (self.items.len(), sample.key(key));
            let answer = match sample.of {
                Of::User(user) => self.pack_history(sample, user as usize, histories, model, key),
                Of::Item(item) => item,
            };
            if let Some(words) = histories.described {
                self.pack_words(answer, &words.draw(answer, sample.words as usize, key), words.items());
            }
            self.positions.extend(model.positions(self.items.len() - start));
            self.offsets.push(self.items.len());
            self.keys.push(key);
        }
        if let Some(codes) = model.codes() {
            self.pack_codes(codes, model.beside().is_some());
        }
    }

    /// Packs a stretch of a user's history; gives its last answer.
    fn pack_history(
        &mut self,
        sample: &Sample,
        user: usize,
        histories: &Histories<'_>,
        model: &impl SequenceModel,
        key: u64,
    ) -> u32 {
        let stretch = sample.start as usize..(sample.start + sample.span) as usize + 1;
        let times = if model.timed() { histories.times(user).get(stretch.clone()).unwrap_or(&[]) } else { &[] };
        let times: Vec<f64> = ascending(times).collect();
        let events = &histories.of(user)[stretch.clone()];
        let inputs = sample.inputs(key);
        match model.first_outcome() {
            None => self.pack_items(&inputs, events, &times),
            Some(first) => self.pack_outcomes(&inputs, events, &times, &histories.outcomes(user)[stretch], first),
        }
        events[sample.span as usize]
    }

    /// Words, which are numbered after so many items, as inputs, and their item as the answer to each.
    fn pack_words(&mut self, answer: u32, words: &[u32], items: usize) {
        self.items.extend(words.iter().map(|word| items as u32 + word));
        self.answers.extend(words.iter().map(|_| answer));
    }

    fn pack_codes(&mut self, codes: &CodeRows, beside: bool) {
        let looked = |events: &[u32], positions: Option<&[u32]>, level: usize| Looked {
            rows: events.iter().map(|&item| codes.row(item, level)).collect(),
            positions: positions.map_or_else(|| vec![level as u32; events.len()], <[u32]>::to_vec),
        };
        self.levels = codes.draw(self.keys.first().copied().unwrap_or(0));
        let inputs =
            (0..codes.levels()).map(|level| looked(&self.items, (level == 0).then_some(&self.positions), level));
        let answers = codes.given(&self.levels).iter().map(|&level| looked(&self.answers, None, level));
        let own = beside.then(|| Looked { rows: self.items.clone(), positions: vec![0; self.items.len()] });
        self.coded = inputs.chain(own).chain(answers).collect();
    }
}

impl Slice {
    /// Items as inputs, and as the answer to each the event after it.
    fn pack_items(&mut self, inputs: &[usize], events: &[u32], times: &[f64]) {
        self.items.extend(inputs.iter().map(|&input| events[input]));
        self.answers.extend(inputs.iter().map(|&input| events[input + 1]));
        // The question after an input was asked when its answer happened.
        if !times.is_empty() {
            self.times.extend(inputs.iter().map(|&input| times[input]));
            self.until.extend(inputs.iter().map(|&input| times[input + 1]));
        }
    }

    /// Items and what came of them in turns, up to the item of the last event, and as the answer to each item what came
    /// of it. Outcome 0 is the input `first`.
    fn pack_outcomes(&mut self, inputs: &[usize], events: &[u32], times: &[f64], outcomes: &[u32], first: u32) {
        let last = events.len() - 1;
        for &input in inputs {
            self.items.extend([events[input], first + outcomes[input]]);
            self.answers.extend([outcomes[input], UNASKED]);
            if !times.is_empty() {
                self.times.extend([times[input]; 2]);
                self.until.extend([times[input], times[input + 1]]);
            }
        }
        self.items.push(events[last]);
        self.answers.push(outcomes[last]);
        self.times.extend(times.last());
        self.until.extend(times.last());
    }
}

/// Cuts the samples of a step into slices of about `events` inputs, histories of like length together. Slices do not
/// depend on how many workers there are.
pub(super) fn slices(samples: &mut [Sample], events: usize) -> Vec<Range<usize>> {
    samples.sort_unstable_by_key(|sample| (std::cmp::Reverse(sample.events()), sample.of, sample.start));
    let mut slices = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (place, sample) in samples.iter().enumerate() {
        if place > start && held + sample.events() > events {
            slices.push(start..place);
            (start, held) = (place, 0);
        }
        held += sample.events();
    }
    if start < samples.len() {
        slices.push(start..samples.len());
    }
    slices
}

/// Inputs of some samples together.
pub(super) fn events(samples: &[Sample]) -> usize {
    samples.iter().map(Sample::events).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pgrec_kernels::Operators;

    use super::*;
    use crate::train::{Parameter, Parameters};
    use crate::{ArtifactBuilder, Result, testing};

    /// A model of which only the shape of its inputs matters.
    struct FromEnd {
        window: usize,
    }

    impl SequenceModel for FromEnd {
        fn window(&self) -> usize {
            self.window
        }

        fn positions(&self, len: usize) -> Range<u32> {
            (self.window - len) as u32..self.window as u32
        }

        fn items(&self) -> Parameter {
            unimplemented!()
        }

        fn normalized(&self) -> bool {
            false
        }

        fn timed(&self) -> bool {
            false
        }

        fn cost(&self) -> usize {
            unimplemented!()
        }

        fn encode<O: Operators<Weight = Parameter>>(
            &self,
            _: &O,
            _: &Sequences<'_>,
            _: &[Sequences<'_>],
        ) -> Vec<O::Matrix> {
            unimplemented!()
        }

        fn artifact(&self, _: &Parameters, _: bool) -> Result<ArtifactBuilder> {
            unimplemented!()
        }
    }

    fn answers(corpus: &Corpus, held_out: HeldOut, windows: Windows, seed: u64) -> Vec<u32> {
        let histories = Histories { corpus, held_out, described: None };
        let cut = Cut { window: 4, windows, stochastic_length: None };
        let mut all = samples(&histories, &cut, &mut SplitMix::new(seed));
        let mut found = Vec::new();
        let (mut slice, mut inputs) = (Slice::default(), 0);
        let model = FromEnd { window: 4 };
        inputs += events(&all);
        for range in slices(&mut all, 6) {
            let part = &all[range];
            assert!(events(part) <= 6 || part.len() == 1);
            slice.pack(part, &histories, &model, 1);
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

    #[test]
    fn words_lead_to_their_item_and_take_the_place_of_the_oldest_events() {
        let long: Vec<i64> = (0..9).collect();
        let corpus = testing::corpus(&[&long, &[3, 4]]);
        let described = Described::new((0..9).map(|item| vec![item, 20, 30]), 1.0);
        let histories = Histories { corpus: &corpus, held_out: HeldOut::Nobody, described: Some(&described) };
        let cut = Cut { window: 4, windows: Windows::All, stochastic_length: None };
        let (mut alone, mut after) = (0, 0);
        for seed in 0..50 {
            let samples = samples(&histories, &cut, &mut SplitMix::new(seed));
            let mut slice = Slice::default();
            slice.pack(&samples, &histories, &FromEnd { window: 4 }, seed);
            for bounds in slice.offsets.windows(2) {
                let (events, answers) = (&slice.items[bounds[0]..bounds[1]], &slice.answers[bounds[0]..bounds[1]]);
                assert!((1..=4).contains(&events.len()));
                let items = events.iter().take_while(|&&event| event < 9).count();
                let words = &events[items..];
                assert!(words.iter().all(|&word| word >= 9 && [20, 30, answers[items]].contains(&(word - 9))));
                // An item is its place in the long history, and what is asked for in words comes after the last.
                assert!(events[..items].iter().zip(answers).all(|(item, answer)| answer - item == 1));
                assert!(answers[items.saturating_sub(1)..].windows(2).all(|pair| pair[0] == pair[1]));
                (alone, after) = (alone + usize::from(items == 0), after + usize::from(items > 0 && !words.is_empty()));
            }
        }
        assert_eq!(alone, 50 * 9, "every item once");
        assert!(after > 50, "{after}");
    }

    #[test]
    fn of_long_histories_some_are_learnt_whole_and_others_in_part() {
        let long: Vec<i64> = (0..401).collect();
        let histories: Vec<&[i64]> = vec![&long; 500];
        let mut corpus = testing::corpus(&histories);
        let short: Vec<&[i64]> = vec![&long[..20]; 100];
        let cut = Cut { window: 400, windows: Windows::All, stochastic_length: Some(1.6) };
        // 400^.8 is 120.7.
        let drawn = |corpus: &Corpus| {
            let histories = Histories { corpus, held_out: HeldOut::Nobody, described: None };
            let samples = samples(&histories, &cut, &mut SplitMix::new(testing::fresh_seed()));
            let mut slice = Slice::default();
            slice.pack(&samples, &histories, &FromEnd { window: 400 }, testing::fresh_seed());
            let batch = slice.sequences();
            // An item is its place here.
            assert!(batch.items.iter().zip(&slice.answers).all(|(input, answer)| answer - input == 1));
            for bounds in batch.offsets.windows(2) {
                assert!(batch.items[bounds[0]..bounds[1]].is_sorted_by(|a, b| a < b));
            }
            let lengths: Vec<usize> = batch.offsets.windows(2).map(|bounds| bounds[1] - bounds[0]).collect();
            let counts = (0..400).map(|item| batch.items.iter().filter(|&&input| input == item).count()).collect();
            (lengths, counts)
        };
        let (lengths, counts): (Vec<usize>, Vec<usize>) = drawn(&corpus);
        assert!(lengths.iter().all(|&len| len == 400 || len == 120));
        // One in eleven is whole: 45 of 500, and each event is in some 45 + .3·455.
        let whole = lengths.iter().filter(|&&len| len == 400).count();
        assert!((20..80).contains(&whole), "{whole} of 500 are whole");
        assert!(counts.iter().all(|count| (100..280).contains(count)), "{counts:?}");
        corpus = testing::corpus(&short);
        assert!(drawn(&corpus).0.iter().all(|&len| len == 19));
    }
}
