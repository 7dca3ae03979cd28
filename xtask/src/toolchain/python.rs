//! Python: the host's interpreter with pip, and packages installed beside it without touching the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::home::Home;
use crate::process::{captured, on_path};
use crate::progress::Progress;

/// The host's Python with packages of its own.
///
/// A folder on `PYTHONPATH` rather than a venv: Debian ships Python and pip without the venv module.
#[derive(Debug, Clone)]
pub struct PythonEnv {
    /// The interpreter.
    pub program: PathBuf,
    /// The folder to put on `PYTHONPATH`.
    pub packages: PathBuf,
}

impl PythonEnv {
    /// The interpreter, seeing the packages.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("PYTHONPATH", &self.packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// Installs `packages` (pip requirements) once for this set and returns how to run with them.
///
/// # Errors
/// When Python or pip is missing, or pip fails.
pub fn python_env(home: &Home, packages: &[&str], progress: &Progress) -> Result<PythonEnv> {
    let program = require_pip()?;
    let mut sorted = packages.to_vec();
    sorted.sort_unstable();
    let name: String = sorted.join("+").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let packages = home.folder("python")?.join(name);
    let _lock = home.lock()?;
    let stamp = packages.join(".complete");
    if !stamp.is_file() {
        progress.step(&format!("installing Python packages {}", sorted.join(", ")), |_| {
            let mut pip = Command::new(&program);
            pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&packages).args(&sorted);
            captured(&mut pip, "pip install (is there a network?)")?;
            std::fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
        })?;
    }
    Ok(PythonEnv { program, packages })
}

/// The host's Python 3, which must have pip.
pub(super) fn require_pip() -> Result<PathBuf> {
    let python = on_path("python3", "install Python 3 with pip (Debian: apt install python3-pip)")?;
    if !has_pip(&python) {
        bail!("{} has no pip: install it (Debian: apt install python3-pip)", python.display());
    }
    Ok(python)
}

fn has_pip(python: &Path) -> bool {
    captured(Command::new(python).args(["-m", "pip", "--version"]), "pip").is_ok()
}
