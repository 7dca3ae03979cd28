//! `rec_families`, `rec_deploy`, `rec_rollback`, `rec_drop_model`.

use pgrec_engine::families::FAMILIES;
use pgrx::pg_extern;
use pgrx::prelude::*;

use crate::catalog::{deployment, model, publication, recommender, training};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::role;
use crate::pg::spi::Mode;
use crate::storage::cache;
use crate::vectors::publish;

#[pg_extern(sql = false)]
fn rec_families() -> TableIterator<'static, (name!(family, String), name!(trains, bool), name!(summary, String))> {
    TableIterator::new(FAMILIES.iter().map(|f| (f.name.to_owned(), f.fit.is_some(), f.summary.to_owned())))
}

#[pg_extern(sql = false)]
fn rec_deploy(model: Option<String>, recommender: Option<String>) -> String {
    or_raise(deploy(model.as_deref(), recommender.as_deref()))
}

#[pg_extern(sql = false)]
fn rec_rollback(recommender: Option<String>) -> String {
    or_raise(rollback(recommender.as_deref()))
}

#[pg_extern(sql = false)]
fn rec_drop_model(model: Option<String>, recommender: Option<String>) {
    or_raise(drop_model(model.as_deref(), recommender.as_deref()));
}

fn required(model: Option<&str>) -> Result<&str> {
    model.ok_or_else(|| {
        SqlError::parameter("which model?").hint("SELECT recommender, name, state FROM rec.models; lists them.")
    })
}

fn deploy(name: Option<&str>, recommender: Option<&str>) -> Result<String> {
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("deploy its models")?;
    let model = model::ready(Mode::Write, &recommender, Some(required(name)?))?;
    model::require_ranking(&model.family)?;
    deployment::add(&recommender, &model, &role::current_name())?;
    Ok(model.name)
}

fn rollback(recommender: Option<&str>) -> Result<String> {
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("roll its deployment back")?;
    let nothing = || {
        SqlError::state(format!("recommender \"{}\" has no earlier deployment to return to", recommender.name))
            .hint("SELECT * FROM rec.deployment; shows what there is.")
    };
    if !deployment::remove_last(&recommender)? {
        return Err(nothing());
    }
    Ok(model::deployed(Mode::Write, &recommender)?.ok_or_else(nothing)?.name)
}

fn drop_model(name: Option<&str>, recommender: Option<&str>) -> Result<()> {
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("drop its models")?;
    let name = required(name)?;
    let row = model::find(Mode::Write, &recommender, name)?.ok_or_else(|| {
        SqlError::undefined(format!("model \"{name}\" of recommender \"{}\" does not exist", recommender.name))
            .detail(model::overview(&recommender))
    })?;
    if model::deployed(Mode::Write, &recommender)?.is_some_and(|d| d.id == row.id) {
        return Err(SqlError::state(format!("model \"{name}\" is deployed"))
            .hint("Deploy another one or call rec_rollback first."));
    }
    training::stop_before_drop(recommender.id, Some(row.id))?;
    if publication::of(&recommender).is_some_and(|publication| publication.model == row.id) {
        publish::unpublish(&recommender)?;
    }
    model::remove(row.id)?;
    cache::remove_orphans(Mode::Write)?;
    Ok(())
}
