//! `rec_next`, `rec_next_many`, `rec_next_session`, `rec_score`, `rec_similar`, `rec_encode`, `rec_explain`.
//!
//! Every function has two doors: bigint, which is public, and text, which the typed functions of a recommender's
//! schema call. Both only build the request and print the rows.

use std::collections::HashSet;

use pgrx::prelude::*;
use pgrx::{JsonB, pg_extern};
use serde_json::{Map, Value, json};

use super::door::Door;
use crate::error::{Result, SqlError, or_raise};
use crate::ids::{self, Id};
use crate::pg::time::seconds;
use crate::serve::{self, Item, Scope, Session, Steer};

/// An array argument; NULL elements mean nothing and are dropped.
pub(super) type Ids<T> = Option<Vec<Option<T>>>;

pub(super) fn ids<T: Door>(array: Ids<T>) -> Vec<Id> {
    array.into_iter().flatten().flatten().map(Door::id).collect()
}

/// The arguments that all lists share.
pub(super) fn list_scope<T: Door>(
    k: Option<i32>,
    candidates: Ids<T>,
    exclude: Ids<T>,
    exclude_seen: bool,
    model: Option<String>,
    recommender: Option<String>,
) -> Scope {
    let candidates = candidates.map(|elements| ids(Some(elements)));
    Scope { recommender, model, k, candidates, exclude: ids(exclude), exclude_seen, ..Scope::default() }
}

/// Half of the way, where the caller does not say how far.
const WEIGHT: f32 = 0.5;

fn steered(steer: Option<Vec<Option<f32>>>, weight: Option<f32>) -> Result<Option<Steer>> {
    let Some(vector) = steer else { return Ok(None) };
    Ok(Some(Steer { vector: numbers(vector, "steer")?, weight: weight.unwrap_or(WEIGHT) }))
}

/// A vector that was given as an argument.
pub(super) fn numbers(array: Vec<Option<f32>>, argument: &str) -> Result<Vec<f32>> {
    let finite = |x: Option<f32>| x.filter(|x| x.is_finite());
    let numbers: Option<Vec<f32>> = array.into_iter().map(finite).collect();
    numbers.ok_or_else(|| SqlError::parameter(format!("{argument} holds something that is not a finite number")))
}

pub(super) fn ranked<T: Door>(items: Vec<Item>) -> Result<Vec<(i32, T, Option<f32>)>> {
    items.iter().enumerate().map(|(index, item)| Ok((index as i32 + 1, T::item(&item.id)?, Some(item.score)))).collect()
}

pub(super) fn open<T: Door>(scope: Scope, function: &str) -> Result<Session> {
    checked::<T>(Session::open(scope)?, function)
}

/// A session that this door may serve.
pub(super) fn checked<T: Door>(session: Session, function: &str) -> Result<Session> {
    if T::INTEGER {
        ids::require_integer_ids(&session.recommender, function)?;
    }
    Ok(session)
}

fn next<T: Door>(user: Option<T>, session: Ids<T>, scope: Scope) -> Result<Vec<(i32, T, Option<f32>)>> {
    let serving = open::<T>(scope, "rec_next")?;
    let history = serving.history(user.map(Door::id).as_ref(), &ids(session))?;
    ranked(serving.list(&history)?)
}

fn next_session<T: Door>(items: Ids<T>, scope: Scope) -> Result<Vec<(i32, T, Option<f32>)>> {
    let serving = open::<T>(scope, "rec_next_session")?;
    let history = serving.history(None, &ids(items))?;
    ranked(serving.list(&history)?)
}

type ManyRow<T> = (T, i32, T, Option<f32>);

fn next_many<T: Door>(users: Ids<T>, scope: Scope) -> Result<impl Iterator<Item = ManyRow<T>>> {
    let mut seen = HashSet::new();
    let users = ids(users).into_iter().filter(|user| seen.insert(user.clone())).collect();
    let rows = serve::next_many(open::<T>(scope, "rec_next_many")?, users);
    Ok(rows.map(|(user, rank, item)| (or_raise(T::user(user)), rank, or_raise(T::item(&item.id)), Some(item.score))))
}

