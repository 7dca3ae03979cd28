//! `rec_train`.

use std::sync::Arc;

use pgrec_engine::evaluate::{self, Protocol, Spec};
use pgrec_engine::families::Needs;
use pgrec_engine::{Artifact, Corpus, families};
use pgrx::{JsonB, pg_extern, pg_sys};
use serde_json::{Map, Value, json};

use crate::catalog::model::Cut;
use crate::catalog::recommender::{self, Recommender};
use crate::catalog::{artifact, deployment, model, progress};
use crate::compute;
use crate::corpus::{self, Read};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::spi::Mode;
use crate::pg::{procedure, role, spi};

/// The parameter that all families share.
const LEAVE_LAST: &str = "leave_last";

/// Last events that must be unseen for a model to be validated when it is trained.
const VALIDATED: u32 = 2;

#[pg_extern(sql = false)]
fn rec_train(
    family: Option<String>,
    params: Option<JsonB>,
    recommender: Option<String>,
    model: Option<String>,
    deploy: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    or_raise(procedure::require_top_level(fcinfo, "rec_train"));
    let params = params.map_or_else(|| Value::Object(Map::new()), |p| p.0);
    or_raise(train(family.as_deref(), params, recommender.as_deref(), model.as_deref(), deploy.unwrap_or(false)));
}

fn train(
    family: Option<&str>,
    params: Value,
    recommender: Option<&str>,
    name: Option<&str>,
    deploy: bool,
) -> Result<()> {
    let fit = fit_of(family)?;
    let (own, leave_last) = split(params)?;
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("train its models")?;
    let owner = recommender.owner_oid()?;
    let stored = with_leave_last(&own, leave_last);
    let (id, name) = model::create(&recommender, name, fit.name, &stored, "training")?;
    progress::set(id, "reading")?;
    model::lock_training(id)?;
    spi::commit();
    let job = Job { id, family: fit, own, leave_last };
    let outcome = job.run(&recommender, owner, deploy.then_some(&name));
    if let Err(error) = &outcome {
        model::fail(id, error.message())?;
    }
    progress::clear(id)?;
    model::unlock_training(id)?;
    spi::commit();
    outcome?;
    pgrx::notice!(
        "model \"{name}\" of recommender \"{}\" is ready{}",
        recommender.name,
        if deploy { " and deployed" } else { "" }
    );
    Ok(())
}

/// A family that trains here.
pub struct Trainable {
    /// Its name.
    pub name: &'static str,
    needs: Needs,
    fit: families::Fit,
}

/// The family of that name, if it trains.
pub fn fit_of(family: Option<&str>) -> Result<Trainable> {
    let known = || families::FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
    let Some(name) = family else {
        return Err(SqlError::parameter("which family?").hint(format!("One of {}.", known())));
    };
    let family = families::find(name).ok_or_else(|| {
        SqlError::undefined(format!("family \"{name}\" does not exist")).hint(format!("One of {}.", known()))
    })?;
    let fit = family.fit.ok_or_else(|| {
        SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("family \"{name}\" cannot be trained here"),
        )
        .hint("Import its weights with rec_import.")
    })?;
    Ok(Trainable { name: family.name, needs: family.needs, fit })
}

impl Trainable {
    /// Fits on a corpus and gives the artifact.
    pub fn fit(&self, corpus: &Corpus, params: &Value) -> Result<Vec<u8>> {
        if corpus.interactions() == 0 {
            return Err(SqlError::state("there is nothing to train on")
                .detail("The interactions relation has no rows that the owner of the recommender can read, or leave_last leaves none."));
        }
        compute::run("rec_train", |control| {
            (self.fit)(&families::Training::new(corpus, params, control))?.artifact.finish()
        })
    }
}

/// Takes `leave_last` out of the parameters; the rest is the family's own.
pub fn split(params: Value) -> Result<(Value, u32)> {
    let Value::Object(mut fields) = params else {
        return Err(SqlError::parameter("params must be a JSON object").hint("For example '{\"leave_last\": 2}'."));
    };
    let leave_last = match fields.remove(LEAVE_LAST) {
        None => 0,
        Some(value) => value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            SqlError::parameter(format!("parameter \"{LEAVE_LAST}\" is {value}"))
                .hint("It is how many of the last events of every user the model must not see: 0 or more.")
        })?,
    };
    Ok((Value::Object(fields), leave_last))
}

