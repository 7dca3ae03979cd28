//! Models: rows of `rec.model`.

use pgrec_engine::families;
use serde_json::{Value, json};

use crate::catalog::{Recommender, recommender};
use crate::error::{Result, SqlError};
use crate::pg::lookup::{self, Found, Key, Version};
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode, Row};

/// One model as the catalogue has it.
#[derive(Debug, Clone)]
pub struct ModelRow {
    /// Primary key.
    pub id: i64,
    /// Name, unique within the recommender.
    pub name: String,
    /// Family.
    pub family: String,
    /// `queued`, `training`, `ready` or `failed`, as stored.
    pub state: String,
    /// CRC32C of the artifact.
    pub checksum: i64,
    /// Size of the artifact in bytes.
    pub bytes: i64,
    /// Which data the model has seen, see [`Cut`].
    pub cut: Value,
    /// The items' column of vectors that it was trained on, where it is another than the recommender's.
    pub embedding: Option<String>,
}

/// The parameter of a training that names a column of vectors.
pub const EMBEDDING: &str = "embedding";

impl ModelRow {
    /// What [`ModelRow::from_row`] reads, of `rec.model m`.
    const COLUMNS: &str = "m.model_id, m.name, m.family, m.state, coalesce(m.checksum, 0), coalesce(m.bytes, 0), m.cut::text, \
         m.params ->> 'embedding'";

    fn from_row(row: &Row) -> Result<Self> {
        let cut: String = row.need(6)?;
        Ok(Self {
            id: row.need(0)?,
            name: row.need(1)?,
            family: row.need(2)?,
            state: row.need(3)?,
            checksum: row.need(4)?,
            bytes: row.need(5)?,
            cut: serde_json::from_str(&cut).map_err(|e| SqlError::corrupted(format!("rec.model.cut: {e}")))?,
            embedding: row.get(7),
        })
    }
}

/// What part of the histories a model has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All but the last `n` events of every user.
    LeaveLast(u32),
    /// Nobody has said.
    Unknown,
}

impl Cut {
    /// As `rec.model.cut` stores it.
    pub fn to_json(self) -> Value {
        match self {
            Self::LeaveLast(n) => json!({ "leave_last": n }),
            Self::Unknown => json!({ "unknown": true }),
        }
    }

    /// Reads `rec.model.cut`.
    pub fn from_json(value: &Value) -> Self {
        match value.get("leave_last").and_then(Value::as_u64) {
            Some(n) => Self::LeaveLast(u32::try_from(n).unwrap_or(u32::MAX)),
            None => Self::Unknown,
        }
    }
}

/// A model by its key.
pub fn by_id(mode: Mode, id: i64) -> Result<Option<ModelRow>> {
    let sql = format!("SELECT {} FROM rec.model m WHERE m.model_id = $1", ModelRow::COLUMNS);
    spi::first(mode, &sql, &[Arg::Int8(id)], ModelRow::from_row)
}

/// The model of that name, or the deployed one, ready to serve.
pub fn ready(mode: Mode, recommender: &Recommender, name: Option<&str>) -> Result<ModelRow> {
    let Some(name) = name else {
        return deployed(mode, recommender)?.ok_or_else(|| nothing_deployed(recommender));
    };
    let model = find(mode, recommender, name)?.ok_or_else(|| {
        SqlError::undefined(format!("model \"{name}\" of recommender \"{}\" does not exist", recommender.name))
            .detail(overview(recommender))
    })?;
    if model.state != "ready" {
        return Err(SqlError::state(format!("model \"{name}\" is not ready")).detail(overview(recommender)));
    }
    Ok(model)
}

/// The model of that name, to train another one of the family from: of this recommender, or as `RECOMMENDER.MODEL` of
/// another one that the caller owns, where what the family learns is of no item.
pub fn to_continue(recommender: &Recommender, name: &str, family: &str) -> Result<ModelRow> {
    let transfers = families::find(family).is_some_and(|family| family.transfers);
    let elsewhere = name.split_once('.').filter(|_| transfers);
    let model = match elsewhere {
        Some((other, model)) if find(Mode::Write, recommender, name)?.is_none() => {
            let other = recommender::resolve(Mode::Write, Some(other))?;
            other.require_owner("continue its models elsewhere")?;
            ready(Mode::Write, &other, Some(model))?
        }
        _ => ready(Mode::Write, recommender, Some(name))?,
    };
    if model.family != family {
        return Err(SqlError::parameter(format!(
            "a model of family \"{family}\" cannot continue from \"{name}\", which is of family \"{}\"",
            model.family
        ))
        .hint("Parameter \"init\" names a model of the same family and recommender."));
    }
    Ok(model)
}

