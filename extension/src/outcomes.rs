//! What came of events: the tasks of ranking models, asked of the weight and action columns.

use pgrec_engine::Task;
use pgrec_engine::task::MOST_TASKS;
use serde_json::{Value, json};

use crate::catalog::model;
use crate::catalog::recommender::{Recommender, quoted};
use crate::error::{Result, SqlError};
use crate::pg::spi::{self, Mode};
use crate::storage::open;
use crate::worker::request::{Params, Trainable};

/// Which bits an event has, as an expression of its columns: bit t where the answer to task t is yes.
pub fn expression(recommender: &Recommender, tasks: &[Task]) -> Result<String> {
    let mut terms = vec!["0".to_owned()];
    for (place, task) in tasks.iter().enumerate() {
        let conditions = conditions(recommender, task)?.join(" AND ");
        terms.push(format!("CASE WHEN {conditions} THEN {} ELSE 0 END", 1u32 << place));
    }
    Ok(format!("({})::int4", terms.join(" + ")))
}

/// What has to hold for a yes. A column that is NULL is a no, and so is NaN, which the database takes for the largest
/// number.
fn conditions(recommender: &Recommender, task: &Task) -> Result<Vec<String>> {
    let column = |name: &Option<String>, what: &str| {
        name.as_deref().map(quoted).ok_or_else(|| {
            SqlError::state(format!(
                "task \"{}\" asks for the {what} of events, and the interactions have none",
                task.name
            ))
            .hint(format!("Create the recommender with {what}_column => '…'."))
        })
    };
    let mut conditions = Vec::new();
    if let Some(from) = task.weight_from {
        let weight = column(&recommender.interactions.weight, "weight")?;
        conditions.push(format!("{weight}::float8 >= '{from}'::float8 AND {weight}::float8 < 'NaN'"));
    }
    if let Some(actions) = &task.actions {
        let actions: Vec<String> = actions.iter().map(pgrx::spi::quote_literal).collect();
        let action = column(&recommender.interactions.action, "action")?;
        conditions.push(format!("{action}::text IN ({})", actions.join(", ")));
    }
    Ok(conditions)
}

/// The tasks of a training, where its family has any: those given, those of the model it continues from, or what the
/// data suggest. They are among the parameters then.
pub fn of_training(recommender: &Recommender, family: &Trainable, params: &mut Params) -> Result<Vec<Task>> {
    let Some(read) = family.tasks else { return Ok(Vec::new()) };
    let given = read(&params.own)?;
    if !given.is_empty() {
        return Ok(given);
    }
    let tasks = match &params.init {
        Some(name) => open::open_row(model::to_continue(recommender, name, family.name)?)?.model.tasks().to_vec(),
        None => suggested(recommender)?,
    };
    if let Value::Object(fields) = &mut params.own {
        fields.insert("tasks".into(), json!(tasks));
    }
    Ok(tasks)
}

/// A task for each of the most frequent actions, or one for weights above their mean.
fn suggested(recommender: &Recommender) -> Result<Vec<Task>> {
    let (relation, interactions) = (recommender.interactions_name()?, &recommender.interactions);
    let of = |name: String, weight_from, actions| Task { name, weight_from, actions, value: 1.0 };
    if let Some(action) = interactions.action.as_deref().map(quoted) {
        let sql = format!(
            "SELECT {action}::text FROM {relation} WHERE {action}::text <> '' GROUP BY 1 ORDER BY count(*) DESC, 1 \
             LIMIT {MOST_TASKS}"
        );
        let mut actions: Vec<String> = Vec::new();
        spi::each(Mode::Read, &sql, &[], |row| {
            actions.push(row.need(0)?);
            Ok(())
        })?;
        if actions.len() > 1 {
            return Ok(actions.into_iter().map(|action| of(action.clone(), None, Some(vec![action]))).collect());
        }
    }
    if let Some(weight) = interactions.weight.as_deref().map(quoted) {
        let sql = format!(
            "SELECT avg(w) FROM (SELECT {weight}::float8 AS w FROM {relation}) i WHERE w > '-Infinity' AND w < 'Infinity' \
             HAVING min(w) < max(w)"
        );
        let mean: Option<f64> = spi::first(Mode::Read, &sql, &[], |row| Ok(row.get(0)))?.flatten();
        if let Some(mean) = mean {
            return Ok(vec![of("above the mean".into(), Some(mean), None)]);
        }
    }
    Err(SqlError::state("nothing is known of what came of the interactions")
        .detail("A ranking model predicts actions or weights, and there is neither a column of several actions nor one of different weights.")
        .hint("Create the recommender with an action_column or a weight_column."))
}
