//! Where things are: the repository, cargo's target folder, and the folder of everything xtask fetches and runs.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::server_user::ServerUser;

/// The folders xtask works in.
#[derive(Debug, Clone)]
pub struct Home {
    repository: PathBuf,
    target: PathBuf,
    dir: PathBuf,
}

impl Home {
    /// Finds the repository and makes `target/pgrec`.
    ///
    /// When the server has to run as another user (the caller is root) and that user cannot reach the target folder,
    /// a folder under /tmp takes its place.
    ///
    /// # Errors
    /// When the folder cannot be made, or the one under /tmp belongs to somebody else.
    pub fn locate() -> Result<Self> {
        let repository = repository();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => repository.join(dir),
            None => repository.join("target"),
        };
        let user = ServerUser::current()?;
        let beside = target.join("pgrec");
        make_folder(&beside)?;
        if user.can_reach(&beside) {
            return Ok(Self { repository, target, dir: beside });
        }
        let dir = std::env::temp_dir().join(format!("pgrec-{:016x}", fingerprint(&beside)));
        make_folder(&dir)?;
        let owner = dir.metadata().with_context(|| format!("reading {}", dir.display()))?;
        // Programs are run from here as root, so nobody else may have prepared it.
        if owner.uid() != 0 || owner.mode() & 0o022 != 0 || dir.is_symlink() {
            bail!("{} is not root's alone: remove it", dir.display());
        }
        Ok(Self { repository, target, dir })
    }

    /// The root of the repository.
    #[must_use]
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Cargo's target folder.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder of fetched tools and private clusters.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why [`Home::dir`] is not under the target folder, if it is not.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        (!self.dir.starts_with(&self.target)).then(|| {
            format!(
                "{} cannot be reached by the user the server runs as: Postgres lives in {}",
                self.target.display(),
                self.dir.display()
            )
        })
    }

    /// A folder inside [`Home::dir`], made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.join(name);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// Waits until no other xtask fetches or installs, and holds the others off while the returned file lives.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// The folder of real data: `PGREC_DATA`, or `shared/data` beside the repository, if it is there.
    #[must_use]
    pub fn data(&self) -> Option<PathBuf> {
        let folder = match std::env::var_os("PGREC_DATA") {
            Some(folder) => PathBuf::from(folder),
            None => self.repository.join("../shared/data"),
        };
        folder.canonicalize().ok().filter(|folder| folder.is_dir())
    }
}

/// Makes a folder that others may enter whatever the umask, because the server may run as another user.
fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(0o755)))
        .with_context(|| format!("making {}", folder.display()))
}

/// The nearest folder above the running package, or above the current folder, that holds this crate.
fn repository() -> PathBuf {
    let holds_xtask = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file();
    let starts = [std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from), std::env::current_dir().ok()];
    for start in starts.into_iter().flatten() {
        if let Some(found) = start.ancestors().find(holds_xtask) {
            return found.to_path_buf();
        }
    }
    let compiled_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    compiled_in.parent().unwrap_or(compiled_in).to_path_buf()
}

/// FNV-1a of a path: a short name that differs between checkouts.
fn fingerprint(path: &Path) -> u64 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_the_folder_above_this_crate() {
        assert!(repository().join("xtask/src/home.rs").is_file());
    }

    #[test]
    fn a_second_lock_waits_for_the_first() {
        let home = Home::locate().unwrap();
        let held = home.lock().unwrap();
        let other = File::create(home.dir().join("lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
    }
}
