//! Data sets: loaded from a folder or generated, and written as COPY streams.

mod copy;
mod fill;
mod movielens;
mod npy;
mod shared;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use anyhow::{Result, bail};

use crate::generate::{Shop, generate};

/// One event: who touched what, and what is known about when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction {
    /// The user.
    pub user_id: i64,
    /// The item.
    pub item_id: i64,
    /// Seconds since 1970 in UTC, where the source has real timestamps.
    pub at: Option<i64>,
    /// The place in the user's order, where the source has only that.
    pub position: Option<i64>,
    /// Stars, where the source has them.
    pub rating: Option<f32>,
}

/// One item of the catalogue.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Item {
    /// Its id in the source.
    pub item_id: i64,
    /// What to show for it; empty when the source has neither title nor text.
    pub title: String,
    /// Genres, attribute ids, or other labels.
    pub attributes: Vec<String>,
    /// A vector of its text, all of one length within a data set.
    pub embedding: Option<Vec<f32>>,
}

/// One search: who asked for what, and bought which item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// The user.
    pub user_id: i64,
    /// The item.
    pub item_id: i64,
    /// The query, by its place in [`Dataset::queries`].
    pub query: usize,
}

/// A query that several people may have asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchQuery {
    /// Its words.
    pub text: String,
    /// A vector of them, where the source has one.
    pub vector: Option<Vec<f32>>,
}

/// Interactions with their catalogue.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dataset {
    /// The events, in the source's order.
    pub interactions: Vec<Interaction>,
    /// The items: what the source describes, and every other item that somebody has touched, with nothing but its id.
    pub items: Vec<Item>,
    /// Which item each row of a pretrained encoder's table stands for (`row`, `item_id`), where the source has its own
    /// numbering; otherwise the row number is the item id.
    pub checkpoint_rows: Vec<(i64, i64)>,
    /// Semantic IDs of the items that were published with the data (`item_id`, codes).
    pub codes: Vec<(i64, Vec<u16>)>,
    /// What was looked for, in the source's order.
    pub searches: Vec<Search>,
    /// The queries of the searches.
    pub queries: Vec<SearchQuery>,
}

impl Dataset {
    /// Loads a folder of any known kind.
    ///
    /// # Errors
    /// When the folder is of no known kind, or a file in it is damaged; the message names the file and the line.
    pub fn load(folder: &Path) -> Result<Self> {
        let holds = |name: &str| folder.join(name).is_file();
        let mut data = match () {
            () if holds("interactions.tsv.gz") => shared::load(folder)?,
            () if holds("searches_train.tsv.gz") => shared::load_searches(folder)?,
            () if holds("ratings.dat") => movielens::load_dat(folder)?,
            () if holds("u.data") => movielens::load_u_data(folder)?,
            () if !folder.is_dir() => bail!("{} is no folder", folder.display()),
            () => bail!(
                "{} holds neither interactions.tsv.gz, nor searches_train.tsv.gz, nor MovieLens files (ratings.dat and \
                 movies.dat, or u.data and u.item)",
                folder.display()
            ),
        };
        data.complete_items();
        Ok(data)
    }

    fn complete_items(&mut self) {
        let known: HashSet<i64> = self.items.iter().map(|item| item.item_id).collect();
        let touched: BTreeSet<i64> = self.interactions.iter().map(|event| event.item_id).collect();
        let missing = touched.into_iter().filter(|id| !known.contains(id));
        self.items.extend(missing.map(|item_id| Item { item_id, ..Item::default() }));
    }

    /// The generated shop.
    #[must_use]
    pub fn generated(shop: &Shop) -> Self {
        generate(shop)
    }

    /// The length of the items' vectors, if they have any.
    #[must_use]
    pub fn dimension(&self) -> Option<usize> {
        self.items.iter().find_map(|item| item.embedding.as_ref().map(Vec::len))
    }

    /// How many different users there are.
    #[must_use]
    pub fn users(&self) -> usize {
        self.interactions.iter().map(|event| event.user_id).collect::<HashSet<i64>>().len()
    }
}
