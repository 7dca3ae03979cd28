//! Making the tables, and bringing them up to date.

use std::rc::Rc;
use std::time::Instant;

use pgrec_engine::Query;
use pgrec_engine::families::Geometry;
use pgrx::pg_sys::Oid;
use rayon::prelude::*;

use super::{Published, ROWS, encoded, geometry, user_expression, user_of};
use crate::catalog::publication::{self, Publication};
use crate::catalog::recommender::quoted;
use crate::catalog::schemas::Schemas;
use crate::catalog::{IdType, Recommender, model};
use crate::compute;
use crate::error::{Result, SqlError};
use crate::history::{self, History, Wanted};
use crate::ids::{Id, Keys};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::time;
use crate::settings;
use crate::storage::open;

/// The views' names.
const ITEMS: &str = "item_vector";
pub(super) const USERS: &str = "user_vector";

/// Options of the indexes. Whoever looks for users near an item looks from where there are few: with the defaults of an index
/// the 50 nearest of a million users were found by nine tenths, however wide the search; with these .99 (and `bench audience`
/// took .9 instead of .5 ms).
const INDEX: &str = "connectivity = 32, expansion_add = 200, expansion_search = 128";

/// How many vectors were written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Of items.
    pub items: u64,
    /// Of users.
    pub users: u64,
}

/// Publishes the vectors of a model, the deployed one without a name, in place of what was published before. The tables of
/// that stay until the next time: for transactions that began before this one ends.
pub fn publish(recommender: &Rc<Recommender>, model: Option<&str>, users: bool) -> Result<Written> {
    recommender.require_owner("publish its vectors")?;
    let open = open::open_row(model::ready(Mode::Write, recommender, model)?)?;
    let geometry = geometry(&open)?;
    let before = publication::lock(recommender)?;
    let schemas = Schemas::find()?;
    let dim = open.model.item_vector(0).map_or(0, <[f32]>::len);
    if dim == 0 {
        return Err(SqlError::state(format!("model \"{}\" knows no items", open.row.name)));
    }
    let owner = recommender.owner_oid()?;
    let tables = Tables { recommender, schemas: &schemas, number: free_number(recommender)?, dim };
    let publication = role::as_owner_for(owner, || -> Result<Publication> {
        drop_tables(before.iter().flat_map(Publication::former))?;
        let items = tables.create(ITEMS, "item_id", recommender.item_type, "trained boolean NOT NULL")?;
        let users = match users {
            true => Some(tables.create(USERS, "user_id", recommender.user_type, "events integer NOT NULL")?),
            false => None,
        };
        let former = before.map(|before| [Some(before.items), before.users]).unwrap_or_default();
        Ok(Publication { model: open.row.id, items, users, former })
    })?;
    let published = Published { recommender: Rc::clone(recommender), open, geometry, publication, schemas };
    let written = role::as_owner_for(owner, || -> Result<Written> {
        let written = published.fill()?;
        published.index()?;
        published.describe(before.is_some_and(|before| before.users.is_some()))?;
        Ok(written)
    })?;
    publication::put(recommender, &published.publication)?;
    Ok(written)
}

/// A number that no table of vectors in the recommender's schema has.
fn free_number(recommender: &Recommender) -> Result<i64> {
    loop {
        let number = publication::next_number()?;
        let taken = [ITEMS, USERS].map(|name| find_table(&format!("{}.{name}_{number}", quoted(&recommender.name))));
        if taken.into_iter().collect::<Result<Vec<_>>>()?.into_iter().all(|taken| taken.is_none()) {
            return Ok(number);
        }
    }
}

fn find_table(name: &str) -> Result<Option<Oid>> {
    let sql = "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid";
    Ok(spi::first(Mode::Write, sql, &[Arg::Text(name)], |row| Ok(row.get::<Oid>(0)))?.flatten())
}

