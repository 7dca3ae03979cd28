//! `rec_import` and `rec_export`.

use pgrec_engine::{ItemId, checkpoint};
use pgrx::{JsonB, pg_extern};
use serde_json::{Map, Value};

use crate::catalog::model::Cut;
use crate::catalog::recommender::{self, Recommender, quoted};
use crate::catalog::{artifact, model};
use crate::compute;
use crate::error::{Result, SqlError, or_raise};
use crate::history::{item_expression, item_of};
use crate::ids::{self, Id};
use crate::pg::role;
use crate::pg::spi::{self, Mode};
use crate::storage::open;

/// Largest value that fits a bytea.
const BYTEA_LIMIT: usize = (1 << 30) - 64;

/// The arguments both imports share.
struct Request {
    name: Option<String>,
    items: Option<Vec<Option<String>>>,
    params: Value,
    leave_last: Option<i32>,
    recommender: Option<String>,
}

impl Request {
    fn new(
        name: Option<String>,
        items: Option<Vec<Option<String>>>,
        params: Option<JsonB>,
        leave_last: Option<i32>,
        recommender: Option<String>,
    ) -> Self {
        let params = params.map_or_else(|| Value::Object(Map::new()), |p| p.0);
        Self { name, items, params, leave_last, recommender }
    }
}

#[pg_extern(sql = false)]
fn rec_import_bytes(
    name: Option<String>,
    weights: Option<&[u8]>,
    items: Option<Vec<Option<String>>>,
    params: Option<JsonB>,
    leave_last: Option<i32>,
    recommender: Option<String>,
) -> String {
    let request = Request::new(name, items, params, leave_last, recommender);
    let weights = weights.ok_or_else(|| SqlError::parameter("weights must not be NULL"));
    or_raise(weights.and_then(|weights| import(&request, weights)))
}

#[pg_extern(sql = false)]
fn rec_import_file(
    name: Option<String>,
    path: Option<String>,
    items: Option<Vec<Option<String>>>,
    params: Option<JsonB>,
    leave_last: Option<i32>,
    recommender: Option<String>,
) -> String {
    let request = Request::new(name, items, params, leave_last, recommender);
    or_raise(read_file(path.as_deref()).and_then(|weights| import(&request, &weights)))
}

#[pg_extern(sql = false)]
fn rec_export(model: Option<String>, recommender: Option<String>) -> Vec<u8> {
    or_raise(export(model.as_deref(), recommender.as_deref()))
}

fn read_file(path: Option<&str>) -> Result<Vec<u8>> {
    let Some(path) = path else { return Err(SqlError::parameter("path must not be NULL")) };
    if !role::has_predefined("pg_read_server_files") {
        return Err(SqlError::privilege("permission denied to read files on the server")
            .detail("Only roles with the rights of \"pg_read_server_files\" may.")
            .hint("Send the bytes with rec_import instead."));
    }
    std::fs::read(path).map_err(|e| {
        let code = match e.kind() {
            std::io::ErrorKind::NotFound => pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
            std::io::ErrorKind::PermissionDenied => pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            _ => pgrx::PgSqlErrorCode::ERRCODE_IO_ERROR,
        };
        SqlError::new(code, format!("could not read \"{path}\": {e}"))
            .hint("The path is one on the server, readable by the server's user.")
    })
}

fn import(request: &Request, weights: &[u8]) -> Result<String> {
    let recommender = recommender::resolve(Mode::Write, request.recommender.as_deref())?;
    recommender.require_owner("import models into it")?;
    let rows = rows(&recommender, request.items.as_deref().unwrap_or(&[]))?;
    let cut = match request.leave_last {
        None => Cut::Unknown,
        Some(n) => Cut::LeaveLast(u32::try_from(n).map_err(|_| {
            SqlError::parameter(format!("leave_last is {n}")).hint("0 or more, or NULL when nobody knows.")
        })?),
    };
    let mut builder =
        compute::run("rec_import", |control| checkpoint::import(weights, &rows, &request.params, control))?;
    let counts = role::as_owner_for(recommender.owner_oid()?, || counts(&recommender, builder.ids()))?;
    let items = builder.ids().len();
    let bytes = builder.counts(counts).finish()?;
    let name = Some(request.name.as_deref().unwrap_or(""));
    let new = model::New { family: builder.family(), params: &request.params, state: "training", seed: None };
    let (id, name) = model::create(&recommender, name, &new)?;
    let checksum = artifact::store(id, &bytes)?;
    let facts = model::Facts {
        params: &request.params,
        cut: &cut.to_json(),
        metrics: &Value::Object(Map::new()),
        items,
        bytes: bytes.len(),
        checksum,
        training: None,
    };
    model::finish(id, &facts)?;
    Ok(name)
}

fn rows(recommender: &Recommender, items: &[Option<String>]) -> Result<Vec<Option<ItemId>>> {
    items
        .iter()
        .map(|id| id.as_ref().map(|id| ids::item_id(&Id::Text(id.clone()), recommender.item_type)).transpose())
        .collect()
}

/// How often each item was touched: what the model falls back to for users of whom nothing is known.
fn counts(recommender: &Recommender, items: &pgrec_engine::ItemIds) -> Result<Vec<f32>> {
    let mut counts = vec![0.0; items.len()];
    let column = &recommender.interactions.item;
    let sql = format!(
        "SELECT {}, count(*) FROM {} WHERE {} IS NOT NULL GROUP BY 1",
        item_expression(column, recommender.item_type),
        recommender.interactions_name()?,
        quoted(column)
    );
    spi::each(Mode::Write, &sql, &[], |row| {
        let index = item_of(row, 0, recommender.item_type).and_then(|id| items.index_of(&id));
        if let Some(count) = index.and_then(|i| counts.get_mut(i as usize)) {
            *count = row.need::<i64>(1)? as f32;
        }
        Ok(())
    })?;
    Ok(counts)
}

fn export(name: Option<&str>, recommender: Option<&str>) -> Result<Vec<u8>> {
    let recommender = recommender::resolve(Mode::Read, recommender)?;
    recommender.require_owner("export its models")?;
    let open = open::open(&recommender, name)?;
    let bytes = checkpoint::export(&open.artifact)?;
    if bytes.len() > BYTEA_LIMIT {
        return Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("model \"{}\" has {} bytes, more than a bytea holds", open.row.name, bytes.len()),
        ));
    }
    Ok(bytes)
}
