//! Binding an application's own tables and views: what `rec_create` checks, and what it says about indexes.

use pgrx::pg_sys::Oid;

use super::create::{Binding, Request};
use crate::catalog::recommender::{IdType, quoted};
use crate::error::{Result, SqlError};
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::{relation, role};

/// A relation of the application, with its columns and their types as `format_type` names them.
struct Relation {
    name: String,
    columns: Vec<(String, String)>,
}

impl Relation {
    fn open(oid: Oid) -> Result<Self> {
        let name = relation::qualified_name(oid).ok_or_else(|| SqlError::undefined("the relation does not exist"))?;
        if !matches!(kind(oid)?.as_deref(), Some("r" | "p" | "v" | "m" | "f")) {
            return Err(SqlError::new(
                pgrx::PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{name} is not a table or view"),
            ));
        }
        if !relation::may_select(oid) {
            return Err(SqlError::privilege(format!("permission denied for {name}"))
                .hint(format!("GRANT SELECT ON {name} TO {};", quoted(&role::current_name()))));
        }
        let columns = spi::query(
            Mode::Write,
            "SELECT attname::text, pg_catalog.format_type(atttypid, NULL) FROM pg_catalog.pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[Arg::Oid(oid)],
            |row| Ok((row.need::<String>(0)?, row.need::<String>(1)?)),
        )?;
        Ok(Self { name, columns })
    }

    fn column_type(&self, column: &str, argument: &str) -> Result<&str> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, kind)| kind.as_str()).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
            SqlError::new(
                pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("{} has no column \"{column}\"", self.name),
            )
            .detail(format!("Its columns are {}.", names.join(", ")))
            .hint(format!("Name the column with {argument} => '…'."))
        })
    }

    fn id_type(&self, column: &str, argument: &str) -> Result<IdType> {
        let kind = self.column_type(column, argument)?;
        IdType::from_column_type(kind).ok_or_else(|| {
            SqlError::new(
                pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {}.{} is {kind}", self.name, quoted(column)),
            )
            .hint("Ids are integer, bigint, uuid or text; a view can cast.")
        })
    }

    fn require(
        &self,
        column: Option<&String>,
        argument: &str,
        allowed: &dyn Fn(&str) -> bool,
        wanted: &str,
    ) -> Result<()> {
        let Some(column) = column else { return Ok(()) };
        let kind = self.column_type(column, argument)?;
        if allowed(kind) {
            return Ok(());
        }
        Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("{argument} {}.{} is {kind}", self.name, quoted(column)),
        )
        .hint(format!("It must be {wanted}; a view can cast.")))
    }

    fn times(&self) -> Vec<&String> {
        self.columns.iter().filter(|(_, kind)| is_time(kind)).map(|(name, _)| name).collect()
    }
}

fn is_time(kind: &str) -> bool {
    kind.starts_with("timestamp") || kind == "date"
}

fn is_number(kind: &str) -> bool {
    matches!(kind, "smallint" | "integer" | "bigint" | "real" | "double precision" | "numeric")
}

/// Checks the relations that were named and says how they are to be read.
pub(super) fn bind(request: &Request, interactions: Oid) -> Result<Binding> {
    let events = Relation::open(interactions)?;
    let user_type = events.id_type(&request.user_column, "user_column")?;
    let item_type = events.id_type(&request.item_column, "item_column")?;
    let time = match (&request.time_column, &request.order_column, events.times().as_slice()) {
        (Some(time), _, _) => Some(time.clone()),
        (None, Some(_), _) => None,
        (None, None, [only]) => Some((*only).clone()),
        (None, None, _) => {
            return Err(SqlError::parameter(format!("what orders the events of {}?", events.name)).hint(
                "Name the column with time_column => '…' (a timestamp) or order_column => '…' (a sequence number).",
            ));
        }
    };
    events.require(time.as_ref(), "time_column", &is_time, "a timestamp or a date")?;
    if let Some(order) = &request.order_column {
        events.column_type(order, "order_column")?;
    }
    events.require(request.weight_column.as_ref(), "weight_column", &is_number, "a number")?;
    if let Some(action) = &request.action_column {
        events.column_type(action, "action_column")?;
    }
    let first = request.order_column.clone().or_else(|| time.clone());
    // The item breaks ties, so that the same rows always give the same history.
    let order: Vec<String> = first.into_iter().chain([request.item_column.clone()]).collect();
    if let Some(items) = request.items {
        bind_items(request, items, item_type)?;
    }
    if !uses_index(&events.name, &request.user_column)? {
        SqlError::state(format!("no index finds one user's events in {}", events.name))
            .detail("Every call reads the whole relation until there is one.")
            .hint(index_remedy(interactions, &events.name, &request.user_column, &request.item_column, &order)?)
            .warn();
    }
    Ok(Binding {
        user_type,
        item_type,
        interactions,
        order,
        time,
        weight: request.weight_column.clone(),
        action: request.action_column.clone(),
        items: request.items,
        title: request.title_column.clone(),
        attributes: request.attributes_column.clone(),
        embedding: request.embedding_column.clone(),
        searches: None,
    })
}

