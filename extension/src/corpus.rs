//! Everything of a recommender, streamed from the executor into the engine's corpus.

use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::families::Needs;
use pgrec_engine::{Corpus, Task};
use serde_json::{Value, json};

use crate::catalog::IdType;
use crate::catalog::recommender::{Items, Recommender, quoted};
use crate::error::Result;
use crate::history::{self, item_expression};
use crate::outcomes;
use crate::pg::snapshot;
use crate::pg::spi::{self, Arg, Mode, Row};
use crate::storage::spill;

/// Memory for what is read where no training's bound holds.
pub const MEMORY: usize = 1 << 30;

/// Rows between two calls of `progress`.
const REPORT: u64 = 1 << 14;

/// A corpus and what identifies the data it was read from.
pub struct Read {
    /// The data.
    pub corpus: Corpus,
    /// `{"interactions": …, "users": …, "max_time": …}`, the time in Unix seconds, null where there is none.
    pub fingerprint: Value,
}

/// Reads all histories (and items, where bound) as the current user, under the active snapshot or a new one.
///
/// At most `memory` bytes of it stay in memory; more histories go to temporary files. `progress` gets how many
/// interactions have been read, and how many there are by the statistics of the relation (0: unknown). It is called
/// in between the rows of a statement, and must not ask the database anything.
pub fn read(
    recommender: &Recommender,
    needs: Needs,
    tasks: &[Task],
    memory: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Read> {
    let kind = match recommender.item_type {
        IdType::Integer | IdType::Bigint => IdKind::Int,
        IdType::Uuid => IdKind::Uuid,
        IdType::Text => IdKind::Text,
    };
    snapshot::under_one(|| {
        let mut builder = CorpusBuilder::bounded(kind, memory, spill::files());
        let fingerprint = read_events(recommender, needs, tasks, &mut builder, progress)?;
        read_items(recommender, needs, &mut builder)?;
        Ok(Read { corpus: builder.finish()?, fingerprint })
    })
}

/// How far a reading is, in words.
pub fn how_far(read: u64, expected: u64) -> String {
    match expected {
        0 => format!("reading, {read} interactions so far"),
        expected => format!("reading, {read} interactions of about {expected}"),
    }
}

fn read_events(
    recommender: &Recommender,
    needs: Needs,
    tasks: &[Task],
    builder: &mut CorpusBuilder,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Value> {
    let interactions = &recommender.interactions;
    // A time that is wanted for its maximum alone is read with the events where it orders them. Elsewhere it would
    // keep the scan from staying within the index.
    let (time, apart) = match &interactions.time {
        Some(time) if needs.times || interactions.order.contains(time) => (Some(time.as_str()), None),
        other => (None, other.as_deref()),
    };
    let expected = estimate(recommender)?;
    let mut histories = Histories::new(recommender, needs.times && time.is_some(), !tasks.is_empty(), builder);
    spi::each(Mode::Read, &events_statement(recommender, time, tasks)?, &[], |row| {
        histories.add(row)?;
        if histories.events.is_multiple_of(REPORT) {
            progress(histories.events, expected);
        }
        Ok(())
    })?;
    let Histories { users, events, latest, .. } = histories;
    progress(events, expected);
    let latest = match apart {
        Some(column) => latest_time(recommender, column)?,
        None => latest,
    };
    Ok(json!({ "interactions": events, "users": users, "max_time": latest }))
}

/// Columns: who, or whether a user begins (text); the item; the time; and, where there are tasks, what came of it.
///
/// The order of the users is no matter: descending, a backward scan of the covering index gives it without a sort
/// (5 million rows: 1.0 s; users ascending 2.1 s; without the index 2.6 s).
fn events_statement(recommender: &Recommender, time: Option<&str>, tasks: &[Task]) -> Result<String> {
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

fn latest_time(recommender: &Recommender, column: &str) -> Result<Option<f64>> {
    let interactions = &recommender.interactions;
    let sql = format!(
        "SELECT date_part('epoch', max({})) FROM {} WHERE {} IS NOT NULL AND {} IS NOT NULL",
        quoted(column),
        recommender.interactions_name()?,
        quoted(&interactions.user),
        quoted(&interactions.item),
    );
    Ok(spi::first(Mode::Read, &sql, &[], |row| Ok(row.get(0)))?.flatten())
}

/// How many interactions there are by the statistics; 0 for views and for tables that were never analysed.
fn estimate(recommender: &Recommender) -> Result<u64> {
    let rows = spi::first(
        Mode::Read,
        "SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = $1",
        &[Arg::Oid(recommender.interactions.relation)],
        |row| row.need::<i64>(0),
    )?;
    Ok(rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0))
}

/// Turns the rows of [`events_statement`] into histories.
struct Histories<'a> {
    builder: &'a mut CorpusBuilder,
    user_type: IdType,
    item_type: IdType,
    /// The user of the row before.
    present: Option<u128>,
    /// Whether every event so far had a time.
    timed: bool,
    /// Whether what came of the events is read.
    outcomes: bool,
    users: u64,
    events: u64,
    latest: Option<f64>,
}

impl<'a> Histories<'a> {
    fn new(recommender: &Recommender, timed: bool, outcomes: bool, builder: &'a mut CorpusBuilder) -> Self {
        Self {
            builder,
            user_type: recommender.user_type,
            item_type: recommender.item_type,
            present: None,
            timed,
            outcomes,
            users: 0,
            events: 0,
            latest: None,
        }
    }

    fn add(&mut self, row: &Row) -> Result<()> {
        if self.begins(row)? {
            self.builder.user()?;
            self.users += 1;
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
            IdType::Integer | IdType::Bigint => row.need::<i64>(0)? as u128,
            IdType::Uuid => u128::from_be_bytes(*row.need::<pgrx::Uuid>(0)?.as_bytes()),
            IdType::Text => return row.need(0),
        };
        Ok(self.present.replace(user) != Some(user))
    }
}

fn read_items(recommender: &Recommender, needs: Needs, builder: &mut CorpusBuilder) -> Result<()> {
    let (Some(items), Some(relation)) = (&recommender.items, recommender.items_name()?) else { return Ok(()) };
    let sql = format!(
        "SELECT {}, {} FROM {relation} WHERE {} IS NOT NULL",
        item_expression(&items.id, recommender.item_type),
        content_columns(items, needs),
        quoted(&items.id)
    );
    spi::each(Mode::Read, &sql, &[], |row| {
        let item = key(row, 0, recommender.item_type)?;
        builder.item(item)?;
        if let Some(json) = row.get::<&str>(1) {
            builder.attributes_json(item, json)?;
        }
        if let Some(vector) = row.get::<Vec<f32>>(2) {
            builder.vector(item, &vector)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// What is selected of items besides their ids: attributes as JSON text, and the vector as real[]; NULL for what there is
/// not, or is not needed.
pub fn content_columns(items: &Items, needs: Needs) -> String {
    let attributes = match (&items.attributes, needs.attributes) {
        (Some(column), true) => attributes(&quoted(column)),
        _ => "NULL::text".to_owned(),
    };
    let vector = match (&items.embedding, needs.vectors) {
        (Some(column), true) => format!("{}::real[]", quoted(column)),
        _ => "NULL::real[]".to_owned(),
    };
    format!("{attributes}, {vector}")
}

/// Attributes as JSON; of a tsvector its words.
fn attributes(column: &str) -> String {
    format!(
        "CASE pg_catalog.pg_typeof({column}) WHEN 'pg_catalog.tsvector'::pg_catalog.regtype \
         THEN pg_catalog.to_jsonb(pg_catalog.tsvector_to_array({column}::pg_catalog.text::pg_catalog.tsvector)) \
         ELSE pg_catalog.to_jsonb({column}) END::pg_catalog.text"
    )
}

/// The id in a column made by [`item_expression`], borrowed from the row.
fn key(row: &Row, index: usize, kind: IdType) -> Result<ItemKey<'_>> {
    Ok(match kind {
        IdType::Integer | IdType::Bigint => ItemKey::Int(row.need(index)?),
        IdType::Uuid => ItemKey::Uuid(*row.need::<pgrx::Uuid>(index)?.as_bytes()),
        IdType::Text => ItemKey::Text(row.need(index)?),
    })
}
