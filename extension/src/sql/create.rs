//! `rec_create`.

use pgrx::pg_extern;
use pgrx::pg_sys::Oid;

use super::bind::bind;
use super::typed;
use crate::catalog::recommender::{IdType, Searches, quoted};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};

/// What `rec_create` was asked for.
pub(super) struct Request {
    pub(super) name: String,
    pub(super) interactions: Option<Oid>,
    pub(super) user_column: String,
    pub(super) item_column: String,
    pub(super) order_column: Option<String>,
    pub(super) time_column: Option<String>,
    pub(super) weight_column: Option<String>,
    pub(super) action_column: Option<String>,
    pub(super) items: Option<Oid>,
    pub(super) item_id_column: String,
    pub(super) title_column: Option<String>,
    pub(super) attributes_column: Option<String>,
    pub(super) embedding_column: Option<String>,
    pub(super) user_type: Option<Oid>,
    pub(super) item_type: Option<Oid>,
    pub(super) dimension: Option<i32>,
    pub(super) text_column: Option<String>,
    pub(super) searches: Option<SearchRequest>,
    pub(super) search_config: Option<String>,
}

/// A searches relation that was named, and its columns.
pub(super) struct SearchRequest {
    pub(super) relation: Oid,
    pub(super) user: Option<String>,
    pub(super) query: String,
    pub(super) embedding: Option<String>,
    pub(super) item: Option<String>,
    pub(super) time: Option<String>,
    pub(super) shown: Option<String>,
    pub(super) dwell: Option<String>,
}

/// What goes into `rec.recommender`.
pub(super) struct Binding {
    pub(super) user_type: IdType,
    pub(super) item_type: IdType,
    pub(super) interactions: Oid,
    pub(super) order: Vec<String>,
    pub(super) time: Option<String>,
    pub(super) weight: Option<String>,
    pub(super) action: Option<String>,
    pub(super) items: Option<Oid>,
    pub(super) title: Option<String>,
    pub(super) attributes: Option<String>,
    pub(super) embedding: Option<String>,
    pub(super) text: Option<String>,
    pub(super) searches: Option<Searches>,
    pub(super) config: String,
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
    text_column: Option<&std::ffi::CStr>,
    searches: Option<Oid>,
    search_user_column: Option<&std::ffi::CStr>,
    query_column: Option<&std::ffi::CStr>,
    query_embedding_column: Option<&std::ffi::CStr>,
    search_item_column: Option<&std::ffi::CStr>,
    search_time_column: Option<&std::ffi::CStr>,
    shown_column: Option<&std::ffi::CStr>,
    dwell_column: Option<&std::ffi::CStr>,
    search_config: Option<String>,
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
        text_column: text(text_column),
        searches: searches.map(|relation| SearchRequest {
            relation,
            user: text(search_user_column),
            query: text(query_column).unwrap_or_else(|| "query".into()),
            embedding: text(query_embedding_column),
            item: text(search_item_column),
            time: text(search_time_column),
            shown: text(shown_column),
            dwell: text(dwell_column),
        }),
        search_config,
    }))
}

fn create(request: Request) -> Result<String> {
    check_name(&request.name)?;
    make_schema(&request.name)?;
    let config = configuration(request.search_config.as_deref())?;
    let binding = match request.interactions {
        None => create_tables(&request, config)?,
        Some(interactions) => bind(&request, interactions, config)?,
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

/// A text search configuration with its schema; without a name the session's default.
fn configuration(name: Option<&str>) -> Result<String> {
    let sql = "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.cfgname) \
        FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace WHERE c.oid = \
        coalesce($1, pg_catalog.current_setting('default_text_search_config'))::pg_catalog.regconfig";
    spi::first(Mode::Write, sql, &[Arg::MaybeText(name)], |row| row.need::<String>(0))?.ok_or_else(|| {
        SqlError::undefined("there is no default text search configuration")
            .hint("Name one with search_config => 'simple'.")
    })
}

fn create_tables(request: &Request, config: String) -> Result<Binding> {
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
        .replace("@vector@", &format!("{vector_schema}.vector{vector}"))
        .replace("@config@", &pgrx::spi::quote_literal(&config));
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
        text: Some("words".into()),
        searches: Some(Searches {
            relation: made("search")?,
            user: "user_id".into(),
            query: "query".into(),
            embedding: Some("embedding".into()),
            item: Some("item_id".into()),
            time: Some("at".into()),
            shown: Some("shown".into()),
            dwell: Some("dwell".into()),
        }),
        config,
    })
}

pub(super) fn existing(schema: &str, table: &str) -> Result<Option<Oid>> {
    spi::first(
        Mode::Write,
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2",
        &[Arg::Text(schema), Arg::Text(table)],
        |row| row.need::<Oid>(0),
    )
}

fn insert(request: &Request, binding: &Binding) -> Result<()> {
    let literal = |value: &str| pgrx::spi::quote_literal(value);
    let optional = |value: Option<&String>| value.map_or_else(|| "NULL".into(), |value| literal(value));
    let relation = |oid: Option<Oid>| oid.map_or_else(|| "NULL".into(), |oid| format!("{}::regclass", oid.to_u32()));
    let order: Vec<String> = binding.order.iter().map(|column| literal(column)).collect();
    let item_id = binding.items.map(|_| request.item_id_column.clone());
    let searches = binding.searches.as_ref();
    let columns = [
        ("name", literal(&request.name)),
        ("owner", literal(&role::current_name())),
        ("user_type", literal(binding.user_type.sql())),
        ("item_type", literal(binding.item_type.sql())),
        ("interactions", relation(Some(binding.interactions))),
        ("user_column", literal(&request.user_column)),
        ("item_column", literal(&request.item_column)),
        ("order_columns", format!("ARRAY[{}]", order.join(", "))),
        ("time_column", optional(binding.time.as_ref())),
        ("weight_column", optional(binding.weight.as_ref())),
        ("action_column", optional(binding.action.as_ref())),
        ("items", relation(binding.items)),
        ("item_id_column", optional(item_id.as_ref())),
        ("title_column", optional(binding.title.as_ref())),
        ("attributes_column", optional(binding.attributes.as_ref())),
        ("embedding_column", optional(binding.embedding.as_ref())),
        ("text_column", optional(binding.text.as_ref())),
        ("searches", relation(searches.map(|s| s.relation))),
        ("search_user_column", optional(searches.map(|s| &s.user))),
        ("query_column", optional(searches.map(|s| &s.query))),
        ("query_embedding_column", optional(searches.and_then(|s| s.embedding.as_ref()))),
        ("search_item_column", optional(searches.and_then(|s| s.item.as_ref()))),
        ("search_time_column", optional(searches.and_then(|s| s.time.as_ref()))),
        ("shown_column", optional(searches.and_then(|s| s.shown.as_ref()))),
        ("dwell_column", optional(searches.and_then(|s| s.dwell.as_ref()))),
        ("search_config", literal(&binding.config)),
    ];
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
    let sql = format!("INSERT INTO rec.recommender ({}) VALUES ({})", names.join(", "), values.join(", "));
    role::as_catalog(|| spi::run(&sql))
}
