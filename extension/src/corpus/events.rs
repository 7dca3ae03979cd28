//! Events in the order of the users, and the histories that rows make.

use pgrec_engine::Task;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey, SearchRow};

use crate::catalog::IdType;
use crate::catalog::recommender::{Recommender, quoted};
use crate::error::Result;
use crate::history::{self, item_expression};
use crate::outcomes;
use crate::pg::spi::Row;

/// Columns: who, or whether a user begins (text); the item; the time; and, where there are tasks, what came of it.
///
/// The order of the users is no matter: descending, a backward scan of the covering index gives it without a sort
/// (5 million rows: 1.0 s; users ascending 2.1 s; without the index 2.6 s).
pub(super) fn alone(recommender: &Recommender, time: Option<&str>, tasks: &[Task]) -> Result<String> {
    let interactions = &recommender.interactions;
    let (user, column) = (quoted(&interactions.user), quoted(&interactions.item));
    let keys: Vec<String> = interactions.order.iter().map(|c| format!("{} NULLS FIRST", quoted(c))).collect();
    let order = format!("{user} DESC, {}", keys.join(", "));
    let who = match recommender.user_type {
        IdType::Integer | IdType::Bigint => format!("{user}::bigint"),
        IdType::Uuid => user.clone(),
        // Texts of different bytes can be the same user where the collation says so: only the database can tell.
        // For the others to ask it would double the time of the scan.
        IdType::Text => format!("{user} IS DISTINCT FROM lag({user}) OVER (ORDER BY {order})"),
    };
    let outcome = match tasks {
        [] => String::new(),
        tasks => format!(", {}", outcomes::expression(recommender, tasks)?),
    };
    Ok(format!(
        "SELECT {who}, {item}, {time}{outcome} FROM {relation} WHERE {user} IS NOT NULL AND {column} IS NOT NULL ORDER BY {order}",
        item = item_expression(&interactions.item, recommender.item_type),
        time = time.map_or_else(|| "NULL::float8".to_owned(), history::seconds),
        relation = recommender.interactions_name()?,
    ))
}

/// Turns the rows of [`alone`] or of [`super::joint::with_searches`] into histories.
pub(super) struct Histories<'a> {
    builder: &'a mut CorpusBuilder,
    user_type: IdType,
    item_type: IdType,
    /// The user of the row before.
    present: Option<u128>,
    /// Whether every event so far had a time.
    timed: bool,
    /// Whether what came of the events is read.
    outcomes: bool,
    /// Whether there are searches among the rows.
    sought: bool,
    pub(super) users: u64,
    pub(super) events: u64,
    pub(super) latest: Option<f64>,
}

impl<'a> Histories<'a> {
    pub(super) fn new(
        recommender: &Recommender,
        timed: bool,
        outcomes: bool,
        sought: bool,
        builder: &'a mut CorpusBuilder,
    ) -> Self {
        Self {
            builder,
            user_type: recommender.user_type,
            item_type: recommender.item_type,
            present: None,
            timed,
            outcomes,
            sought,
            users: 0,
            events: 0,
            latest: None,
        }
    }

    pub(super) fn add(&mut self, row: &Row) -> Result<()> {
        if self.begins(row)? {
            self.builder.user()?;
            self.users += 1;
        }
        if self.sought && row.need(4)? {
            return self.search(row);
        }
        let time: Option<f64> = row.get(2);
        self.latest = match (self.latest, time) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        // No time is invented for events without: then none is used.
        if self.timed && time.is_none() {
            self.builder.forget_times();
            self.timed = false;
        }
        self.builder.event(key(row, 1, self.item_type)?, time.filter(|_| self.timed))?;
        if self.outcomes {
            self.builder.outcome(row.need::<i32>(3)? as u32)?;
        }
        self.events += 1;
        Ok(())
    }

    fn begins(&mut self, row: &Row) -> Result<bool> {
        let user = match self.user_type {
            IdType::Integer | IdType::Bigint => row.get::<i64>(0).map(|user| user as u128),
            IdType::Uuid => row.get::<pgrx::Uuid>(0).map(|user| u128::from_be_bytes(*user.as_bytes())),
            IdType::Text => return row.need(0),
        };
        // Searches of nobody come first.
        let Some(user) = user else { return Ok(false) };
        Ok(self.present.replace(user) != Some(user))
    }

    fn search(&mut self, row: &Row) -> Result<()> {
        let words: Vec<Option<String>> = row.get(5).unwrap_or_default();
        let words: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
        let vector: Option<Vec<f32>> = row.get(6);
        if words.is_empty() && vector.is_none() {
            return Ok(());
        }
        let item = history::item_of(row, 1, self.item_type);
        let shown = history::items_of(row, 7, self.item_type);
        let shown: Vec<ItemKey<'_>> = shown.iter().map(ItemKey::from).collect();
        self.builder.search(&SearchRow {
            words: &words,
            vector: vector.as_deref(),
            item: item.as_ref().map(ItemKey::from),
            shown: &shown,
            dwell: row.get(8),
        })?;
        Ok(())
    }
}

/// The id in a column made by [`item_expression`], borrowed from the row.
pub(super) fn key(row: &Row, index: usize, kind: IdType) -> Result<ItemKey<'_>> {
    Ok(match kind {
        IdType::Integer | IdType::Bigint => ItemKey::Int(row.need(index)?),
        IdType::Uuid => ItemKey::Uuid(*row.need::<pgrx::Uuid>(index)?.as_bytes()),
        IdType::Text => ItemKey::Text(row.need(index)?),
    })
}
