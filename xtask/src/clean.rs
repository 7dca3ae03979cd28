//! Stopping what runs and removing what was made.

use anyhow::{Context, Result};

use crate::cargo;
use crate::cluster;
use crate::demo;
use crate::home::Home;
use crate::process::streamed;
use crate::progress::Progress;

/// Stops and removes every private cluster; unless `servers_only`, also removes everything fetched and built.
///
/// # Errors
/// When a server does not stop or a folder cannot be removed.
pub fn clean(home: &Home, progress: &Progress, servers_only: bool) -> Result<()> {
    progress.step("stopping and removing private clusters", |_| {
        cluster::remove(&demo::folder(home))?;
        let clusters = home.folder("clusters")?;
        for entry in std::fs::read_dir(&clusters).with_context(|| format!("reading {}", clusters.display()))? {
            cluster::remove(&entry?.path())?;
        }
        Ok(())
    })?;
    if servers_only {
        return Ok(());
    }
    progress.step(&format!("removing {}", home.dir().display()), |_| {
        std::fs::remove_dir_all(home.dir()).with_context(|| format!("removing {}", home.dir().display()))
    })?;
    progress.phase("removing what cargo built", || streamed(cargo::plain(home).arg("clean"), "cargo clean"))
}