/// The model that the latest deployment names.
pub fn deployed(mode: Mode, recommender: &Recommender) -> Result<Option<ModelRow>> {
    spi::first(
        mode,
        &format!(
            "SELECT {} FROM rec.deployment d JOIN rec.model m USING (model_id) \
             WHERE d.recommender_id = $1 ORDER BY d.deployment_id DESC LIMIT 1",
            ModelRow::COLUMNS
        ),
        &[Arg::Int8(recommender.id)],
        ModelRow::from_row,
    )
}

/// Id and version of the deployed model's row, under the caller's snapshot: what tells a serving call that the
/// model it has open is still the one to use.
pub fn deployed_version(recommender: &Recommender) -> Option<(i64, Version)> {
    let key = Key::Int8(recommender.id);
    let id: i64 = lookup::first(c"deployment", c"deployment_latest", 2, key, |row| row.get(3)).flatten()?;
    let version = lookup::first(c"model", c"model_pkey", 1, Key::Int8(id), Found::version)?;
    Some((id, version))
}

/// A model by name, in whatever state.
pub fn find(mode: Mode, recommender: &Recommender, name: &str) -> Result<Option<ModelRow>> {
    spi::first(
        mode,
        &format!("SELECT {} FROM rec.model m WHERE m.recommender_id = $1 AND m.name = $2", ModelRow::COLUMNS),
        &[Arg::Int8(recommender.id), Arg::Text(name)],
        ModelRow::from_row,
    )
}

/// The newest model of a family that is ready.
pub fn newest(mode: Mode, recommender: &Recommender, family: &str) -> Result<Option<ModelRow>> {
    let columns = ModelRow::COLUMNS;
    spi::first(
        mode,
        &format!(
            "SELECT {columns} FROM rec.model m WHERE m.recommender_id = $1 AND m.family = $2 AND m.state = 'ready' \
             ORDER BY m.model_id DESC LIMIT 1"
        ),
        &[Arg::Int8(recommender.id), Arg::Text(family)],
        ModelRow::from_row,
    )
}

/// What was measured of a model when it was trained, `rec.model.metrics`.
pub fn metrics(mode: Mode, id: i64) -> Result<Value> {
    let text = spi::first(mode, "SELECT metrics::text FROM rec.model WHERE model_id = $1", &[Arg::Int8(id)], |row| {
        row.need::<String>(0)
    })?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    Ok(parsed.map_err(|e| SqlError::corrupted(format!("rec.model.metrics: {e}")))?.unwrap_or_default())
}

/// One sentence on the models there are, for a DETAIL.
pub fn overview(recommender: &Recommender) -> String {
    let models = spi::query(
        Mode::Read,
        "SELECT name || ' (' || state || CASE WHEN reason IS NULL THEN '' ELSE ': ' || reason END || ')' \
         FROM rec.models WHERE recommender = $1 ORDER BY created_at DESC LIMIT 5",
        &[Arg::Text(&recommender.name)],
        |row| row.need::<String>(0),
    )
    .unwrap_or_default();
    match models.len() {
        0 => format!("Recommender \"{}\" has no model.", recommender.name),
        _ => format!("Latest models: {}.", models.join(", ")),
    }
}

fn nothing_deployed(recommender: &Recommender) -> SqlError {
    let name = recommender.name.replace('\'', "''");
    SqlError::state(format!("recommender \"{}\" has no deployed model", recommender.name))
        .detail(overview(recommender))
        .hint(format!(
            "CALL rec_train('graph', recommender => '{name}'); then SELECT rec_deploy('…', recommender => '{name}');"
        ))
}

/// Fails where models of a family cannot serve.
pub fn require_ranking(family: &str) -> Result<()> {
    if families::find(family).is_none_or(|family| family.ranks) {
        return Ok(());
    }
    Err(SqlError::parameter(format!(
        "models of family \"{family}\" rank nothing: they are neither deployed nor evaluated"
    ))
    .hint("They are asked by name, or build other models: SELECT * FROM rec_families();"))
}

/// How often a generated name is tried again when another session was faster.
const NAME_ATTEMPTS: usize = 100;

/// A model to be.
pub struct New<'a> {
    /// Its family.
    pub family: &'a str,
    /// Parameters it is made with.
    pub params: &'a Value,
    /// `queued`, or `training` for what becomes ready in the same transaction.
    pub state: &'a str,
    /// Seed of its training.
    pub seed: Option<i64>,
}

