//! `rec_evaluate`, `rec_audit` and the metric behind the aggregates.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgrec_engine::evaluate::{self, By, EvalRow, Protocol, Report, Spec};
use pgrec_engine::families::{Base, Needs};
use pgrec_engine::metrics::{self, Metric};
use pgrec_engine::{Artifact, Corpus, Model, Task, audit, families};
use pgrx::prelude::*;
use pgrx::{JsonB, pg_extern};
use serde_json::{Map, Value};

use crate::catalog::model::{self, Cut};
use crate::catalog::recommender::{self, Recommender};
use crate::compute;
use crate::corpus::{self, Read};
use crate::error::{Result, SqlError, or_raise};
use crate::outcomes;
use crate::pg::spi::Mode;
use crate::settings;
use crate::storage::open;
use crate::worker::job::nothing_to_train_on;
use crate::worker::request::{self, Params};

mod searches;

/// Events at the end of every history that a model must not have seen.
fn unseen(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Test => 1,
        Protocol::Validation => 2,
    }
}

/// The audit compares with random pairs: always the same ones, so that two audits of the same data agree.
const AUDIT_SEED: u64 = 1;

/// How many events are kept from a family that is fitted for its evaluation: both targets, as in the literature.
const HELD_OUT: usize = 2;

/// The model, its family, and what was measured.
type Evaluated = (Option<String>, Option<String>, Vec<EvalRow>);

struct Request {
    model: Option<String>,
    protocol: Protocol,
    ks: Vec<usize>,
    by: By<'static>,
    exclude_seen: bool,
    params: Value,
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, clippy::too_many_arguments)]
fn rec_evaluate(
    model: Option<String>,
    protocol: Option<String>,
    k: Option<Vec<Option<i32>>>,
    by: Option<String>,
    exclude_seen: Option<bool>,
    params: Option<JsonB>,
    recommender: Option<String>,
    task: Option<String>,
) -> TableIterator<
    'static,
    (
        name!(model, Option<String>),
        name!(family, Option<String>),
        name!(grp, String),
        name!(metric, String),
        name!(k, Option<i32>),
        name!(value, f64),
        name!(low, Option<f64>),
        name!(high, Option<f64>),
        name!(users, i64),
    ),
> {
    let evaluated = || match task.as_deref().unwrap_or("next") {
        "next" => {
            let request = request(model, protocol.as_deref(), k, by.as_deref(), exclude_seen, params)?;
            evaluate(&request, recommender.as_deref())
        }
        "search" => {
            let (protocol, by) = (protocol_of(protocol.as_deref())?, searches::by(by.as_deref())?);
            searches::evaluate(searches::Request { model, protocol, ks: lengths(k)?, by }, recommender.as_deref())
        }
        other => Err(SqlError::parameter(format!("task \"{other}\" does not exist"))
            .hint("One of next (what a user touches next), search (what a search leads to).")),
    };
    let (name, family, rows) = or_raise(evaluated());
    TableIterator::new(rows.into_iter().map(move |row| {
        (
            name.clone(),
            family.clone(),
            row.grp,
            row.metric.to_owned(),
            (row.k > 0).then_some(row.k as i32),
            row.value,
            row.low,
            row.high,
            row.users as i64,
        )
    }))
}

#[pg_extern(sql = false)]
fn rec_audit(
    recommender: Option<String>,
) -> TableIterator<'static, (name!(measure, String), name!(value, f64), name!(meaning, String))> {
    let rows = or_raise(run_audit(recommender.as_deref()));
    TableIterator::new(rows.into_iter().map(|row| (row.measure.to_string(), row.value, row.meaning.to_string())))
}

#[pg_extern(sql = false)]
fn rec_metric(metric: &str, recommended: Vec<Option<String>>, relevant: Vec<Option<String>>, k: i32) -> f64 {
    or_raise(one_metric(metric, &recommended, &relevant, k))
}

