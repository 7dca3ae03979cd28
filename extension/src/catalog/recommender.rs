//! Recommenders: a name bound to relations of the application and their columns.

use std::cell::RefCell;
use std::rc::Rc;

use pgrx::pg_sys::Oid;

use crate::error::{Result, SqlError};
use crate::pg::lookup::{self, Found, Key, Version};
use crate::pg::relation;
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode, Row};
use crate::settings;

/// The type of a user or item id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdType {
    /// `integer` (and `smallint`)
    Integer,
    /// `bigint`
    Bigint,
    /// `uuid`
    Uuid,
    /// `text` (and `varchar`)
    Text,
}

impl IdType {
    /// From the name that `format_type` gives a column.
    pub fn from_column_type(name: &str) -> Option<Self> {
        Some(match name {
            "integer" | "smallint" | "int4" | "int" | "int2" => Self::Integer,
            "bigint" | "int8" => Self::Bigint,
            "uuid" => Self::Uuid,
            "text" => Self::Text,
            other if other.starts_with("character varying") || other == "varchar" => Self::Text,
            _ => return None,
        })
    }

    /// The name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Bigint => "bigint",
            Self::Uuid => "uuid",
            Self::Text => "text",
        }
    }

    /// Whether ids of this type travel as bigint inside.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Integer | Self::Bigint)
    }
}

/// The interactions relation and its columns.
#[derive(Debug, Clone)]
pub struct Interactions {
    /// The relation.
    pub relation: Oid,
    /// Column of the user id.
    pub user: String,
    /// Column of the item id.
    pub item: String,
    /// Columns that order a history, most significant first.
    pub order: Vec<String>,
    /// Column of the time, where there is one.
    pub time: Option<String>,
    /// Column of the weight, where there is one.
    pub weight: Option<String>,
    /// Column of the kind of event, where there is one.
    pub action: Option<String>,
}

/// The items relation and its columns.
#[derive(Debug, Clone)]
pub struct Items {
    /// The relation.
    pub relation: Oid,
    /// Column of the item id.
    pub id: String,
    /// Column of the attributes (jsonb, an array or a tsvector), where there is one.
    pub attributes: Option<String>,
    /// Column of the vector, where there is one.
    pub embedding: Option<String>,
    /// Column of the text that is searched, where there is one.
    pub text: Option<String>,
}

/// The searches relation and its columns.
#[derive(Debug, Clone)]
pub struct Searches {
    /// The relation.
    pub relation: Oid,
    /// Column of the user id.
    pub user: String,
    /// Column of the words.
    pub query: String,
    /// Column of a vector of the words, where there is one.
    pub embedding: Option<String>,
    /// Column of the item that was opened, where there is one.
    pub item: Option<String>,
    /// Column of the time, where there is one.
    pub time: Option<String>,
    /// Column of the results shown, where there is one.
    pub shown: Option<String>,
    /// Column of the seconds that the opened item was looked at, where there is one.
    pub dwell: Option<String>,
}

/// One recommender as the catalogue has it.
#[derive(Debug, Clone)]
pub struct Recommender {
    /// Primary key.
    pub id: i64,
    /// Name, also of the schema with its typed functions.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// Type of user ids.
    pub user_type: IdType,
    /// Type of item ids.
    pub item_type: IdType,
    /// Where the events are.
    pub interactions: Interactions,
    /// Where the items are, when bound.
    pub items: Option<Items>,
    /// Where the searches are, when bound.
    pub searches: Option<Searches>,
    /// Text search configuration, with its schema.
    pub search_config: String,
}

const COLUMNS: &str = "recommender_id, name, owner, user_type, item_type, interactions::oid, user_column, item_column, \
    order_columns, time_column, items::oid, item_id_column, attributes_column, embedding_column, \
    weight_column, action_column, text_column, searches::oid, search_user_column, query_column, query_embedding_column, \
    search_item_column, search_time_column, shown_column, dwell_column, search_config";

