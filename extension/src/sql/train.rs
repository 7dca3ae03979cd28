//! `rec_train`, `rec_train_start`, `rec_train_stop`.

use pgrx::{JsonB, pg_extern, pg_sys};
use serde_json::{Map, Value};

use crate::catalog::model;
use crate::catalog::recommender::{self, Recommender};
use crate::catalog::training::{self, Order};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::spi::Mode;
use crate::pg::{enumeration, procedure, process, role, spi};
use crate::settings;
use crate::worker::compare::{self, IF_BETTER};
use crate::worker::request::{self, Params};
use crate::worker::{queue, wait};

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
    or_raise(Request::new(family, params, recommender, model, deploy).run());
}

#[pg_extern(sql = false)]
fn rec_train_start(
    family: Option<String>,
    params: Option<JsonB>,
    recommender: Option<String>,
    model: Option<String>,
    deploy: Option<pg_sys::Oid>,
) -> String {
    or_raise(Request::new(family, params, recommender, model, deploy).start())
}

#[pg_extern(sql = false)]
fn rec_train_stop(model: Option<String>, recommender: Option<String>) -> bool {
    or_raise(stop(model.as_deref(), recommender.as_deref()))
}

/// The arguments that all ways to train share.
struct Request {
    family: Option<String>,
    params: Value,
    recommender: Option<String>,
    model: Option<String>,
    deploy: String,
}

impl Request {
    fn new(
        family: Option<String>,
        params: Option<JsonB>,
        recommender: Option<String>,
        model: Option<String>,
        deploy: Option<pg_sys::Oid>,
    ) -> Self {
        let params = params.map_or_else(|| Value::Object(Map::new()), |p| p.0);
        let deploy = deploy.map_or_else(|| "never".to_owned(), enumeration::label);
        Self { family, params, recommender, model, deploy }
    }

    fn start(self) -> Result<String> {
        let queued = self.queue(None)?;
        Ok(queued.name)
    }

    fn run(self) -> Result<()> {
        let deploy = self.deploy.clone();
        let queued = self.queue(Some(process::id()))?;
        let _waiting = training::waiter_lock(queued.id).try_hold();
        spi::commit();
        let metrics = wait::until_ended(queued.id, &queued.name)?;
        pgrx::notice!(
            "model \"{}\" of recommender \"{}\" is ready{}",
            queued.name,
            queued.recommender,
            compare::describe(&deploy, &metrics)
        );
        Ok(())
    }

    /// Checks what can be checked at once, and puts the training at the end of the queue. It is seen, and begins, when
    /// this transaction commits.
    fn queue(self, waiter: Option<i32>) -> Result<Queued> {
        let family = request::trainable(self.family.as_deref())?;
        let params = Params::parse(self.params)?;
        let recommender = recommender::resolve(Mode::Write, self.recommender.as_deref())?;
        recommender.require_owner("train its models")?;
        recommender.owner_oid()?;
        if let Some(init) = &params.init {
            model::to_continue(&recommender, init, family.name)?;
        }
        if self.deploy == IF_BETTER {
            compare::require_comparable(&recommender, params.leave_last)?;
        }
        training::sweep()?;
        let new =
            model::New { family: family.name, params: &params.to_json(), state: "queued", seed: Some(params.seed) };
        let (id, name) = model::create(&recommender, self.model.as_deref(), &new)?;
        let order = Order {
            deploy: self.deploy,
            started_by: role::current_name(),
            waiter,
            threads: settings::training_threads(),
            niceness: settings::training_niceness(),
            memory: settings::training_memory(),
        };
        training::enqueue(id, &order)?;
        queue::start_worker_after_commit();
        Ok(Queued { id, name, recommender: recommender.name.clone() })
    }
}

/// A training that waits for its worker.
struct Queued {
    id: i64,
    name: String,
    recommender: String,
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
