//! Semantic IDs given to items after their model was trained: rows of `rec.semantic_code`. Those of the training are in
//! the model's artifact.

use crate::error::Result;
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode, Row};

/// One item's code. Ids are text, as the item type prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The item.
    pub item: String,
    /// Its code as it is stored: two bytes a level, the larger first, so that bytes are in the order of codes.
    pub code: Vec<u8>,
}

impl Given {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { item: row.need(0)?, code: row.need(1)? })
    }
}

/// The code of an item.
pub fn of_item(mode: Mode, model: i64, item: &str) -> Result<Option<Vec<u8>>> {
    role::as_catalog(|| {
        spi::first(
            mode,
            "SELECT code FROM rec.semantic_code WHERE model_id = $1 AND item = $2",
            &[Arg::Int8(model), Arg::Text(item)],
            |row| row.need(0),
        )
    })
}

/// The first `most` codes that begin with `prefix`, in their order.
pub fn under(mode: Mode, model: i64, prefix: &[u8], most: i64) -> Result<Vec<Given>> {
    let end = end_of(prefix);
    role::as_catalog(|| {
        let (beyond, mut args) = ("AND code < $4", vec![Arg::Int8(model), Arg::Bytea(prefix), Arg::Int8(most)]);
        args.extend(end.as_deref().map(Arg::Bytea));
        let sql = format!(
            "SELECT item, code FROM rec.semantic_code WHERE model_id = $1 AND code >= $2 {} ORDER BY code LIMIT $3",
            if end.is_some() { beyond } else { "" }
        );
        spi::query(mode, &sql, &args, Given::from_row)
    })
}

/// The least code beyond all that begin with `prefix`; none where there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Gives an item a code; false where the item has one, or the code is another's. Waits for whoever is about to take it.
pub fn give(model: i64, item: &str, code: &[u8]) -> Result<bool> {
    let given = role::as_catalog(|| {
        spi::execute(
            "INSERT INTO rec.semantic_code (model_id, item, code) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[Arg::Int8(model), Arg::Text(item), Arg::Bytea(code)],
        )
    })?;
    Ok(given > 0)
}
