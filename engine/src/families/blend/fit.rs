//! Weights from validation.

use serde::Deserialize;
use serde_json::{Map, json};

use super::NAME;
use super::ascent::{self, Choice};
use super::model::{self, Blend, Config, Judged};
use crate::evaluate::{Cases, Protocol, Space};
use crate::families::{Fitted, Training, params};
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
    let params: Params = params::read(NAME, training.params)?;
    let Params { candidates, validation_users, .. } = params;
    let members = training.members;
    params.check(training)?;
    let learnt = training.corpus.without_last(training.leave_last);
    let ids = union(members.iter().map(|member| member.catalogue().to_ids()))?;
    params.check_memory(training, ids.len())?;
    let counts = counts(&learnt, &ids);
    let built = |weights: Vec<f64>| model::artifact(&Config { weights, candidates }, &ids, &counts, members);
    let blend = Blend::open(&Artifact::from_vec(built(vec![1.0; members.len()])?.finish()?)?)?;
    let mut metrics = Map::new();
    let weights = match params.weights {
        Some(weights) => weights,
        None => {
            let (choices, users) = choices(training, &blend, validation_users)?;
            let (weights, ndcg) = ascent::weights(&choices, members.len(), users, training.control)?;
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

impl Params {
    fn check(&self, training: &Training<'_>) -> Result<()> {
        let models = training.members.len();
        let wrong = |why: String| Err(Error::Parameter(why));
        if models < 2 {
            return wrong(format!("family \"{NAME}\" needs two models or more: name them as \"models\""));
        }
        if self.candidates == 0 || self.validation_users == 0 {
            return wrong("candidates and validation_users are whole numbers above 0".into());
        }
        match &self.weights {
            Some(weights) if weights.len() != models || !model::are_weights(weights) => wrong(format!(
                "weights are {models} numbers from 0 on, one for each model, and not all of them 0"
            )),
            // What a model has learnt by heart, others cannot be weighed against.
            None if training.leave_last < 2 => wrong(
                "weights are learnt from events that no model has seen: train the models and the blend with leave_last 2, \
                 or give weights that were found so"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    /// Refuses what does not fit the bound: the models, opened and written; what all of them say of the candidates.
    fn check_memory(&self, training: &Training<'_>, items: usize) -> Result<()> {
        let models = training.members.len();
        let carried = 3 * training.members.iter().map(|member| member.size()).sum::<usize>();
        let users = if self.weights.is_some() { 0 } else { self.validation_users.min(training.corpus.users()) };
        let candidates = self.candidates.saturating_mul(models).min(items);
        let said = users.saturating_mul(candidates).saturating_mul(models * size_of::<f32>());
        let needed = carried.saturating_add(said);
        training.require_memory(
            needed,
            "the models and what they say of candidates",
            "fewer candidates or validation_users need less",
        )
    }
}

/// The candidates of every user whose validation event is among them, and how many users there are.
fn choices(training: &Training<'_>, blend: &Blend, users: usize) -> Result<(Vec<Choice>, usize)> {
    let corpus = training.corpus.sample(users);
    let cases = Cases::of(&corpus, Protocol::Validation);
    let space = Space::new(crate::Model::catalogue(blend), &corpus, &cases);
    let control = training.control;
    control.enter("asking the models", cases.users.len() as u64);
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
