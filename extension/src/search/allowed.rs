//! Which items may be found, as conditions of a statement.

use pgrec_engine::ItemId;

use crate::catalog::recommender::{Recommender, quoted};
use crate::error::Result;
use crate::history;
use crate::ids::{self, Id, Keys};
use crate::pg::spi::Arg;

/// What the caller allows.
#[derive(Debug, Default)]
pub struct Allowed {
    candidates: Option<Keys>,
    exclude: Option<Keys>,
    /// Who must not have touched them, and how that is asked: what stands before and after the number of the parameter.
    unseen: Option<(Id, [String; 2])>,
}

impl Allowed {
    /// Of items by the arguments of a list. `unseen_by`: only what this user has not touched.
    pub fn new(
        recommender: &Recommender,
        candidates: Option<&[Id]>,
        exclude: &[Id],
        unseen_by: Option<&Id>,
    ) -> Result<Self> {
        let kind = recommender.item_type;
        let keys = |given: &[Id]| -> Result<Keys> {
            let items = given.iter().map(|id| ids::item_id(id, kind)).collect::<Result<Vec<ItemId>>>()?;
            Ok(Keys::of_items(items.iter(), kind))
        };
        let unseen = match (unseen_by, &recommender.items) {
            (Some(user), Some(items)) => {
                let interactions = &recommender.interactions;
                let before = format!(
                    "NOT EXISTS (SELECT FROM {} AS e WHERE e.{} = $",
                    recommender.interactions_name()?,
                    quoted(&interactions.user)
                );
                let cast = history::user_parameter(recommender, user, "");
                let after = format!("{cast} AND e.{} = i.{})", quoted(&interactions.item), quoted(&items.id));
                Some((user.clone(), [before, after]))
            }
            _ => None,
        };
        Ok(Self {
            candidates: candidates.map(keys).transpose()?,
            exclude: Some(exclude).filter(|exclude| !exclude.is_empty()).map(keys).transpose()?,
            unseen,
        })
    }

    /// Conditions on the items relation, which is called `i`, each after an AND; their parameters are numbered from `first`.
    /// Arrays are unnested: the planner looks at every element of one that a column is compared with.
    pub fn conditions(&self, id: &str, first: usize) -> String {
        let (mut conditions, mut next) = (String::new(), first);
        if let Some(keys) = &self.candidates {
            conditions.push_str(&format!(" AND i.{id} IN (SELECT pg_catalog.unnest({}))", keys.array(next)));
            next += 1;
        }
        if let Some(keys) = &self.exclude {
            conditions.push_str(&format!(" AND i.{id} NOT IN (SELECT pg_catalog.unnest({}))", keys.array(next)));
            next += 1;
        }
        if let Some((_, [before, after])) = &self.unseen {
            conditions.push_str(&format!(" AND {before}{next}{after}"));
        }
        conditions
    }

    /// Their parameters.
    pub fn args(&self) -> impl Iterator<Item = Arg<'_>> {
        let keys = self.candidates.iter().chain(&self.exclude).map(Keys::arg);
        keys.chain(self.unseen.iter().map(|(user, _)| history::user_argument(user)))
    }
}