/// Drops what a recommender has published; gives whether there was something.
pub fn unpublish(recommender: &Recommender) -> Result<bool> {
    let Some(publication) = publication::lock(recommender)? else { return Ok(false) };
    publication::remove(recommender)?;
    let drop = || -> Result<()> {
        let views = [Some(ITEMS), publication.users.map(|_| USERS)];
        for view in views.into_iter().flatten() {
            spi::run(&format!("DROP VIEW IF EXISTS {}.{view}", quoted(&recommender.name)))?;
        }
        drop_tables([Some(publication.items), publication.users].into_iter().flatten().chain(publication.former()))
    };
    // Whoever may do this has been asked for the right to; where there is no owner any more that is a superuser.
    match recommender.owner_oid() {
        Ok(owner) => role::as_owner_for(owner, drop)?,
        Err(_) => drop()?,
    }
    Ok(true)
}

fn drop_tables(tables: impl Iterator<Item = Oid>) -> Result<()> {
    let names: Vec<String> = tables.filter_map(crate::pg::relation::qualified_name).collect();
    names.into_iter().try_for_each(|name| spi::run(&format!("DROP TABLE {name}")))
}

/// New tables of one publication.
struct Tables<'a> {
    recommender: &'a Recommender,
    schemas: &'a Schemas,
    number: i64,
    dim: usize,
}

impl Tables<'_> {
    fn create(&self, name: &str, key: &str, kind: IdType, more: &str) -> Result<Oid> {
        let table = format!("{}.{name}_{}", quoted(&self.recommender.name), self.number);
        spi::run(&format!(
            "CREATE TABLE {table} ({key} {} PRIMARY KEY, embedding {}.vector({}) NOT NULL, {more})",
            kind.sql(),
            self.schemas.vector,
            self.dim
        ))?;
        find_table(&table)?.ok_or_else(|| SqlError::corrupted(format!("table {table} is gone")))
    }
}

impl Published {
    fn fill(&self) -> Result<Written> {
        let mut said = Said::new("rec_publish_vectors");
        let catalogue = self.open.model.catalogue();
        let mut items = 0;
        let indices: Vec<u32> = (0..catalogue.len() as u32).collect();
        for slice in indices.chunks(ROWS) {
            let row = |&item: &u32| Some((catalogue.id(item), self.open.model.item_vector(item)?.to_vec()));
            items += self.put_items(&slice.iter().filter_map(row).collect::<Vec<_>>(), true)?;
            said.so_far(items, "items");
            crate::pg::interrupt::check();
        }
        items += self.place_new(|placed| said.so_far(items + placed, "items"))?;
        Ok(Written { items, users: self.put_all_users(&mut said)? })
    }

    /// Places items that are new, and users whose histories have changed; removes items and users that are gone.
    pub fn refresh(&self) -> Result<Written> {
        self.recommender.require_owner("bring its vectors up to date")?;
        role::as_owner_for(self.recommender.owner_oid()?, || {
            let mut said = Said::new("rec_refresh_vectors");
            self.remove_gone()?;
            let items = self.place_new(|placed| said.so_far(placed, "items"))?;
            Ok(Written { items, users: self.put_all_users(&mut said)? })
        })
    }

    fn remove_gone(&self) -> Result<()> {
        if let (Some(bound), Some(relation)) = (&self.recommender.items, self.recommender.items_name()?) {
            spi::execute(
                &format!(
                    "DELETE FROM {} t WHERE NOT t.trained AND NOT EXISTS (SELECT FROM {relation} i WHERE i.{} = t.item_id)",
                    self.items()?,
                    quoted(&bound.id)
                ),
                &[],
            )?;
        }
        if self.publication.users.is_some() {
            spi::execute(
                &format!(
                    "DELETE FROM {} t WHERE NOT EXISTS (SELECT FROM {} i WHERE i.{} = t.user_id)",
                    self.users()?,
                    self.recommender.interactions_name()?,
                    quoted(&self.recommender.interactions.user)
                ),
                &[],
            )?;
        }
        Ok(())
    }

    /// Computes the vectors of all users anew, and writes those that have changed.
    fn put_all_users(&self, said: &mut Said) -> Result<u64> {
        if self.publication.users.is_none() {
            return Ok(0);
        }
        let (mut after, mut written, mut read) = (None, 0, 0);
        loop {
            let users = self.users_after(after.as_ref())?;
            let Some(last) = users.last() else { return Ok(written) };
            after = Some(last.clone());
            written += self.put_users(&users)?;
            read += users.len() as u64;
            said.so_far(read, "users");
            crate::pg::interrupt::check();
        }
    }

