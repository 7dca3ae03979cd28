//! A user's history, read from the interactions relation as the caller: grants and row-level security hold.

use pgrec_engine::{Catalogue, ItemId, Task};

use crate::catalog::IdType;
use crate::catalog::recommender::{Recommender, quoted};
use crate::error::{Result, SqlError};
use crate::ids::Id;
use crate::outcomes;
use crate::pg::spi::{self, Arg, Mode, Row};
use crate::search::recent::Recent;

/// What was read of one user.
#[derive(Debug, Default)]
pub struct History {
    /// Dense indices of the items the model knows, oldest first.
    pub items: Vec<u32>,
    /// Unix times of these in seconds, where they were asked for.
    pub times: Vec<f64>,
    /// What came of these, where it was asked for: bit t is set where the answer to task t is yes.
    pub outcomes: Vec<u32>,
    /// Items of the events whose item the model does not know, in no order.
    pub unknown: Vec<ItemId>,
    /// What the user looked for lately, where the model looks at that.
    pub searches: Recent,
}

impl History {
    /// Whether it tells a model nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.searches.is_empty()
    }

    fn push(&mut self, item: Option<u32>, id: impl FnOnce() -> Option<ItemId>) {
        match item {
            Some(index) => self.items.push(index),
            None => self.unknown.extend(id()),
        }
    }

    /// The event of a row: its item in a column and, where they are wanted, its time and what came of it in the next
    /// two. An event without a time happened before all that have one.
    fn push_row(&mut self, wanted: Wanted<'_>, row: &Row, column: usize, kind: IdType, catalogue: &Catalogue) {
        let item = known(row, column, kind, catalogue);
        if wanted.times && item.is_some() {
            self.times.push(row.get(column + 1).unwrap_or(f64::NEG_INFINITY));
        }
        if !wanted.tasks.is_empty() && item.is_some() {
            self.outcomes.push(row.get::<i32>(column + 2).unwrap_or(0) as u32);
        }
        self.push(item, || item_of(row, column, kind));
    }

    /// What was read latest first is oldest first.
    fn reverse(&mut self) {
        self.items.reverse();
        self.times.reverse();
        self.outcomes.reverse();
    }

    /// The items touched, ascending, without repeats.
    pub fn seen(&self) -> Vec<u32> {
        let mut seen = self.items.clone();
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

/// How the item column is selected so that [`item_of`] reads it.
pub fn item_expression(column: &str, kind: IdType) -> String {
    match kind {
        IdType::Integer | IdType::Bigint => format!("{}::bigint", quoted(column)),
        IdType::Uuid => quoted(column),
        IdType::Text => format!("{}::text", quoted(column)),
    }
}

/// The item id in a result column made by [`item_expression`].
pub fn item_of(row: &Row, index: usize, kind: IdType) -> Option<ItemId> {
    match kind {
        IdType::Integer | IdType::Bigint => row.get(index).map(ItemId::Int),
        IdType::Uuid => row.get::<pgrx::Uuid>(index).map(|uuid| ItemId::Uuid(*uuid.as_bytes())),
        IdType::Text => row.get(index).map(ItemId::Text),
    }
}

/// The type of what [`item_expression`] gives.
pub fn read_as(kind: IdType) -> &'static str {
    match kind {
        IdType::Integer | IdType::Bigint => "bigint",
        IdType::Uuid => "uuid",
        IdType::Text => "text",
    }
}

/// The item ids in a result column that is an array of [`read_as`]; elements that are NULL are left out.
pub fn items_of(row: &Row, index: usize, kind: IdType) -> Vec<ItemId> {
    fn ids<T>(array: Option<Vec<Option<T>>>, id: impl Fn(T) -> ItemId) -> Vec<ItemId> {
        array.into_iter().flatten().flatten().map(id).collect()
    }
    match kind {
        IdType::Integer | IdType::Bigint => ids(row.get(index), ItemId::Int),
        IdType::Uuid => ids(row.get(index), |id: pgrx::Uuid| ItemId::Uuid(*id.as_bytes())),
        IdType::Text => ids(row.get(index), ItemId::Text),
    }
}

/// A column's time in Unix seconds.
pub fn seconds(column: &str) -> String {
    format!("date_part('epoch', {})", quoted(column))
}

/// What is read of histories.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// So many of the latest events.
    pub events: usize,
    /// Whether with their times.
    pub times: bool,
    /// What is asked of each.
    pub tasks: &'a [Task],
}

