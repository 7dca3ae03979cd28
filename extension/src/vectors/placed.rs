//! Items that came after the training in the lists of a model that can place them.

use std::collections::HashSet;

use pgrec_engine::ItemId;
use pgrec_engine::families::Geometry;

use super::Published;
use super::near::Among;
use crate::error::Result;
use crate::history::{History, item_expression, item_of};
use crate::ids::Keys;
use crate::pg::role;
use crate::pg::spi::{self, Mode};
use crate::serve::{Item, Session};

impl Published {
    /// A list with the items that were placed since the training and whose scores are as good, for a user with this vector.
    pub fn beside(
        &self,
        session: &Session,
        history: &History,
        vector: &[f32],
        mut list: Vec<Item>,
    ) -> Result<Vec<Item>> {
        let k = session.wanted_items();
        let mut left_out = session.excluded_ids();
        if session.excludes_seen() {
            left_out.extend(history.unknown.iter().cloned());
        }
        let new = match session.candidate_ids() {
            Some(candidates) => self.scored(candidates, &left_out, vector, session)?,
            None => {
                let near = self.near(session, vector, Among::Placed, &left_out, k)?;
                near.into_iter().map(|near| Item { id: near.item, score: self.score(near.distance) }).collect()
            }
        };
        list.extend(new);
        // Those of the training come first where scores are equal.
        list.sort_by(|a, b| b.score.total_cmp(&a.score));
        list.truncate(k);
        Ok(list)
    }

    /// Scores of those of some items that were placed since the training, for a user with this vector; others are left out.
    pub fn scored(
        &self,
        items: &[ItemId],
        left_out: &HashSet<ItemId>,
        vector: &[f32],
        session: &Session,
    ) -> Result<Vec<Item>> {
        let catalogue = self.open.model.catalogue();
        let wanted = items.iter().filter(|item| !left_out.contains(item) && catalogue.index_of(item).is_none());
        let wanted: Vec<&ItemId> = wanted.collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let kind = self.recommender.item_type;
        let keys = Keys::of_items(wanted.into_iter(), kind);
        let sql = format!(
            "SELECT {}, embedding::pg_catalog.float4[] FROM {} WHERE item_id = {} AND NOT trained",
            item_expression("item_id", kind),
            self.items()?,
            keys.any(1),
        );
        let mut scored = Vec::new();
        role::as_owner_for(self.recommender.owner_oid()?, || {
            spi::each(Mode::Read, &sql, &[keys.arg()], |row| {
                let place: Vec<f32> = row.need(1)?;
                scored.extend(item_of(row, 0, kind).map(|id| Item { id, score: self.geometry.score(vector, &place) }));
                Ok(())
            })
        })?;
        if let Some(alive) = session.existing_ids(scored.iter().map(|item| &item.id))? {
            scored.retain(|item| alive.contains(&item.id));
        }
        Ok(scored)
    }

    /// The score of what is so far.
    fn score(&self, distance: f32) -> f32 {
        match self.geometry {
            Geometry::Distance => -distance * distance,
            Geometry::Product => -distance,
        }
    }
}
