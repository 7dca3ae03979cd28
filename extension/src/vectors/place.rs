//! Items that came after the training, placed by their content.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use pgrec_engine::corpus::attribute_tokens;
use pgrec_engine::families::Needs;
use pgrec_engine::{ItemContent, ItemId};

use super::{Published, ROWS};
use crate::catalog::Recommender;
use crate::catalog::recommender::quoted;
use crate::corpus;
use crate::error::{Result, SqlError};
use crate::history;
use crate::ids::{self, Keys};
use crate::pg::spi::{self, Mode};
use crate::storage::open::OpenModel;

/// An item and its vector.
pub type Placed = (ItemId, Vec<f32>);

/// Where the model places those of some items of whose content it can tell, as the current user sees the items relation.
pub fn of_items(mode: Mode, recommender: &Rc<Recommender>, open: &OpenModel, items: &[ItemId]) -> Result<Vec<Placed>> {
    let recommender = recommender.with_embedding(open.row.embedding.as_deref())?;
    let (Some(bound), Some(relation)) = (&recommender.items, recommender.items_name()?) else { return Ok(Vec::new()) };
    let kind = recommender.item_type;
    let keys = Keys::of_items(items.iter(), kind);
    let needs = Needs { attributes: true, vectors: true, ..Needs::NOTHING };
    let sql = format!(
        "SELECT {}, {} FROM {relation} WHERE {} = {}",
        history::item_expression(&bound.id, kind),
        corpus::content_columns(bound, needs),
        quoted(&bound.id),
        keys.any(1),
    );
    // An item may have several rows: as in a training its last vector counts, and the attributes of all.
    let mut contents: BTreeMap<ItemId, (Option<Vec<f32>>, Vec<String>)> = BTreeMap::new();
    spi::each(mode, &sql, &[keys.arg()], |row| {
        let Some(item) = history::item_of(row, 0, kind) else { return Ok(()) };
        let (vector, attributes) = contents.entry(item).or_default();
        if let Some(json) = row.get::<&str>(1) {
            attributes.extend(attribute_tokens(json)?);
        }
        if let Some(last) = row.get::<Vec<f32>>(2) {
            *vector = Some(last);
        }
        Ok(())
    })?;
    let mut placed = Vec::new();
    for (item, (vector, attributes)) in contents {
        let content = ItemContent { vector: vector.as_deref(), attributes: &attributes };
        placed.extend(open.model.place(&content).map_err(|error| about(&item, error))?.map(|place| (item, place)));
    }
    Ok(placed)
}

fn about(item: &ItemId, error: pgrec_engine::Error) -> SqlError {
    SqlError::from(error).detail(format!("Item {}.", ids::as_text(item)))
}

impl Published {
    /// Places the items that the training did not know and that have no vector yet, and again those of whose content the
    /// place may have changed; gives how many were placed. `each` hears of them as they are.
    pub(super) fn place_new(&self, mut each: impl FnMut(u64)) -> Result<u64> {
        if !self.open.model.places() {
            return Ok(0);
        }
        let (Some(bound), Some(relation)) = (&self.recommender.items, self.recommender.items_name()?) else {
            return Ok(0);
        };
        let (kind, catalogue) = (self.recommender.item_type, self.open.model.catalogue());
        let column = history::item_expression(&bound.id, kind);
        let sql = format!("SELECT {column} FROM {relation} WHERE {} IS NOT NULL", quoted(&bound.id));
        let mut new = BTreeSet::new();
        spi::each(Mode::Write, &sql, &[], |row| {
            new.extend(history::item_of(row, 0, kind).filter(|id| catalogue.index_of(id).is_none()));
            Ok(())
        })?;
        let new: Vec<ItemId> = new.into_iter().collect();
        let mut placed = 0;
        for items in new.chunks(ROWS) {
            placed += self.put_items(&of_items(Mode::Write, &self.recommender, &self.open, items)?, false)?;
            each(placed);
            crate::pg::interrupt::check();
        }
        Ok(placed)
    }

    /// Places one item that the training did not know, as its content is now; gives whether it has another vector since.
    pub fn place_one(&self, item: &ItemId) -> Result<bool> {
        if self.open.model.catalogue().index_of(item).is_some() {
            return Ok(false);
        }
        let placed = of_items(Mode::Write, &self.recommender, &self.open, std::slice::from_ref(item))?;
        let changed = match placed.is_empty() {
            true => self.remove_item(item)?,
            false => self.put_items(&placed, false)?,
        };
        Ok(changed > 0)
    }

    /// Removes an item of whose content nothing is left.
    fn remove_item(&self, item: &ItemId) -> Result<u64> {
        let kind = self.recommender.item_type;
        let sql = format!(
            "DELETE FROM {} WHERE item_id = $1::pg_catalog.text::{} AND NOT trained",
            self.items()?,
            kind.sql()
        );
        spi::execute(&sql, &[spi::Arg::Text(&ids::as_text(item))])
    }

    /// Writes vectors of items; gives how many rows have changed. Those that the training knew stay as they are.
    pub(super) fn put_items(&self, rows: &[Placed], trained: bool) -> Result<u64> {
        let Some((_, first)) = rows.first() else { return Ok(0) };
        let (kind, schema) = (self.recommender.item_type, &self.schemas.vector);
        let sql = format!(
            "INSERT INTO {table} AS t (item_id, embedding, trained) \
             SELECT u.id::{kind}, ($2::pg_catalog.float4[])[(u.n - 1) * $3 + 1 : u.n * $3]::{schema}.vector, {trained} \
             FROM pg_catalog.unnest($1) WITH ORDINALITY u (id, n) \
             ON CONFLICT (item_id) DO UPDATE SET embedding = excluded.embedding \
             WHERE NOT t.trained AND t.embedding OPERATOR({schema}.<>) excluded.embedding",
            table = self.items()?,
            kind = kind.sql(),
        );
        let keys = Keys::of_items(rows.iter().map(|(item, _)| item), kind);
        let numbers: Vec<f32> = rows.iter().flat_map(|(_, vector)| vector).copied().collect();
        spi::execute(&sql, &[keys.arg(), spi::Arg::Float4s(&numbers), spi::Arg::Int8(first.len() as i64)])
    }
}
