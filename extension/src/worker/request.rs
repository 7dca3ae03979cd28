//! What a caller asks to be trained: a family that can be, and parameters that make sense.

use pgrec_engine::families::{self, Base, Family, Fit, Needs, Tasks};
use serde_json::{Map, Value, json};

use crate::catalog::model::{Cut, EMBEDDING};
use crate::catalog::{ModelRow, Recommender, model};
use crate::error::{Result, SqlError};
use crate::pg::spi::Mode;

/// Seed where none is given: a training that is repeated gives the same model.
const SEED: i64 = 42;

/// A family that trains here.
pub struct Trainable {
    /// Its name.
    pub name: &'static str,
    /// What it is fitted on, by its parameters.
    pub needs: fn(&Value) -> Needs,
    /// Whether it builds on another model.
    pub base: Base,
    /// Whether its models rank items.
    pub ranks: bool,
    /// What it predicts of events, where it does.
    pub tasks: Option<Tasks>,
    /// How it is fitted.
    pub fit: Fit,
}

/// The family of that name, if it trains.
pub fn trainable(family: Option<&str>) -> Result<Trainable> {
    let known = || families::FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
    let Some(name) = family else {
        return Err(SqlError::parameter("which family?").hint(format!("One of {}.", known())));
    };
    let &Family { name, needs, base, ranks, tasks, fit, .. } = families::find(name).ok_or_else(|| {
        SqlError::undefined(format!("family \"{name}\" does not exist")).hint(format!("One of {}.", known()))
    })?;
    let fit = fit.ok_or_else(|| {
        SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("family \"{name}\" cannot be trained here"),
        )
        .hint("Import its weights with rec_import.")
    })?;
    Ok(Trainable { name, needs, base, ranks, tasks, fit })
}

/// Parameters of a training: those of all families, and the family's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// How many of the last events of every user the model must not see.
    pub leave_last: u32,
    /// Where its random numbers start.
    pub seed: i64,
    /// The model it continues from.
    pub init: Option<String>,
    /// The model it builds on, which may be of another family.
    pub base: Option<String>,
    /// The models it is made of.
    pub models: Vec<String>,
    /// The items' column of vectors, where it is another than the recommender's.
    pub embedding: Option<String>,
    /// What only the family understands.
    pub own: Value,
}

impl Params {
    /// Takes the common ones out of what was given.
    pub fn parse(params: Value) -> Result<Self> {
        let Value::Object(mut fields) = params else {
            return Err(SqlError::parameter("params must be a JSON object").hint("For example '{\"leave_last\": 2}'."));
        };
        let leave_last =
            take(&mut fields, "leave_last", |v| v.as_u64().and_then(|n| u32::try_from(n).ok())).map_err(|e| {
                e.hint("It is how many of the last events of every user the model must not see: 0 or more.")
            })?;
        let seed = take(&mut fields, "seed", |v| v.as_i64().filter(|&n| n >= 0))
            .map_err(|e| e.hint("It is where the random numbers start: a whole number, 0 or more."))?;
        let init = take(&mut fields, "init", |v| v.as_str().map(str::to_owned))
            .map_err(|e| e.hint("It is the name of a model of the same family to continue from."))?;
        let base = take(&mut fields, "base", |v| v.as_str().map(str::to_owned))
            .map_err(|e| e.hint("It is the name of a model to build on."))?;
        let names = |v: &Value| v.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect();
        let models: Option<Vec<String>> = take(&mut fields, "models", names)
            .map_err(|e| e.hint("It is the names of the models to blend: [\"sasrec_1\", \"graph_1\"]."))?;
        let embedding = take(&mut fields, EMBEDDING, |v| v.as_str().map(str::to_owned)).map_err(|e| {
            e.hint("It is the name of a column of vectors of the items, instead of the recommender's own.")
        })?;
        let (leave_last, seed) = (leave_last.unwrap_or(0), seed.unwrap_or(SEED));
        let models = models.unwrap_or_default();
        Ok(Self { leave_last, seed, init, base, models, embedding, own: Value::Object(fields) })
    }

    /// As `rec.model.params` shows them; the seed has a column of its own.
    pub fn to_json(&self) -> Value {
        let mut all = self.own.clone();
        if let Value::Object(fields) = &mut all {
            if self.leave_last > 0 {
                fields.insert("leave_last".into(), json!(self.leave_last));
            }
            if let Some(init) = &self.init {
                fields.insert("init".into(), json!(init));
            }
            if let Some(base) = &self.base {
                fields.insert("base".into(), json!(base));
            }
            if let Some(embedding) = &self.embedding {
                fields.insert(EMBEDDING.into(), json!(embedding));
            }
            if !self.models.is_empty() {
                fields.insert("models".into(), json!(self.models));
            }
        }
        all
    }
}

/// The row of the model to build on: the one named, or where one is needed the newest that has semantic IDs.
pub fn base(recommender: &Recommender, family: &Trainable, params: &Params) -> Result<Option<ModelRow>> {
    match (&params.base, family.base) {
        (None, Base::Nothing | Base::Optional | Base::Several) => Ok(None),
        (Some(_), Base::Several) => {
            Err(SqlError::parameter(format!("family \"{}\" builds on several models", family.name))
                .hint("Name them as \"models\": [\"sasrec_1\", \"graph_1\"]."))
        }
        (Some(_), Base::Nothing) => {
            Err(SqlError::parameter(format!("family \"{}\" builds on no other model", family.name))
                .hint("To continue the training of a model of this family, name it as \"init\"."))
        }
        (Some(base), _) => model::ready(Mode::Write, recommender, Some(base)).map(Some),
        (None, Base::Needed) => {
            let newest = model::newest(Mode::Write, recommender, families::semantic_ids::FAMILY.name)?;
            newest.map(Some).ok_or_else(|| {
                SqlError::state(format!("family \"{}\" builds on semantic IDs, and there are none", family.name))
                    .detail(model::overview(recommender))
                    .hint("CALL rec_train('semantic_ids'); first, or name a model that has them as \"base\".")
            })
        }
    }
}

/// The rows of the models that it is to be made of. None may have seen what it must not.
pub fn members(recommender: &Recommender, family: &Trainable, params: &Params) -> Result<Vec<ModelRow>> {
    if family.base != Base::Several && !params.models.is_empty() {
        return Err(SqlError::parameter(format!("family \"{}\" is made of no other models", family.name))
            .hint("CALL rec_train('blend', '{\"models\": [...]}'); ranks by several together."));
    }
    let row = |name: &String| {
        let row = model::ready(Mode::Write, recommender, Some(name))?;
        let seen = match Cut::from_json(&row.cut) {
            Cut::LeaveLast(left) if left >= params.leave_last => return Ok(row),
            Cut::LeaveLast(left) => format!("It was trained with leave_last {left}."),
            Cut::Unknown if params.leave_last == 0 => return Ok(row),
            Cut::Unknown => "Nobody has said what it has seen.".to_owned(),
        };
        let asked = params.leave_last;
        Err(SqlError::state(format!("model \"{name}\" has seen events that leave_last {asked} leaves out"))
            .detail(seen)
            .hint(format!("Train it with '{{\"leave_last\": {asked}}}' too.")))
    };
    params.models.iter().map(row).collect()
}

fn take<T>(fields: &mut Map<String, Value>, name: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(SqlError::parameter(format!("parameter \"{name}\" is {value}"))),
        },
    }
}