fn score<T: Door + Clone>(
    user: Option<T>,
    items: Ids<T>,
    session: Ids<T>,
    scope: Scope,
) -> Result<Vec<(i32, T, Option<f32>)>> {
    let serving = open::<T>(scope, "rec_score")?;
    let mut given: Vec<T> = Vec::new();
    let mut wanted = Vec::new();
    let mut repeated = HashSet::new();
    for item in items.into_iter().flatten().flatten() {
        let id = item.clone().id();
        if repeated.insert(id.clone()) {
            wanted.push(id);
            given.push(item);
        }
    }
    let history = serving.history(user.map(Door::id).as_ref(), &ids(session))?;
    let scores = serving.score(&history, &wanted)?;
    let mut scored: Vec<(T, Option<f32>)> = given.into_iter().zip(scores).collect();
    scored.sort_by(|a, b| match (a.1, b.1) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    Ok(scored.into_iter().enumerate().map(|(index, (item, score))| (index as i32 + 1, item, score)).collect())
}

fn similar<T: Door>(item: Option<T>, scope: Scope) -> Result<Vec<(i32, T, Option<f32>)>> {
    let serving = open::<T>(scope, "rec_similar")?;
    let Some(item) = item.map(Door::id) else { return Ok(Vec::new()) };
    let id = ids::item_id(&item, serving.recommender.item_type)?;
    match serving.open.model.catalogue().index_of(&id) {
        Some(index) => ranked(serving.similar(index)?),
        None => Ok(Vec::new()),
    }
}

fn encode<T: Door>(user: Option<T>, session: Ids<T>, scope: Scope) -> Result<Option<Vec<f32>>> {
    let serving = open::<T>(scope, "rec_encode")?;
    let history = serving.history(user.map(Door::id).as_ref(), &ids(session))?;
    match serving.encode(&serving.query(&history, &[], 0)) {
        Err(error) if error.is_state() && history.is_empty() => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn explain<T: Door>(user: Option<T>, item: Option<T>, session: Ids<T>, scope: Scope) -> Result<Option<Value>> {
    let serving = open::<T>(scope, "rec_explain")?;
    let Some(item) = item.map(Door::id) else { return Ok(None) };
    let session = ids(session);
    let user = user.map(Door::id);
    let history = serving.history(user.as_ref(), &session)?;
    let stored = serving.history(user.as_ref(), &[])?;
    let (list, source) = serving.list_and_source(&history)?;
    let catalogue = serving.open.model.catalogue();
    let id = ids::item_id(&item, serving.recommender.item_type)?;
    let index = catalogue.index_of(&id);
    let mut explained = json!({
        "recommender": serving.recommender.name,
        "model": serving.open.row.name,
        "family": serving.open.row.family,
        "history": {
            "events": stored.items.len() + stored.unknown.len(),
            "known": stored.items.len(),
            "session": session.len(),
            "used": history.items.len().min(serving.open.model.window()),
        },
        "chain": ["history", "session", "popularity"],
        "answered_by": answered_by(&source, &stored, &history),
        "item": item.to_string(),
        "known": index.is_some(),
        "seen": index.map_or(history.unknown.contains(&id), |i| history.items.contains(&i)),
    });
    let score = serving.score(&history, &[item])?.first().copied().flatten();
    let Value::Object(fields) = &mut explained else { return Ok(Some(explained)) };
    // An item that the training did not know has a score where its content has placed it since.
    if index.is_some() || score.is_some() {
        fields.insert("score".into(), json!(score));
        fields.insert("rank".into(), json!(list.iter().position(|item| item.id == id).map(|place| place + 1)));
    }
    if index.is_none() && score.is_some() {
        fields.insert("placed".into(), json!(true));
    }
    if let Some(index) = index.filter(|_| !history.is_empty()) {
        match serving.open.model.explain(&serving.query(&history, &[], 10), index).map_err(SqlError::from) {
            Ok(mut reasons) => {
                name_items(&mut reasons, &|index| ids::as_text(&catalogue.id(index)), catalogue.len());
                fields.insert("reasons".into(), reasons);
            }
            // The history tells the model nothing.
            Err(error) if error.is_state() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(explained))
}

fn answered_by(
    source: &pgrec_engine::serve::Source,
    stored: &crate::history::History,
    all: &crate::history::History,
) -> &'static str {
    use pgrec_engine::serve::Source;
    match source {
        Source::Model if stored.items.is_empty() && !all.items.is_empty() => "session",
        Source::Model if all.items.is_empty() && !all.searches.is_empty() => "searches",
        Source::Model => "history",
        _ => "popularity",
    }
}

/// Replaces dense indices under the keys `item` and `items` by ids.
fn name_items(value: &mut Value, name: &dyn Fn(u32) -> String, items: usize) {
    let rename = |value: &mut Value| {
        if let Some(index) = value.as_u64().filter(|&i| i < items as u64) {
            *value = Value::String(name(index as u32));
        }
    };
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|e| name_items(e, name, items)),
        Value::Object(fields) => rename_fields(fields, &rename, name, items),
        _ => {}
    }
}

fn rename_fields(
    fields: &mut Map<String, Value>,
    rename: &dyn Fn(&mut Value),
    name: &dyn Fn(u32) -> String,
    items: usize,
) {
    for (key, value) in fields.iter_mut() {
        match (key.as_str(), &mut *value) {
            ("item", single) => rename(single),
            ("items", Value::Array(several)) => several.iter_mut().for_each(rename),
            (_, other) => name_items(other, name, items),
        }
    }
}

/// The two doors of one function: `bigint` and `text` differ in the id type alone.
macro_rules! doors {
    ($id:ty, $next:ident, $many:ident, $session:ident, $score:ident, $similar:ident, $encode:ident, $explain:ident) => {
        #[pg_extern(sql = false)]
        #[allow(clippy::too_many_arguments)]
        fn $next(
            user_id: Option<$id>,
            k: Option<i32>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            exclude_seen: Option<bool>,
            session: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
            steer: Option<Vec<Option<f32>>>,
            weight: Option<f32>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>))> {
            let scope = list_scope(k, candidates, exclude, exclude_seen.unwrap_or(true), model, recommender);
            let steer = or_raise(steered(steer, weight));
            TableIterator::new(or_raise(next(user_id, session, Scope { at: seconds(at), steer, ..scope })))
        }

        #[pg_extern(sql = false)]
        #[allow(clippy::too_many_arguments)]
        fn $many(
            user_ids: Option<Vec<Option<$id>>>,
            k: Option<i32>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            exclude_seen: Option<bool>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> TableIterator<
            'static,
            (name!(user_id, $id), name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>)),
        > {
            let scope = list_scope(k, candidates, exclude, exclude_seen.unwrap_or(true), model, recommender);
            TableIterator::new(or_raise(next_many(user_ids, Scope { at: seconds(at), ..scope })))
        }

        #[pg_extern(sql = false)]
        #[allow(clippy::too_many_arguments)]
        fn $session(
            item_ids: Option<Vec<Option<$id>>>,
            k: Option<i32>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            exclude_seen: Option<bool>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>))> {
            let scope = list_scope(k, candidates, exclude, exclude_seen.unwrap_or(true), model, recommender);
            TableIterator::new(or_raise(next_session(item_ids, Scope { at: seconds(at), ..scope })))
        }

        #[pg_extern(sql = false)]
        fn $score(
            user_id: Option<$id>,
            item_ids: Option<Vec<Option<$id>>>,
            session: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>))> {
            let scope = Scope { recommender, model, at: seconds(at), ..Scope::default() };
            TableIterator::new(or_raise(score(user_id, item_ids, session, scope)))
        }

        #[pg_extern(sql = false)]
        fn $similar(
            item_id: Option<$id>,
            k: Option<i32>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>))> {
            let scope = list_scope(k, candidates, exclude, false, model, recommender);
            TableIterator::new(or_raise(similar(item_id, scope)))
        }

        #[pg_extern(sql = false)]
        fn $encode(
            user_id: Option<$id>,
            session: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> Option<Vec<f32>> {
            or_raise(encode(user_id, session, Scope { recommender, model, at: seconds(at), ..Scope::default() }))
        }

        #[pg_extern(sql = false)]
        fn $explain(
            user_id: Option<$id>,
            item_id: Option<$id>,
            session: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> Option<JsonB> {
            let scope = Scope { recommender, model, exclude_seen: true, at: seconds(at), ..Scope::default() };
            or_raise(explain(user_id, item_id, session, scope)).map(JsonB)
        }
    };
}

doors!(
    i64,
    rec_next_bigint,
    rec_next_many_bigint,
    rec_next_session_bigint,
    rec_score_bigint,
    rec_similar_bigint,
    rec_encode_bigint,
    rec_explain_bigint
);
doors!(
    String,
    rec_next_text,
    rec_next_many_text,
    rec_next_session_text,
    rec_score_text,
    rec_similar_text,
    rec_encode_text,
    rec_explain_text
);