impl Wanted<'_> {
    /// Whether only the items.
    fn only_items(self) -> bool {
        !self.times && self.tasks.is_empty()
    }

    /// Columns beside the item: the time, and what came of the event.
    fn columns(self, recommender: &Recommender) -> Result<String> {
        Ok(format!(
            "{} AS time, {} AS outcome",
            self.time(recommender)?,
            outcomes::expression(recommender, self.tasks)?
        ))
    }

    /// The time of an event, or NULL.
    fn time(self, recommender: &Recommender) -> Result<String> {
        match (&recommender.interactions.time, self.times) {
            (Some(column), true) => Ok(seconds(column)),
            (None, true) => Err(SqlError::state("the model looks at the times of events, and the interactions have none")
                .hint("Deploy a model that was trained with times set to false, or create the recommender with a time_column.")),
            (_, false) => Ok("NULL::float8".to_owned()),
        }
    }
}

/// The latest events of one user, whose items are translated by the model's catalogue.
pub fn read(recommender: &Recommender, user: &Id, wanted: Wanted<'_>, catalogue: &Catalogue) -> Result<History> {
    let integers = recommender.item_type.is_integer() && wanted.only_items();
    let more = if integers { String::new() } else { format!(", {}", wanted.columns(recommender)?) };
    let sql = format!(
        "SELECT {}{more} FROM {} WHERE {} = {} ORDER BY {} LIMIT {}",
        item_expression(&recommender.interactions.item, recommender.item_type),
        recommender.interactions_name()?,
        quoted(&recommender.interactions.user),
        user_parameter(recommender, user, "$1"),
        latest_first(recommender),
        wanted.events,
    );
    let mut history = History::default();
    if integers {
        for id in spi::bigints(Mode::Read, &sql, &[user_argument(user)])? {
            history.push(id.and_then(|id| catalogue.index_of_int(id)), || id.map(ItemId::Int));
        }
    } else {
        spi::each(Mode::Read, &sql, &[user_argument(user)], |row| {
            history.push_row(wanted, row, 0, recommender.item_type, catalogue);
            Ok(())
        })?;
    }
    history.reverse();
    Ok(history)
}

/// The latest events of each of many users, in the order of `users`.
pub fn read_many(
    mode: Mode,
    recommender: &Recommender,
    users: &[Id],
    wanted: Wanted<'_>,
    catalogue: &Catalogue,
) -> Result<Vec<History>> {
    let Some(first) = users.first() else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT u.ordinal, h.item, h.time, h.outcome FROM unnest($1) WITH ORDINALITY u(id, ordinal) CROSS JOIN LATERAL (\
             SELECT {} AS item, {} FROM {} WHERE {} = {} ORDER BY {} LIMIT {}) h",
        item_expression(&recommender.interactions.item, recommender.item_type),
        wanted.columns(recommender)?,
        recommender.interactions_name()?,
        quoted(&recommender.interactions.user),
        user_parameter(recommender, first, "u.id"),
        latest_first(recommender),
        wanted.events,
    );
    let mut histories: Vec<History> = users.iter().map(|_| History::default()).collect();
    let mut each = |row: &Row| {
        let ordinal: i64 = row.need(0)?;
        if let Some(history) = histories.get_mut(ordinal as usize - 1) {
            history.push_row(wanted, row, 1, recommender.item_type, catalogue);
        }
        Ok(())
    };
    match first {
        Id::Int(_) => {
            let ids: Vec<i64> = users.iter().map(|u| if let Id::Int(id) = u { *id } else { 0 }).collect();
            spi::each(mode, &sql, &[Arg::Int8s(&ids)], &mut each)?;
        }
        Id::Text(_) => {
            let ids: Vec<String> = users.iter().map(Id::to_string).collect();
            spi::each(mode, &sql, &[Arg::Texts(&ids)], &mut each)?;
        }
    }
    for history in &mut histories {
        history.reverse();
    }
    Ok(histories)
}

/// ORDER BY of a history's query: latest event first, as the covering index has it. Events of equal order
/// come in no defined order; the catalogue's order columns should make them unique.
pub fn latest_first(recommender: &Recommender) -> String {
    let columns: Vec<String> =
        recommender.interactions.order.iter().map(|c| format!("{} DESC NULLS LAST", quoted(c))).collect();
    columns.join(", ")
}

fn known(row: &Row, index: usize, kind: IdType, catalogue: &Catalogue) -> Option<u32> {
    if kind.is_integer() {
        return row.get(index).and_then(|id| catalogue.index_of_int(id));
    }
    item_of(row, index, kind).and_then(|id| catalogue.index_of(&id))
}

/// Integers are compared across their widths, so that an id out of the column's range is only an unknown user.
pub fn user_parameter(recommender: &Recommender, user: &Id, reference: &str) -> String {
    match (user, recommender.user_type) {
        (Id::Int(_), _) | (Id::Text(_), IdType::Text) => reference.to_owned(),
        (Id::Text(_), IdType::Uuid) => format!("{reference}::uuid"),
        (Id::Text(_), IdType::Integer | IdType::Bigint) => format!("{reference}::bigint"),
    }
}

pub fn user_argument(user: &Id) -> Arg<'_> {
    match user {
        Id::Int(id) => Arg::Int8(*id),
        Id::Text(id) => Arg::Text(id),
    }
}
