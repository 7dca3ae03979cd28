//! `rec_search`, `rec_demand`, `rec_keywords`.

use pgrx::pg_extern;
use pgrx::prelude::*;

use super::door::Door;
use super::serve::{Ids, checked, list_scope, numbers, ranked};
use crate::catalog::model;
use crate::catalog::recommender;
use crate::error::{Result, SqlError, or_raise};
use crate::ids::{self, Id};
use crate::pg::spi::Mode;
use crate::pg::time::seconds;
use crate::search::{self, Request};
use crate::serve::{Scope, Session};
use crate::storage::open::{self, OpenModel};

type ListRow<T> = (i32, T, Option<f32>);

fn search<T: Door>(
    user: Option<T>,
    query: Option<String>,
    embedding: Option<Vec<Option<f32>>>,
    exclude_seen: Option<bool>,
    scope: Scope,
) -> Result<Vec<ListRow<T>>> {
    let embedding = embedding.map(|vector| numbers(vector, "embedding")).transpose()?;
    let recommender = recommender::resolve(Mode::Read, scope.recommender.as_deref())?;
    if T::INTEGER {
        ids::require_integer_ids(&recommender, "rec_search")?;
    }
    let user: Option<Id> = user.map(Door::id);
    ranked(search::search(Request { user, query: query.unwrap_or_default(), embedding, scope, exclude_seen })?)
}

/// Serving from the model of that name; without one from the deployed one, if it is of this family, else from the newest of it.
fn open_of<T: Door>(scope: Scope, family: &str, function: &str) -> Result<Session> {
    let recommender = recommender::resolve(Mode::Read, scope.recommender.as_deref())?;
    let own = |open: &OpenModel| open.row.family == family;
    let found = open::suiting(Mode::Read, &recommender, scope.model.as_deref(), own, family)?.ok_or_else(|| {
        SqlError::state(format!("recommender \"{}\" has no model of family \"{family}\"", recommender.name))
            .detail(model::overview(&recommender))
            .hint(format!("CALL rec_train('{family}', recommender => '{}');", recommender.name.replace('\'', "''")))
    })?;
    checked::<T>(Session::with(recommender, found, scope)?, function)
}

fn keywords<T: Door>(words: Ids<String>, scope: Scope) -> Result<Vec<ListRow<T>>> {
    let serving = open_of::<T>(scope, "keywords", "rec_keywords")?;
    let words: Vec<String> = words.into_iter().flatten().flatten().collect();
    ranked(serving.list_for(&search::words(&serving.recommender, &words)?)?)
}

type DemandRow = (i32, String, f32);

fn demand<T: Door>(user: Option<T>, item: Option<T>, session: Ids<T>, scope: Scope) -> Result<Vec<DemandRow>> {
    let serving = open_of::<T>(scope, "dual_intent", "rec_demand")?;
    let Some(item) = item.map(Door::id) else { return Ok(Vec::new()) };
    let history = serving.history(user.map(Door::id).as_ref(), &super::serve::ids(session))?;
    let words = serving.demand(&history, &item)?;
    Ok((1..).zip(words).map(|(rank, (word, weight))| (rank, word, weight)).collect())
}

macro_rules! doors {
    ($id:ty, $search:ident, $keywords:ident, $demand:ident) => {
        #[pg_extern(sql = false)]
        #[allow(clippy::too_many_arguments)]
        fn $search(
            user_id: Option<$id>,
            query: Option<String>,
            k: Option<i32>,
            embedding: Option<Vec<Option<f32>>>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            exclude_seen: Option<bool>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>))> {
            let scope = list_scope(k, candidates, exclude, false, model, recommender);
            let scope = Scope { at: seconds(at), ..scope };
            TableIterator::new(or_raise(search(user_id, query, embedding, exclude_seen, scope)))
        }

        #[pg_extern(sql = false)]
        fn $keywords(
            words: Option<Vec<Option<String>>>,
            k: Option<i32>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(item_id, $id), name!(score, Option<f32>))> {
            let scope = list_scope(k, candidates, exclude, false, model, recommender);
            TableIterator::new(or_raise(keywords(words, scope)))
        }

        #[pg_extern(sql = false)]
        fn $demand(
            user_id: Option<$id>,
            item_id: Option<$id>,
            k: Option<i32>,
            session: Option<Vec<Option<$id>>>,
            model: Option<String>,
            recommender: Option<String>,
            at: Option<TimestampWithTimeZone>,
        ) -> TableIterator<'static, (name!(rank, i32), name!(word, String), name!(weight, f32))> {
            let scope = Scope { recommender, model, k, at: seconds(at), ..Scope::default() };
            TableIterator::new(or_raise(demand(user_id, item_id, session, scope)))
        }
    };
}

doors!(i64, rec_search_bigint, rec_keywords_bigint, rec_demand_bigint);
doors!(String, rec_search_text, rec_keywords_text, rec_demand_text);
