//! `rec_schedule`, `rec_unschedule`, `rec_run_schedules`.

use pgrx::{JsonB, pg_extern, pg_sys};

use super::train::{object, rule};
use crate::catalog::{recommender, schedule};
use crate::error::{Result, SqlError, or_raise};
use crate::pg::role;
use crate::pg::spi::Mode;
use crate::worker::order::Request;
use crate::worker::schedules;

#[pg_extern(sql = false)]
fn rec_schedule_text(
    recommender: Option<String>,
    family: Option<String>,
    every: Option<String>,
    params: Option<JsonB>,
    deploy: Option<pg_sys::Oid>,
) {
    or_raise(add(recommender.as_deref(), family.as_deref(), every.as_deref(), params, &rule(deploy)));
}

#[pg_extern(sql = false)]
fn rec_unschedule(recommender: Option<String>, family: Option<String>) -> bool {
    or_raise(remove(recommender.as_deref(), family.as_deref()))
}

#[pg_extern(sql = false)]
fn rec_run_schedules() -> i32 {
    or_raise(schedules::start_due())
}

fn add(
    recommender: Option<&str>,
    family: Option<&str>,
    every: Option<&str>,
    params: Option<JsonB>,
    deploy: &str,
) -> Result<()> {
    let Some(every) = every else {
        return Err(SqlError::parameter("how often?").hint("For example every => '1 day'."));
    };
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("schedule its trainings")?;
    let by = role::current_name();
    let request = Request { family, params: object(params), model: None, deploy, by: &by, waiter: None };
    let (family, _) = request.check(&recommender)?;
    schedule::set(&recommender, family, every, &request.params, deploy, &by)
}

fn remove(recommender: Option<&str>, family: Option<&str>) -> Result<bool> {
    let recommender = recommender::resolve(Mode::Write, recommender)?;
    recommender.require_owner("schedule its trainings")?;
    let Some(family) = family else {
        return Err(SqlError::parameter("which family?").hint("SELECT * FROM rec.schedules; lists them."));
    };
    schedule::remove(&recommender, family)
}
