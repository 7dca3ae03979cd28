//! The rows of the adjacency: how much each keyword has to do with which items.

use pgrec_kernels::Scored;
use rayon::prelude::*;

use super::graph::{Graph, asked};
use super::{Adjacency, Params};
use crate::families::graph::best;
use crate::{Control, Result};

/// Rows that are computed with the same room for sums.
const BLOCK: usize = 64;

/// How much an item's popularity is taken off: visits^0.5 finds more by many keywords, visits^0.3 by one (NDCG@10 of the next
/// item by all words of what a user touched, and by one: .0463 and .0137 at 0.5, .0435 and .0155 at 0.4, .0400 and .0161 at
/// 0.3; Amazon Beauty, validation).
const POPULARITY: f32 = 0.4;

/// The row of every keyword, by ascending item.
///
/// Propagated: iuf / √users · visits^−0.4 · Σ over users who touched the item and have the keyword of another one, or looked
/// for it, of 1 / √items of the user; searches that led to an item are users of one item. Direct: iuf · (1 + ln tf) / √length,
/// tf being how often text and queries of the item have the keyword, and length the sum of 1 + ln tf over its keywords.
pub(super) fn rows(graph: &Graph, params: &Params, control: &Control) -> Result<Vec<Vec<Scored>>> {
    let (words, lengths) = (graph.users.len(), lengths(graph));
    let numbers: Vec<usize> = (0..words).collect();
    control.begin(words as u64);
    let block = |words: &[usize]| -> Result<Vec<Vec<Scored>>> {
        let mut sums = Sums::new(graph.visits.len());
        let row = |&word: &usize| {
            control.advance(1)?;
            if params.adjacency == Adjacency::Propagated {
                propagate(graph, word, &mut sums);
                let rare = (graph.users[word] as f32).powf(-0.5);
                // A search may have led to what nobody is known to have touched.
                sums.scale(|item| rare * (graph.visits[item as usize].max(1) as f32).powf(-POPULARITY));
            }
            let direct = if params.adjacency == Adjacency::Direct { 1.0 } else { params.direct as f32 };
            if direct > 0.0 {
                for (item, frequency) in frequencies(graph, word) {
                    sums.add(item, direct * frequency / lengths[item as usize].sqrt());
                }
            }
            let iuf = (graph.people as f32 / graph.users[word] as f32).ln();
            let mut row: Vec<Scored> = sums.take().map(|(item, sum)| Scored { item, score: iuf * sum }).collect();
            // What everybody has says nothing.
            row.retain(|scored| scored.score > 0.0);
            best(&mut row, params.keep);
            row.sort_unstable_by_key(|scored| scored.item);
            Ok(row)
        };
        words.iter().map(row).collect()
    };
    Ok(numbers.par_chunks(BLOCK).map(block).collect::<Result<Vec<_>>>()?.concat())
}

/// Adds what the users of a keyword say of items.
fn propagate(graph: &Graph, word: usize, sums: &mut Sums) {
    let saying = graph.saying.of(word);
    saying.iter().for_each(|&item| sums.says[item as usize] = true);
    for &user in graph.having.of(word) {
        let (user, has_asked) = asked(user);
        let touched = graph.touched.of(user);
        let says = touched.iter().filter(|&&item| sums.says[item as usize]).count();
        let share = (touched.len() as f32).powf(-0.5);
        for &item in touched {
            // An item's own text tells nothing of who has the keyword: that is what is direct.
            if has_asked || says > usize::from(sums.says[item as usize]) {
                sums.add(item, share);
            }
        }
    }
    graph.led.of(word).iter().for_each(|&item| sums.add(item, 1.0));
    saying.iter().for_each(|&item| sums.says[item as usize] = false);
}

/// 1 + ln tf of the items of a keyword.
fn frequencies(graph: &Graph, word: usize) -> impl Iterator<Item = (u32, f32)> {
    let (saying, led) = (graph.saying.of(word), graph.led.of(word));
    let often = |item: u32| led.partition_point(|&other| other <= item) - led.partition_point(|&other| other < item);
    let said = saying.iter().map(move |&item| (item, 1 + often(item)));
    let only_led = led.chunk_by(|a, b| a == b).map(|same| (same[0], same.len()));
    let only_led = only_led.filter(|(item, _)| saying.binary_search(item).is_err());
    said.chain(only_led).map(|(item, often)| (item, 1.0 + (often as f32).ln()))
}

/// Σ 1 + ln tf over the keywords of each item.
fn lengths(graph: &Graph) -> Vec<f32> {
    let mut lengths = vec![0.0; graph.visits.len()];
    for word in 0..graph.users.len() {
        frequencies(graph, word).for_each(|(item, frequency)| lengths[item as usize] += frequency);
    }
    lengths
}

/// Sums of a row under way, in room that rows share.
struct Sums {
    /// Of every item; 0 where nothing was added.
    of: Vec<f32>,
    /// Where something was.
    items: Vec<u32>,
    /// Which items' texts have the keyword, while it is propagated.
    says: Vec<bool>,
}

impl Sums {
    fn new(items: usize) -> Self {
        Self { of: vec![0.0; items], items: Vec::new(), says: vec![false; items] }
    }

    /// Adds more than 0.
    fn add(&mut self, item: u32, what: f32) {
        let sum = &mut self.of[item as usize];
        if *sum == 0.0 {
            self.items.push(item);
        }
        *sum += what;
    }

    fn scale(&mut self, by: impl Fn(u32) -> f32) {
        self.items.iter().for_each(|&item| self.of[item as usize] *= by(item));
    }

    /// All sums; then there are none.
    fn take(&mut self) -> impl Iterator<Item = (u32, f32)> {
        self.items.drain(..).map(|item| (item, std::mem::take(&mut self.of[item as usize])))
    }
}
