#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use pgrec_kernels::Bytes;

use super::*;
use crate::catalogue::IdKind;
use crate::random::SplitMix;
use crate::{Error, Result, testing};

/// A file of the test double: words, so that mapping it keeps the alignment.
struct Pages {
    bytes: Vec<u8>,
    written: Rc<Cell<usize>>,
}

struct Mapped(Vec<u64>, usize);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}

impl Spill for Pages {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.written.set(self.written.get() + bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn rewrite(&mut self, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.bytes.chunks_mut(24).for_each(change);
        Ok(())
    }

    fn map(self: Box<Self>) -> Result<Bytes> {
        let mut words = vec![0u64; self.bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..self.bytes.len()].copy_from_slice(&self.bytes);
        Ok(Arc::new(Mapped(words, self.bytes.len())))
    }
}

/// Files in memory, and how many bytes went into them.
fn pages() -> (Spills, Rc<Cell<usize>>) {
    let written = Rc::new(Cell::new(0));
    let shared = Rc::clone(&written);
    (Box::new(move || Ok(Box::new(Pages { bytes: Vec::new(), written: Rc::clone(&shared) }))), written)
}

/// Histories of text ids with times, the same for the same seed.
fn fill(builder: &mut CorpusBuilder, seed: u64, users: usize) {
    let mut random = SplitMix::new(seed);
    builder.attribute(ItemKey::Text("item 7"), "lucky").unwrap();
    for _ in 0..users {
        builder.user().unwrap();
        for day in 0..random.below(40) {
            let item = format!("item {}", random.below(300));
            builder.event(ItemKey::Text(&item), Some(day as f64)).unwrap();
        }
    }
}

fn same(a: &Corpus, b: &Corpus) {
    assert_eq!((a.users(), a.interactions(), a.items()), (b.users(), b.interactions(), b.items()));
    assert_eq!((a.attribute_offsets(), a.attributes()), (b.attribute_offsets(), b.attributes()));
    for user in 0..a.users() {
        assert_eq!(a.history(user), b.history(user), "user {user}");
        assert_eq!(a.history_times(user), b.history_times(user), "user {user}");
    }
    assert_eq!(a.counts(), b.counts());
}

#[test]
fn a_corpus_in_files_equals_the_one_in_memory() {
    let seed = testing::fresh_seed();
    let mut unbounded = CorpusBuilder::new(IdKind::Text);
    fill(&mut unbounded, seed, 5_000);
    let unbounded = unbounded.finish().unwrap();
    for bound in [64 << 10, 300 << 10] {
        let (spills, written) = pages();
        let mut builder = CorpusBuilder::bounded(IdKind::Text, bound, spills);
        fill(&mut builder, seed, 5_000);
        let spilled = builder.finish().unwrap();
        assert_eq!(written.get(), 12 * unbounded.interactions() + 8 * (unbounded.users() + 1));
        // What is left in memory is what is known of the items.
        assert_eq!(spilled.resident(), unbounded.resident() - written.get());
        assert!(spilled.resident() > 0);
        same(&spilled, &unbounded);
        same(&spilled.without_last(2).sample(70), &unbounded.sample(70).without_last(1).without_last(1));
    }
}

#[test]
fn nothing_is_written_while_it_fits() {
    let (spills, written) = pages();
    let mut builder = CorpusBuilder::bounded(IdKind::Text, 64 << 20, spills);
    fill(&mut builder, testing::fresh_seed(), 2_000);
    assert!(builder.finish().unwrap().interactions() > 0);
    assert_eq!(written.get(), 0);
}

#[test]
fn half_of_the_memory_is_left_for_the_model() {
    for (bound, fits) in [(24 << 20, true), (6 << 20, false)] {
        let (spills, written) = pages();
        let mut builder = CorpusBuilder::bounded(IdKind::Int, bound, spills);
        builder.user().unwrap();
        for event in 0..1 << 20 {
            builder.event(ItemKey::Int(event % 7), None).unwrap();
        }
        let resident = builder.finish().unwrap().resident();
        assert_eq!((resident > 0, written.get() == 0), (fits, fits), "{resident} bytes of {bound}");
    }
}

#[test]
fn items_that_do_not_fit_are_an_error_that_says_so() {
    let bounded = || CorpusBuilder::bounded(IdKind::Int, 1 << 20, pages().0);
    let mut many = bounded();
    let refused = (0..1_000_000).find_map(|id| many.item(ItemKey::Int(id)).err()).unwrap();
    assert!(matches!(&refused, Error::Memory(why) if why.contains("1 MB are allowed")), "{refused}");
    let mut wide = bounded();
    let refused = (0..1_000).find_map(|id| wide.vector(ItemKey::Int(id), &[0.5; 1024]).err());
    assert!(matches!(refused, Some(Error::Memory(_))));
    let mut wordy = bounded();
    let refused = (0..100_000).find_map(|id| wordy.attribute(ItemKey::Int(1), &format!("word {id}")).err());
    assert!(matches!(refused, Some(Error::Memory(_))));
}

#[test]
fn ids_become_ranks_whatever_the_order_of_rows() {
    let mut b = CorpusBuilder::new(IdKind::Text);
    for history in [&["pear", "apple"][..], &[], &["zoo", "pear", "pear"]] {
        b.user().unwrap();
        for item in history {
            b.event(ItemKey::Text(item), None).unwrap();
        }
    }
    b.attributes_json(ItemKey::Text("kiwi"), r#"["green", "fruit", "green"]"#).unwrap();
    b.attribute(ItemKey::Text("apple"), "fruit").unwrap();
    b.vector(ItemKey::Text("zoo"), &[1.0, 2.0]).unwrap();
    let c = b.finish().unwrap();
    assert_eq!(*c.items(), ItemIds::Text(["apple", "kiwi", "pear", "zoo"].map(String::from).to_vec()));
    assert_eq!((c.users(), c.interactions()), (3, 5));
    assert_eq!((c.history(0), c.history(1), c.history(2)), (&[2, 0][..], &[][..], &[3, 2, 2][..]));
    assert_eq!(c.attribute_offsets(), [0, 1, 3, 3, 3]);
    assert_eq!(c.attributes(), [0, 0, 1]);
    assert_eq!(c.vectors(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    assert_eq!(c.counts(), [1, 0, 3, 1]);
}

#[test]
fn cuts_and_samples_compose_and_share_the_events() {
    let whole = testing::random_corpus(testing::fresh_seed(), 90, 30);
    let cut = whole.without_last(1).without_last(2);
    for user in 0..whole.users() {
        let (history, kept) = (whole.history(user), whole.history(user).len().saturating_sub(3));
        assert_eq!(cut.history(user), &history[..kept]);
        assert_eq!(cut.history_times(user), &whole.history_times(user)[..kept]);
        assert_eq!(cut.history(user).as_ptr(), history.as_ptr());
    }
    assert_eq!(cut.interactions(), cut.histories().map(<[u32]>::len).sum::<usize>());
    let part = cut.sample(30).sample(10);
    assert_eq!(part.users(), 10);
    for user in 0..10 {
        assert_eq!(part.history(user), cut.history(user * 9));
    }
    assert_eq!(part.interactions(), part.histories().map(<[u32]>::len).sum::<usize>());
    assert_eq!(whole.without_last(usize::MAX).without_last(1).interactions(), 0);
}

#[test]
fn no_rows_give_an_empty_corpus_of_the_right_kind() {
    let c = CorpusBuilder::new(IdKind::Uuid).finish().unwrap();
    assert_eq!((c.users(), c.items().kind(), c.sample(5).without_last(1).users()), (0, IdKind::Uuid, 0));
    let mut b = CorpusBuilder::new(IdKind::Int);
    b.item(ItemKey::Int(-3)).unwrap();
    let c = b.finish().unwrap();
    assert_eq!((c.users(), c.items().len(), c.attribute_offsets().len(), c.vectors().len()), (0, 1, 0, 0));
}

#[test]
fn half_timed_events_and_mixed_ids_are_refused() {
    let mut b = CorpusBuilder::new(IdKind::Int);
    assert!(matches!(b.event(ItemKey::Int(1), None), Err(Error::Data(_))));
    b.user().unwrap();
    b.event(ItemKey::Int(1), Some(5.0)).unwrap();
    assert!(matches!(b.event(ItemKey::Int(1), None), Err(Error::Data(_))));
    assert!(matches!(b.event(ItemKey::Int(1), Some(f64::INFINITY)), Err(Error::Data(_))));
    assert!(matches!(b.event(ItemKey::Text("1"), Some(6.0)), Err(Error::Data(_))));
    b.event(ItemKey::Int(2), Some(6.0)).unwrap();
    assert!(matches!(b.vector(ItemKey::Int(1), &[f32::NAN]), Err(Error::Data(_))));
    let mut untimed = CorpusBuilder::new(IdKind::Int);
    untimed.user().unwrap();
    untimed.event(ItemKey::Int(1), None).unwrap();
    assert!(matches!(untimed.event(ItemKey::Int(1), Some(5.0)), Err(Error::Data(_))));
}

#[test]
fn forgotten_times_leave_the_events() {
    for bound in [64 << 10, usize::MAX] {
        let mut b = CorpusBuilder::bounded(IdKind::Text, bound, pages().0);
        fill(&mut b, 3, 1_000);
        b.forget_times();
        b.event(ItemKey::Text("late"), None).unwrap();
        b.event(ItemKey::Text("later"), Some(1.0)).unwrap();
        let c = b.finish().unwrap();
        assert!(!c.has_times() && c.history_times(0).is_empty());
        assert_eq!(c.items().len(), 302);
    }
}

#[test]
fn vectors_of_two_dimensions_are_refused() {
    let mut b = CorpusBuilder::new(IdKind::Int);
    b.vector(ItemKey::Int(1), &[1.0, 0.0]).unwrap();
    assert!(matches!(b.vector(ItemKey::Int(2), &[1.0]), Err(Error::Data(_))));
}

#[test]
fn over_another_catalogue_items_keep_their_attributes_and_events_on_others_go() {
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for (item, word) in [(1, "a"), (3, "b"), (3, "a"), (7, "c")] {
        builder.attribute(ItemKey::Int(item), word).unwrap();
    }
    builder.user().unwrap();
    for item in [1, 3, 7, 5, 3] {
        builder.event(ItemKey::Int(item), None).unwrap();
    }
    let corpus = builder.finish().unwrap();
    let over = corpus.over(vec![2, 3, 4, 7, 9].into());
    assert_eq!(over.history(0), [1, 3, 1]);
    let words =
        |item| over.attributes_of(item).iter().map(|&w| over.vocabulary()[w as usize].as_str()).collect::<Vec<_>>();
    assert_eq!((0..5).map(words).collect::<Vec<_>>(), [vec![], vec!["a", "b"], vec![], vec!["c"], vec![]]);
    assert!(over.attributes_of(99).is_empty());
    let bare = testing::corpus(&[&[1, 2]]).over(vec![2].into());
    assert!(bare.attribute_offsets().is_empty() && bare.attributes_of(0).is_empty());
}

/// Two users' searches between their events, and one of nobody.
fn asked(ordered: bool) -> Corpus {
    let key = ItemKey::Int;
    let row = |words: &'static [&'static str], item| SearchRow { words, item, ..SearchRow::default() };
    let mut b = CorpusBuilder::new(IdKind::Int);
    let shown = [key(9), key(5)];
    b.search(&SearchRow { shown: &shown, dwell: Some(2.5), ..row(&["red"], None) }).unwrap();
    let events = [vec![5, 7, 5, 9], vec![7]];
    let searches = [
        vec![
            (1, row(&["shoe", "red"], Some(key(7)))),
            (2, row(&["red", "shoe", "red"], None)),
            (3, row(&["hat"], Some(key(9)))),
        ],
        vec![(1, row(&["hat"], Some(key(5))))],
    ];
    for (events, searches) in events.iter().zip(&searches) {
        b.user().unwrap();
        for place in 0..=events.len() {
            searches.iter().filter(|(after, _)| ordered && *after == place).for_each(|(_, row)| b.search(row).unwrap());
            events.get(place).into_iter().for_each(|&item| b.event(key(item), None).unwrap());
        }
        searches.iter().filter(|_| !ordered).for_each(|(_, row)| b.search(row).unwrap());
    }
    b.words(key(7), ["shoe", "blue", "shoe"]).unwrap();
    b.finish().unwrap()
}

#[test]
fn searches_have_words_and_a_place_among_the_events() {
    let corpus = asked(true);
    assert_eq!(corpus.lexicon().as_ref(), ["blue", "hat", "red", "shoe"].map(String::from));
    assert_eq!((corpus.words_of(0), corpus.words_of(1)), (&[][..], &[0, 3][..]));
    let words = |search: &Search<'_>| corpus.query_words(search.query).to_vec();
    let nobody: Vec<_> = corpus.anonymous_searches().collect();
    assert_eq!(
        (nobody.len(), nobody[0].shown, nobody[0].dwell, words(&nobody[0])),
        (1, &[2, 0][..], Some(2.5), vec![2])
    );
    let first: Vec<_> = corpus.searches(0).map(|s| (words(&s), s.item, s.after)).collect();
    assert_eq!(first, [(vec![2, 3], Some(1), 1), (vec![2, 3], None, 2), (vec![1], Some(2), 3)]);
    assert_eq!(corpus.queries(), 3);
    assert_eq!(corpus.searches(1).map(|s| (s.item, s.after, s.dwell)).collect::<Vec<_>>(), [(Some(0), 1, None)]);
    assert_eq!(corpus.searches_for(0, 1).map(|s| words(&s)).collect::<Vec<_>>(), [[1]]);
    assert_eq!(corpus.searches_for(0, 2).count(), 0);
    assert_eq!(corpus.sample(1).searches(0).count(), 3);
}

#[test]
fn what_is_cut_off_is_not_told_by_searches() {
    let after = |corpus: &Corpus, user| corpus.searches(user).map(|s| s.after).collect::<Vec<_>>();
    let ordered = asked(true);
    // The search after the last event of the second user, and the one that led to the last of the first, are gone.
    assert_eq!((after(&ordered.without_last(1), 0), after(&ordered.without_last(1), 1)), (vec![1, 2], vec![]));
    assert_eq!(after(&ordered.without_last(2), 0), [1]);
    assert!(after(&ordered.without_last(4), 0).is_empty());
    assert_eq!(ordered.without_last(1).searches_for(0, 2).count(), 1);
    let unordered = asked(false);
    assert_eq!((after(&unordered, 0), unordered.searches_for(0, 3).count()), (vec![4, 4, 4], 1));
    // The one that led to an item that is kept, and to none of what is not.
    assert_eq!(unordered.without_last(2).searches(0).map(|s| s.item).collect::<Vec<_>>(), [Some(1)]);
    assert_eq!(unordered.without_last(3).searches(0).count(), 0);
}

#[test]
fn another_catalogue_keeps_the_searches() {
    let corpus = asked(true).over(ItemIds::Int(vec![4, 7, 8, 9]));
    let searches: Vec<_> = corpus.searches(0).map(|s| (s.item, s.after)).collect();
    assert_eq!(searches, [(Some(1), 0), (None, 1), (Some(3), 1)]);
    assert_eq!(corpus.anonymous_searches().map(|s| s.shown.to_vec()).collect::<Vec<_>>(), [[3]]);
    assert_eq!((corpus.words_of(1), corpus.queries()), (&[0, 3][..], 3));
}

#[test]
fn what_nobody_has_touched_or_found_can_be_left_out() {
    // Of 4, 5, 7, 8 and 9 nobody has touched 4, and 8 was only found.
    let mut b = CorpusBuilder::new(IdKind::Int);
    [4, 5, 7, 8, 9].into_iter().for_each(|item| b.item(ItemKey::Int(item)).unwrap());
    b.search(&SearchRow { words: &["red"], item: Some(ItemKey::Int(8)), ..SearchRow::default() }).unwrap();
    b.user().unwrap();
    [9, 5, 7].into_iter().for_each(|item| b.event(ItemKey::Int(item), None).unwrap());
    let touched = b.finish().unwrap().of_touched().unwrap();
    assert_eq!(touched.items(), &ItemIds::Int(vec![5, 7, 8, 9]));
    assert_eq!(touched.history(0), [3, 0, 1]);
    assert_eq!(touched.anonymous_searches().map(|search| search.item).collect::<Vec<_>>(), [Some(2)]);
    assert!(touched.of_touched().is_none(), "all are");
}

#[test]
fn vectors_of_queries_and_dwell_are_checked() {
    let mut b = CorpusBuilder::new(IdKind::Int);
    let row = |vector| SearchRow { words: &["a"], vector, ..SearchRow::default() };
    b.search(&row(Some(&[1.0, 0.0]))).unwrap();
    assert!(matches!(b.search(&row(Some(&[1.0]))), Err(Error::Data(_))));
    assert!(matches!(b.search(&row(Some(&[f32::NAN, 0.0]))), Err(Error::Data(_))));
    assert!(matches!(b.search(&SearchRow { dwell: Some(-1.0), ..row(None) }), Err(Error::Data(_))));
    b.search(&row(Some(&[0.0, 1.0]))).unwrap();
    b.search(&row(Some(&[1.0, 0.0]))).unwrap();
    let c = b.finish().unwrap();
    // The same words with another vector are another query.
    assert_eq!((c.query_vectors(), c.query_dim(), c.queries()), (&[1.0, 0.0, 0.0, 1.0][..], 2, 2));
    assert_eq!(c.query_words(0), c.query_words(1));
}