impl Recommender {
    fn from_row(row: &Row) -> Result<Self> {
        let id_type = |index: usize| -> Result<IdType> {
            let name: String = row.need(index)?;
            IdType::from_column_type(&name)
                .ok_or_else(|| SqlError::corrupted(format!("rec.recommender: id type {name}")))
        };
        let items = match row.get::<Oid>(10) {
            Some(relation) => Some(Items {
                relation,
                id: row.need(11)?,
                attributes: row.get(12),
                embedding: row.get(13),
                text: row.get(16),
            }),
            None => None,
        };
        let searches = match row.get::<Oid>(17) {
            Some(relation) => Some(Searches {
                relation,
                user: row.need(18)?,
                query: row.need(19)?,
                embedding: row.get(20),
                item: row.get(21),
                time: row.get(22),
                shown: row.get(23),
                dwell: row.get(24),
            }),
            None => None,
        };
        Ok(Self {
            id: row.need(0)?,
            name: row.need(1)?,
            owner: row.need(2)?,
            user_type: id_type(3)?,
            item_type: id_type(4)?,
            interactions: Interactions {
                relation: row.need(5)?,
                user: row.need(6)?,
                item: row.need(7)?,
                order: row.need(8)?,
                time: row.get(9),
                weight: row.get(14),
                action: row.get(15),
            },
            items,
            searches,
            search_config: row.need(25)?,
        })
    }

    /// The same with another column of the items' vectors, where one is named.
    pub fn with_embedding(self: &Rc<Self>, column: Option<&str>) -> Result<Rc<Self>> {
        let Some(column) = column else { return Ok(Rc::clone(self)) };
        let Some(items) = &self.items else {
            return Err(SqlError::state(format!(
                "recommender \"{}\" has no items relation with a column \"{column}\"",
                self.name
            ))
            .hint("Name one as items when the recommender is created."));
        };
        match relation::column_type(items.relation, column) {
            Some(kind) if kind == "vector" || kind == "halfvec" => {}
            Some(kind) => {
                return Err(SqlError::parameter(format!("column \"{column}\" of the items holds {kind}, not vectors")));
            }
            None => return Err(SqlError::parameter(format!("the items have no column \"{column}\""))),
        }
        let items = Items { embedding: Some(column.to_owned()), ..items.clone() };
        Ok(Rc::new(Self { items: Some(items), ..(**self).clone() }))
    }

    /// Qualified name of the interactions relation, as of now: it may have been renamed.
    pub fn interactions_name(&self) -> Result<String> {
        self.relation_name(self.interactions.relation, "interactions")
    }

    /// Qualified name of the items relation, when one is bound.
    pub fn items_name(&self) -> Result<Option<String>> {
        self.items.as_ref().map(|items| self.relation_name(items.relation, "items")).transpose()
    }

    /// Qualified name of the searches relation, when one is bound.
    pub fn searches_name(&self) -> Result<Option<String>> {
        self.searches.as_ref().map(|searches| self.relation_name(searches.relation, "searches")).transpose()
    }

    /// The text search configuration as SQL writes it.
    pub fn config(&self) -> String {
        format!("{}::pg_catalog.regconfig", pgrx::spi::quote_literal(&self.search_config))
    }

    /// The words of a text column as a tsvector: of a tsvector it is the column itself, so that an index on it serves.
    pub fn words_of(&self, relation: Oid, column: &str) -> String {
        match relation::column_type(relation, column).as_deref() {
            Some("tsvector") => quoted(column),
            _ => format!("pg_catalog.to_tsvector({}, {})", self.config(), quoted(column)),
        }
    }

    fn relation_name(&self, relation: Oid, what: &str) -> Result<String> {
        relation::qualified_name(relation).ok_or_else(|| {
            SqlError::new(
                pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("the {what} relation of recommender \"{}\" has been dropped", self.name),
            )
            .hint(format!("SELECT rec_drop('{}'); then bind it anew with rec_create.", self.name.replace('\'', "''")))
        })
    }

    /// Refuses a caller who may not read the interactions: who may not read them is not served from them.
    pub fn require_readable(&self) -> Result<()> {
        if relation::may_select(self.interactions.relation) {
            return Ok(());
        }
        let relation = self.interactions_name()?;
        Err(SqlError::privilege(format!("permission denied for interactions of recommender \"{}\"", self.name))
            .hint(format!("GRANT SELECT ON {relation} TO {};", quoted(&role::current_name()))))
    }

