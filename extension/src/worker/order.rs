//! Asking for a training: what can be checked at once is, then it is put at the end of the queue.

use std::rc::Rc;

use serde_json::Value;

use super::compare::{self, IF_BETTER, NEVER};
use super::queue;
use super::request::{self, Params};
use crate::catalog::training::{self, Order};
use crate::catalog::{Recommender, model};
use crate::error::Result;
use crate::settings;

/// What is asked for.
pub struct Request<'a> {
    /// The family by name.
    pub family: Option<&'a str>,
    /// All parameters.
    pub params: Value,
    /// Name of the model to be; family_N without.
    pub model: Option<&'a str>,
    /// A label of `rec.deploy_rule`.
    pub deploy: &'a str,
    /// Role that asks.
    pub by: &'a str,
    /// Process that waits for it.
    pub waiter: Option<i32>,
}

/// A training that waits for its worker.
pub struct Queued {
    /// The model's id.
    pub id: i64,
    /// Its name.
    pub name: String,
}

impl Request<'_> {
    /// Refuses what cannot be trained.
    pub fn check(&self, recommender: &Rc<Recommender>) -> Result<(&'static str, Params)> {
        let family = request::trainable(self.family)?;
        let mut params = Params::parse(self.params.clone())?;
        recommender.owner_oid()?;
        recommender.with_embedding(params.embedding.as_deref())?;
        if let Some(init) = &params.init {
            model::to_continue(recommender, init, family.name)?;
        }
        params.base = request::base(recommender, &family, &params)?.map(|base| base.name);
        request::members(recommender, &family, &params)?;
        if self.deploy != NEVER {
            model::require_ranking(family.name)?;
        }
        if self.deploy == IF_BETTER {
            compare::require_comparable(recommender, params.leave_last)?;
        }
        Ok((family.name, params))
    }

    /// Puts the training at the end of the queue. It is seen, and begins, when this transaction commits.
    pub fn queue(&self, recommender: &Rc<Recommender>) -> Result<Queued> {
        let (family, params) = self.check(recommender)?;
        training::sweep()?;
        let new = model::New { family, params: &params.to_json(), state: "queued", seed: Some(params.seed) };
        let (id, name) = model::create(recommender, self.model, &new)?;
        let order = Order {
            deploy: self.deploy.to_owned(),
            started_by: self.by.to_owned(),
            waiter: self.waiter,
            threads: settings::training_threads(),
            niceness: settings::training_niceness(),
            memory: settings::training_memory(),
        };
        training::enqueue(id, &order)?;
        queue::start_worker_after_commit();
        Ok(Queued { id, name })
    }
}
