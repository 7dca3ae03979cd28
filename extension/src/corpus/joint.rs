//! Events and searches in one scan: how they are read, and in which order.

use pgrec_engine::Task;
use pgrec_engine::families::Needs;

use crate::catalog::IdType;
use crate::catalog::recommender::{Recommender, Searches, quoted};
use crate::error::{Result, SqlError};
use crate::history::{self, item_expression};
use crate::outcomes;
use crate::search;

/// A user's events and searches in their common order where there is one, else the searches after the events. First come the
/// searches of nobody. Columns: those of [`super::events::alone`], whether it is a search, the words of the query, its vector,
/// what was shown, and for how long the item was looked at.
pub(super) fn with_searches(
    recommender: &Recommender,
    time: Option<&str>,
    tasks: &[Task],
    needs: Needs,
) -> Result<String> {
    let Some(searches) = &recommender.searches else {
        return Err(SqlError::corrupted("there are no searches to be read"));
    };
    let joint = common_order(recommender, searches);
    Ok(format!(
        "SELECT {begins}, item, time, outcome, search, words, vector, shown, dwell \
         FROM ({events} UNION ALL {searches}) AS everything ORDER BY {by}",
        begins = begins(recommender.user_type, joint, recommender.interactions.order.len()),
        events = events(recommender, time, tasks)?,
        searches = of_searches(recommender, searches, joint, needs)?,
        by = order(joint, recommender.interactions.order.len()),
    ))
}

/// Whether searches have a place among the events: both have a time, and that orders the events.
pub fn common_order(recommender: &Recommender, searches: &Searches) -> bool {
    let interactions = &recommender.interactions;
    searches.time.is_some() && interactions.time.is_some() && interactions.order.first() == interactions.time.as_ref()
}

/// The keys of all, the latest users first as in [`super::events::alone`].
fn order(joint: bool, columns: usize) -> String {
    let own = |from: usize| (from..columns).map(|n| format!("o{n} NULLS FIRST"));
    let keys: Vec<String> = match joint {
        // What was looked for at the time of an event was looked for before.
        true => own(0).take(1).chain(["search DESC".to_owned()]).chain(own(1)).collect(),
        false => ["search".to_owned()].into_iter().chain(own(0)).chain(["sought NULLS FIRST".to_owned()]).collect(),
    };
    format!("who DESC, {}", keys.join(", "))
}

/// Who, or whether a user begins, as in [`super::events::alone`].
fn begins(kind: IdType, joint: bool, columns: usize) -> String {
    match kind {
        IdType::Text => format!("who IS DISTINCT FROM lag(who) OVER (ORDER BY {})", order(joint, columns)),
        IdType::Integer | IdType::Bigint | IdType::Uuid => "who".to_owned(),
    }
}

fn who(column: &str, kind: IdType) -> String {
    match kind {
        IdType::Integer | IdType::Bigint => format!("{}::bigint", quoted(column)),
        IdType::Uuid | IdType::Text => quoted(column),
    }
}

fn events(recommender: &Recommender, time: Option<&str>, tasks: &[Task]) -> Result<String> {
    let (interactions, kind) = (&recommender.interactions, recommender.item_type);
    let keys = (0..).zip(&interactions.order).map(|(n, column)| format!("{} AS o{n}", quoted(column)));
    let outcome = match tasks {
        [] => "NULL::integer".to_owned(),
        tasks => outcomes::expression(recommender, tasks)?,
    };
    Ok(format!(
        "SELECT {who} AS who, {item} AS item, {time} AS time, {outcome} AS outcome, false AS search, NULL::text[] AS words, \
                NULL::real[] AS vector, NULL::{shown}[] AS shown, NULL::float4 AS dwell, NULL::float8 AS sought, {keys} \
         FROM {relation} WHERE {user} IS NOT NULL AND {column} IS NOT NULL",
        who = who(&interactions.user, recommender.user_type),
        item = item_expression(&interactions.item, kind),
        time = time.map_or_else(|| "NULL::float8".to_owned(), history::seconds),
        shown = history::read_as(kind),
        keys = keys.collect::<Vec<_>>().join(", "),
        relation = recommender.interactions_name()?,
        user = quoted(&interactions.user),
        column = quoted(&interactions.item),
    ))
}

fn of_searches(recommender: &Recommender, searches: &Searches, joint: bool, needs: Needs) -> Result<String> {
    let log = recommender.searches_name()?.ok_or_else(|| SqlError::corrupted("there are no searches to be read"))?;
    let (kind, columns) = (recommender.item_type, recommender.interactions.order.len());
    let id = history::read_as(kind);
    // Where there is no common order, searches have one of their own, and no place in that of the events.
    let (place, sought) = match &searches.time {
        Some(time) if joint => (quoted(time), "NULL".to_owned()),
        Some(time) => ("NULL".to_owned(), history::seconds(time)),
        None => ("NULL".to_owned(), "NULL".to_owned()),
    };
    let keys: Vec<String> = (0..columns).map(|n| if n == 0 { place.clone() } else { "NULL".to_owned() }).collect();
    let optional = |column: Option<&String>, kind: &str| match column {
        Some(column) => format!("{}::{kind}", quoted(column)),
        None => format!("NULL::{kind}"),
    };
    Ok(format!(
        "SELECT {who}, {item}, NULL, NULL, true, {words}, {vector}, {shown}, {dwell}, {sought}::float8, {keys} \
         FROM {log} WHERE {query} IS NOT NULL",
        who = who(&searches.user, recommender.user_type),
        item = searches.item.as_ref().map_or_else(|| format!("NULL::{id}"), |column| item_expression(column, kind)),
        words = search::query_words(recommender, searches),
        vector = optional(searches.embedding.as_ref().filter(|_| needs.query_vectors), "real[]"),
        shown = optional(searches.shown.as_ref(), &format!("{id}[]")),
        dwell = optional(searches.dwell.as_ref(), "float4"),
        keys = keys.join(", "),
        query = quoted(&searches.query),
    ))
}
