//! Serving.

use std::sync::Arc;

use pgrec_kernels::cuda::Cuda;
use pgrec_kernels::{Bytes, Scored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::NAME;
use super::member::Member;
use crate::families::Model;
use crate::families::sequential::{best, check_known};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, ItemIds, Query, Result};

/// What a blend is made of. Stored with the artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What each model's scores are multiplied with.
    pub(super) weights: Vec<f64>,
    /// How many items each model is asked for, at least.
    pub(super) candidates: usize,
}

/// An open model.
pub struct Blend {
    catalogue: Catalogue,
    members: Vec<(f32, Member)>,
    candidates: usize,
}

/// Candidates for one query, and what each model says of them.
pub(super) struct Judged {
    /// Ascending.
    pub(super) items: Vec<u32>,
    /// By model; an item that a model does not know counts as the last of its own.
    pub(super) scores: Vec<Vec<f32>>,
}

/// Whether models can be weighed so: as the numbers they are used as, finite, none below 0 and not all 0.
pub(super) fn are_weights(weights: &[f64]) -> bool {
    let used: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
    used.iter().all(|weight| weight.is_finite() && *weight >= 0.0) && used.iter().any(|weight| *weight > 0.0)
}

fn member_name(member: usize) -> String {
    format!("member.{member}")
}

/// A blend of these models, as it is stored.
pub(super) fn artifact(
    config: &Config,
    ids: &ItemIds,
    counts: &[f32],
    members: &[Arc<Artifact>],
) -> Result<ArtifactBuilder> {
    let about = serde_json::to_value(config).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut builder = ArtifactBuilder::new(NAME, &about, ids, counts);
    for (number, member) in members.iter().enumerate() {
        builder.bytes(&member_name(number), member.bytes());
    }
    Ok(builder)
}

impl Blend {
    /// Opens an artifact of this family.
    ///
    /// # Errors
    /// [`Error::Malformed`] where its parts do not fit together.
    pub fn open(artifact: &Artifact) -> Result<Self> {
        let Config { weights, candidates } = artifact.config()?;
        let member = |(number, weight): (usize, &f64)| {
            let bytes: Bytes = Arc::new(artifact.raw(&member_name(number))?);
            let member = Member::open(&Arc::new(Artifact::parse(bytes)?), artifact.catalogue())?;
            Ok((*weight as f32, member))
        };
        if !are_weights(&weights) {
            return Err(Error::Malformed(format!("{NAME}: weights are not numbers from 0 on")));
        }
        let members = weights.iter().enumerate().map(member).collect::<Result<Vec<_>>>()?;
        Ok(Self { catalogue: artifact.catalogue().clone(), members, candidates })
    }

