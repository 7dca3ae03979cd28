//! `rec_create` and `rec_drop`.

use pgrx::pg_extern;
use pgrx::pg_sys::Oid;

use super::typed;
use crate::catalog::recommender::{self, IdType, quoted};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::{relation, role};
use crate::storage::cache;

/// What `rec_create` was asked for.
struct Request {
    name: String,
    interactions: Option<Oid>,
    user_column: String,
    item_column: String,
    order_column: Option<String>,
    time_column: Option<String>,
    weight_column: Option<String>,
    action_column: Option<String>,
    items: Option<Oid>,
    item_id_column: String,
    title_column: Option<String>,
    attributes_column: Option<String>,
    embedding_column: Option<String>,
    user_type: Option<Oid>,
    item_type: Option<Oid>,
    dimension: Option<i32>,
}

/// What goes into `rec.recommender`.
struct Binding {
    user_type: IdType,
    item_type: IdType,
    interactions: Oid,
    order: Vec<String>,
    time: Option<String>,
    weight: Option<String>,
    action: Option<String>,
    items: Option<Oid>,
    title: Option<String>,
    attributes: Option<String>,
    embedding: Option<String>,
    searches: Option<Oid>,
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn rec_create(
    name: Option<String>,
    interactions: Option<Oid>,
    user_column: Option<&std::ffi::CStr>,
    item_column: Option<&std::ffi::CStr>,
    order_column: Option<&std::ffi::CStr>,
    time_column: Option<&std::ffi::CStr>,
    weight_column: Option<&std::ffi::CStr>,
    action_column: Option<&std::ffi::CStr>,
    items: Option<Oid>,
    item_id_column: Option<&std::ffi::CStr>,
    title_column: Option<&std::ffi::CStr>,
    attributes_column: Option<&std::ffi::CStr>,
    embedding_column: Option<&std::ffi::CStr>,
    user_type: Option<Oid>,
    item_type: Option<Oid>,
    dimension: Option<i32>,
) -> String {
    let text = |name: Option<&std::ffi::CStr>| name.map(|n| n.to_string_lossy().into_owned());
    or_raise(create(Request {
        name: name.unwrap_or_default(),
        interactions,
        user_column: text(user_column).unwrap_or_else(|| "user_id".into()),
        item_column: text(item_column).unwrap_or_else(|| "item_id".into()),
        order_column: text(order_column),
        time_column: text(time_column),
        weight_column: text(weight_column),
        action_column: text(action_column),
        items,
        item_id_column: text(item_id_column).unwrap_or_else(|| "item_id".into()),
        title_column: text(title_column),
        attributes_column: text(attributes_column),
        embedding_column: text(embedding_column),
        user_type,
        item_type,
        dimension,
    }))
}

#[pg_extern(sql = false)]
fn rec_drop(name: Option<String>, tables: Option<bool>) {
    or_raise(drop(name.as_deref(), tables.unwrap_or(false)));
}

fn create(request: Request) -> Result<String> {
    check_name(&request.name)?;
    make_schema(&request.name)?;
    let binding = match request.interactions {
        None => create_tables(&request)?,
        Some(interactions) => bind(&request, interactions)?,
    };
    insert(&request, &binding)?;
    typed::create(&request.name, binding.user_type, binding.item_type)?;
    Ok(request.name)
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 63 {
        return Err(SqlError::parameter("a recommender's name has 1 to 63 bytes: it is also a schema's"));
    }
    if name == "rec" || name == "information_schema" || name.starts_with("pg_") {
        return Err(SqlError::parameter(format!("\"{name}\" is reserved"))
            .hint("Choose another name: the recommender gets a schema of that name."));
    }
    let taken =
        spi::first(Mode::Write, "SELECT 1 FROM rec.recommender WHERE name = $1", &[Arg::Text(name)], |_| Ok(()))?;
    if taken.is_some() {
        return Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("recommender \"{name}\" already exists"),
        )
        .hint(format!("SELECT rec_drop('{}'); drops it and keeps its tables.", name.replace('\'', "''"))));
    }
    Ok(())
}

fn make_schema(name: &str) -> Result<()> {
    let exists = spi::first(
        Mode::Write,
        "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1",
        &[Arg::Text(name)],
        |_| Ok(()),
    )?;
    if exists.is_none() {
        let may = spi::first(
            Mode::Write,
            "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
             pg_catalog.quote_ident(pg_catalog.current_database())",
            &[],
            |row| Ok((row.need::<bool>(0)?, row.need::<String>(1)?)),
        )?;
        if let Some((false, database)) = may {
            return Err(SqlError::privilege(format!("permission denied to create schema {}", quoted(name)))
                .detail("A recommender's typed functions, and the tables made for it, are in a schema of its name.")
                .hint(format!("GRANT CREATE ON DATABASE {database} TO {};", quoted(&role::current_name()))));
        }
        spi::run(&format!(
            "CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS {1}",
            quoted(name),
            pgrx::spi::quote_literal(format!(
                "Recommender {name}: its typed functions and, where it made them, its tables."
            ))
        ))?;
    }
    Ok(())
}

fn id_type(oid: Option<Oid>, what: &str) -> Result<IdType> {
    let Some(oid) = oid else { return Ok(IdType::Bigint) };
    let name = spi::first(Mode::Write, "SELECT pg_catalog.format_type($1, NULL)", &[Arg::Oid(oid)], |row| {
        row.need::<String>(0)
    })?
    .unwrap_or_default();
    IdType::from_column_type(&name).ok_or_else(|| {
        SqlError::parameter(format!("{what} cannot be {name}")).hint("Ids are integer, bigint, uuid or text.")
    })
}

