//! Items that are known by codes: rows of one table, and what there is to tell of them; and words, which are rows of the
//! same table.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::codes::{Codes, starts};
use crate::random::SplitMix;

/// In which order the codes of an item are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Level after level, each among the codes that some item has after those before it.
    Levels,
    /// The level next that the model is surest of (REG4Rec). Any may be next, so what is learnt is every order: of each one
    /// the mean loss over the levels that are left (Uria, Murray & Larochelle 2014, eq. 14).
    Confidence,
    /// All at once, from the history alone.
    Together,
}

/// By which rows of one table events are looked up: an item, level after level, by those of its code words; a word, which
/// events number after the items, by its own, and on the other levels by one that stands in for the codes it does not have.
#[derive(Debug)]
pub(crate) struct EventRows {
    /// The first row of every level.
    starts: Vec<u32>,
    items: u32,
    /// The row of the first word, and that after the last.
    words: u32,
    blank: u32,
}

impl EventRows {
    /// Of items with so many code words a level, and so many words.
    pub(crate) fn new(sizes: &[usize], items: usize, words: usize) -> Self {
        let first = sizes.iter().sum::<usize>() as u32;
        Self { starts: starts(sizes), items: items as u32, words: first, blank: first + words as u32 }
    }

    /// Rows of the table.
    pub(crate) fn count(sizes: &[usize], words: usize) -> usize {
        sizes.iter().sum::<usize>() + if words > 0 { words + 1 } else { 0 }
    }

    /// The number of a word among the events.
    pub(crate) fn event(&self, word: u32) -> u32 {
        self.items + word
    }

    /// The row of an event on a level; `code` gives that of an item.
    pub(crate) fn row(&self, event: u32, level: usize, code: impl FnOnce(u32) -> u16) -> u32 {
        match event.checked_sub(self.items) {
            None => self.starts[level] + u32::from(code(event)),
            Some(word) if level == 0 => self.words + word,
            Some(_) => self.blank,
        }
    }
}

/// Codes of items as rows of one table, level after level.
#[derive(Debug)]
pub(crate) struct CodeRows {
    order: Order,
    rows: EventRows,
    /// `[items, levels]`
    codes: Vec<u16>,
    /// Of every level.
    choices: Vec<Choices>,
    /// What products of vectors and rows are multiplied with: 1/τ.
    pub(crate) scale: f32,
}

/// Rows of a level, ascending, that an item's is told from.
#[derive(Debug)]
pub(crate) enum Choices {
    /// Those of all codes that some item has.
    All(Vec<u32>),
    /// Of those that some item has after the same codes as an item.
    After {
        /// Of every item, places in `rows`.
        of: Vec<Range<u32>>,
        /// The rows.
        rows: Vec<u32>,
    },
}

impl Choices {
    /// Of a level whose first row is `start`, after the codes before it or not. `items` are in the order of their codes.
    fn new(codes: &Codes<'_>, items: &[u32], level: usize, start: u32, after: bool) -> Self {
        let code = |item: u32| codes.item(item as usize);
        let own = |group: &[u32]| -> Vec<u32> {
            let mut rows: Vec<u32> = group.iter().map(|&item| start + u32::from(code(item)[level])).collect();
            rows.sort_unstable();
            rows.dedup();
            rows
        };
        if !after {
            return Self::All(own(items));
        }
        let (mut of, mut rows) = (vec![0..0; codes.len()], Vec::new());
        for group in items.chunk_by(|&a, &b| code(a)[..level] == code(b)[..level]) {
            let start = rows.len() as u32;
            rows.append(&mut own(group));
            let end = rows.len() as u32;
            group.iter().for_each(|&item| of[item as usize] = start..end);
        }
        Self::After { of, rows }
    }

    /// Those of one item.
    pub(crate) fn of(&self, item: u32) -> &[u32] {
        match self {
            Self::All(rows) => rows,
            Self::After { of, rows } => {
                let Range { start, end } = of[item as usize];
                &rows[start as usize..end as usize]
            }
        }
    }
}

impl CodeRows {
    /// Of items with these codes, of so many code words a level, and so many words that items are described by.
    pub(crate) fn new(order: Order, sizes: &[usize], words: usize, codes: &Codes<'_>, scale: f32) -> Self {
        let starts = starts(sizes);
        let items = codes.order();
        let choices = starts
            .iter()
            .enumerate()
            .map(|(level, &start)| Choices::new(codes, &items, level, start, order == Order::Levels && level > 0));
        let rows = EventRows::new(sizes, codes.len(), words);
        Self { order, choices: choices.collect(), rows, codes: codes.of.to_vec(), scale }
    }

    /// Codes of an item.
    pub(crate) fn levels(&self) -> usize {
        self.choices.len()
    }

    /// The row of an event on a level.
    pub(crate) fn row(&self, event: u32, level: usize) -> u32 {
        self.rows.row(event, level, |item| self.codes[item as usize * self.levels() + level])
    }

    /// What an item's row on a level is told from.
    pub(crate) fn choices(&self, level: usize) -> &Choices {
        &self.choices[level]
    }

    /// An order of the levels.
    pub(super) fn draw(&self, key: u64) -> Vec<usize> {
        let mut levels: Vec<usize> = (0..self.levels()).collect();
        if self.order == Order::Confidence {
            SplitMix::new(key).shuffle(&mut levels);
        }
        levels
    }

    /// Levels of `order` that are told before something else is.
    pub(super) fn given<'o>(&self, order: &'o [usize]) -> &'o [usize] {
        match self.order {
            Order::Together => &[],
            Order::Levels | Order::Confidence => &order[..order.len() - 1],
        }
    }

    /// The levels of `order` that are told after so many others, and the weight of each.
    pub(super) fn told<'o>(&self, order: &'o [usize], after: usize) -> (&'o [usize], f32) {
        match self.order {
            Order::Levels => (&order[after..=after], 1.0),
            Order::Together => (order, 1.0),
            Order::Confidence => (&order[after..], 1.0 / (order.len() - after) as f32),
        }
    }
}
