//! Compiling the extension, and keeping one library for each version of Postgres.
//!
//! Cargo gives a cdylib the same file whatever its features, and so compiles it again whenever another version of
//! Postgres comes along. What is kept here is named after everything it was made from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{self, cargo_for};
use crate::home::Home;
use crate::postgres::Postgres;
use crate::process::{captured, streamed};
use crate::toolchain::Toolchain;

/// What the library is made from, in the repository.
const SOURCES: [&str; 7] = ["Cargo.toml", "Cargo.lock", ".cargo", "kernels", "engine", "extension", "sql"];

/// The library for `postgres`.
pub(super) fn library(home: &Home, toolchain: &Toolchain, postgres: &Postgres) -> Result<PathBuf> {
    let folder = home.folder("built")?;
    // Taken before the build: what is edited meanwhile may or may not be in it.
    let file = folder.join(format!("{}-{:016x}.so", postgres.feature(), fingerprint(home, postgres)?));
    if file.is_file() {
        return Ok(file);
    }
    let mut cargo = cargo_for(home, "build", toolchain, postgres);
    cargo.args(["--package", "pgrec", "--no-default-features", "--features", &postgres.feature()]);
    streamed(&mut cargo, &format!("compiling the extension for Postgres {}", postgres.major))?;
    forget_others(&folder, &postgres.feature())?;
    let partial = file.with_extension("partial");
    std::fs::copy(cargo::release_dir(home).join("libpgrec.so"), &partial)
        .and_then(|_| std::fs::rename(&partial, &file))
        .with_context(|| format!("keeping {}", file.display()))?;
    Ok(file)
}

/// Changes with every source file, the compiler, its flags, and the Postgres.
fn fingerprint(home: &Home, postgres: &Postgres) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    captured(Command::new("rustc").arg("-vV"), "rustc -vV")?.hash(&mut hasher);
    std::env::var_os("RUSTFLAGS").hash(&mut hasher);
    (&postgres.pg_config, &postgres.version).hash(&mut hasher);
    SOURCES.iter().try_for_each(|source| add(&home.repository().join(source), &mut hasher))?;
    Ok(hasher.finish())
}

/// Adds names and contents, in the order of the names; what is missing adds nothing.
fn add(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(reading)?;
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        return paths.iter().try_for_each(|path| add(path, hasher));
    }
    if path.is_file() {
        path.hash(hasher);
        std::fs::read(path).with_context(reading)?.hash(hasher);
    }
    Ok(())
}

fn forget_others(folder: &Path, feature: &str) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&format!("{feature}-")) {
            std::fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn any_change_below_a_source_folder_is_seen() {
        let folder = std::env::temp_dir().join(format!("pgrec-built-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("src")).unwrap();
        let hash = || {
            let mut hasher = DefaultHasher::new();
            add(&folder, &mut hasher).unwrap();
            hasher.finish()
        };
        std::fs::write(folder.join("src/a.rs"), "one").unwrap();
        let first = hash();
        assert_eq!(first, hash());
        std::fs::write(folder.join("src/a.rs"), "two").unwrap();
        let second = hash();
        std::fs::rename(folder.join("src/a.rs"), folder.join("src/b.rs")).unwrap();
        let third = hash();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(first != second && second != third);
    }
}