    /// The next users of the interactions in the order of their ids.
    fn users_after(&self, after: Option<&Id>) -> Result<Vec<Id>> {
        let (column, kind) = (&self.recommender.interactions.user, self.recommender.user_type);
        let name = quoted(column);
        let beyond = after.map_or(String::new(), |_| match kind {
            IdType::Uuid => format!("AND {name} > $1::uuid"),
            _ => format!("AND {name} > $1"),
        });
        let sql = format!(
            "SELECT {} FROM (SELECT DISTINCT {name} FROM {} WHERE {name} IS NOT NULL {beyond} ORDER BY {name} LIMIT {ROWS}) u",
            user_expression(column, kind),
            self.recommender.interactions_name()?,
        );
        let args: Vec<Arg<'_>> = after
            .iter()
            .map(|id| match id {
                Id::Int(id) => Arg::Int8(*id),
                Id::Text(id) => Arg::Text(id),
            })
            .collect();
        spi::query(Mode::Write, &sql, &args, |row| user_of(row, 0, kind))
    }

    /// Computes the vectors of some users as their histories are now; gives how many rows have changed. Who has touched
    /// nothing that the model knows has none.
    pub fn put_users(&self, users: &[Id]) -> Result<u64> {
        let model = &*self.open.model;
        let events = settings::history_limit().min(model.window());
        let wanted = Wanted { events, times: model.timed(), tasks: model.tasks() };
        let histories = history::read_many(Mode::Write, &self.recommender, users, wanted, model.catalogue())?;
        let at = time::seconds(None);
        let vector = |history: &History| -> pgrec_engine::Result<Option<Vec<f32>>> {
            let History { items, times, outcomes, .. } = history;
            match items.is_empty() {
                true => Ok(None),
                false => encoded(model, &Query { history: items, times, outcomes, at, ..Query::default() }),
            }
        };
        // One user is computed here: to wake another thread would take longer.
        let vectors = match histories.as_slice() {
            [history] => vec![vector(history)?],
            _ => compute::run("vectors of users", |control| {
                let encode = |history: &History| {
                    control.check()?;
                    vector(history)
                };
                histories.par_iter().map(encode).collect()
            })?,
        };
        let (mut moved, mut nowhere) = (Vec::new(), Vec::new());
        for ((user, history), vector) in users.iter().zip(&histories).zip(vectors) {
            match vector {
                Some(vector) => moved.push((user, history.items.len() as i32, vector)),
                None => nowhere.push(user),
            }
        }
        Ok(self.write_users(&moved)? + self.remove_users(&nowhere)?)
    }

    /// Writes vectors of users, and of how many events they are made; gives how many rows have changed.
    fn write_users(&self, rows: &[(&Id, i32, Vec<f32>)]) -> Result<u64> {
        let Some((.., first)) = rows.first() else { return Ok(0) };
        let (kind, schema) = (self.recommender.user_type, &self.schemas.vector);
        let sql = format!(
            "INSERT INTO {table} AS t (user_id, embedding, events) \
             SELECT u.id::{kind}, ($2::pg_catalog.float4[])[(u.n - 1) * $3 + 1 : u.n * $3]::{schema}.vector, u.events \
             FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($4)) WITH ORDINALITY u (id, events, n) \
             ON CONFLICT (user_id) DO UPDATE SET embedding = excluded.embedding, events = excluded.events \
             WHERE t.embedding OPERATOR({schema}.<>) excluded.embedding OR t.events <> excluded.events",
            table = self.users()?,
            kind = kind.sql(),
        );
        let keys = Keys::new(rows.iter().map(|(user, ..)| *user), kind)?;
        let counts: Vec<i32> = rows.iter().map(|(_, events, _)| *events).collect();
        let numbers: Vec<f32> = rows.iter().flat_map(|(.., vector)| vector).copied().collect();
        let dim = Arg::Int8(first.len() as i64);
        spi::execute(&sql, &[keys.arg(), Arg::Float4s(&numbers), dim, Arg::Int4s(&counts)])
    }