fn protocol_of(protocol: Option<&str>) -> Result<Protocol> {
    let protocol = protocol.unwrap_or("test");
    Protocol::find(protocol).ok_or_else(|| {
        SqlError::parameter(format!("protocol \"{protocol}\" does not exist")).hint("One of test, validation.")
    })
}

fn lengths(k: Option<Vec<Option<i32>>>) -> Result<Vec<usize>> {
    let mut ks = Vec::new();
    for k in k.unwrap_or_else(|| vec![Some(10)]).into_iter().flatten() {
        ks.push(
            usize::try_from(k)
                .ok()
                .filter(|k| *k > 0)
                .ok_or_else(|| SqlError::parameter(format!("k must be positive, and is {k}")))?,
        );
    }
    if ks.is_empty() {
        return Err(SqlError::parameter("k must name at least one list length").hint("For example k => '{5,10}'."));
    }
    Ok(ks)
}

fn request(
    model: Option<String>,
    protocol: Option<&str>,
    k: Option<Vec<Option<i32>>>,
    by: Option<&str>,
    exclude_seen: Option<bool>,
    params: Option<JsonB>,
) -> Result<Request> {
    let (protocol, ks) = (protocol_of(protocol)?, lengths(k)?);
    let by = match by {
        None => By::Nothing,
        Some("activity") => By::Activity,
        Some("popularity") => By::Popularity,
        Some(other) => {
            return Err(SqlError::parameter(format!("users cannot be grouped by \"{other}\""))
                .hint("One of activity, popularity, or NULL."));
        }
    };
    let params = params.map_or_else(|| Value::Object(Map::new()), |p| p.0);
    Ok(Request { model, protocol, ks, by, exclude_seen: exclude_seen.unwrap_or(true), params })
}

fn evaluate(request: &Request, recommender: Option<&str>) -> Result<Evaluated> {
    let recommender = recommender::resolve(Mode::Read, recommender)?;
    recommender.require_readable()?;
    let stored = match request.model.as_deref() {
        None => Some(model::ready(Mode::Read, &recommender, None)?),
        Some(name) => match model::find(Mode::Read, &recommender, name)? {
            Some(_) => Some(model::ready(Mode::Read, &recommender, Some(name))?),
            None if families::find(name).is_some() => None,
            None => Some(model::ready(Mode::Read, &recommender, Some(name))?),
        },
    };
    match stored {
        Some(row) => {
            model::require_ranking(&row.family)?;
            require_unseen(&row, request.protocol)?;
            let open = open::open_row(row)?;
            let needs = Needs { times: true, searches: open.model.searches() > 0, ..Needs::NOTHING };
            let read = read_as_caller(&recommender, needs, open.model.tasks(), "rec_evaluate")?;
            let report = measure(&*open.model, &read.corpus, request)?;
            Ok((Some(open.row.name.clone()), Some(open.row.family.clone()), report.rows))
        }
        None => evaluate_family(request, &recommender),
    }
}

fn evaluate_family(request: &Request, recommender: &Rc<Recommender>) -> Result<Evaluated> {
    let family = request::trainable(request.model.as_deref())?;
    let mut params = Params::parse(request.params.clone())?;
    model::require_ranking(family.name)?;
    if params.leave_last != 0 || params.init.is_some() || params.base.is_some() {
        return Err(SqlError::parameter("leave_last, init and base cannot be given here")
            .hint("A family is fitted from scratch, without the last two events of every user."));
    }
    if family.base == Base::Several || !params.models.is_empty() {
        return Err(SqlError::parameter(format!("family \"{}\" cannot be fitted from other models here", family.name))
            .hint("Train it with rec_train, then evaluate the model by its name."));
    }
    let tasks = outcomes::of_training(recommender, &family, &mut params)?;
    let recommender = recommender.with_embedding(params.embedding.as_deref())?;
    let needs = Needs { times: true, ..(family.needs)(&params.own) };
    let read = read_as_caller(&recommender, needs, &tasks, "rec_evaluate")?;
    if read.corpus.interactions() == 0 {
        return Err(nothing_to_train_on());
    }
    let memory = settings::training_memory() as usize * 1024;
    let bytes = compute::run("rec_evaluate: fitting", |control| {
        let training = families::Training {
            leave_last: HELD_OUT,
            seed: params.seed as u64,
            memory,
            ..families::Training::new(&read.corpus, &params.own, control)
        };
        (family.fit)(&training)?.artifact.finish()
    })?;
    let fitted = families::open(Arc::new(Artifact::from_vec(bytes)?))?;
    let report = measure(&*fitted, &read.corpus, request)?;
    Ok((None, Some(family.name.to_owned()), report.rows))
}

