//! Which items may be found, as conditions of a statement.

use std::collections::HashSet;

use pgrec_engine::ItemId;

use crate::catalog::recommender::{Recommender, quoted};
use crate::error::Result;
use crate::history;
use crate::ids::{self, Id, Keys};
use crate::pg::spi::Arg;

/// Which items a statement looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All that are not excluded: what is no candidate is left out of what was found.
    All,
    /// Candidates alone, where there are any.
    Candidates,
}

/// Up to so many candidates are found by their ids; more are picked out of what is found without them.
const FEW: usize = 500;

/// What the caller allows.
#[derive(Debug, Default)]
pub struct Allowed {
    candidates: Option<(Keys, HashSet<ItemId>)>,
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
        let keys = |given: &[Id]| -> Result<(Keys, HashSet<ItemId>)> {
            let items = given.iter().map(|id| ids::item_id(id, kind)).collect::<Result<HashSet<ItemId>>>()?;
            Ok((Keys::of_items(items.iter(), kind), items))
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
            exclude: match exclude {
                [] => None,
                exclude => Some(keys(exclude)?.0),
            },
            unseen,
        })
    }

    /// How many candidates there are, where they are so many that they are better picked out of what is found without them.
    pub fn many(&self) -> Option<usize> {
        self.candidates.as_ref().map(|(_, items)| items.len()).filter(|&items| items > FEW)
    }

    /// Whether candidates are to be found by their ids.
    pub fn few(&self) -> bool {
        self.candidates.as_ref().is_some_and(|(_, items)| items.len() <= FEW)
    }

    /// Whether an item is a candidate.
    pub fn is_candidate(&self, item: &ItemId) -> bool {
        self.candidates.as_ref().is_none_or(|(_, items)| items.contains(item))
    }

    /// Conditions on the items relation, which is called `i`, each after an AND; their parameters are numbered from `first`.
    /// Arrays are unnested: the planner looks at every element of one that a column is compared with.
    pub fn conditions(&self, id: &str, first: usize, among: Among) -> String {
        let (mut conditions, mut next) = (String::new(), first);
        let mut numbered = |condition: &dyn Fn(usize) -> String| {
            conditions.push_str(&condition(next));
            next += 1;
        };
        if let Some((keys, _)) = self.candidates.as_ref().filter(|_| among == Among::Candidates) {
            numbered(&|next| format!(" AND i.{id} IN (SELECT pg_catalog.unnest({}))", keys.array(next)));
        }
        if let Some(keys) = &self.exclude {
            numbered(&|next| format!(" AND i.{id} NOT IN (SELECT pg_catalog.unnest({}))", keys.array(next)));
        }
        if let Some((_, [before, after])) = &self.unseen {
            numbered(&|next| format!(" AND {before}{next}{after}"));
        }
        conditions
    }

    /// Their parameters.
    pub fn args(&self, among: Among) -> impl Iterator<Item = Arg<'_>> {
        let candidates = self.candidates.as_ref().filter(|_| among == Among::Candidates).map(|(keys, _)| keys);
        let keys = candidates.into_iter().chain(&self.exclude).map(Keys::arg);
        keys.chain(self.unseen.iter().map(|(user, _)| history::user_argument(user)))
    }
}
