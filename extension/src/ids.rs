//! User and item ids on their way between SQL and dense indices.

use pgrec_engine::{Catalogue, ItemId};

use crate::catalog::{IdType, Recommender};
use crate::error::{Result, SqlError};
use crate::pg::spi::Arg;

/// An id as it came through one of the two doors: bigint functions, or the text functions behind the typed ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Id {
    /// From a bigint (or integer) argument.
    Int(i64),
    /// From a text argument: uuid and text ids, or integer ones in a recommender of mixed types.
    Text(String),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(id) => id.fmt(f),
            Self::Text(id) => id.fmt(f),
        }
    }
}

/// An item id as the recommender's item column has it.
pub fn item_id(id: &Id, kind: IdType) -> Result<ItemId> {
    match (id, kind) {
        (Id::Int(id), IdType::Integer | IdType::Bigint) => Ok(ItemId::Int(*id)),
        (Id::Text(text), IdType::Integer | IdType::Bigint) => {
            text.trim().parse().map(ItemId::Int).map_err(|_| invalid(text, kind))
        }
        (Id::Text(text), IdType::Uuid) => parse_uuid(text).map(ItemId::Uuid).ok_or_else(|| invalid(text, kind)),
        (Id::Text(text), IdType::Text) => Ok(ItemId::Text(text.clone())),
        (Id::Int(_), IdType::Uuid | IdType::Text) => {
            Err(SqlError::parameter(format!("items are identified by {}, not by bigint", kind.sql())))
        }
    }
}

/// Refuses the bigint functions for a recommender whose ids are not integers, and names the function to call.
pub fn require_integer_ids(recommender: &Recommender, function: &str) -> Result<()> {
    if recommender.user_type.is_integer() && recommender.item_type.is_integer() {
        return Ok(());
    }
    let schema = crate::catalog::recommender::quoted(&recommender.name);
    Err(SqlError::new(
        pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!("{function} takes bigint ids, and recommender \"{}\" has others", recommender.name),
    )
    .detail(format!("Its users are {}, its items {}.", recommender.user_type.sql(), recommender.item_type.sql()))
    .hint(format!("Call {schema}.{function}(…), or put {schema} first in search_path.")))
}

/// Dense indices of the items the model knows, ascending, without repeats. The others cannot be recommended.
pub fn known_sorted(ids: &[ItemId], catalogue: &Catalogue) -> Vec<u32> {
    let mut known: Vec<u32> = ids.iter().filter_map(|id| catalogue.index_of(id)).collect();
    known.sort_unstable();
    known.dedup();
    known
}

/// Ids as one array argument.
#[derive(Debug)]
pub enum Keys {
    /// integer and bigint
    Ints(Vec<i64>),
    /// text
    Texts(Vec<String>),
    /// uuid, as text
    Uuids(Vec<String>),
}

impl Keys {
    /// Ids of users or items of one type.
    pub fn new<'a>(ids: impl Iterator<Item = &'a Id>, kind: IdType) -> Result<Self> {
        let int = |id: &Id| match id {
            Id::Int(id) => Ok(*id),
            Id::Text(text) => text
                .trim()
                .parse()
                .map_err(|_| SqlError::parameter(format!("\"{id}\" is no id of type {}", kind.sql()))),
        };
        Ok(match kind {
            IdType::Integer | IdType::Bigint => Self::Ints(ids.map(int).collect::<Result<_>>()?),
            IdType::Text => Self::Texts(ids.map(Id::to_string).collect()),
            IdType::Uuid => Self::Uuids(ids.map(Id::to_string).collect()),
        })
    }

    /// Ids of items.
    pub fn of_items<'a>(ids: impl Iterator<Item = &'a ItemId>, kind: IdType) -> Self {
        match kind {
            IdType::Integer | IdType::Bigint => {
                Self::Ints(ids.filter_map(|id| if let ItemId::Int(id) = id { Some(*id) } else { None }).collect())
            }
            IdType::Text => Self::Texts(ids.map(as_text).collect()),
            IdType::Uuid => Self::Uuids(ids.map(as_text).collect()),
        }
    }

    /// The argument.
    pub fn arg(&self) -> Arg<'_> {
        match self {
            Self::Ints(ids) => Arg::Int8s(ids),
            Self::Texts(ids) | Self::Uuids(ids) => Arg::Texts(ids),
        }
    }

    /// The argument of this number as an array of what it holds: `$1`.
    pub fn array(&self, number: usize) -> String {
        let cast = if matches!(self, Self::Uuids(_)) { "::pg_catalog.uuid[]" } else { "" };
        format!("${number}{cast}")
    }

    /// The same, where its elements are compared with a column: `ANY ($1)`.
    pub fn any(&self, number: usize) -> String {
        format!("ANY ({})", self.array(number))
    }
}

/// An item id for the bigint door.
pub fn as_int(id: &ItemId) -> Result<i64> {
    match id {
        ItemId::Int(id) => Ok(*id),
        ItemId::Uuid(_) | ItemId::Text(_) => {
            Err(SqlError::corrupted("a model's item ids have another type than its recommender's"))
        }
    }
}

/// An item id as text.
pub fn as_text(id: &ItemId) -> String {
    match id {
        ItemId::Int(id) => id.to_string(),
        ItemId::Uuid(bytes) => format_uuid(bytes),
        ItemId::Text(text) => text.clone(),
    }
}

fn invalid(text: &str, kind: IdType) -> SqlError {
    SqlError::new(
        pgrx::PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {}: \"{text}\"", kind.sql()),
    )
}

/// The forms that Postgres' uuid_in takes: hex digits in either case, hyphens after any group of four, braces.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0u8; 16];
    let mut digits = 0;
    for c in inner.chars() {
        if c == '-' && digits % 4 == 0 && digits > 0 && digits < 32 {
            continue;
        }
        let value = c.to_digit(16)? as u8;
        let slot = bytes.get_mut(digits / 2)?;
        *slot = (*slot << 4) | value;
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}

fn format_uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}
