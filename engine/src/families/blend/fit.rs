//! Weights from validation.

use serde::Deserialize;
use serde_json::{Map, json};

use super::NAME;
use super::ascent::{self, Choice};
use super::model::{self, Blend, Config, Judged};
use crate::evaluate::{Cases, Space};
use crate::families::{Fitted, Training, params};
use crate::train::validated_by;
use crate::{Artifact, Corpus, Error, ItemId, ItemIds, Query, Result};

/// Parameters of the family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// What each model's scores are multiplied with, in the order of the models; absent: learnt.
    weights: Option<Vec<f64>>,
    /// How many items each model is asked for, at least.
    candidates: usize,
    /// Users by whose validation event weights are learnt, at most.
    validation_users: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { weights: None, candidates: 100, validation_users: 10_000 }
    }
}

/// Users whose lists are made together.
const SLICE: usize = 512;

pub(super) fn fit(training: &Training<'_>) -> Result<Fitted> {
    let Params { weights, candidates, validation_users } = params::read(NAME, training.params)?;
    let members = training.members;
    if members.len() < 2 {
        return Err(Error::Parameter(format!("family \"{NAME}\" needs two models or more: name them as \"models\"")));
    }
    if candidates == 0 || validation_users == 0 {
        return Err(Error::Parameter("candidates and validation_users are whole numbers above 0".into()));
    }
    let wrong = |weights: &Vec<f64>| {
        weights.len() != members.len()
            || !weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0)
            || weights.iter().all(|weight| *weight == 0.0)
    };
    if weights.as_ref().is_some_and(wrong) {
        return Err(Error::Parameter(format!(
            "weights are {} numbers from 0 on, one for each model, and not all of them 0",
            members.len()
        )));
    }
    // They are carried whole, and once more while they are written.
    let needed = 3 * members.iter().map(|member| member.size()).sum::<usize>();
    if needed > training.memory {
        let mb = |bytes: usize| bytes.div_ceil(1 << 20);
        return Err(Error::Memory(format!(
            "out of training memory: the models take {} MB, the bound is {} MB",
            mb(needed),
            mb(training.memory)
        )));
    }
    let learnt = training.corpus.without_last(training.leave_last);
    let ids = union(members.iter().map(|member| member.catalogue().to_ids()))?;
    let counts = counts(&learnt, &ids);
    let built = |weights: Vec<f64>| model::artifact(&Config { weights, candidates }, &ids, &counts, members);
    let equal = built(vec![1.0; members.len()])?;
    let blend = Blend::open(&Artifact::from_vec(equal.finish()?)?)?;
    let mut metrics = Map::new();
    let weights = match weights {
        Some(weights) => weights,
        None => {
            let (choices, users) = choices(training, &learnt, &blend, validation_users)?;
            let (weights, ndcg) = ascent::weights(&choices, members.len(), users);
            if ndcg == 0.0 {
                return Err(Error::Data("no model ranks what came next in validation among ten: give weights".into()));
            }
            metrics.insert("learnt_from".into(), json!({ "users": users, "ndcg@10": ndcg }));
            weights
        }
    };
    metrics.insert("weights".into(), json!(weights));
    Ok(Fitted { artifact: built(weights)?, curve: Vec::new(), metrics })
}

/// The candidates of every user whose validation event is among them, and how many users there are.
fn choices(training: &Training<'_>, learnt: &Corpus, blend: &Blend, users: usize) -> Result<(Vec<Choice>, usize)> {
    let (_, corpus, protocol) = validated_by(training, learnt, users);
    let cases = Cases::of(&corpus, protocol);
    let space = Space::new(crate::Model::catalogue(blend), &corpus, &cases);
    let control = training.control;
    control.begin(cases.users.len() as u64);
    let mut all = Vec::new();
    for slice in cases.users.chunks(SLICE) {
        let prepared = space.prepare(&cases, slice, true);
        let queries: Vec<Query<'_>> = prepared.iter().map(|case| Query { k: 1, ..case.query() }).collect();
        let judged = blend.judge(None, &queries, control)?;
        all.extend(prepared.iter().zip(judged).filter_map(|(case, Judged { items, scores })| {
            let chosen = items.binary_search(&case.target).ok()?;
            Some(Choice { scores, chosen })
        }));
        control.advance(slice.len() as u64)?;
    }
    Ok((all, cases.users.len()))
}

/// Every item that one of the catalogues has.
fn union(mut catalogues: impl Iterator<Item = ItemIds>) -> Result<ItemIds> {
    let first = catalogues.next().unwrap_or_default();
    let more: Vec<ItemIds> = catalogues.filter(|ids| *ids != first).collect();
    if more.is_empty() {
        return Ok(first);
    }
    let ids = |ids: &ItemIds| (0..ids.len()).map(|place| ids.get(place)).collect::<Vec<ItemId>>();
    ItemIds::from_ids(std::iter::once(&first).chain(&more).flat_map(ids).collect())
}

/// How often each item was touched.
fn counts(learnt: &Corpus, ids: &ItemIds) -> Vec<f32> {
    let mut counts = vec![0.0; ids.len()];
    for (item, count) in learnt.counts().into_iter().enumerate() {
        if let Some(place) = ids.index_of(&learnt.items().get(item)) {
            counts[place as usize] = count as f32;
        }
    }
    counts
}
