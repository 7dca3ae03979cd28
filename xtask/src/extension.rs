//! The extension as files: compiled library, control file, install and upgrade scripts.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo_for, release_dir};
use crate::home::Home;
use crate::postgres::Postgres;
use crate::process::streamed;
use crate::progress::Progress;
use crate::toolchain::{Toolchain, embedded_postgres};

/// The version of the workspace, which is the extension's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The control file's template in `sql/`.
const CONTROL: &str = "pgrec.control";

/// Compiles the extension for `postgres` and returns the library's path. Cargo's progress goes to the terminal.
///
/// # Errors
/// When it does not compile.
pub fn build(home: &Home, toolchain: &Toolchain, postgres: &Postgres) -> Result<PathBuf> {
    let mut cargo = cargo_for(home, "build", toolchain, postgres);
    cargo.args(["--package", "pgrec", "--no-default-features", "--features", &postgres.feature()]);
    streamed(&mut cargo, &format!("compiling the extension for Postgres {}", postgres.major))?;
    Ok(release_dir(home).join("libpgrec.so"))
}

/// Builds for `postgres` and copies the library, the control file and the scripts into it.
///
/// # Errors
/// When pgvector is missing there, the build fails, or the folders cannot be written.
pub fn build_and_install(home: &Home, toolchain: &Toolchain, postgres: &Postgres) -> Result<()> {
    postgres.require_vector()?;
    // Every version is built to the same path: nobody may build another one before this one is copied.
    let _lock = home.lock()?;
    let library = build(home, toolchain, postgres)?;
    let sql = home.repository().join("sql");
    let extensions = postgres.share.join("extension");
    place(&postgres.libraries.join("pgrec.so"), &read(&library)?, 0o755)?;
    for (name, text) in scripts(&sql)? {
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

/// Name and text of every file for the `extension` folder, made from the folder `sql`.
///
/// # Errors
/// When a file cannot be read, or there is nothing to install.
pub fn scripts(sql: &Path) -> Result<Vec<(String, String)>> {
    let control = text(&sql.join(CONTROL))?.replace("@VERSION@", VERSION);
    let parts = sql_files(sql)?;
    if parts.is_empty() {
        bail!("{} holds no .sql file", sql.display());
    }
    let mut install = String::new();
    for part in &parts {
        install.push_str(&text(part)?);
        install.push('\n');
    }
    let mut files = vec![(CONTROL.to_owned(), control), (format!("pgrec--{VERSION}.sql"), install)];
    for upgrade in sql_files(&sql.join("upgrade"))? {
        let name = upgrade.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push((name, text(&upgrade)?));
    }
    Ok(files)
}

/// The .sql files directly in `folder` in the order of their names; none when there is no such folder.
fn sql_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
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

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pgrec-scripts-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("upgrade")).unwrap();
        folder
    }

    #[test]
    fn the_install_script_is_the_parts_in_name_order() {
        let sql = folder("order");
        std::fs::write(sql.join(CONTROL), "default_version = '@VERSION@'\n").unwrap();
        std::fs::write(sql.join("20_second.sql"), "SELECT 2;").unwrap();
        std::fs::write(sql.join("10_first.sql"), "SELECT 1;").unwrap();
        std::fs::write(sql.join("notes.txt"), "not SQL").unwrap();
        std::fs::write(sql.join("upgrade/pgrec--0.0.1--0.1.0.sql"), "SELECT 3;").unwrap();
        let files = scripts(&sql).unwrap();
        std::fs::remove_dir_all(&sql).unwrap();
        assert_eq!(files[0], (CONTROL.into(), format!("default_version = '{VERSION}'\n")));
        assert_eq!(files[1], (format!("pgrec--{VERSION}.sql"), "SELECT 1;\nSELECT 2;\n".into()));
        assert_eq!(files[2], ("pgrec--0.0.1--0.1.0.sql".into(), "SELECT 3;".into()));
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn an_empty_folder_installs_nothing() {
        let sql = folder("empty");
        std::fs::write(sql.join(CONTROL), "").unwrap();
        let error = scripts(&sql).unwrap_err().to_string();
        std::fs::remove_dir_all(&sql).unwrap();
        assert!(error.contains("holds no .sql file"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_who_should_run_it() {
        let error = place(Path::new("/proc/pgrec.so"), b"", 0o644).unwrap_err().to_string();
        assert!(error.contains("as the user who owns that installation"), "{error}");
    }
}
