//! Where this extension's functions and pgvector's types are.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::{Result, SqlError};
use crate::pg::spi::{self, Arg, Mode};

/// Their schemas, quoted.
pub struct Schemas {
    /// Of this extension.
    pub own: String,
    /// Of pgvector.
    pub vector: String,
}

thread_local! {
    /// A schema is renamed, or an extension moved, once in the life of a database at most: sessions that were there before
    /// have to begin anew.
    static KNOWN: RefCell<Option<Rc<Schemas>>> = const { RefCell::new(None) };
}

impl Schemas {
    /// As they were when this session first asked.
    pub fn find() -> Result<Rc<Self>> {
        if let Some(known) = KNOWN.with_borrow(Clone::clone) {
            return Ok(known);
        }
        let of = |extension: &str| {
            spi::first(
                Mode::Read,
                "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
                 JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = $1",
                &[Arg::Text(extension)],
                |row| row.need::<String>(0),
            )
        };
        let missing = |name: &str| SqlError::undefined(format!("extension {name} is not installed"));
        let found = Rc::new(Self {
            own: of("pgrec")?.ok_or_else(|| missing("pgrec"))?,
            vector: of("vector")?.ok_or_else(|| missing("vector"))?,
        });
        KNOWN.set(Some(Rc::clone(&found)));
        Ok(found)
    }
}