/// What is needed of what is bound, as the caller may see it.
fn read_as_caller(recommender: &Recommender, needs: Needs, tasks: &[Task], what: &str) -> Result<Read> {
    let mut said = Instant::now();
    corpus::read(recommender, needs, tasks, corpus::MEMORY, &mut |read, expected| {
        if said.elapsed() >= compute::REPORT {
            said = Instant::now();
            pgrx::notice!("{what}: {}", corpus::how_far(read, expected));
        }
    })
}

fn measure(model: &dyn Model, corpus: &Corpus, request: &Request) -> Result<Report> {
    let spec = Spec {
        protocol: request.protocol,
        ks: &request.ks,
        exclude_seen: request.exclude_seen,
        by: request.by,
        exact_limit: settings::exact_limit(),
    };
    let report = compute::run("rec_evaluate", |control| evaluate::evaluate(model, corpus, &spec, control))?;
    if report.skipped > 0 {
        pgrx::notice!("{} users have too few events to be measured", report.skipped);
    }
    if report.unknown_targets > 0 {
        let then = if model.tasks().is_empty() { "they count as misses" } else { "they are left out" };
        pgrx::notice!("{} targets are items that the model does not know; {then}", report.unknown_targets);
    }
    Ok(report)
}

fn require_unseen(row: &model::ModelRow, protocol: Protocol) -> Result<()> {
    match Cut::from_json(&row.cut) {
        Cut::Unknown => {
            SqlError::state(format!("nobody has said which data model \"{}\" was trained on", row.name))
                .detail("If it has seen the events it is asked for, the figures are too good.")
                .hint("Say it when importing: leave_last => 2.")
                .warn();
            Ok(())
        }
        Cut::LeaveLast(n) if n >= unseen(protocol) => Ok(()),
        Cut::LeaveLast(n) => {
            Err(SqlError::state(format!("model \"{}\" has seen what it would be asked for", row.name))
                .detail(format!(
                    "It was trained on all but the last {n} events of every user; protocol {} needs {} unseen.",
                    protocol.name(),
                    unseen(protocol)
                ))
                .hint(format!(
                    "CALL rec_train('{}', '{{\"leave_last\": 2}}'); makes a model that can be measured.",
                    row.family
                )))
        }
    }
}

fn run_audit(recommender: Option<&str>) -> Result<Vec<audit::AuditRow>> {
    let recommender = recommender::resolve(Mode::Read, recommender)?;
    recommender.require_readable()?;
    let needs = Needs { times: true, attributes: true, vectors: true, ..Needs::NOTHING };
    let read = read_as_caller(&recommender, needs, &[], "rec_audit")?;
    compute::run("rec_audit", |control| audit::audit(&read.corpus, AUDIT_SEED, control))
}

fn one_metric(name: &str, recommended: &[Option<String>], relevant: &[Option<String>], k: i32) -> Result<f64> {
    let metric = Metric::find(name).ok_or_else(|| SqlError::parameter(format!("metric \"{name}\" does not exist")))?;
    let k = usize::try_from(k)
        .ok()
        .filter(|k| *k > 0)
        .ok_or_else(|| SqlError::parameter(format!("k must be positive, and is {k}")))?;
    let recommended: Vec<&String> = recommended.iter().flatten().collect();
    let relevant: Vec<&String> = relevant.iter().flatten().collect();
    let (hits, relevant) = metrics::hits(&recommended, &relevant, k);
    Ok(metric.of(&hits, relevant, k))
}