/// Creates a model's row and gives its id and name: the name given, or family_N.
pub fn create(recommender: &Recommender, name: Option<&str>, new: &New<'_>) -> Result<(i64, String)> {
    let given = match name {
        Some("") => return Err(SqlError::parameter("a model needs a name that is not empty")),
        Some(name) if families::find(name).is_some() => {
            return Err(SqlError::parameter(format!(
                "a model cannot be called \"{name}\": that is the name of a family"
            ))
            .hint("rec_evaluate takes a model or a family; choose a name that tells them apart."));
        }
        given => given,
    };
    for _ in 0..given.map_or(NAME_ATTEMPTS, |_| 1) {
        let name = given.map_or_else(|| next_name(recommender, new.family), |name| Ok(name.to_owned()))?;
        if let Some(id) = insert(recommender, &name, new)? {
            return Ok((id, name));
        }
    }
    let name = given.unwrap_or(new.family);
    Err(SqlError::new(
        pgrx::PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
        format!("model \"{name}\" of recommender \"{}\" already exists", recommender.name),
    )
    .hint("Choose another name, or drop it with rec_drop_model."))
}

/// The new row's id, or None when the name is taken.
fn insert(recommender: &Recommender, name: &str, new: &New<'_>) -> Result<Option<i64>> {
    role::as_catalog(|| {
        spi::first(
            Mode::Write,
            "INSERT INTO rec.model (recommender_id, name, family, params, state, seed) \
             VALUES ($1, $2, $3, $4::jsonb, $5, $6) \
             ON CONFLICT (recommender_id, name) DO NOTHING RETURNING model_id",
            &[
                Arg::Int8(recommender.id),
                Arg::Text(name),
                Arg::Text(new.family),
                Arg::Text(&new.params.to_string()),
                Arg::Text(new.state),
                Arg::MaybeInt8(new.seed),
            ],
            |row| row.need::<i64>(0),
        )
    })
}

fn next_name(recommender: &Recommender, family: &str) -> Result<String> {
    let taken = spi::query(
        Mode::Write,
        "SELECT name FROM rec.model WHERE recommender_id = $1",
        &[Arg::Int8(recommender.id)],
        |row| row.need::<String>(0),
    )?;
    let prefix = format!("{family}_");
    let last = taken.iter().filter_map(|n| n.strip_prefix(&prefix)?.parse::<u64>().ok()).max();
    Ok(format!("{prefix}{}", last.map_or(1, |n| n.saturating_add(1))))
}

/// What is known of a model once its bytes are stored.
pub struct Facts<'a> {
    /// Parameters it was made with.
    pub params: &'a Value,
    /// What it has seen, see [`Cut`].
    pub cut: &'a Value,
    /// What was measured of it.
    pub metrics: &'a Value,
    /// Items it knows.
    pub items: usize,
    /// Size of its artifact.
    pub bytes: usize,
    /// CRC32C of its artifact.
    pub checksum: u32,
    /// What its training was like, where it was trained here.
    pub training: Option<&'a Trained>,
}

/// What a training was like.
pub struct Trained {
    /// One object an epoch.
    pub curve: Value,
    /// How long it took.
    pub seconds: f64,
    /// Processor time of all threads.
    pub cpu_seconds: f64,
    /// Of what computed it.
    pub versions: Value,
}

/// Marks a model ready; false when it is not in training any more.
pub fn finish(id: i64, facts: &Facts<'_>) -> Result<bool> {
    let training = facts.training;
    let updated = role::as_catalog(|| {
        spi::execute(
            "UPDATE rec.model SET state = 'ready', reason = NULL, params = $2::jsonb, cut = $3::jsonb, \
             metrics = $4::jsonb, items = $5, bytes = $6, checksum = $7, finished_at = pg_catalog.clock_timestamp(), \
             curve = coalesce($8::jsonb, curve), seconds = $9, cpu_seconds = $10, versions = $11::jsonb \
             WHERE model_id = $1 AND state = 'training'",
            &[
                Arg::Int8(id),
                Arg::Text(&facts.params.to_string()),
                Arg::Text(&facts.cut.to_string()),
                Arg::Text(&facts.metrics.to_string()),
                Arg::Int8(facts.items as i64),
                Arg::Int8(facts.bytes as i64),
                Arg::Int8(i64::from(facts.checksum)),
                Arg::MaybeText(training.map(|t| t.curve.to_string()).as_deref()),
                Arg::MaybeFloat8(training.map(|t| t.seconds)),
                Arg::MaybeFloat8(training.map(|t| t.cpu_seconds)),
                Arg::MaybeText(training.map(|t| t.versions.to_string()).as_deref()),
            ],
        )
    })?;
    Ok(updated > 0)
}

/// Removes a model; its artifact and deployments go with it.
pub fn remove(id: i64) -> Result<()> {
    role::as_catalog(|| spi::execute("DELETE FROM rec.model WHERE model_id = $1", &[Arg::Int8(id)]))?;
    Ok(())
}