fn with_leave_last(own: &Value, leave_last: u32) -> Value {
    let mut all = own.clone();
    if let (Value::Object(fields), true) = (&mut all, leave_last > 0) {
        fields.insert(LEAVE_LAST.into(), json!(leave_last));
    }
    all
}

/// One training, its model's row in place.
struct Job {
    id: i64,
    family: Trainable,
    own: Value,
    leave_last: u32,
}

/// What fitting makes.
struct Fitted {
    bytes: Vec<u8>,
    items: usize,
    metrics: Value,
}

impl Job {
    /// Reads, fits and stores, with a commit in between: no snapshot and no lock is held while it fits.
    fn run(&self, recommender: &Recommender, owner: pg_sys::Oid, deploy: Option<&String>) -> Result<()> {
        let read = guarded(|| {
            role::as_owner(owner, || corpus::read(recommender, self.family.needs, corpus::MEMORY, &mut |_, _| ()))
        })?;
        self.enter("fitting")?;
        let fitted = guarded(|| self.fit(&read.corpus))?;
        self.enter("storing")?;
        guarded(|| {
            self.store(&fitted, &read.fingerprint)?;
            match deploy {
                Some(name) => deployment::add(recommender, &model::ready(Mode::Write, recommender, Some(name))?),
                None => Ok(()),
            }
        })
    }

    fn enter(&self, phase: &str) -> Result<()> {
        progress::set(self.id, phase)?;
        spi::commit();
        Ok(())
    }

    fn fit(&self, whole: &Corpus) -> Result<Fitted> {
        if self.leave_last == 0 {
            let bytes = self.family.fit(whole, &self.own)?;
            return Ok(Fitted { bytes, items: whole.items().len(), metrics: json!({}) });
        }
        let bytes = self.family.fit(&whole.without_last(self.leave_last as usize), &self.own)?;
        let metrics = if self.leave_last >= VALIDATED { validate(bytes.clone(), whole)? } else { json!({}) };
        Ok(Fitted { bytes, items: whole.items().len(), metrics })
    }

    fn store(&self, fitted: &Fitted, fingerprint: &Value) -> Result<()> {
        let checksum = artifact::store(self.id, &fitted.bytes)?;
        let mut cut = Cut::LeaveLast(self.leave_last).to_json();
        if let (Value::Object(cut), Value::Object(facts)) = (&mut cut, fingerprint) {
            cut.extend(facts.clone());
        }
        let facts = model::Facts {
            params: &with_leave_last(&self.own, self.leave_last),
            cut: &cut,
            metrics: &fitted.metrics,
            items: fitted.items,
            bytes: fitted.bytes.len(),
            checksum,
        };
        model::finish(self.id, &facts)
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    procedure::in_subtransaction(std::panic::AssertUnwindSafe(work))
}

/// Measures a model on the validation events that it has not seen, for the catalogue.
fn validate(bytes: Vec<u8>, corpus: &Corpus) -> Result<Value> {
    let model = families::open(Arc::new(Artifact::from_vec(bytes)?))?;
    let spec = Spec { protocol: Protocol::Validation, ..Spec::default() };
    let report =
        match compute::run("rec_train: validating", |control| evaluate::evaluate(&*model, corpus, &spec, control)) {
            Ok(report) => report,
            // Histories too short for the protocol are no reason to refuse the model.
            Err(error) if error.is_state() => return Ok(json!({})),
            Err(error) => return Err(error),
        };
    let figures: Map<String, Value> = report
        .rows
        .iter()
        .filter(|row| row.grp == "all")
        .map(|row| (format!("{}@{}", row.metric, row.k), json!(row.value)))
        .collect();
    Ok(json!({ "validation": figures }))
}

/// Everything that is bound.
pub fn read_as_caller(recommender: &Recommender) -> Result<Read> {
    corpus::read(recommender, Needs::ALL, corpus::MEMORY, &mut |_, _| ())
}
