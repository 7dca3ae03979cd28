//! `rec_train`, `rec_train_start`, `rec_train_stop`.

use std::rc::Rc;

use pgrx::{JsonB, pg_extern, pg_sys};
use serde_json::{Map, Value};

use crate::catalog::recommender::{self, Recommender};
use crate::catalog::{model, training};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::spi::Mode;
use crate::pg::{enumeration, procedure, process, role, spi};
use crate::worker::order::{Queued, Request};
use crate::worker::{compare, wait};

#[pg_extern(sql = false)]
fn rec_train(
    family: Option<String>,
    params: Option<JsonB>,
    recommender: Option<String>,
    model: Option<String>,
    deploy: Option<pg_sys::Oid>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    or_raise(procedure::require_top_level(fcinfo, "rec_train"));
    or_raise(Arguments { family, params, recommender, model, deploy: rule(deploy) }.train());
}

#[pg_extern(sql = false)]
fn rec_train_start(
    family: Option<String>,
    params: Option<JsonB>,
    recommender: Option<String>,
    model: Option<String>,
    deploy: Option<pg_sys::Oid>,
) -> String {
    or_raise(Arguments { family, params, recommender, model, deploy: rule(deploy) }.start())
}

#[pg_extern(sql = false)]
fn rec_train_stop(model: Option<String>, recommender: Option<String>) -> bool {
    or_raise(stop(model.as_deref(), recommender.as_deref()))
}

/// A label of `rec.deploy_rule` from its value.
pub fn rule(deploy: Option<pg_sys::Oid>) -> String {
    deploy.map_or_else(|| "never".to_owned(), enumeration::label)
}

/// `params` where the caller gave NULL.
pub fn object(params: Option<JsonB>) -> Value {
    params.map_or_else(|| Value::Object(Map::new()), |p| p.0)
}

/// The arguments that both ways to train share.
struct Arguments {
    family: Option<String>,
    params: Option<JsonB>,
    recommender: Option<String>,
    model: Option<String>,
    deploy: String,
}

impl Arguments {
    fn start(self) -> Result<String> {
        Ok(self.queue(None)?.1.name)
    }

    fn train(self) -> Result<()> {
        let deploy = self.deploy.clone();
        let (recommender, queued) = self.queue(Some(process::id()))?;
        let _waiting = training::waiter_lock(queued.id).try_hold();
        spi::commit();
        let metrics = wait::until_ended(queued.id, &queued.name)?;
        pgrx::notice!(
            "model \"{}\" of recommender \"{}\" is ready{}",
            queued.name,
            recommender.name,
            compare::describe(&deploy, &metrics)
        );
        Ok(())
    }

    fn queue(self, waiter: Option<i32>) -> Result<(Rc<Recommender>, Queued)> {
        let request = Request {
            family: self.family.as_deref(),
            params: object(self.params),
            model: self.model.as_deref(),
            deploy: &self.deploy,
            by: &role::current_name(),
            waiter,
        };
        let recommender = recommender::resolve(Mode::Write, self.recommender.as_deref())?;
        recommender.require_owner("train its models")?;
        let queued = request.queue(&recommender)?;
        Ok((recommender, queued))
    }
}

fn stop(name: Option<&str>, recommender: Option<&str>) -> Result<bool> {
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("stop its trainings")?;
    let Some(name) = name else {
        return Err(
            SqlError::parameter("which model?").hint("SELECT recommender, model FROM rec.progress; lists them.")
        );
    };
    let row = known(&recommender, name)?;
    let by = role::current_name();
    training::stop(row.id, &training::cancelled(format!("cancelled by rec_train_stop (role \"{by}\")")))
}

fn known(recommender: &Recommender, name: &str) -> Result<model::ModelRow> {
    model::find(Mode::Write, recommender, name)?.ok_or_else(|| {
        SqlError::undefined(format!("model \"{name}\" of recommender \"{}\" does not exist", recommender.name))
            .detail(model::overview(recommender))
    })
}
