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
    /// Tables of what was published before, which stay until the next time.
    pub former: [Option<Oid>; 2],
}

impl Publication {
    /// The tables of what was published before.
    pub fn former(&self) -> impl Iterator<Item = Oid> + use<> {
        self.former.into_iter().flatten()
    }
}

/// What a recommender has published, under the caller's snapshot.
pub fn of(recommender: &Recommender) -> Option<Publication> {
    let key = Key::Int8(recommender.id);
    lookup::first(c"publication", c"publication_pkey", 1, key, |row| {
        Some(Publication {
            model: row.get(2)?,
            items: row.get(3)?,
            users: row.get(4),
            former: [row.get(5), row.get(6)],
        })
    })
    .flatten()
}

/// What a recommender has published at last; whoever else wants to publish waits until this transaction ends.
pub fn lock(recommender: &Recommender) -> Result<Option<Publication>> {
    role::as_catalog(|| {
        let id = [Arg::Int8(recommender.id)];
        spi::execute("SELECT 1 FROM rec.recommender WHERE recommender_id = $1 FOR NO KEY UPDATE", &id)?;
        let sql = "SELECT model_id, items::pg_catalog.oid, users::pg_catalog.oid, former_items::pg_catalog.oid, \
            former_users::pg_catalog.oid FROM rec.publication WHERE recommender_id = $1";
        spi::first(Mode::Write, sql, &id, |row| {
            Ok(Publication {
                model: row.need(0)?,
                items: row.need(1)?,
                users: row.get(2),
                former: [row.get(3), row.get(4)],
            })
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
    let [former_items, former_users] = publication.former;
    let oid = |oid: Option<Oid>| Arg::Oid(oid.unwrap_or(Oid::INVALID));
    role::as_catalog(|| {
        spi::execute(
            "INSERT INTO rec.publication (recommender_id, model_id, items, users, former_items, former_users) \
             VALUES ($1, $2, $3, nullif($4, 0), nullif($5, 0), nullif($6, 0)) \
             ON CONFLICT (recommender_id) DO UPDATE SET model_id = excluded.model_id, items = excluded.items, \
                 users = excluded.users, former_items = excluded.former_items, former_users = excluded.former_users, \
                 published_at = excluded.published_at",
            &[
                Arg::Int8(recommender.id),
                Arg::Int8(publication.model),
                Arg::Oid(publication.items),
                oid(publication.users),
                oid(former_items),
                oid(former_users),
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