    /// The best items of every model for each query, judged by all of them.
    pub(super) fn judge(&self, device: Option<&Cuda>, queries: &[Query<'_>], control: &Control) -> Result<Vec<Judged>> {
        let wide: Vec<Query<'_>> = queries.iter().map(|query| self.wide(query)).collect();
        let named = self.members.iter().map(|(_, member)| member.recommend(device, &wide, control));
        let named = named.collect::<Result<Vec<_>>>()?;
        let items = (0..queries.len())
            .map(|query| ascending(named.iter().flat_map(|lists| lists[query].iter().map(|s| s.item))));
        self.scores(&wide, items.collect(), &named, control)
    }

    /// What the models are asked for a query.
    fn wide<'a>(&self, query: &Query<'a>) -> Query<'a> {
        Query { k: if query.k == 0 { 0 } else { query.k.max(self.candidates) }, ..*query }
    }

    /// What every model says of the items of each query, which ascend, where they have named some already.
    fn scores(
        &self,
        queries: &[Query<'_>],
        items: Vec<Vec<u32>>,
        named: &[Vec<Vec<Scored>>],
        control: &Control,
    ) -> Result<Vec<Judged>> {
        let mut all: Vec<Judged> =
            items.into_iter().map(|items| Judged { items, scores: Vec::with_capacity(self.members.len()) }).collect();
        for ((_, member), named) in self.members.iter().zip(named) {
            let missing: Vec<Vec<u32>> = all
                .iter()
                .zip(named)
                .map(|(judged, named)| {
                    let named = ascending(named.iter().map(|scored| scored.item));
                    judged.items.iter().copied().filter(|item| named.binary_search(item).is_err()).collect()
                })
                .collect();
            let rest = member.scores(queries, &missing, control)?;
            for ((judged, named), rest) in all.iter_mut().zip(named).zip(&rest) {
                let last = named[..named.len().min(self.candidates)].last().map_or(0.0, |scored| scored.score);
                let mut scores = vec![last; judged.items.len()];
                for scored in named.iter().chain(rest) {
                    if let Ok(place) = judged.items.binary_search(&scored.item) {
                        scores[place] = scored.score;
                    }
                }
                judged.scores.push(scores);
            }
        }
        Ok(all)
    }

    /// The candidates' weighted sums.
    fn sums(&self, judged: &Judged) -> Vec<f32> {
        let mut sums = vec![0.0; judged.items.len()];
        for ((weight, _), scores) in self.members.iter().zip(&judged.scores) {
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += weight * score);
        }
        sums
    }

    fn ranked(&self, device: Option<&Cuda>, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let judged = self.judge(device, queries, control)?;
        let list = |(judged, query): (&Judged, &Query<'_>)| {
            let scored = judged.items.iter().zip(self.sums(judged)).map(|(&item, score)| Scored { item, score });
            best(scored.collect(), query.k)
        };
        Ok(judged.iter().zip(queries).map(list).collect())
    }

    /// What every model says of some items.
    fn of_items(&self, query: &Query<'_>, items: &[u32]) -> Result<Judged> {
        check_known(self.catalogue.len(), items)?;
        let control = Control::default();
        // Where a model does not know an item, its own last one counts.
        let wide = [self.wide(&Query { k: query.k.max(1), ..*query })];
        let named = self.members.iter().map(|(_, member)| member.recommend(None, &wide, &control));
        let named = named.collect::<Result<Vec<_>>>()?;
        let mut judged = self.scores(&wide, vec![ascending(items.iter().copied())], &named, &control)?;
        judged.pop().ok_or_else(|| Error::Malformed(format!("{NAME}: a question has no answer")))
    }
}

fn ascending(items: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut items: Vec<u32> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

impl Model for Blend {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.members.iter().map(|(_, member)| member.model.window()).max().unwrap_or(0)
    }

    fn timed(&self) -> bool {
        self.members.iter().any(|(_, member)| member.model.timed())
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.ranked(None, queries, control)
    }

    fn recommend_on(&self, device: &Cuda, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        self.ranked(Some(device), queries, control)
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        let judged = self.of_items(query, items)?;
        let sums = self.sums(&judged);
        let of = |item: &u32| judged.items.binary_search(item).map_or(f32::NEG_INFINITY, |place| sums[place]);
        Ok(items.iter().map(of).collect())
    }

    /// As the first of its models that has something to say of the item.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        for (_, member) in &self.members {
            match member.similar(item, query) {
                Ok(list) if list.is_empty() => {}
                Err(Error::Unsupported { .. }) => {}
                answer => return answer,
            }
        }
        Ok(Vec::new())
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Err(Error::Unsupported { family: NAME.into(), what: "has no user vectors".into() })
    }

    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let judged = self.of_items(query, &[item])?;
        let part = |((weight, member), scores): (&(f32, Member), &Vec<f32>)| {
            Ok(json!({
                "family": member.family,
                "weight": weight,
                "score": scores.first(),
                "knows_item": member.own(item).is_some(),
                "reasons": member.explain(query, item)?,
            }))
        };
        let models = self.members.iter().zip(&judged.scores).map(part).collect::<Result<Vec<_>>>()?;
        Ok(json!({ "models": models }))
    }
}