fn create_tables(request: &Request) -> Result<Binding> {
    let users = id_type(request.user_type, "user_type")?;
    let items = id_type(request.item_type, "item_type")?;
    let vector = match request.dimension {
        None => String::new(),
        Some(d) if (1..=16_000).contains(&d) => format!("({d})"),
        Some(d) => {
            return Err(SqlError::parameter(format!("dimension must be between 1 and 16000, and is {d}")));
        }
    };
    let schema = quoted(&request.name);
    let vector_schema = spi::first(
        Mode::Write,
        "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
        &[],
        |row| row.need::<String>(0),
    )?
    .ok_or_else(|| SqlError::undefined("extension vector is not installed"))?;
    let ddl = include_str!("tables.sql")
        .replace("@schema@", &schema)
        .replace("@user@", users.sql())
        .replace("@item@", items.sql())
        .replace("@vector@", &format!("{vector_schema}.vector{vector}"));
    for table in ["interaction", "item", "search"] {
        if existing(&request.name, table)?.is_some() {
            return Err(SqlError::new(
                pgrx::PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
                format!("table {schema}.{table} already exists"),
            )
            .hint(format!(
                "Bind it instead: SELECT rec_create('{}', interactions => '{schema}.interaction', …), or choose another name.",
                request.name.replace('\'', "''")
            )));
        }
    }
    spi::run(&ddl)?;
    let made = |table: &str| {
        existing(&request.name, table)?
            .ok_or_else(|| SqlError::corrupted(format!("table {schema}.{table} was not created")))
    };
    Ok(Binding {
        user_type: users,
        item_type: items,
        interactions: made("interaction")?,
        order: vec!["at".into(), "position".into()],
        time: Some("at".into()),
        weight: Some("weight".into()),
        action: Some("action".into()),
        items: Some(made("item")?),
        title: Some("title".into()),
        attributes: Some("attributes".into()),
        embedding: Some("embedding".into()),
        searches: Some(made("search")?),
    })
}

fn existing(schema: &str, table: &str) -> Result<Option<Oid>> {
    spi::first(
        Mode::Write,
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2",
        &[Arg::Text(schema), Arg::Text(table)],
        |row| row.need::<Oid>(0),
    )
}

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

fn bind(request: &Request, interactions: Oid) -> Result<Binding> {
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
    let listed = |kind: &str| kind == "jsonb" || kind == "json" || kind.ends_with("[]");
    items.require(request.attributes_column.as_ref(), "attributes_column", &listed, "jsonb or an array")?;
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

fn insert(request: &Request, binding: &Binding) -> Result<()> {
    let owner = role::current_name();
    let optional =
        |value: &Option<String>| -> String { value.as_deref().map_or_else(|| "NULL".into(), pgrx::spi::quote_literal) };
    let relation = |oid: Option<Oid>| oid.map_or_else(|| "NULL".into(), |oid| format!("{}::regclass", oid.to_u32()));
    let item_id = binding.items.map(|_| request.item_id_column.clone());
    let sql = format!(
        "INSERT INTO rec.recommender (name, owner, user_type, item_type, interactions, user_column, item_column, \
         order_columns, time_column, weight_column, action_column, items, item_id_column, title_column, \
         attributes_column, embedding_column, searches) \
         VALUES ({}, {}, '{}', '{}', {}, {}, {}, ARRAY[{}], {}, {}, {}, {}, {}, {}, {}, {}, {})",
        pgrx::spi::quote_literal(&request.name),
        pgrx::spi::quote_literal(&owner),
        binding.user_type.sql(),
        binding.item_type.sql(),
        relation(Some(binding.interactions)),
        pgrx::spi::quote_literal(&request.user_column),
        pgrx::spi::quote_literal(&request.item_column),
        binding.order.iter().map(pgrx::spi::quote_literal).collect::<Vec<_>>().join(", "),
        optional(&binding.time),
        optional(&binding.weight),
        optional(&binding.action),
        relation(binding.items),
        optional(&item_id),
        optional(&binding.title),
        optional(&binding.attributes),
        optional(&binding.embedding),
        relation(binding.searches),
    );
    role::as_catalog(|| spi::run(&sql))
}

fn drop(name: Option<&str>, tables: bool) -> Result<()> {
    let Some(name) = name else {
        return Err(SqlError::parameter("which recommender?").hint("SELECT rec_drop('…');"));
    };
    let recommender = recommender::resolve(Mode::Write, Some(name))?;
    recommender.require_owner("drop it")?;
    typed::drop(name)?;
    role::as_catalog(|| {
        spi::execute("DELETE FROM rec.recommender WHERE recommender_id = $1", &[Arg::Int8(recommender.id)])
    })?;
    if tables {
        drop_tables(name, &recommender)?;
    }
    cache::remove_orphans(Mode::Write)?;
    Ok(())
}

/// Drops the tables that `rec_create` makes, as the caller; then the schema, when nothing else is in it.
fn drop_tables(name: &str, recommender: &recommender::Recommender) -> Result<()> {
    let schema = quoted(name);
    let own = |oid: Oid, table: &str| -> Result<bool> { Ok(existing(name, table)? == Some(oid)) };
    if own(recommender.interactions.relation, "interaction")? {
        spi::run(&format!("DROP TABLE {schema}.interaction, {schema}.item, {schema}.search"))?;
    }
    let left = spi::first(
        Mode::Write,
        "SELECT 1 FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass \
         AND refobjid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) LIMIT 1",
        &[Arg::Text(name)],
        |_| Ok(()),
    )?;
    if left.is_none() {
        spi::run(&format!("DROP SCHEMA {schema}"))?;
    }
    Ok(())
}