    /// The role that owns the recommender.
    pub fn owner_oid(&self) -> Result<Oid> {
        role::find(&self.owner).ok_or_else(|| {
            SqlError::undefined(format!(
                "role \"{}\", the owner of recommender \"{}\", does not exist",
                self.owner, self.name
            ))
            .hint(format!("A superuser can run: UPDATE rec.recommender SET owner = … WHERE name = '{}';", self.name))
        })
    }

    /// Refuses a caller who is not the owner, a member of it or a superuser.
    pub fn require_owner(&self, what: &str) -> Result<()> {
        if role::is_superuser() || role::find(&self.owner).is_some_and(role::may_act_as) {
            return Ok(());
        }
        Err(SqlError::privilege(format!("must be owner of recommender \"{}\" to {what}", self.name))
            .detail(format!("It is owned by role \"{}\".", self.owner)))
    }
}

thread_local! {
    /// The binding last used, valid while its catalogue row has the same version.
    static LAST: RefCell<Option<(Version, Rc<Recommender>)>> = const { RefCell::new(None) };
}

/// A recommender by name; without one: the setting `rec.recommender`, else a schema of the search path that is
/// a recommender's, else the only one there is.
pub fn resolve(mode: Mode, name: Option<&str>) -> Result<Rc<Recommender>> {
    if let Some(name) = name.map(str::to_owned).or_else(settings::recommender) {
        return find(mode, &name)?.ok_or_else(|| unknown(&name));
    }
    for schema in relation::search_path() {
        if let Some(recommender) = find(mode, &schema)? {
            return Ok(recommender);
        }
    }
    only(mode)
}

fn find(mode: Mode, name: &str) -> Result<Option<Rc<Recommender>>> {
    if mode == Mode::Write {
        return load(mode, name);
    }
    let version = lookup::first(c"recommender", c"recommender_name_key", 2, Key::Text(name), Found::version);
    let Some(version) = version else { return Ok(None) };
    let known = LAST.with_borrow(|last| match last {
        Some((v, recommender)) if *v == version && recommender.name == name => Some(Rc::clone(recommender)),
        _ => None,
    });
    if known.is_some() {
        return Ok(known);
    }
    let loaded = load(mode, name)?;
    LAST.set(loaded.clone().map(|recommender| (version, recommender)));
    Ok(loaded)
}

fn load(mode: Mode, name: &str) -> Result<Option<Rc<Recommender>>> {
    let sql = format!("SELECT {COLUMNS} FROM rec.recommender WHERE name = $1");
    Ok(spi::first(mode, &sql, &[Arg::Text(name)], Recommender::from_row)?.map(Rc::new))
}

/// All recommenders by name.
pub fn all() -> Result<Vec<Recommender>> {
    let sql = format!("SELECT {COLUMNS} FROM rec.recommender ORDER BY name");
    spi::query(Mode::Write, &sql, &[], Recommender::from_row)
}

fn only(mode: Mode) -> Result<Rc<Recommender>> {
    let names = some_names(mode)?;
    match names.as_slice() {
        [] => Err(SqlError::undefined("there is no recommender yet").hint("SELECT rec_create('shop');")),
        [only] => find(mode, only)?.ok_or_else(|| unknown(only)),
        several => Err(SqlError::undefined("which recommender?")
            .detail(format!("There are several: {}.", several.join(", ")))
            .hint(
                "Name one with recommender => '…', SET rec.recommender = '…', or put its schema first in search_path.",
            )),
    }
}

fn some_names(mode: Mode) -> Result<Vec<String>> {
    spi::query(mode, "SELECT name FROM rec.recommender ORDER BY name LIMIT 10", &[], |row| row.need(0))
}

fn unknown(name: &str) -> SqlError {
    let names = some_names(Mode::Read).unwrap_or_default();
    let error = SqlError::undefined(format!("recommender \"{name}\" does not exist"));
    if names.is_empty() {
        error.hint(format!("SELECT rec_create('{}');", name.replace('\'', "''")))
    } else {
        error.detail(format!("Existing ones: {}.", names.join(", ")))
    }
}

/// An identifier as SQL writes it.
pub fn quoted(identifier: &str) -> String {
    pgrx::spi::quote_identifier(identifier)
}
