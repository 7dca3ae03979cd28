//! `rec_generate`.

use pgrec_engine::families::generative::Generated;
use pgrx::pg_extern;
use pgrx::prelude::*;

use super::door::Door;
use super::serve::{Ids, ids, list_scope, open};
use crate::codes::to_bytes;
use crate::error::{Result, SqlError, or_raise};
use crate::serve::{Item, Scope};

type Row<T> = (i32, T, f32, Vec<u8>, Option<f32>, bool);

fn generate<T: Door>(
    user: Option<T>,
    beam: Option<i32>,
    session: Ids<T>,
    words: Option<Vec<Option<String>>>,
    scope: Scope,
) -> Result<Vec<Row<T>>> {
    let beam = beam.map(|beam| {
        usize::try_from(beam).ok().filter(|&beam| beam > 0).ok_or_else(|| {
            SqlError::parameter(format!("beam must be positive, and is {beam}")).hint("NULL takes the model's own.")
        })
    });
    let beam = beam.transpose()?;
    let serving = open::<T>(scope, "rec_generate")?;
    let history = serving.history(user.map(Door::id).as_ref(), &ids(session))?;
    let words: Vec<String> = words.unwrap_or_default().into_iter().flatten().collect();
    let found = serving.generate(&history, &serving.words(&words)?, beam)?;
    let codes = serving.open.model.semantic_ids();
    let row = |(rank, (item, how)): (i32, (Item, Generated))| {
        let index = serving.open.model.catalogue().index_of(&item.id);
        let code = codes.zip(index).map(|(codes, index)| codes.code(index)).unwrap_or_default();
        Ok((rank, T::item(&item.id)?, item.score, to_bytes(code), how.agreement, how.kept))
    };
    (1..).zip(found).map(row).collect()
}

macro_rules! door {
    ($id:ty, $generate:ident) => {
        #[pg_extern(sql = false)]
        #[allow(clippy::too_many_arguments)]
        fn $generate(
            user_id: Option<$id>,
            k: Option<i32>,
            beam: Option<i32>,
            candidates: Option<Vec<Option<$id>>>,
            exclude: Option<Vec<Option<$id>>>,
            exclude_seen: Option<bool>,
            session: Option<Vec<Option<$id>>>,
            words: Option<Vec<Option<String>>>,
            model: Option<String>,
            recommender: Option<String>,
        ) -> TableIterator<
            'static,
            (
                name!(rank, i32),
                name!(item_id, $id),
                name!(score, f32),
                name!(path, Vec<u8>),
                name!(agreement, Option<f32>),
                name!(kept, bool),
            ),
        > {
            let scope = list_scope(k, candidates, exclude, exclude_seen.unwrap_or(true), model, recommender);
            TableIterator::new(or_raise(generate(user_id, beam, session, words, scope)))
        }
    };
}

door!(i64, rec_generate_bigint);
door!(String, rec_generate_text);
