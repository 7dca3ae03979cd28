//! Events, and searches among them, in the order of the users.

use pgrec_engine::corpus::{CorpusBuilder, ItemKey, SearchRow};
use pgrec_engine::families::Needs;
use pgrec_engine::{ItemId, Task};

use crate::catalog::IdType;
use crate::catalog::recommender::{Recommender, Searches, quoted};
use crate::error::{Result, SqlError};
use crate::history::{self, item_expression};
use crate::outcomes;
use crate::pg::spi::Row;
use crate::search;

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

/// The same and searches: a user's events and searches in their common order where both have a time and that orders the
/// events, else the searches after the events. First come the searches of nobody. Columns: those of [`alone`], whether it is
/// a search, the words of the query, its vector, what was shown, and for how long the item was looked at.
pub(super) fn with_searches(
    recommender: &Recommender,
    time: Option<&str>,
    tasks: &[Task],
    needs: Needs,
) -> Result<String> {
    let interactions = &recommender.interactions;
    let (Some(searches), Some(log)) = (&recommender.searches, recommender.searches_name()?) else {
        return Err(SqlError::corrupted("there are no searches to be read"));
    };
    let kind = recommender.item_type;
    let who = |column: &str| match recommender.user_type {
        IdType::Integer | IdType::Bigint => format!("{}::bigint", quoted(column)),
        IdType::Uuid | IdType::Text => quoted(column),
    };
    let order = |place: usize| format!("o{place}");
    let joint = common_order(recommender, searches);
    let own: Vec<String> =
        (0..).zip(&interactions.order).map(|(n, column)| format!("{} AS {}", quoted(column), order(n))).collect();
    let theirs: Vec<String> = (0..interactions.order.len())
        .map(|n| match (n, &searches.time) {
            (0, Some(time)) if joint => quoted(time),
            _ => "NULL".to_owned(),
        })
        .collect();
    let of_search = match &searches.time {
        Some(time) if !joint => history::seconds(time),
        _ => "NULL::float8".to_owned(),
    };
    let keys = (0..interactions.order.len()).map(|n| format!("{} NULLS FIRST", order(n)));
    let keys: Vec<String> = match joint {
        // What was looked for at the time of an event was looked for before.
        true => keys.take(1).chain(["search DESC".to_owned()]).chain(keys_after(interactions.order.len())).collect(),
        false => ["search".to_owned()].into_iter().chain(keys).chain(["sought NULLS FIRST".to_owned()]).collect(),
    };
    let by = format!("who DESC, {}", keys.join(", "));
    let begins = match recommender.user_type {
        IdType::Text => format!("who IS DISTINCT FROM lag(who) OVER (ORDER BY {by})"),
        _ => "who".to_owned(),
    };
    let outcome = match tasks {
        [] => "NULL::integer".to_owned(),
        tasks => outcomes::expression(recommender, tasks)?,
    };
    let optional = |column: &Option<String>, kind: &str| match column {
        Some(column) => format!("{}::{kind}", quoted(column)),
        None => format!("NULL::{kind}"),
    };
    let array = match kind {
        IdType::Integer | IdType::Bigint => "bigint[]",
        IdType::Uuid => "uuid[]",
        IdType::Text => "text[]",
    };
    let item = searches
        .item
        .as_ref()
        .map_or_else(|| format!("NULL::{}", array.trim_end_matches("[]")), |column| item_expression(column, kind));
    let vector = if needs.query_vectors { optional(&searches.embedding, "real[]") } else { "NULL::real[]".to_owned() };
    Ok(format!(
        "SELECT {begins}, item, time, outcome, search, words, vector, shown, dwell FROM (\
           SELECT {user} AS who, {event} AS item, {time} AS time, {outcome} AS outcome, false AS search, \
                  NULL::text[] AS words, NULL::real[] AS vector, NULL::{array} AS shown, NULL::float4 AS dwell, \
                  NULL::float8 AS sought, {own} FROM {events} WHERE {user_column} IS NOT NULL AND {item_column} IS NOT NULL \
           UNION ALL \
           SELECT {asker}, {item}, NULL, NULL, true, {words}, {vector}, {shown}, {dwell}, {of_search}, {theirs} \
           FROM {log} WHERE {query} IS NOT NULL) AS everything ORDER BY {by}",
        user = who(&interactions.user),
        event = item_expression(&interactions.item, kind),
        time = time.map_or_else(|| "NULL::float8".to_owned(), history::seconds),
        own = own.join(", "),
        events = recommender.interactions_name()?,
        user_column = quoted(&interactions.user),
        item_column = quoted(&interactions.item),
        asker = who(&searches.user),
        words = search::query_words(recommender, searches),
        shown = optional(&searches.shown, array),
        dwell = optional(&searches.dwell, "float4"),
        theirs = theirs.join(", "),
        query = quoted(&searches.query),
    ))
}

/// Keys that order events of one time.
fn keys_after(columns: usize) -> impl Iterator<Item = String> {
    (1..columns).map(|n| format!("o{n} NULLS FIRST"))
}

/// Whether searches have a place among the events.
pub fn common_order(recommender: &Recommender, searches: &Searches) -> bool {
    let interactions = &recommender.interactions;
    searches.time.is_some() && interactions.time.is_some() && interactions.order.first() == interactions.time.as_ref()
}

/// Turns the rows of [`alone`] or of [`with_searches`] into histories.
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
        let shown = match self.item_type {
            IdType::Integer | IdType::Bigint => {
                row.get::<Vec<Option<i64>>>(7).unwrap_or_default().into_iter().flatten().map(ItemId::Int).collect()
            }
            IdType::Uuid => {
                let shown = row.get::<Vec<Option<pgrx::Uuid>>>(7).unwrap_or_default().into_iter().flatten();
                shown.map(|item| ItemId::Uuid(*item.as_bytes())).collect()
            }
            IdType::Text => {
                let shown = row.get::<Vec<Option<String>>>(7).unwrap_or_default().into_iter().flatten();
                shown.map(ItemId::Text).collect::<Vec<ItemId>>()
            }
        };
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
