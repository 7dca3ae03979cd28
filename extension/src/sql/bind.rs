//! Binding an application's own tables and views: what `rec_create` checks, and what it says about indexes.

use pgrx::pg_sys::Oid;

use super::create::{Binding, Request, SearchRequest};
use crate::catalog::recommender::{IdType, Searches, quoted};
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

    /// Refuses ids that are of another type than those of the interactions.
    fn require_same(&self, what: &str, kind: IdType, wanted: IdType) -> Result<()> {
        if kind == wanted || kind.is_integer() && wanted.is_integer() {
            return Ok(());
        }
        Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("{what} are {} in {} and {} in the interactions", kind.sql(), self.name, wanted.sql()),
        )
        .hint("Both must have the same type; a view can cast."))
    }

    /// A column of this name, where there is one of the right type.
    fn found(&self, column: &str, right: &dyn Fn(&str) -> bool) -> Option<String> {
        self.columns.iter().find(|(name, kind)| name == column && right(kind)).map(|(name, _)| name.clone())
    }

    fn times(&self) -> Vec<&String> {
        self.columns.iter().filter(|(_, kind)| is_time(kind)).map(|(name, _)| name).collect()
    }
}

fn is_time(kind: &str) -> bool {
    kind.starts_with("timestamp") || kind == "date"
}

fn is_vector(kind: &str) -> bool {
    kind.rsplit('.').next().is_some_and(|kind| kind == "vector" || kind == "halfvec")
}

fn is_text(kind: &str) -> bool {
    matches!(kind, "text" | "tsvector") || kind.starts_with("character")
}

fn is_number(kind: &str) -> bool {
    matches!(kind, "smallint" | "integer" | "bigint" | "real" | "double precision" | "numeric")
}

/// Checks the relations that were named and says how they are to be read.
pub(super) fn bind(request: &Request, interactions: Oid, config: String) -> Result<Binding> {
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
    let text = request.items.map(|items| bind_items(request, items, item_type)).transpose()?.flatten();
    let searches = request.searches.as_ref().map(|asked| bind_searches(asked, user_type, item_type)).transpose()?;
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
        text,
        searches,
        config,
    })
}

/// Checks the items relation, and says which column is searched.
fn bind_items(request: &Request, items: Oid, item_type: IdType) -> Result<Option<String>> {
    let items = Relation::open(items)?;
    let kind = items.id_type(&request.item_id_column, "item_id_column")?;
    items.require_same("items", kind, item_type)?;
    if let Some(title) = &request.title_column {
        items.column_type(title, "title_column")?;
    }
    let listed = |kind: &str| matches!(kind, "jsonb" | "json" | "tsvector") || kind.ends_with("[]");
    items.require(request.attributes_column.as_ref(), "attributes_column", &listed, "jsonb, an array or a tsvector")?;
    items.require(request.text_column.as_ref(), "text_column", &is_text, "a text or a tsvector")?;
    items.require(request.embedding_column.as_ref(), "embedding_column", &is_vector, "a vector")?;
    let title = request.title_column.as_ref().and_then(|title| items.found(title, &is_text));
    Ok(request.text_column.clone().or(title))
}

/// Checks the searches relation. Columns that are not named are those of the names that [`super::create`] would give them,
/// where they have the right type; the time is the only timestamp there is.
fn bind_searches(request: &SearchRequest, user_type: IdType, item_type: IdType) -> Result<Searches> {
    let searches = Relation::open(request.relation)?;
    let user = request.user.clone().unwrap_or_else(|| "user_id".into());
    searches.require_same("users", searches.id_type(&user, "search_user_column")?, user_type)?;
    searches.require(Some(&request.query), "query_column", &|kind| kind != "tsvector" && is_text(kind), "a text")?;
    let item =
        request.item.clone().or_else(|| searches.found("item_id", &|kind| IdType::from_column_type(kind).is_some()));
    if let Some(item) = &item {
        searches.require_same("items", searches.id_type(item, "search_item_column")?, item_type)?;
    }
    let array = |kind: &str| {
        let element = kind.strip_suffix("[]").and_then(IdType::from_column_type);
        element.is_some_and(|element| element == item_type || element.is_integer() && item_type.is_integer())
    };
    let columns = Searches {
        relation: request.relation,
        user,
        query: request.query.clone(),
        embedding: request.embedding.clone().or_else(|| searches.found("embedding", &is_vector)),
        item,
        time: request.time.clone().or_else(|| match searches.times().as_slice() {
            [only] => Some((*only).clone()),
            _ => searches.found("at", &is_time),
        }),
        shown: request.shown.clone().or_else(|| searches.found("shown", &array)),
        dwell: request.dwell.clone().or_else(|| searches.found("dwell", &is_number)),
    };
    searches.require(columns.embedding.as_ref(), "query_embedding_column", &is_vector, "a vector")?;
    searches.require(columns.time.as_ref(), "search_time_column", &is_time, "a timestamp or a date")?;
    searches.require(columns.shown.as_ref(), "shown_column", &array, &format!("{}[]", item_type.sql()))?;
    searches.require(columns.dwell.as_ref(), "dwell_column", &is_number, "a number")?;
    if !uses_index(&searches.name, &columns.user)? {
        SqlError::state(format!("no index finds one user's searches in {}", searches.name))
            .detail("Models that look at the latest searches read the whole relation until there is one.")
            .hint(search_index(&searches.name, &columns))
            .warn();
    }
    Ok(columns)
}

/// The index that finds one user's latest searches.
pub fn search_index(relation: &str, searches: &Searches) -> String {
    let time = searches.time.as_ref().map(|time| format!(", {} DESC NULLS LAST", quoted(time))).unwrap_or_default();
    format!("CREATE INDEX CONCURRENTLY ON {relation} ({}{time});", quoted(&searches.user))
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