    /// Removes vectors of users; gives how many there were.
    fn remove_users(&self, users: &[&Id]) -> Result<u64> {
        if users.is_empty() {
            return Ok(0);
        }
        let kind = self.recommender.user_type;
        let keys = Keys::new(users.iter().copied(), kind)?;
        let sql = format!("DELETE FROM {} WHERE user_id = {}", self.users()?, keys.any(1));
        spi::execute(&sql, &[keys.arg()])
    }

    /// Removes a user's vector; gives whether there was one.
    pub fn forget(&self, user: &Id) -> Result<bool> {
        if self.publication.users.is_none() {
            return Ok(false);
        }
        Ok(role::as_owner_for(self.recommender.owner_oid()?, || self.remove_users(&[user]))? > 0)
    }

    /// Indexes, once the tables are full: that is faster than to grow them.
    fn index(&self) -> Result<()> {
        let operators = match self.geometry {
            Geometry::Distance => "vector_l2_ops",
            Geometry::Product => "vector_ip_ops",
        };
        let own = &self.schemas.own;
        let index = |table: &str, only: &str| {
            let using = format!("USING usearch (embedding {own}.{operators}) WITH ({INDEX})");
            spi::run(&format!("CREATE INDEX ON {table} {using} {only}"))
        };
        let items = self.items()?;
        index(&items, "")?;
        index(&items, "WHERE NOT trained")?;
        if self.publication.users.is_some() {
            index(&self.users()?, "")?;
        }
        Ok(())
    }

    /// Views under names that stay, and what columns mean.
    fn describe(&self, had_users: bool) -> Result<()> {
        let (schema, name) = (quoted(&self.recommender.name), &self.recommender.name);
        let vector = &self.schemas.vector;
        let meaning = match self.geometry {
            Geometry::Distance => "a score is minus the squared distance of a user's and an item's (<->)",
            Geometry::Product => "a score is the inner product of a user's and an item's (<#> is minus that)",
        };
        let view = |view: &str, table: &str, key: &str, more: &str, what: &str, of_more: &str| -> Result<()> {
            spi::run(&format!(
                "CREATE OR REPLACE VIEW {schema}.{view} AS SELECT {key}, embedding::{vector}.vector AS embedding, {more} FROM {table}"
            ))?;
            for (kind, relation) in [("VIEW", format!("{schema}.{view}")), ("TABLE", table.to_owned())] {
                let comment = format!(
                    "Vectors of {what} as a model of recommender {name} has them: {meaning}. Written by rec_publish_vectors, rec_refresh_vectors and their triggers."
                );
                spi::run(&format!("COMMENT ON {kind} {relation} IS {}", pgrx::spi::quote_literal(comment)))?;
                for (column, comment) in [(key, "The id."), ("embedding", "The vector."), (more, of_more)] {
                    let comment = pgrx::spi::quote_literal(comment);
                    spi::run(&format!("COMMENT ON COLUMN {relation}.{column} IS {comment}"))?;
                }
            }
            Ok(())
        };
        let trained = "Whether the training knew the item; else its content has placed it since.";
        view(ITEMS, &self.items()?, "item_id", "trained", "items", trained)?;
        if self.publication.users.is_none() {
            return match had_users {
                true => spi::run(&format!("DROP VIEW IF EXISTS {schema}.{USERS}")),
                false => Ok(()),
            };
        }
        view(USERS, &self.users()?, "user_id", "events", "users", "How many events of the history it is made of.")
    }
}

/// Says how far something is, every now and then.
pub(super) struct Said {
    what: &'static str,
    last: Instant,
}

impl Said {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, last: Instant::now() }
    }

    pub(super) fn so_far(&mut self, done: u64, of: &str) {
        if self.last.elapsed() >= compute::REPORT {
            self.last = Instant::now();
            pgrx::notice!("{}: {done} {of} so far", self.what);
        }
    }
}
