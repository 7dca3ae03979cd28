//! The extension: compiled, and installed as library, control file, install and upgrade scripts.

mod built;
mod files;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::home::Home;
use crate::postgres::Postgres;
use crate::progress::Progress;
use crate::toolchain::{Toolchain, embedded_postgres};

pub use files::scripts;

/// The version of the workspace, which is the extension's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds for `postgres`, unless that was done before with the same sources, and copies the library, the control file
/// and the scripts into it. Cargo's progress goes to the terminal.
///
/// # Errors
/// When pgvector is missing there, the build fails, or the folders cannot be written.
pub fn build_and_install(home: &Home, toolchain: &Toolchain, postgres: &Postgres) -> Result<()> {
    postgres.require_vector()?;
    // Every version is built to the same path: nobody may build another one before this one is copied.
    let _lock = home.lock()?;
    let library = built::library(home, toolchain, postgres)?;
    let bytes = std::fs::read(&library).with_context(|| format!("reading {}", library.display()))?;
    place(&postgres.libraries.join("pgrec.so"), &bytes, 0o755)?;
    let extensions = postgres.share.join("extension");
    for (name, text) in scripts(&home.repository().join("sql"))? {
        place(&extensions.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// A private Postgres of a major version with the extension in it.
///
/// Under `cargo xtask test` it is there already and `PGREC_PG16` or `PGREC_PG18` names its pg_config; without, for
/// `cargo test` alone, it is fetched and built now.
///
/// # Errors
/// When fetching, building or installing fails.
pub fn installed(home: &Home, major: u32, progress: &Progress) -> Result<Postgres> {
    if let Some(pg_config) = std::env::var_os(variable(major)) {
        return Postgres::from_pg_config(Path::new(&pg_config));
    }
    let toolchain = Toolchain::provision(home, progress)?;
    let postgres = embedded_postgres(home, major, progress)?;
    build_and_install(home, &toolchain, &postgres)?;
    Ok(postgres)
}

/// The environment variable that names the pg_config of an [`installed`] version.
#[must_use]
pub fn variable(major: u32) -> String {
    format!("PGREC_PG{major}")
}

/// Writes beside the target and renames: a running server keeps the library it has mapped.
fn place(target: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::set_permissions(&partial, Permissions::from_mode(mode)))
        .and_then(|()| std::fs::rename(&partial, target))
        .with_context(|| {
            format!("cannot write {}: run this as the user who owns that installation, or as root", target.display())
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_says_who_should_run_it() {
        let error = place(Path::new("/proc/pgrec.so"), b"", 0o644).unwrap_err().to_string();
        assert!(error.contains("as the user who owns that installation"), "{error}");
    }
}
