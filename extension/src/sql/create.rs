//! `rec_create`.

use pgrx::pg_extern;
use pgrx::pg_sys::Oid;

use super::bind::bind;
use super::typed;
use crate::catalog::recommender::{IdType, quoted};
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
    pub(super) searches: Option<Oid>,
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
