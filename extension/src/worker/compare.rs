//! Whether a model that was trained is deployed.

use pgrec_engine::Model;
use serde_json::{Map, Value, json};

use super::job::VALIDATED;
use crate::catalog::model::{self, Cut, ModelRow};
use crate::catalog::recommender::{self, Recommender};
use crate::catalog::training::Task;
use crate::error::{Result, SqlError};
use crate::pg::spi::Mode;
use crate::pg::transaction;
use crate::storage::open;

/// What two models are compared by, on the same validation events: lists by the first, ranking models by the second.
const METRICS: [&str; 2] = ["ndcg@10", "auc"];

/// The rule that deploys nothing.
pub const NEVER: &str = "never";

/// The rule that compares.
pub const IF_BETTER: &str = "if_better";

/// Refuses `if_better` before anything is trained, where it could not be answered afterwards.
pub fn require_comparable(recommender: &Recommender, leave_last: u32) -> Result<()> {
    let hint = "Train both with '{\"leave_last\": 2}', or choose deploy => 'always' or 'never'.";
    if leave_last < VALIDATED {
        return Err(SqlError::parameter("deploy => 'if_better' needs events that the new model has not seen")
            .detail(format!(
                "leave_last is {leave_last}; the second-last event of every user is what models are compared by."
            ))
            .hint(hint));
    }
    match model::deployed(Mode::Write, recommender)? {
        Some(deployed) if !is_comparable(&deployed) => Err(SqlError::state(format!(
            "deploy => 'if_better' cannot compare with the deployed model \"{}\"",
            deployed.name
        ))
        .detail("It has, or may have, seen the events that models are compared by.")
        .hint(hint)),
        _ => Ok(()),
    }
}

fn is_comparable(model: &ModelRow) -> bool {
    matches!(Cut::from_json(&model.cut), Cut::LeaveLast(n) if n >= VALIDATED)
}

/// What was decided, and why.
#[derive(Debug)]
pub enum Verdict {
    /// As was asked for.
    Given(bool),
    /// There was nothing to compare with.
    First,
    /// Compared with the deployed model.
    Compared {
        /// The deployed model.
        with: String,
        /// By what.
        metric: &'static str,
        /// Its figure.
        theirs: f64,
        /// The new model's.
        ours: f64,
    },
    /// Meanwhile a model is deployed that cannot be compared with.
    Incomparable(String),
}

impl Verdict {
    /// Decides. `ours` are the new model's figures; `validate` measures another one on the same data.
    pub fn reach(
        task: &Task,
        ours: &Map<String, Value>,
        validate: impl FnOnce(&dyn Model) -> Result<Map<String, Value>>,
    ) -> Result<Self> {
        if task.order.deploy != IF_BETTER {
            return Ok(Self::Given(task.order.deploy == "always"));
        }
        let deployed = transaction::run(|| {
            let recommender = recommender::resolve(Mode::Write, Some(&task.recommender))?;
            let deployed = model::deployed(Mode::Write, &recommender)?;
            deployed.map(|row| Ok((is_comparable(&row), open::open_row(row)?))).transpose()
        })?;
        let Some((comparable, deployed)) = deployed else { return Ok(Self::First) };
        let with = deployed.row.name.clone();
        let theirs = if comparable { validate(&*deployed.model)? } else { Map::new() };
        let both = |metric| Some((metric, ours.get(metric)?.as_f64()?, theirs.get(metric)?.as_f64()?));
        Ok(match METRICS.into_iter().find_map(both) {
            Some((metric, ours, theirs)) => Self::Compared { with, metric, theirs, ours },
            None => Self::Incomparable(with),
        })
    }

    /// Whether the model is deployed.
    pub fn deploys(&self) -> bool {
        match self {
            Self::Given(deploy) => *deploy,
            Self::First => true,
            Self::Compared { theirs, ours, .. } => ours > theirs,
            Self::Incomparable(_) => false,
        }
    }

    /// What `rec.model.metrics` keeps of it.
    pub fn to_json(&self) -> Map<String, Value> {
        let comparison = match self {
            Self::Given(_) => return Map::new(),
            Self::First => json!({ "deployed": true, "with": null }),
            Self::Compared { with, metric, theirs, ours } => json!({
                "deployed": self.deploys(), "with": with, "metric": metric, "deployed_model": theirs, "this_model": ours,
            }),
            Self::Incomparable(with) => json!({ "deployed": false, "with": with, "metric": null }),
        };
        Map::from_iter([("comparison".to_owned(), comparison)])
    }
}

/// One clause on how a training ended, from the order and what [`Verdict::to_json`] has kept.
pub fn describe(deploy: &str, metrics: &Value) -> String {
    let Some(comparison) = metrics.get("comparison") else {
        return if deploy == "always" { " and deployed".into() } else { String::new() };
    };
    let figure = |key: &str| comparison.get(key).and_then(Value::as_f64);
    let metric = comparison.get("metric").and_then(Value::as_str).unwrap_or_default();
    match (comparison.get("with").and_then(Value::as_str), figure("this_model"), figure("deployed_model")) {
        (Some(with), Some(ours), Some(theirs)) => {
            let (better, deployed) = if ours > theirs { ("better", "") } else { ("not better", "not ") };
            format!(" and {deployed}deployed: {metric} {ours:.4} is {better} than the {theirs:.4} of \"{with}\"")
        }
        (Some(with), ..) => format!(" and not deployed: it cannot be compared with \"{with}\""),
        (None, ..) => " and deployed: no model was".into(),
    }
}
