//! HSTU as a ranking model (Zhai et al. 2024): items and what came of them in turns, and a head that predicts at an item
//! what will come of it.
//!
//! The sequence of n events is i₀, a₀, i₁, a₁, …, where aₜ stands for the combination of tasks whose answer was yes. A
//! candidate is the item that would come next. Many candidates are scored together (M-FALCON): keys and values of the
//! history are computed once, and every candidate looks at them and at itself.

mod config;
mod model;
mod train;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use config::Config;
#[cfg(test)]
pub(super) use train::Params;

use super::sequential;
use super::{Base, Family, Model, Needs};
use crate::{Artifact, Result, Task};

const NAME: &str = "hstu_rank";

/// Its line in the registry.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "what a user would do with an item (click, like, rate high), from the latest events and what came of them",
    needs: |_| Needs { times: true, ..Needs::NOTHING },
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: Some(tasks),
    fit: Some(sequential::fit::<train::Params>),
    open,
};

/// The tasks that parameters give; none where the caller is to choose them.
fn tasks(params: &Value) -> Result<Vec<Task>> {
    train::tasks(params)
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model::Ranker::open(artifact)?))
}

#[cfg(test)]
mod tests;
