//! What is learnt from, and what is kept for measuring.
//!
//! Users with five items and more have two of them kept back at random, with all searches that led there: the second for
//! choosing parameters by, the first for the figures. All else is learnt from, of users with fewer items everything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use pgrec_engine::Corpus;
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey, SearchRow};
use xtask::Dataset;

/// Users with fewer items are learnt from only.
const ITEMS: usize = 5;

/// A split of the data.
pub struct Split {
    /// What is learnt from: histories and searches of all users, items with the words of the queries that led to them.
    pub learnt: Corpus,
    /// Users of whom something is kept: their second-last event is for validation, the last for the test.
    pub kept: Corpus,
}

/// Items of one user and the queries that led to each.
type Found = Vec<(i64, Vec<usize>)>;

impl Split {
    pub fn of(data: &Dataset, seed: u64, most: usize) -> Result<Self> {
        let mut users: BTreeMap<i64, BTreeMap<i64, Vec<usize>>> = BTreeMap::new();
        for search in &data.searches {
            users.entry(search.user_id).or_default().entry(search.item_id).or_default().push(search.query);
        }
        let mut random = Random(seed);
        let mut all: Vec<Found> = Vec::new();
        for items in users.into_values() {
            let mut items: Found = items.into_iter().collect();
            (1..items.len()).rev().for_each(|last| items.swap(last, random.below(last + 1)));
            all.push(items);
        }
        let is_kept = |items: &Found| items.len() >= ITEMS;
        let learnt: Vec<&[(i64, Vec<usize>)]> =
            all.iter().map(|items| &items[..items.len() - if is_kept(items) { 2 } else { 0 }]).collect();
        let mut texts: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
        for (item, queries) in learnt.iter().copied().flatten() {
            let words = queries.iter().flat_map(|&query| data.queries[query].text.split_whitespace());
            texts.entry(*item).or_default().extend(words);
        }
        let kept: Vec<&[(i64, Vec<usize>)]> =
            all.iter().filter(|items| is_kept(items)).map(Vec::as_slice).take(most).collect();
        Ok(Self { learnt: corpus(data, &texts, &learnt)?, kept: corpus(data, &texts, &kept)? })
    }
}

fn corpus(data: &Dataset, texts: &BTreeMap<i64, BTreeSet<&str>>, users: &[&[(i64, Vec<usize>)]]) -> Result<Corpus> {
    let mut corpus = CorpusBuilder::new(IdKind::Int);
    for item in &data.items {
        corpus.item(ItemKey::Int(item.item_id))?;
        let words = texts.get(&item.item_id).into_iter().flatten().copied();
        corpus.words(ItemKey::Int(item.item_id), words)?;
    }
    let queries: Vec<Vec<&str>> = data.queries.iter().map(|query| query.text.split_whitespace().collect()).collect();
    for items in users {
        corpus.user()?;
        items.iter().try_for_each(|(item, _)| corpus.event(ItemKey::Int(*item), None))?;
        // The data does not say what came first: searches without an order come after all events.
        for (item, found_by) in *items {
            for &query in found_by {
                corpus.search(&SearchRow {
                    words: &queries[query],
                    vector: data.queries[query].vector.as_deref(),
                    item: Some(ItemKey::Int(*item)),
                    ..SearchRow::default()
                })?;
            }
        }
    }
    Ok(corpus.finish()?)
}

/// SplitMix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }
}
