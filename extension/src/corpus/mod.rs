//! Everything of a recommender, streamed from the executor into the engine's corpus.

mod events;
mod joint;

use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::CorpusBuilder;
use pgrec_engine::families::Needs;
use pgrec_engine::{Corpus, Task};
use serde_json::{Value, json};

use crate::catalog::IdType;
use crate::catalog::recommender::{Items, Recommender, quoted};
use crate::error::Result;
use crate::history::item_expression;
use crate::pg::snapshot;
use crate::pg::spi::{self, Arg, Mode};
use crate::storage::spill;
use events::{Histories, key};
pub use joint::common_order;

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
    let sought = needs.searches && recommender.searches.is_some();
    let statement = match sought {
        true => joint::with_searches(recommender, time, tasks, needs)?,
        false => events::alone(recommender, time, tasks)?,
    };
    let timed = needs.times && time.is_some();
    let mut histories = Histories::new(recommender, timed, !tasks.is_empty(), sought, builder);
    spi::each(Mode::Read, &statement, &[], |row| {
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

fn read_items(recommender: &Recommender, needs: Needs, builder: &mut CorpusBuilder) -> Result<()> {
    let (Some(items), Some(relation)) = (&recommender.items, recommender.items_name()?) else { return Ok(()) };
    let sql = format!(
        "SELECT {}, {}, {} FROM {relation} WHERE {} IS NOT NULL",
        item_expression(&items.id, recommender.item_type),
        content_columns(items, needs),
        words_column(recommender, items, needs),
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
        if let Some(words) = row.get::<Vec<Option<String>>>(3) {
            builder.words(item, words.iter().flatten().map(String::as_str))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The words of the items' text as text[]; NULL where there is none, or none is needed.
fn words_column(recommender: &Recommender, items: &Items, needs: Needs) -> String {
    match (&items.text, needs.words) {
        (Some(column), true) => {
            format!("pg_catalog.tsvector_to_array({})", recommender.words_of(items.relation, column))
        }
        _ => "NULL::text[]".to_owned(),
    }
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
