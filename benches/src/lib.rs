//! What several benches need: their data, a server, and Python with the peers' packages.

mod processes;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use xtask::data::Interaction;
use xtask::generate::Shop;
use xtask::process::{captured, on_path};
use xtask::progress::grouped;
use xtask::toolchain::{PythonEnv, python_env};
use xtask::{Dataset, Home, Progress};

pub use processes::Memory;
pub use server::{Cost, Server, Training, best, object};

/// The data in `folder`; without one, ml-1m of the real data if it is there, else a generated shop of its size.
///
/// # Errors
/// When the folder is of no known kind, or a file in it is damaged.
pub fn ml_1m_or_shop(home: &Home, progress: &Progress, folder: Option<PathBuf>) -> Result<Dataset> {
    let folder = folder.or_else(|| folder_of(home, "ml-1m"));
    let what = folder.as_ref().map_or_else(|| "making up a shop".to_owned(), |f| format!("reading {}", f.display()));
    progress.step(&what, |step| {
        let data = match &folder {
            Some(folder) => Dataset::load(folder)?,
            None => Dataset::generated(&ml_1m_in_size()),
        };
        let (users, items, events) = (data.users(), data.items.len(), data.interactions.len());
        step.remark(format!("{} users, {} items, {} events", grouped(users), grouped(items), grouped(events)));
        Ok(data)
    })
}

/// The folder of real data, where it is there.
pub fn folder_of(home: &Home, name: &str) -> Option<PathBuf> {
    home.data().map(|data| data.join(name)).filter(|folder| folder.is_dir())
}

/// Real data by the name of its folder; None, and a line that says so, where it is not there.
///
/// # Errors
/// When a file in it is damaged.
pub fn real(home: &Home, progress: &Progress, name: &str) -> Result<Option<Dataset>> {
    let Some(folder) = folder_of(home, name) else {
        println!("{name}: not there");
        return Ok(None);
    };
    progress.step(&format!("reading {name}"), |_| Dataset::load(&folder)).map(Some)
}

/// What is compared, and how often.
#[derive(Debug, clap::Args)]
pub struct Contest {
    /// How many splits and trainings of each
    #[arg(long, default_value_t = 3)]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub first_seed: u64,
    /// Only these contestants; may be given several times
    #[arg(long)]
    pub only: Vec<String>,
    /// More parameters of those, as a JSON object
    #[arg(long, default_value = "{}")]
    pub params: String,
}

impl Contest {
    /// Whether a contestant is wanted.
    pub fn wants(&self, label: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == label)
    }

    /// The seeds of the splits and trainings.
    pub fn all_seeds(&self) -> std::ops::Range<u64> {
        self.first_seed..self.first_seed + self.seeds
    }
}

/// What each user has touched, in its order.
pub fn histories(data: &Dataset) -> Vec<Vec<i64>> {
    let mut users: BTreeMap<i64, Vec<&Interaction>> = BTreeMap::new();
    data.interactions.iter().for_each(|event| users.entry(event.user_id).or_default().push(event));
    let ordered = |mut events: Vec<&Interaction>| {
        events.sort_by_key(|event| (event.at, event.position));
        events.into_iter().map(|event| event.item_id).collect()
    };
    users.into_values().map(ordered).collect()
}

fn ml_1m_in_size() -> Shop {
    Shop { users: 6_040, items: 3_416, events: 1_000_000, dimension: 0, ..Shop::default() }
}

/// Python with `packages` (pip requirements): the host's own if it has them all, else one with packages beside it.
///
/// # Errors
/// When there is no Python 3, or pip cannot install the packages.
pub fn python(home: &Home, packages: &[&str], progress: &Progress) -> Result<PythonEnv> {
    let program = on_path("python3", "install Python 3 with pip (Debian: apt install python3-pip)")?;
    if has_all(&program, packages) {
        return Ok(PythonEnv { program, packages: PathBuf::new() });
    }
    python_env(home, packages, progress)
}

fn has_all(python: &Path, packages: &[&str]) -> bool {
    // The extras of a requirement, as in `psycopg[binary]`, are no part of the module's name.
    let modules: Vec<&str> = packages.iter().filter_map(|package| package.split('[').next()).collect();
    captured(Command::new(python).args(["-c", &format!("import {}", modules.join(", "))]), "python").is_ok()
}
