//! Trainings that are repeated: started when they are due, by whoever calls, or by the launcher.
//!
//! The launcher runs where the library is preloaded. It belongs to no database; like autovacuum's it sends a process
//! into each of them every now and then, which starts what is due and ends: nobody who drops a database has to wait.

use std::time::Duration;

use super::order::Request;
use super::queue;
use crate::catalog::schedule::{self, Due};
use crate::catalog::{recommender, training};
use crate::error::Result;
use crate::pg::spi::Mode;
use crate::pg::{interrupt, launch, procedure, relation, transaction};
use crate::settings;

/// Starts what is due of the recommenders that the caller may train, and gives their number.
pub fn start_due() -> Result<i32> {
    training::sweep()?;
    let mut started = 0;
    for due in schedule::due()? {
        let recommender = recommender::resolve(Mode::Write, Some(&due.recommender))?;
        if recommender.require_owner("train its models").is_err() {
            continue;
        }
        // One that cannot be started keeps no other from it.
        match procedure::in_subtransaction(std::panic::AssertUnwindSafe(|| start(&due))) {
            Ok(model) => {
                started += 1;
                schedule::done(&due, Ok(model))?;
            }
            Err(error) => schedule::done(&due, Err(&error.reason()))?,
        }
    }
    Ok(started)
}

fn start(due: &Due) -> Result<i64> {
    let recommender = recommender::resolve(Mode::Write, Some(&due.recommender))?;
    let request = Request {
        family: Some(&due.family),
        params: due.params.clone(),
        model: None,
        deploy: &due.deploy,
        by: &due.by,
        waiter: None,
    };
    Ok(request.queue(&recommender)?.id)
}

/// The life of the launcher.
pub fn launcher_main() {
    loop {
        launch::reload_if_asked();
        match settings::schedule_naptime() {
            0 => interrupt::sleep(Duration::from_secs(60)),
            seconds => {
                visit_databases();
                interrupt::sleep(Duration::from_secs(seconds));
            }
        }
    }
}

fn visit_databases() {
    match transaction::run(|| Ok(relation::databases())) {
        Ok(databases) => databases.into_iter().for_each(launch::visit),
        Err(error) => pgrx::log!("pgrec: the databases cannot be listed: {}", error.reason()),
    }
}

/// What the process does that the launcher sends into a database.
pub fn visitor_main() {
    let outcome = transaction::run(|| {
        if !relation::is_in_catalogue("schedule") {
            return Ok(());
        }
        start_due()?;
        // What was left in the queue by a stop of the server goes on.
        queue::resume()
    });
    if let Err(error) = outcome {
        pgrx::log!("pgrec: scheduled trainings cannot be started: {}", error.reason());
    }
}