fn bind_items(request: &Request, items: Oid, item_type: IdType) -> Result<()> {
    let items = Relation::open(items)?;
    let kind = items.id_type(&request.item_id_column, "item_id_column")?;
    if kind != item_type && !(kind.is_integer() && item_type.is_integer()) {
        return Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("items are {} in {} and {} in the interactions", kind.sql(), items.name, item_type.sql()),
        )
        .hint("Both must have the same type; a view can cast."));
    }
    if let Some(title) = &request.title_column {
        items.column_type(title, "title_column")?;
    }
    let listed = |kind: &str| matches!(kind, "jsonb" | "json" | "tsvector") || kind.ends_with("[]");
    items.require(request.attributes_column.as_ref(), "attributes_column", &listed, "jsonb, an array or a tsvector")?;
    let vector = |kind: &str| kind.rsplit('.').next().is_some_and(|k| k == "vector" || k == "halfvec");
    items.require(request.embedding_column.as_ref(), "embedding_column", &vector, "a vector")
}

/// Asks the planner, which also sees through views: is there an index for one user's events?
pub fn uses_index(relation: &str, user_column: &str) -> Result<bool> {
    let former = spi::first(Mode::Write, "SELECT pg_catalog.current_setting('enable_seqscan')", &[], |row| {
        row.need::<String>(0)
    })?;
    spi::run("SELECT pg_catalog.set_config('enable_seqscan', 'off', true)")?;
    let plan = spi::query(
        Mode::Write,
        &format!(
            "EXPLAIN (COSTS OFF) SELECT * FROM {relation} WHERE {0} = (SELECT {0} FROM {relation} LIMIT 1)",
            quoted(user_column)
        ),
        &[],
        |row| row.need::<String>(0),
    )?;
    spi::query(
        Mode::Write,
        "SELECT pg_catalog.set_config('enable_seqscan', $1, true)",
        &[Arg::Text(former.as_deref().unwrap_or("on"))],
        |_| Ok(()),
    )?;
    Ok(plan.iter().any(|line| line.contains("Index Cond")))
}

/// What to do where no index finds one user's events.
pub fn index_remedy(
    relation: Oid,
    name: &str,
    user_column: &str,
    item_column: &str,
    order: &[String],
) -> Result<String> {
    if kind(relation)?.as_deref() == Some("v") {
        return Ok(format!(
            "Give the table behind the view an index that begins with what the view shows as {}, then {}.",
            quoted(user_column),
            order.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(index_statement(name, user_column, item_column, order))
}

fn kind(relation: Oid) -> Result<Option<String>> {
    spi::first(
        Mode::Write,
        "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = $1",
        &[Arg::Oid(relation)],
        |row| row.need::<String>(0),
    )
}

fn index_statement(relation: &str, user_column: &str, item_column: &str, order: &[String]) -> String {
    let keys: Vec<String> = order.iter().map(|c| format!("{} DESC NULLS LAST", quoted(c))).collect();
    let include = if order.iter().any(|c| c == item_column) {
        String::new()
    } else {
        format!(" INCLUDE ({})", quoted(item_column))
    };
    format!("CREATE INDEX CONCURRENTLY ON {relation} ({}, {}){include};", quoted(user_column), keys.join(", "))
}
