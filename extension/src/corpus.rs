//! Everything of a recommender, streamed by cursor into the engine's corpus.

use pgrec_engine::Corpus;
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use serde_json::{Value, json};

use crate::catalog::IdType;
use crate::catalog::recommender::{Recommender, quoted};
use crate::error::{Result, SqlError};
use crate::history::{item_expression, item_of};
use crate::pg::spi::{self, Mode, Row};

/// What of the items is read besides their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Attributes.
    pub attributes: bool,
    /// Vectors.
    pub vectors: bool,
}

/// A corpus and what identifies the data it was read from.
pub struct Read {
    /// The data.
    pub corpus: Corpus,
    /// `{"interactions": …, "users": …, "max_time": …}`
    pub fingerprint: Value,
}

/// Reads all histories (and items, where bound) under one snapshot, as the current user.
pub fn read(recommender: &Recommender, mode: Mode, content: Content) -> Result<Read> {
    let kind = match recommender.item_type {
        IdType::Integer | IdType::Bigint => IdKind::Int,
        IdType::Uuid => IdKind::Uuid,
        IdType::Text => IdKind::Text,
    };
    let mut builder = CorpusBuilder::new(kind);
    let timed = has_times(recommender, mode)?;
    let (users, events, latest) = read_events(recommender, mode, timed, &mut builder)?;
    read_items(recommender, mode, content, &mut builder)?;
    let fingerprint = json!({ "interactions": events, "users": users, "max_time": latest });
    Ok(Read { corpus: builder.finish()?, fingerprint })
}

/// Whether every event has a time. No time is invented for those without: then none is used.
fn has_times(recommender: &Recommender, mode: Mode) -> Result<bool> {
    let Some(time) = &recommender.interactions.time else { return Ok(false) };
    let sql = format!("SELECT 1 FROM {} WHERE {} IS NULL LIMIT 1", recommender.interactions_name()?, quoted(time));
    Ok(spi::first(mode, &sql, &[], |_| Ok(()))?.is_none())
}

fn read_events(
    recommender: &Recommender,
    mode: Mode,
    timed: bool,
    builder: &mut CorpusBuilder,
) -> Result<(u64, u64, Option<f64>)> {
    let interactions = &recommender.interactions;
    let user = quoted(&interactions.user);
    let order: Vec<String> = interactions.order.iter().map(|c| format!("{} NULLS FIRST", quoted(c))).collect();
    let time = match (&interactions.time, timed) {
        (Some(column), true) => format!("date_part('epoch', {})", quoted(column)),
        _ => "NULL::float8".to_owned(),
    };
    let sql = format!(
        "SELECT {user} IS DISTINCT FROM lag({user}) OVER (ORDER BY {user}, {order}), {item}, {time} \
         FROM {relation} WHERE {user} IS NOT NULL AND {column} IS NOT NULL ORDER BY {user}, {order}",
        order = order.join(", "),
        item = item_expression(&interactions.item, recommender.item_type),
        relation = recommender.interactions_name()?,
        column = quoted(&interactions.item),
    );
    let (mut users, mut events, mut latest) = (0u64, 0u64, None::<f64>);
    let kind = recommender.item_type;
    spi::each(mode, &sql, &[], |row| {
        if row.get::<bool>(0) == Some(true) || events == 0 {
            builder.user()?;
            users += 1;
        }
        let time = row.get::<f64>(2);
        latest = match (latest, time) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        events += 1;
        with_key(row, 1, kind, |key| builder.event(key, time).map_err(SqlError::from))
    })?;
    Ok((users, events, latest))
}

fn read_items(recommender: &Recommender, mode: Mode, content: Content, builder: &mut CorpusBuilder) -> Result<()> {
    let (Some(items), Some(relation)) = (&recommender.items, recommender.items_name()?) else { return Ok(()) };
    let attributes = match (&items.attributes, content.attributes) {
        (Some(column), true) => format!("to_jsonb({})::text", quoted(column)),
        _ => "NULL::text".to_owned(),
    };
    let vector = match (&items.embedding, content.vectors) {
        (Some(column), true) => format!("{}::real[]", quoted(column)),
        _ => "NULL::real[]".to_owned(),
    };
    let sql = format!(
        "SELECT {}, {attributes}, {vector} FROM {relation} WHERE {} IS NOT NULL",
        item_expression(&items.id, recommender.item_type),
        quoted(&items.id)
    );
    let kind = recommender.item_type;
    spi::each(mode, &sql, &[], |row| {
        let json: Option<String> = row.get(1);
        let vector: Option<Vec<f32>> = row.get(2);
        with_key(row, 0, kind, |key| {
            builder.item(key)?;
            if let Some(json) = &json {
                builder.attributes_json(key, json)?;
            }
            if let Some(vector) = &vector {
                builder.vector(key, vector)?;
            }
            Ok(())
        })
    })?;
    Ok(())
}

fn with_key(row: &Row, index: usize, kind: IdType, work: impl FnOnce(ItemKey<'_>) -> Result<()>) -> Result<()> {
    if kind.is_integer() {
        return work(ItemKey::Int(row.need(index)?));
    }
    let id = item_of(row, index, kind).ok_or_else(|| SqlError::corrupted("an item id is NULL"))?;
    work(ItemKey::from(&id))
}
