//! `cargo xtask demo`: from a clone to recommendations on the screen. Its SQL is in `sql/`.

mod show;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail};

use crate::cli::DemoArgs;
use crate::cluster::{self, Cluster, Options, Shutdown};
use crate::data::Dataset;
use crate::extension::build_and_install;
use crate::generate::Shop;
use crate::home::Home;
use crate::progress::{Progress, Step, grouped};
use crate::toolchain::{Toolchain, chosen_postgres};

/// The demo's database.
const DATABASE: &str = "demo";
/// The families that are trained, each deployed as it is ready: the best comes last. One that takes minutes is
/// trained once, without the events that it is evaluated on.
const FAMILIES: [(&str, &str); 3] = [("popularity", "{}"), ("graph", "{}"), ("sasrec", r#"{"leave_last": 2}"#)];

const CREATE: &str = include_str!("sql/create.sql");
const PROGRESS: &str = include_str!("sql/progress.sql");
const TRAIN: &str = include_str!("sql/train.sql");
const LEARNT: &str = include_str!("sql/learnt.sql");
const CHECKPOINT: &str = include_str!("sql/checkpoint.sql");

/// Where the demo's cluster lives.
#[must_use]
pub fn folder(home: &Home) -> PathBuf {
    home.dir().join("demo")
}

/// Runs the demo as asked; its server keeps running.
///
/// # Errors
/// When a step fails; the server, if it runs already, keeps running to be looked at.
pub fn run(home: &Home, progress: &Progress, arguments: &DemoArgs) -> Result<()> {
    if arguments.stop {
        let cluster = former(home)?;
        return progress.step("stopping the demo's server", |_| cluster.stop(Shutdown::Fast));
    }
    if let Some(remark) = home.remark() {
        progress.say(&remark);
    }
    let cluster = if arguments.keep { again(home, progress)? } else { fresh(home, progress, arguments)? };
    show::show(&cluster, progress)?;
    progress.say(&format!(
        "\n{:.0} s. Next:\n  cargo xtask psql\n  SELECT * FROM rec_next(42, 10);\n\n\
         Other clients: {}\nStop the server with cargo xtask demo --stop.",
        progress.seconds(),
        cluster.url(DATABASE)
    ));
    Ok(())
}

/// psql on the demo's database, with the caller's terminal; starts the server if it was stopped.
///
/// # Errors
/// When there was no demo, or psql cannot be started.
pub fn psql(home: &Home, arguments: &[String]) -> Result<ExitCode> {
    let cluster = former(home)?;
    if !cluster.is_running() {
        cluster.start_server()?;
    }
    let mut psql: Command = cluster.client("psql", DATABASE);
    let status = psql.args(arguments).status().context("starting psql")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn former(home: &Home) -> Result<Cluster> {
    Cluster::attach(&folder(home)).map_err(|_| anyhow!("there is no demo yet: run cargo xtask demo first"))
}

/// The former demo on the library as it is now.
fn again(home: &Home, progress: &Progress) -> Result<Cluster> {
    let cluster = former(home)?;
    let toolchain = Toolchain::provision(home, progress)?;
    progress.phase("building the extension", || build_and_install(home, &toolchain, cluster.postgres()))?;
    progress.step("restarting Postgres", |_| cluster.restart())?;
    Ok(cluster)
}

/// A new cluster with the data loaded and every family trained.
fn fresh(home: &Home, progress: &Progress, arguments: &DemoArgs) -> Result<Cluster> {
    // First of all, because a wrong path should not wait for the build.
    let data = load(progress, arguments)?;
    let postgres = chosen_postgres(home, arguments.pg_config.as_deref(), progress)?;
    let toolchain = Toolchain::provision(home, progress)?;
    progress.phase(&format!("building the extension for {}", postgres.version), || {
        build_and_install(home, &toolchain, &postgres)
    })?;
    let cluster = progress.step(&format!("starting a private {}", postgres.version), |step| {
        let folder = folder(home);
        cluster::remove(&folder)?;
        let options = Options::new().persistent().set("shared_buffers", "256MB").set("max_wal_size", "4GB");
        let cluster = Cluster::start(&postgres, &folder, &options)?;
        step.remark(format!("port {}", cluster.port()));
        Ok(cluster)
    })?;
    progress.step("creating the extension and the recommender \"shop\"", |_| {
        cluster.psql(&format!("CREATE DATABASE {DATABASE}"))?;
        let dimension = data.dimension().map_or("NULL".to_owned(), |dimension| dimension.to_string());
        cluster.psql_tables(DATABASE, CREATE, &[("dimension", &dimension)])
    })?;
    progress.step("loading items and interactions", |step| {
        data.fill(&cluster, DATABASE)?;
        step.remark(format!("{} rows", grouped(data.items.len() + data.interactions.len())));
        Ok(())
    })?;
    for (family, params) in FAMILIES {
        progress.watched(
            &format!("training {family}"),
            || training_status(&cluster, DATABASE),
            |step| {
                cluster.psql_tables(DATABASE, TRAIN, &[("family", family), ("params", params)])?;
                step.remark(cluster.psql_in(DATABASE, LEARNT)?.trim());
                Ok(())
            },
        )?;
    }
    if let Some(checkpoint) = &arguments.checkpoint {
        progress.step(&format!("importing {}", checkpoint.display()), |_| import(&cluster, &data, checkpoint))?;
    }
    Ok(cluster)
}

/// How the training that runs in a database is getting on, in one line.
#[must_use]
pub fn training_status(cluster: &Cluster, database: &str) -> Option<String> {
    let line = cluster.psql_in(database, PROGRESS).ok()?;
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn load(progress: &Progress, arguments: &DemoArgs) -> Result<Dataset> {
    if let Some(checkpoint) = arguments.checkpoint.as_ref().filter(|file| !file.is_file()) {
        bail!("there is no file {}", checkpoint.display());
    }
    let counts = |data: &Dataset, step: &Step| {
        let (users, items, events) = (data.users(), data.items.len(), data.interactions.len());
        step.remark(format!("{} users, {} items, {} events", grouped(users), grouped(items), grouped(events)));
    };
    match &arguments.data {
        Some(folder) => progress.step(&format!("reading {}", folder.display()), |step| {
            let data = Dataset::load(folder)?;
            counts(&data, step);
            Ok(data)
        }),
        None => progress.step("making up a shop", |step| {
            let data = Dataset::generated(&Shop::default());
            counts(&data, step);
            Ok(data)
        }),
    }
}

fn import(cluster: &Cluster, data: &Dataset, checkpoint: &Path) -> Result<()> {
    let path = cluster.bring_in(checkpoint)?;
    let variables = [("path", path.to_string_lossy().into_owned()), ("items", checkpoint_items(data))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    cluster.psql_tables(DATABASE, CHECKPOINT, &variables).map(drop)
}

/// The item of every row of a checkpoint's table from row 1 on, as an array literal.
fn checkpoint_items(data: &Dataset) -> String {
    let mut rows = data.checkpoint_rows.clone();
    if rows.is_empty() {
        rows = data.items.iter().map(|item| (item.item_id, item.item_id)).collect();
    }
    let last = rows.iter().map(|&(row, _)| row).max().unwrap_or(0);
    let mut items = vec!["NULL".to_owned(); usize::try_from(last).unwrap_or(0)];
    for (row, item) in rows {
        if let Some(slot) = usize::try_from(row).ok().and_then(|row| items.get_mut(row.checked_sub(1)?)) {
            *slot = item.to_string();
        }
    }
    format!("{{{}}}", items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Item;

    #[test]
    fn rows_without_an_item_are_null() {
        let data = Dataset { checkpoint_rows: vec![(3, 30), (1, 10)], ..Dataset::default() };
        assert_eq!(checkpoint_items(&data), "{10,NULL,30}");
    }

    #[test]
    fn without_a_numbering_the_row_is_the_item() {
        let items = [2, 1].map(|item_id| Item { item_id, ..Item::default() }).to_vec();
        assert_eq!(checkpoint_items(&Dataset { items, ..Dataset::default() }), "{1,2}");
        assert_eq!(checkpoint_items(&Dataset::default()), "{}");
    }
}
