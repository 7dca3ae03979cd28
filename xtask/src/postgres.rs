//! An installed Postgres, known by its `pg_config`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::process::captured;

/// The major versions the extension is built for.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 16..=18;

/// An installation of Postgres with its server headers.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The program that was asked; pgrx asks it again.
    pub pg_config: PathBuf,
    /// The major version, one of [`SUPPORTED`].
    pub major: u32,
    /// The version as `pg_config` prints it.
    pub version: String,
    /// Where `psql`, `initdb` and the like are.
    pub bin: PathBuf,
    /// Where extension libraries go.
    pub libraries: PathBuf,
    /// The parent of the `extension` folder of control files and scripts.
    pub share: PathBuf,
}

impl Postgres {
    /// Asks `pg_config` what it belongs to.
    ///
    /// # Errors
    /// When it does not run, or belongs to a version that is not supported.
    pub fn from_pg_config(pg_config: &Path) -> Result<Self> {
        let pg_config = std::path::absolute(pg_config)?;
        let ask = |option: &str| -> Result<String> {
            Ok(captured(Command::new(&pg_config).arg(option), "pg_config")
                .with_context(|| format!("{} is no usable pg_config", pg_config.display()))?
                .trim()
                .to_owned())
        };
        let version = ask("--version")?;
        let major = major(&version).ok_or_else(|| anyhow!("{} says \"{version}\"", pg_config.display()))?;
        if !SUPPORTED.contains(&major) {
            bail!(
                "{version} is not supported: pgrec is for Postgres {} to {}; give another --pg-config",
                SUPPORTED.start(),
                SUPPORTED.end()
            );
        }
        Ok(Self {
            major,
            bin: ask("--bindir")?.into(),
            libraries: ask("--pkglibdir")?.into(),
            share: ask("--sharedir")?.into(),
            version,
            pg_config,
        })
    }

    /// A program of this installation.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The cargo feature that selects this version.
    #[must_use]
    pub fn feature(&self) -> String {
        format!("pg{}", self.major)
    }

    /// Fails unless pgvector is installed here.
    ///
    /// # Errors
    /// When its control file is missing.
    pub fn require_vector(&self) -> Result<()> {
        if self.share.join("extension/vector.control").is_file() {
            return Ok(());
        }
        bail!(
            "pgvector is not installed in {}: install it there first (https://github.com/pgvector/pgvector), \
             pgrec uses its types",
            self.share.display()
        )
    }
}

/// The major version in `PostgreSQL 16.14 (Debian …)` or `PostgreSQL 18beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.strip_prefix("PostgreSQL ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn major_versions_are_read_from_every_spelling() {
        assert_eq!(major("PostgreSQL 16.14"), Some(16));
        assert_eq!(major("PostgreSQL 17.2 (Debian 17.2-1.pgdg120+1)"), Some(17));
        assert_eq!(major("PostgreSQL 18beta1"), Some(18));
        assert_eq!(major("MySQL 8"), None);
        assert_eq!(major("PostgreSQL "), None);
    }
}
