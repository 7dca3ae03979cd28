//! Items whose vectors are nearest to a user's.

use std::collections::HashSet;

use pgrec_engine::ItemId;

use super::{Published, growing};
use crate::error::Result;
use crate::history::item_expression;
use crate::history::item_of;
use crate::pg::role;
use crate::serve::Session;

/// An item and how far it is: as its index orders.
#[derive(Debug, Clone)]
pub struct Near {
    /// The item.
    pub item: ItemId,
    /// Its Euclidean distance, or minus its inner product.
    pub distance: f32,
}

/// Which items are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All.
    All,
    /// Those that the training did not know.
    Placed,
}

impl Published {
    /// The `k` nearest items to a vector, nearest first, only such as exist and are not among those left out. Whoever may be
    /// served from the recommender may know where its items are: the table is read as its owner.
    pub fn near(
        &self,
        session: &Session,
        vector: &[f32],
        among: Among,
        left_out: &HashSet<ItemId>,
        k: usize,
    ) -> Result<Vec<Near>> {
        let kind = self.recommender.item_type;
        let (table, column) = (self.items()?, item_expression("item_id", kind));
        let owner = self.recommender.owner_oid()?;
        let condition = if among == Among::Placed { "WHERE NOT trained" } else { "" };
        growing(
            k,
            |most| {
                role::as_owner_for(owner, || {
                    self.nearest(&table, &column, condition, vector, most, |row| Ok(item_of(row, 1, kind)))
                })
            },
            |found| {
                let found = found.into_iter().filter_map(|(item, distance)| Some(Near { item: item?, distance }));
                let mut found: Vec<Near> = found.filter(|near| !left_out.contains(&near.item)).collect();
                if let Some(alive) = session.existing_ids(found.iter().map(|near| &near.item))? {
                    found.retain(|near| alive.contains(&near.item));
                }
                Ok(found)
            },
        )
    }
}
