//! Words of rows: of items, or of queries.

use std::collections::HashMap;
use std::sync::Arc;

/// Texts, numbered as they came.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    numbers: HashMap<String, u32>,
    /// Bytes of the texts.
    text: usize,
}

impl Vocabulary {
    /// The number of a text, the next free one when it is new.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.text += text.len();
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// Bytes that it takes.
    pub(super) fn resident(&self) -> usize {
        self.numbers.capacity() * (size_of::<(String, u32)>() + 1) + self.text
    }

    /// Texts in their order, so that the order of the rows does not matter, and the place of each by the number it had.
    pub(super) fn in_order(self) -> (Arc<[String]>, Vec<u32>) {
        let mut words: Vec<(String, u32)> = self.numbers.into_iter().collect();
        words.sort_unstable();
        let mut places = vec![0u32; words.len()];
        for (place, (_, number)) in words.iter().enumerate() {
            places[*number as usize] = place as u32;
        }
        (words.into_iter().map(|(word, _)| word).collect(), places)
    }
}

/// Rows and their words, both by the numbers they have so far.
#[derive(Debug, Default)]
pub(super) struct Pairs(Vec<(u32, u32)>);

impl Pairs {
    pub(super) fn push(&mut self, row: u32, word: u32) {
        self.0.push((row, word));
    }

    /// Bytes that they take, and will take beside themselves while they are put in order.
    pub(super) fn resident(&self) -> usize {
        2 * size_of_val(self.0.as_slice())
    }

    /// The same of so many rows, words by their places; `row` gives the place of a row.
    pub(super) fn finish(self, rows: usize, row: impl Fn(u32) -> u32, words: &[u32]) -> Bag {
        Bag::of(rows, self.0.into_iter().map(|(number, word)| (row(number), words[word as usize])).collect())
    }
}

/// The words of each of many rows, ascending within a row, without repeats.
#[derive(Debug, Clone, Default)]
pub(super) struct Bag {
    /// Where each row's begin, and the end of the last; empty where no row has any.
    pub(super) offsets: Vec<usize>,
    pub(super) words: Vec<u32>,
}

impl Bag {
    fn of(rows: usize, mut pairs: Vec<(u32, u32)>) -> Self {
        if pairs.is_empty() {
            return Self::default();
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut offsets = vec![0usize; rows + 1];
        for &(row, _) in &pairs {
            offsets[row as usize + 1] += 1;
        }
        for row in 0..rows {
            offsets[row + 1] += offsets[row];
        }
        Self { offsets, words: pairs.into_iter().map(|(_, word)| word).collect() }
    }

    /// The words of one row.
    pub(super) fn row(&self, row: usize) -> &[u32] {
        let bounds = self.offsets.get(row..row + 2);
        bounds.map_or(&[], |bounds| &self.words[bounds[0]..bounds[1]])
    }

    /// Bytes that it takes.
    pub(super) fn resident(&self) -> usize {
        size_of_val(self.offsets.as_slice()) + size_of_val(self.words.as_slice())
    }

    /// The same rows among `rows` others, at `places`, which ascend; those without a place are left out.
    pub(super) fn at(&self, rows: usize, places: &[Option<u32>]) -> Self {
        if self.words.is_empty() {
            return Self::default();
        }
        let (mut offsets, mut words) = (vec![0; rows + 1], Vec::new());
        for (bounds, place) in self.offsets.windows(2).zip(places) {
            let Some(place) = *place else { continue };
            words.extend_from_slice(&self.words[bounds[0]..bounds[1]]);
            offsets[place as usize + 1] = words.len();
        }
        // Rows in between have none.
        for row in 0..rows {
            offsets[row + 1] = offsets[row + 1].max(offsets[row]);
        }
        Self { offsets, words }
    }
}
