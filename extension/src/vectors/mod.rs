//! Vectors of a model's items and users in tables of the recommender's schema, with an index each: what is near is found
//! there, and what has come since the training is put there.

pub mod audience;
pub mod near;
pub mod place;
pub mod placed;
pub mod publish;

use std::rc::Rc;

use pgrec_engine::families::Geometry;
use pgrec_engine::{Model, Query};
use pgrx::pg_sys::Oid;

use crate::catalog::publication::{self, Publication};
use crate::catalog::recommender::quoted;
use crate::catalog::schemas::Schemas;
use crate::catalog::{IdType, Recommender};
use crate::error::{Result, SqlError};
use crate::ids::Id;
use crate::pg::relation;
use crate::pg::spi::{self, Arg, Mode, Row};
use crate::storage::open::{self, OpenModel};

/// Rows that are written at a time.
const ROWS: usize = 1024;

/// Published vectors, and the model they are of.
pub struct Published {
    /// The recommender.
    pub recommender: Rc<Recommender>,
    /// The model.
    pub open: Rc<OpenModel>,
    /// How its vectors make a score.
    pub geometry: Geometry,
    publication: Publication,
    schemas: Rc<Schemas>,
}

impl Published {
    /// What a recommender has published.
    pub fn open(mode: Mode, recommender: &Rc<Recommender>) -> Result<Self> {
        let publication = publication::of(recommender).ok_or_else(|| {
            SqlError::state(format!("recommender \"{}\" has published no vectors", recommender.name)).hint(
                "SELECT * FROM rec_publish_vectors(); puts those of the deployed model into tables with an index.",
            )
        })?;
        Self::of_model(publication, recommender, open::open_id(mode, publication.model)?)
    }

    /// What is published of a model that the session has open; none where it is another's, or nothing is.
    pub fn of_open(recommender: &Rc<Recommender>, open: &Rc<OpenModel>) -> Result<Option<Self>> {
        match publication::of(recommender).filter(|publication| publication.model == open.row.id) {
            Some(publication) => Self::of_model(publication, recommender, Rc::clone(open)).map(Some),
            None => Ok(None),
        }
    }

    fn of_model(publication: Publication, recommender: &Rc<Recommender>, open: Rc<OpenModel>) -> Result<Self> {
        let geometry = geometry(&open)?;
        Ok(Self { recommender: Rc::clone(recommender), open, geometry, publication, schemas: Schemas::find()? })
    }

    /// The table of the items' vectors.
    fn items(&self) -> Result<String> {
        self.table(self.publication.items)
    }

    /// The table of the users' vectors.
    fn users(&self) -> Result<String> {
        let users = self.publication.users.ok_or_else(|| {
            SqlError::state(format!("recommender \"{}\" has published no vectors of users", self.recommender.name))
                .hint("SELECT * FROM rec_publish_vectors(users => true);")
        })?;
        self.table(users)
    }

    fn table(&self, oid: Oid) -> Result<String> {
        relation::qualified_name(oid).ok_or_else(|| {
            SqlError::new(
                pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("a table of vectors of recommender \"{}\" has been dropped", self.recommender.name),
            )
            .hint("SELECT * FROM rec_publish_vectors(); makes it again.")
        })
    }

    /// The `most` rows of a relation with the nearest vectors, nearest first: what `read` gives of `columns`, and the
    /// distance that its index is ordered by. `condition` begins with WHERE, or is empty.
    fn nearest<T>(
        &self,
        relation: &str,
        columns: &str,
        condition: &str,
        vector: &[f32],
        most: usize,
        mut read: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<(T, f32)>> {
        let operator = match self.geometry {
            Geometry::Distance => "<->",
            Geometry::Product => "<#>",
        };
        let schema = &self.schemas.vector;
        let distance = format!("(embedding OPERATOR({schema}.{operator}) $1::{schema}.vector)");
        let sql = format!(
            "SELECT {distance}::pg_catalog.float4, {columns} FROM {relation} {condition} ORDER BY {distance} LIMIT {most}"
        );
        spi::query(Mode::Read, &sql, &[Arg::Float4s(vector)], |row| Ok((read(row)?, row.need(0)?)))
    }
}

/// How a model's vectors make a score.
pub fn geometry(open: &OpenModel) -> Result<Geometry> {
    open.model.geometry().ok_or_else(|| {
        SqlError::parameter(format!("model \"{}\" has no vectors that make its scores", open.row.name))
            .detail(format!("It is of family \"{}\".", open.row.family))
            .hint("Models of the families cml, content, sasrec, hstu and bpr have.")
    })
}

/// The vector of a query's history; None of one that tells the model nothing.
pub fn encoded(model: &dyn Model, query: &Query<'_>) -> pgrec_engine::Result<Option<Vec<f32>>> {
    match model.encode(query) {
        Err(pgrec_engine::Error::Data(_)) => Ok(None),
        other => other.map(Some),
    }
}

/// Asks for more and more until `k` of what is found are kept, or there is no more. `ask` gives so many, and `keep` those of
/// them that count, both nearest first.
fn growing<T, U>(
    k: usize,
    mut ask: impl FnMut(usize) -> Result<Vec<T>>,
    mut keep: impl FnMut(Vec<T>) -> Result<Vec<U>>,
) -> Result<Vec<U>> {
    // Powers of two: few statements to be planned.
    let mut most = k.saturating_add(k / 2).max(16).checked_next_power_of_two().unwrap_or(1 << 30).min(1 << 30);
    loop {
        let found = ask(most)?;
        let whole = found.len() < most || most == 1 << 30;
        let mut kept = keep(found)?;
        if kept.len() >= k || whole {
            kept.truncate(k);
            return Ok(kept);
        }
        most = (4 * most).min(1 << 30);
    }
}

/// How a column of user ids is selected so that [`user_of`] reads it.
fn user_expression(column: &str, kind: IdType) -> String {
    let column = quoted(column);
    if kind.is_integer() { format!("{column}::bigint") } else { format!("{column}::text") }
}

/// A user's id in a result column.
fn user_of(row: &Row, index: usize, kind: IdType) -> Result<Id> {
    Ok(if kind.is_integer() { Id::Int(row.need(index)?) } else { Id::Text(row.need(index)?) })
}
