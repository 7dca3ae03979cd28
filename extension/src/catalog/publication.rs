//! Published vectors: which model's, and in which tables of the recommender's schema.

use pgrx::pg_sys::Oid;

use super::Recommender;
use crate::error::{Result, SqlError};
use crate::pg::lookup::{self, Key};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};

/// One recommender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    /// The model.
    pub model: i64,
    /// Table of the items' vectors.
    pub items: Oid,
    /// Table of the users' vectors, where those are published.
    pub users: Option<Oid>,
}

/// What a recommender has published, under the caller's snapshot.
pub fn of(recommender: &Recommender) -> Option<Publication> {
    let key = Key::Int8(recommender.id);
    lookup::first(c"publication", c"publication_pkey", 1, key, |row| {
        Some(Publication { model: row.get(2)?, items: row.get(3)?, users: row.get(4) })
    })
    .flatten()
}

/// What a recommender has published at last; whoever else wants to publish waits until this transaction ends.
pub fn lock(recommender: &Recommender) -> Result<Option<Publication>> {
    role::as_catalog(|| {
        let id = [Arg::Int8(recommender.id)];
        spi::execute("SELECT 1 FROM rec.recommender WHERE recommender_id = $1 FOR UPDATE", &id)?;
        let sql = "SELECT model_id, items::pg_catalog.oid, users::pg_catalog.oid FROM rec.publication WHERE recommender_id = $1";
        spi::first(Mode::Write, sql, &id, |row| {
            Ok(Publication { model: row.need(0)?, items: row.need(1)?, users: row.get(2) })
        })
    })
}

/// A number that no table of vectors has had yet.
pub fn next_number() -> Result<i64> {
    let next = role::as_catalog(|| {
        spi::first(Mode::Write, "SELECT nextval('rec.publication_number')", &[], |row| row.need::<i64>(0))
    })?;
    next.ok_or_else(|| SqlError::corrupted("rec.publication_number gives no number"))
}

/// Says what is published from now on.
pub fn put(recommender: &Recommender, publication: &Publication) -> Result<()> {
    let users = publication.users.map_or(0, Oid::to_u32);
    role::as_catalog(|| {
        spi::execute(
            "INSERT INTO rec.publication (recommender_id, model_id, items, users) \
             VALUES ($1, $2, $3::pg_catalog.regclass, nullif($4, 0)::pg_catalog.oid::pg_catalog.regclass) \
             ON CONFLICT (recommender_id) DO UPDATE SET model_id = excluded.model_id, items = excluded.items, \
                 users = excluded.users, published_at = excluded.published_at",
            &[
                Arg::Int8(recommender.id),
                Arg::Int8(publication.model),
                Arg::Oid(publication.items),
                Arg::Int8(i64::from(users)),
            ],
        )
    })?;
    Ok(())
}

/// Says that nothing is published any more.
pub fn remove(recommender: &Recommender) -> Result<()> {
    role::as_catalog(|| {
        spi::execute("DELETE FROM rec.publication WHERE recommender_id = $1", &[Arg::Int8(recommender.id)])
    })?;
    Ok(())
}
