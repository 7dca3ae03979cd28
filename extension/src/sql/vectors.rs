//! `rec_publish_vectors`, `rec_refresh_vectors`, `rec_unpublish_vectors`, `rec_near`, `rec_audience`, `rec_forget`.

use std::collections::HashSet;
use std::rc::Rc;

use pgrec_engine::ItemContent;
use pgrx::pg_extern;
use pgrx::prelude::*;

use super::door::Door;
use super::serve::{Ids, ids as ids_of, numbers};
use crate::catalog::recommender::{self, Recommender};
use crate::error::{Result, SqlError, or_raise};
use crate::ids;
use crate::pg::spi::Mode;
use crate::pg::time::seconds;
use crate::serve::{Scope, Session};
use crate::vectors::Published;
use crate::vectors::audience::{Listener, Subject};
use crate::vectors::near::Among;
use crate::vectors::publish::{self, Written};

/// `k` of `rec_near` and of `rec_audience` where the caller gave NULL.
const NEAR: i32 = 10;
const AUDIENCE: i32 = 100;

type WrittenRow = (i64, i64);

fn row(written: Written) -> WrittenRow {
    (written.items as i64, written.users as i64)
}

#[pg_extern(sql = false)]
fn rec_publish_vectors(
    model: Option<String>,
    users: Option<bool>,
    recommender: Option<String>,
) -> TableIterator<'static, (name!(items, i64), name!(users, i64))> {
    let publish = || {
        let recommender = recommender::resolve(Mode::Write, recommender.as_deref())?;
        publish::publish(&recommender, model.as_deref(), users.unwrap_or(true))
    };
    TableIterator::once(row(or_raise(publish())))
}

#[pg_extern(sql = false)]
fn rec_refresh_vectors(recommender: Option<String>) -> TableIterator<'static, (name!(items, i64), name!(users, i64))> {
    let refresh = || {
        let recommender = recommender::resolve(Mode::Write, recommender.as_deref())?;
        Published::open(Mode::Write, &recommender)?.refresh()
    };
    TableIterator::once(row(or_raise(refresh())))
}

#[pg_extern(sql = false)]
fn rec_unpublish_vectors(recommender: Option<String>) -> bool {
    let unpublish = || {
        let recommender = recommender::resolve(Mode::Write, recommender.as_deref())?;
        recommender.require_owner("drop its published vectors")?;
        publish::unpublish(&recommender)
    };
    or_raise(unpublish())
}

/// A recommender that this door serves and whose interactions the caller may read.
fn readable<T: Door>(mode: Mode, name: Option<&str>, function: &str) -> Result<Rc<Recommender>> {
    let recommender = recommender::resolve(mode, name)?;
    recommender.require_readable()?;
    if T::INTEGER {
        ids::require_integer_ids(&recommender, function)?;
    }
    Ok(recommender)
}

fn count(k: Option<i32>, default: i32) -> Result<usize> {
    let k = k.unwrap_or(default);
    usize::try_from(k).map_err(|_| SqlError::parameter(format!("k must not be negative, and is {k}")))
}

fn near<T: Door>(
    user: Option<T>,
    k: Option<i32>,
    exclude: Ids<T>,
    exclude_seen: bool,
    session: Ids<T>,
    at: f64,
    recommender: Option<String>,
) -> Result<Vec<(i32, T, f32)>> {
    let found = readable::<T>(Mode::Read, recommender.as_deref(), "rec_near")?;
    let published = Published::open(Mode::Read, &found)?;
    let scope = Scope {
        recommender: Some(found.name.clone()),
        model: Some(published.open.row.name.clone()),
        exclude: ids_of(exclude),
        exclude_seen,
        at,
        ..Scope::default()
    };
    let serving = Session::open(scope)?;
    let history = serving.history(user.map(Door::id).as_ref(), &ids_of(session))?;
    let Some(vector) = serving.vector(&history)? else { return Ok(Vec::new()) };
    let mut left_out: HashSet<_> = serving.excluded_ids();
    if serving.excludes_seen() {
        let catalogue = serving.open.model.catalogue();
        left_out.extend(history.items.iter().map(|&item| catalogue.id(item)));
        left_out.extend(history.unknown);
    }
    let near = published.near(&serving, &vector, Among::All, &left_out, count(k, NEAR)?)?;
    (1..).zip(near).map(|(rank, near)| Ok((rank, T::item(&near.item)?, near.distance))).collect()
}

