//! The two doors of functions that take or give ids: bigint, which is public, and text, which the typed functions of a
//! recommender's schema call.

use pgrec_engine::ItemId;

use crate::error::{Result, SqlError};
use crate::ids::{self, Id};

/// An id type at the SQL border.
pub trait Door: Sized + 'static {
    /// The function's argument as an id.
    fn id(self) -> Id;
    /// An item id as the function prints it.
    fn item(item: &ItemId) -> Result<Self>;
    /// A user id as the function prints it.
    fn user(user: Id) -> Result<Self>;
    /// Whether only recommenders with integer ids can be served through this door.
    const INTEGER: bool;
}

impl Door for i64 {
    fn id(self) -> Id {
        Id::Int(self)
    }

    fn item(item: &ItemId) -> Result<Self> {
        ids::as_int(item)
    }

    fn user(user: Id) -> Result<Self> {
        match user {
            Id::Int(id) => Ok(id),
            Id::Text(id) => Err(SqlError::corrupted(format!("user id {id} is not an integer"))),
        }
    }

    const INTEGER: bool = true;
}

impl Door for String {
    fn id(self) -> Id {
        Id::Text(self)
    }

    fn item(item: &ItemId) -> Result<Self> {
        Ok(ids::as_text(item))
    }

    fn user(user: Id) -> Result<Self> {
        Ok(user.to_string())
    }

    const INTEGER: bool = false;
}
