//! Users whose vectors are nearest to an item's.

use std::collections::HashSet;

use pgrec_engine::{ItemContent, ItemId};

use super::publish::USERS;
use super::{Published, growing, place, user_expression, user_of};
use crate::catalog::recommender::quoted;
use crate::error::{Result, SqlError};
use crate::ids::{self, Id, Keys};
use crate::pg::role;
use crate::pg::spi::{self, Mode};

/// A user who is likely to want an item.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The user.
    pub user: Id,
    /// As the index orders: the Euclidean distance, or minus the inner product.
    pub distance: f32,
    /// That the user's next new item is this one, where that was measured.
    pub probability: Option<f64>,
}

/// For whom an audience is sought.
pub struct Subject {
    vector: Vec<f32>,
    /// Whether only content places it.
    placed: bool,
    /// The item, where it is one.
    item: Option<ItemId>,
}

impl Published {
    /// An item: with its vector, or where its content places it now, if nobody has touched it in the training. None of one of
    /// which nothing is known.
    pub fn subject(&self, id: &Id) -> Result<Option<Subject>> {
        let item = ids::item_id(id, self.recommender.item_type)?;
        let model = &*self.open.model;
        let touched = |index: &u32| model.catalogue().counts()[*index as usize] > 0.0;
        let known = model.catalogue().index_of(&item).filter(touched);
        if let Some(vector) = known.and_then(|index| model.item_vector(index)) {
            return Ok(Some(Subject { vector: vector.to_vec(), placed: false, item: Some(item) }));
        }
        let own = role::as_owner_for(self.recommender.owner_oid()?, || {
            place::of_items(Mode::Read, &self.recommender, &self.open, std::slice::from_ref(&item))
        })?;
        Ok(own.into_iter().next().map(|(item, vector)| Subject { vector, placed: true, item: Some(item) }))
    }

    /// What is described by its content and need not exist.
    pub fn described(&self, content: &ItemContent<'_>) -> Result<Subject> {
        let model = &*self.open.model;
        if !model.places() {
            return Err(SqlError::state(format!("model \"{}\" does not know items by their content", self.open.row.name))
                .hint("CALL rec_train('cml', '{\"features\": \"embedding\"}'); makes one that does, to be published by rec_publish_vectors."));
        }
        let vector = model.place(content)?.ok_or_else(|| {
            SqlError::parameter("nothing of this content was known in the training").hint(
                "It looks at what parameter features named: a vector that is not all zeros, attributes that items had.",
            )
        })?;
        Ok(Subject { vector, placed: true, item: None })
    }

    /// The `k` nearest users, nearest first; `new`: only such as have not touched the item. Vectors of users and the
    /// interactions are read as the caller.
    pub fn audience(&self, subject: &Subject, k: usize, new: bool) -> Result<Vec<Listener>> {
        self.users()?;
        let kind = self.recommender.user_type;
        let view = format!("{}.{USERS}", quoted(&self.recommender.name));
        let column = user_expression("user_id", kind);
        let calibration = self.open.model.calibration(subject.placed);
        growing(
            k,
            |most| self.nearest(&view, &column, "", &subject.vector, most, |row| user_of(row, 1, kind)),
            |found| {
                let touched = match (&subject.item, new) {
                    (Some(item), true) => self.who_touched(item, found.iter().map(|(user, _)| user))?,
                    _ => HashSet::new(),
                };
                let found = found.into_iter().filter(|(user, _)| !touched.contains(user));
                let listener = |(user, distance): (Id, f32)| Listener {
                    user,
                    distance,
                    probability: calibration.map(|calibration| calibration.probability(f64::from(distance))),
                };
                Ok(found.map(listener).collect())
            },
        )
    }

    /// Who of some users has touched an item.
    fn who_touched<'a>(&self, item: &ItemId, users: impl Iterator<Item = &'a Id>) -> Result<HashSet<Id>> {
        let interactions = &self.recommender.interactions;
        let (kind, item_kind) = (self.recommender.user_type, self.recommender.item_type);
        let keys = Keys::new(users, kind)?;
        let sql = format!(
            "SELECT DISTINCT {} FROM {} WHERE {} = {} AND {} = $2::pg_catalog.text::{}",
            user_expression(&interactions.user, kind),
            self.recommender.interactions_name()?,
            quoted(&interactions.user),
            keys.any(1),
            quoted(&interactions.item),
            item_kind.sql(),
        );
        let item = ids::as_text(item);
        let touched = spi::query(Mode::Read, &sql, &[keys.arg(), spi::Arg::Text(&item)], |row| user_of(row, 0, kind))?;
        Ok(touched.into_iter().collect())
    }
}