type AudienceRow<T> = (i32, T, f32, Option<f32>);

fn listeners<T: Door>(found: Vec<Listener>) -> Result<Vec<AudienceRow<T>>> {
    let row = |(rank, found): (i32, Listener)| {
        Ok((rank, T::user(found.user)?, found.distance, found.probability.map(|p| p as f32)))
    };
    (1..).zip(found).map(row).collect()
}

/// For whom: an item, or what an item that need not exist is described by.
struct Asked<T> {
    item: Option<T>,
    embedding: Option<Vec<Option<f32>>>,
    attributes: Option<Vec<Option<String>>>,
}

impl<T: Door> Asked<T> {
    fn subject(self, published: &Published) -> Result<Option<Subject>> {
        let vector = self.embedding.map(|vector| numbers(vector, "embedding")).transpose()?;
        let attributes: Vec<String> = self.attributes.into_iter().flatten().flatten().collect();
        let described = vector.is_some() || !attributes.is_empty();
        match self.item {
            Some(_) if described => {
                Err(SqlError::parameter("an audience of an item, or of what embedding and attributes describe?")
                    .hint("Leave item_id out for something that is not in the items relation."))
            }
            Some(item) => published.subject(&item.id()),
            None if described => {
                published.described(&ItemContent { vector: vector.as_deref(), attributes: &attributes }).map(Some)
            }
            None => Ok(None),
        }
    }
}

fn audience<T: Door>(
    asked: Asked<T>,
    k: Option<i32>,
    exclude_seen: bool,
    recommender: Option<String>,
) -> Result<Vec<AudienceRow<T>>> {
    let recommender = readable::<T>(Mode::Read, recommender.as_deref(), "rec_audience")?;
    let published = Published::open(Mode::Read, &recommender)?;
    match asked.subject(&published)? {
        Some(subject) => listeners(published.audience(&subject, count(k, AUDIENCE)?, exclude_seen)?),
        None => Ok(Vec::new()),
    }
}

fn forget<T: Door>(user: Option<T>, recommender: Option<String>) -> Result<bool> {
    let Some(user) = user.map(Door::id) else { return Ok(false) };
    let recommender = recommender::resolve(Mode::Write, recommender.as_deref())?;
    recommender.require_owner("make it forget a user")?;
    if T::INTEGER {
        ids::require_integer_ids(&recommender, "rec_forget")?;
    }
    match crate::catalog::publication::of(&recommender) {
        Some(_) => Published::open(Mode::Write, &recommender)?.forget(&user),
        None => Ok(false),
    }
}

macro_rules! doors {
    ($id:ty, $near:ident, $audience:ident, $forget:ident) => {
        #[pg_extern(sql = false)]
        #[allow(clippy::too_many_arguments)]
        fn $near(
            user_id: Option<$id>,
            k: Option<i32>,
            exclude: Option<Vec<Option<$id>>>,
            exclude_seen: Option<bool>,
            session: Option<Vec<Option<$id>>>,
            at: Option<TimestampWithTimeZone>,
            recommender: Option<String>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(distance, f32))> {
            let (seen, at) = (exclude_seen.unwrap_or(true), seconds(at));
            TableIterator::new(or_raise(near(user_id, k, exclude, seen, session, at, recommender)))
        }

        #[pg_extern(sql = false)]
        #[allow(clippy::type_complexity, reason = "the columns stand in the signature")]
        fn $audience(
            item_id: Option<$id>,
            k: Option<i32>,
            embedding: Option<Vec<Option<f32>>>,
            attributes: Option<Vec<Option<String>>>,
            exclude_seen: Option<bool>,
            recommender: Option<String>,
        ) -> TableIterator<
            'static,
            (name!(rank, i32), name!(user_id, $id), name!(distance, f32), name!(probability, Option<f32>)),
        > {
            let asked = Asked { item: item_id, embedding, attributes };
            TableIterator::new(or_raise(audience(asked, k, exclude_seen.unwrap_or(true), recommender)))
        }

        #[pg_extern(sql = false)]
        fn $forget(user_id: Option<$id>, recommender: Option<String>) -> bool {
            or_raise(forget(user_id, recommender))
        }
    };
}

doors!(i64, rec_near_bigint, rec_audience_bigint, rec_forget_bigint);
doors!(String, rec_near_text, rec_audience_text, rec_forget_text);
