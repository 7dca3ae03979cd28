//! What a ranking model predicts of an event: whether it was a click, a like, a rating of 4 or more.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Tasks a model has at most: every combination of outcomes has a vector of its own.
pub const MOST_TASKS: usize = 8;

/// A question about an event whose answer is yes or no. With several conditions all have to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name in figures and explanations.
    pub name: String,
    /// The event's weight is at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_from: Option<f64>,
    /// The event's action is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// What a yes is worth: an item's score is the sum of the tasks' probabilities times their values.
    #[serde(default = "one")]
    pub value: f32,
}

fn one() -> f32 {
    1.0
}

/// Refuses tasks that no model can have.
pub fn check(tasks: &[Task]) -> Result<()> {
    let wrong = |why: String| Err(Error::Parameter(why));
    if tasks.is_empty() || tasks.len() > MOST_TASKS {
        return wrong(format!("a ranking model has 1 to {MOST_TASKS} tasks, and {} are given", tasks.len()));
    }
    for (place, task) in tasks.iter().enumerate() {
        let name = &task.name;
        if name.is_empty() || tasks[..place].iter().any(|other| other.name == *name) {
            return wrong(format!("every task needs a name of its own, and task {} has \"{name}\"", place + 1));
        }
        if task.weight_from.is_none() && task.actions.as_ref().is_none_or(Vec::is_empty) {
            return wrong(format!("task \"{name}\" has no condition: give weight_from or actions"));
        }
        if !task.value.is_finite() || !task.weight_from.is_none_or(f64::is_finite) {
            return wrong(format!("task \"{name}\" has numbers that are not finite"));
        }
    }
    Ok(())
}

/// How many combinations of outcomes there are.
pub(crate) fn combinations(tasks: &[Task]) -> usize {
    1 << tasks.len()
}
